"""Deadlines that are all equally far when they are set. Pure: the caller gives the time."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")


class Deadlines(Generic[T]):
    """
    Deadlines in the order in which they were set, which is that in which they pass: so they need no wheel.

    An item has at most one; setting it again moves it.
    """

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: T) -> bool:
        """Tell whether an item has a deadline."""
        return item in self._due

    def set(self, item: T, when: float) -> None:
        """Set the deadline of an item to an absolute time, in seconds, which is no earlier than any that was set."""
        self._due.pop(item, None)
        self._due[item] = when

    def cancel(self, item: T) -> None:
        """Forget the deadline of an item, if it has one."""
        self._due.pop(item, None)

    def pop(self) -> T:
        """Take out the item whose deadline passes first; there must be one."""
        item = next(iter(self._due))
        del self._due[item]
        return item

    def next(self) -> float | None:
        """Return when the first deadline passes, if there is one."""
        return next(iter(self._due.values()), None)

    def hasten(self, when: float) -> None:
        """Have no deadline later than an absolute time, in seconds."""
        self._due = {item: min(due, when) for item, due in self._due.items()}

    def expire(self, now: float) -> list[T]:
        """Take out the items whose deadline has passed, in the order in which they were set."""
        expired: list[T] = []
        for item, due in self._due.items():
            if due > now:
                break
            expired.append(item)
        for item in expired:
            del self._due[item]
        return expired
