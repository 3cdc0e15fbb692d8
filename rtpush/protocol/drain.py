"""The schedule by which a node lets its clients go: who is told when. Pure."""

from __future__ import annotations

import math

__all__ = ["TICK", "last_told", "slice_size"]

#: Seconds between two slices.
TICK = 0.1

#: The part of the window, and the most seconds, that those have to go who are told last.
_CLOSING_PART = 0.2
_CLOSING = 2.0


def last_told(window: float) -> float:
    """Return when the last clients are told, in seconds since the beginning of a window."""
    return window - min(window * _CLOSING_PART, _CLOSING)


def slice_size(untold: int, elapsed: float, last: float) -> int:
    """
    Return how many are told now.

    :param untold: How many have not been told.
    :param elapsed: Seconds since the beginning of the window.
    :param last: When the last are to be told.
    """
    return math.ceil(untold / max(1, math.ceil((last - elapsed) / TICK)))
