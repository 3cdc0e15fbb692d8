"""Results that are known already, though they are promised."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["is_known"]


def is_known(result: Deferred[Any]) -> bool:
    """Tell whether a Deferred has its value: to take that from ``result`` costs less than a callback."""
    # One that waits for another Deferred is paused.
    return bool(result.called) and not result.paused and not isinstance(result.result, Failure)
