"""A circuit breaker: who fails again and again is left alone for a while. Pure: times are passed in."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Breaker"]

#: The part of the pause by which it is longer, by chance at most: so nodes do not come back together.
_JITTER = 0.1


class Breaker:
    """
    Closed, it lets all through. After some failures in a row it is open, and lets nothing through; when its pause is
    over it lets one through, on which it depends whether it closes.

    :param failures: How many failures in a row open it.
    :param pause: Seconds for which it is open then.
    :param chance: Gives random numbers, at least 0 and below 1.
    """

    __slots__ = ("_chance", "_failures", "_in_a_row", "_is_trying", "_pause", "_until")

    def __init__(self, failures: int, pause: float, chance: Callable[[], float]) -> None:
        self._failures = failures
        self._pause = pause
        self._chance = chance
        self._in_a_row = 0
        self._until: float | None = None
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether it is open, also while one is tried."""
        return self._until is not None

    def blocks(self, now: float) -> bool:
        """Tell whether nothing would be let through."""
        return self._until is not None and (self._is_trying or now < self._until)

    def left(self, now: float) -> float:
        """Return the seconds until one may be tried."""
        return 0.0 if self._until is None else max(self._until - now, 0.0)

    def let_through(self, now: float) -> bool:
        """Let one through, which is to be followed by :meth:`succeeded` or :meth:`failed`; tell whether it may."""
        if self._until is None:
            return True
        if self.blocks(now):
            return False
        self._is_trying = True
        return True

    def succeeded(self) -> bool:
        """One was good, so it closes; tell whether it was open."""
        was_open = self.is_open
        self._in_a_row = 0
        self._until = None
        self._is_trying = False
        return was_open

    def failed(self, now: float) -> bool:
        """One was not; tell whether it has opened for that."""
        if self._until is not None and now < self._until:
            # It was under way when it opened.
            return False
        self._in_a_row += 1
        was_open = self.is_open
        if not was_open and self._in_a_row < self._failures:
            return False
        self._until = now + self._pause * (1 + _JITTER * self._chance())
        self._is_trying = False
        return not was_open
