"""What goes wrong in a benchmark."""

from __future__ import annotations

__all__ = ["BenchmarkError"]


class BenchmarkError(Exception):
    """A measurement could not be made; its text says why, in one line."""
