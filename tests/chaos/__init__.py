"""
Faults by chance: real nodes, Redis and clients, faults that a seed decides, and a proof of what came of it.

``python -m tests.chaos --help`` tells how to run it; ``docs/testing.rst`` tells what it does.
"""

__all__: list[str] = []
