"""What was answered lately, up to a bound. Times are passed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Remembered"]

T = TypeVar("T")


class Remembered(Generic[T]):
    """
    Answers by what was asked. The one that was not wanted for longest makes room.

    :param seconds: For how long they are good.
    :param most: How many there are at most.
    :param most_bytes: How large they are together at most.
    """

    def __init__(self, seconds: float, most: int = 10_000, most_bytes: int = 1 << 24) -> None:
        self._seconds = seconds
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[float, T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, now: float) -> T | None:
        """Return an answer, if there is one that is still good."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] <= now:
            self.forget(key)
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, key: Hashable, answer: T, now: float, size: int) -> None:
        """Keep an answer of about so many bytes."""
        if self._seconds > 0:
            self.forget(key)
            self._kept[key] = (now + self._seconds, answer, size)
            self._bytes += size
            while len(self._kept) > self._most or self._bytes > self._most_bytes:
                self.forget(next(iter(self._kept)))

    def forget(self, key: Hashable) -> None:
        """Keep it no longer."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept[2]
