"""Deadlines that are all equally far when they are set. Pure: the caller gives the time."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")


class Deadlines(dict[T, float]):
    """
    Deadlines in the order in which they were set, which is that in which they pass: so they need no wheel.

    An item has at most one; setting it again moves it. It is a dict, since what is done most often with it is what a
    dict does: to ask whether an item is in it, to count them, and to take one out by ``pop(item, None)``.
    """

    __slots__ = ()

    def set(self, item: T, when: float) -> None:
        """Set the deadline of an item to an absolute time, in seconds, which is no earlier than any that was set."""
        self.pop(item, None)
        self[item] = when

    def first(self) -> T:
        """Take out the item whose deadline passes first; there must be one."""
        item = next(iter(self))
        del self[item]
        return item

    def next(self) -> float | None:
        """Return when the first deadline passes, if there is one."""
        return next(iter(self.values()), None)

    def hasten(self, when: float) -> None:
        """Have no deadline later than an absolute time, in seconds."""
        self.update({item: min(due, when) for item, due in self.items()})

    def expire(self, now: float) -> list[T]:
        """Take out the items whose deadline has passed, in the order in which they were set."""
        expired: list[T] = []
        for item, due in self.items():
            if due > now:
                break
            expired.append(item)
        for item in expired:
            del self[item]
        return expired
