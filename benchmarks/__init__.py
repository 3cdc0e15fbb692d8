"""Measures rtpush next to what else there is, on one machine and in one run: ``python -m benchmarks``.

``catalogue`` lists the servers and what is done to them, ``load`` and ``frames`` are the client that does it
(``crowd`` where one process is too small), ``proc`` reads what it cost, ``report`` keeps it, ``aims`` judges it,
``tables`` and ``plot`` show it. Linux only: epoll, ``/proc`` and CPU affinity are used.
"""

from __future__ import annotations

__all__: list[str] = []
