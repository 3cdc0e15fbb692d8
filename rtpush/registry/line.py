"""Results in the order in which they were asked for, whichever is there first."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Line"]

T = TypeVar("T")


class _Place:
    __slots__ = ("is_known", "outcome", "result")

    def __init__(self) -> None:
        self.result: Deferred[Any] = Deferred()
        self.outcome: Any = None
        self.is_known = False


class Line:
    """What one client waits for: each has its turn when all before it have had theirs."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: deque[_Place] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something that comes now has to wait."""
        return bool(self._places)

    def put(self, coming: Deferred[T]) -> Deferred[T]:
        """Return a Deferred with the same result, or failure, that fires when it is its turn."""
        if not self.is_busy and coming.called and not coming.paused:
            return coming
        if self._places is None:
            self._places = deque()
        place = _Place()
        self._places.append(place)
        coming.addBoth(self._come, place)
        return place.result

    def _come(self, outcome: Any, place: _Place) -> None:
        place.outcome, place.is_known = outcome, True
        places = self._places
        while places and places[0].is_known:
            first = places.popleft()
            if isinstance(first.outcome, Failure):
                first.result.errback(first.outcome)
            else:
                first.result.callback(first.outcome)
        if not places:
            self._places = None
