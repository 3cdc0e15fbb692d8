"""What is said again and again is counted, not written: so nobody fills the log from outside."""

from __future__ import annotations

from collections.abc import Callable, Hashable

__all__ = ["Repeats"]

#: How many different things are told apart.
_MOST_KEYS = 1000


class _Seen:
    __slots__ = ("count", "last", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        #: Tells of the ones that were not written, by their number.
        self.last: Callable[[int], object] | None = None


class Repeats:
    """
    Lets the first few of a kind pass within a window of time, and tells at its end how many more there were.

    :param now: Returns the time, in seconds.
    :param later: Has something called after some seconds.
    :param most: How many pass.
    :param window: Seconds.
    """

    def __init__(
        self,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], object]], object],
        *,
        most: int = 20,
        window: float = 60.0,
    ) -> None:
        self._now = now
        self._later = later
        self._most = most
        self._window = window
        self._seen: dict[Hashable, _Seen] = {}

    def passes(self, key: Hashable, more: Callable[[int], object]) -> bool:
        """
        Tell whether one of a kind is to be written.

        :param more: Called, if this is the last one that does not pass, with the number of those at the window's end.
        """
        now = self._now()
        seen = self._seen.get(key)
        if seen is None or (now - seen.since >= self._window and seen.last is None):
            if seen is None and len(self._seen) >= _MOST_KEYS:
                self._forget(now)
            seen = self._seen[key] = _Seen(now)
        seen.count += 1
        if seen.count <= self._most:
            return True
        if seen.last is None:
            self._later(max(0.0, seen.since + self._window - now), lambda: self._tell(key))
        seen.last = more
        return False

    def _tell(self, key: Hashable) -> None:
        seen = self._seen.pop(key, None)
        if seen is not None and seen.last is not None:
            seen.last(seen.count - self._most)

    def _forget(self, now: float) -> None:
        """Make room: forget those whose window is over; if there are none, all that nothing is to be told of."""
        over = [key for key, seen in self._seen.items() if seen.last is None and now - seen.since >= self._window]
        for key in over or [key for key, seen in self._seen.items() if seen.last is None]:
            del self._seen[key]
