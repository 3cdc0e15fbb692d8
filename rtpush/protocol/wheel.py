"""The timer wheel: deadlines of very many items, for one timer. Pure: the caller gives the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["TimerWheel"]

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """
    Deadlines, rounded up to slots of ``resolution`` seconds.

    Setting and cancelling one costs a dict entry, and expiring costs nothing for those that are not due. An item has at
    most one deadline; setting it again moves it.
    """

    __slots__ = ("_due", "_resolution", "_slots", "_tick")

    def __init__(self, resolution: float, now: float) -> None:
        self._resolution = resolution
        self._tick = int(now / resolution)
        self._slots: dict[int, dict[T, None]] = {}
        self._due: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: T) -> bool:
        """Tell whether an item has a deadline."""
        return item in self._due

    def __iter__(self) -> Iterator[T]:
        """Go through all items that have a deadline."""
        return iter(self._due)

    def set(self, item: T, when: float) -> None:
        """Set the deadline of an item to an absolute time, in seconds."""
        if item in self._due:
            self.cancel(item)
        # Rounded up, and never into a slot that has been expired already.
        tick = -int(-when // self._resolution)
        if tick <= self._tick:
            tick = self._tick + 1
        self._due[item] = tick
        slot = self._slots.get(tick)
        if slot is None:
            self._slots[tick] = {item: None}
        else:
            slot[item] = None

    def cancel(self, item: T) -> None:
        """Forget the deadline of an item, if it has one."""
        tick = self._due.pop(item, None)
        if tick is not None:
            slot = self._slots[tick]
            del slot[item]
            if not slot:
                del self._slots[tick]

    def expire(self, now: float) -> list[T]:
        """Take out the items whose deadline has passed, in the order of their slots."""
        tick = int(now / self._resolution)
        expired: list[T] = []
        if tick - self._tick > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= tick)
        else:
            due = [slot for slot in range(self._tick + 1, tick + 1) if slot in self._slots]
        for slot in due:
            expired.extend(self._slots.pop(slot))
        for item in expired:
            del self._due[item]
        self._tick = max(tick, self._tick)
        return expired
