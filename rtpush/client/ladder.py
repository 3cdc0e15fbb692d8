"""Which transport to use: the best that works, down after short lives, up again later. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Ladder"]

#: The longest time between two attempts to climb, in seconds.
_LONGEST_CLIMB = 3600.0


class Ladder:
    """
    The transports from the best (the first) down, and the one that worked last.

    :param rungs: The names of the transports, best first; at least one.
    :param climb_after: Seconds until a better transport is tried; doubled each time that comes to nothing.
    :param short_life: A connection that lived less than this many seconds was short.
    :param patience: After how many short lives in a row the next lower transport is taken.
    """

    def __init__(
        self, rungs: Sequence[str], climb_after: float = 60.0, short_life: float = 10.0, patience: int = 3
    ) -> None:
        self._rungs = list(rungs)
        self._current = rungs[0]
        self._climb_after = climb_after
        self._climbs = 0
        self._short_life = short_life
        self._patience = patience
        self._short_lives: dict[str, int] = {}

    @property
    def current(self) -> str:
        """What worked last, or is to be tried first."""
        return self._current

    @property
    def climb_delay(self) -> float:
        """The seconds after which to try a better transport."""
        return min(self._climb_after * 2.0 ** min(self._climbs, 64), _LONGEST_CLIMB)

    def offer(self, rungs: Sequence[str]) -> None:
        """Take a new list of transports; what worked is kept if it is still among them."""
        self._rungs = list(rungs)
        if self._current not in rungs:
            self._current = rungs[0]

    def order(self) -> list[str]:
        """Return the transports in the order in which to try them: what worked last, those below it, those above it."""
        index = self._rungs.index(self._current)
        return self._rungs[index:] + self._rungs[:index]

    def better(self) -> list[str]:
        """Return the transports above the one that works, best first."""
        return self._rungs[: self._rungs.index(self._current)]

    def opened(self, rung: str) -> None:
        """Remember what works."""
        self._current = rung

    def climb_failed(self) -> None:
        """Wait longer until the next attempt."""
        self._climbs += 1

    def lost(self, lived: float) -> None:
        """
        Count a life that the server did not end itself; after several short ones in a row go a rung down.

        A transport that was left so gets one chance, not several, when it is tried again: only a longer life clears it.
        """
        if lived >= self._short_life:
            self._short_lives.pop(self._current, None)
            if self._current == self._rungs[0]:
                # All is well again: the next climb is not to wait for what went wrong before.
                self._climbs = 0
            return
        lives = self._short_lives.get(self._current, 0) + 1
        self._short_lives[self._current] = min(lives, self._patience - 1)
        below = self._rungs[self._rungs.index(self._current) + 1 :]
        if lives >= self._patience and below:
            self._current = below[0]
            self._climbs += 1
