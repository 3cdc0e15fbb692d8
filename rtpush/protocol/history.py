"""The bounded history of one channel: the newest messages, looked up by offset, never scanned."""

from __future__ import annotations

from rtpush.protocol.message import Message
from rtpush.protocol.position import Position

__all__ = ["History"]


class History:
    """
    The newest messages of a channel, at most ``size`` of them, each at most ``ttl`` seconds old.

    Offsets are contiguous, so the place of a message follows from its offset. The caller gives the time; it never goes
    back.

    :ivar ttl: How many seconds a message is kept.
    :ivar epoch: The epoch of all positions here.
    :ivar top: The offset of the newest message ever appended; it stays when messages expire.
    """

    __slots__ = ("_first", "_messages", "_size", "_times", "epoch", "top", "ttl")

    def __init__(self, epoch: str, size: int, ttl: float) -> None:
        self.epoch = epoch
        self.top = 0
        self._size = size
        self.ttl = ttl
        # A list with a moving start: dead places at the front are cut off when they are the larger half.
        self._messages: list[Message | None] = []
        self._times: list[float] = []
        self._first = 0

    def __len__(self) -> int:
        return len(self._messages) - self._first

    @property
    def position(self) -> Position:
        """The position of the newest message: now."""
        return Position(self.epoch, self.top)

    def next_position(self) -> Position:
        """Return the position that the next message must have."""
        return Position(self.epoch, self.top + 1)

    def append(self, message: Message, now: float) -> None:
        """Add a message, whose position is :meth:`next_position`, and drop what is over the bounds."""
        self.top += 1
        if self._size > 0:
            times = self._times
            self._messages.append(message)
            times.append(now)
            if len(times) - self._first > self._size:
                self._drop(1)
            if times[self._first] <= now - self.ttl:
                self.expire(now)

    def expire(self, now: float) -> float | None:
        """Drop what is older than the time to live; return when the next one will be, if there is one."""
        limit = now - self.ttl
        end = self._first
        while end < len(self._times) and self._times[end] <= limit:
            end += 1
        self._drop(end - self._first)
        return self._times[self._first] + self.ttl if len(self) else None

    def after(self, offset: int, limit: int) -> list[Message]:
        """Return at most ``limit`` messages with an offset above ``offset``, oldest first."""
        start = max(offset - (self.top - len(self)), 0) + self._first
        return [message for message in self._messages[start : start + limit] if message is not None]

    def before(self, offset: int, limit: int) -> list[Message]:
        """Return at most ``limit`` messages with an offset below ``offset``, newest first."""
        end = max(min(offset - (self.top - len(self)) - 1, len(self)), 0) + self._first
        return [message for message in self._messages[max(end - limit, self._first) : end][::-1] if message is not None]

    def _drop(self, count: int) -> None:
        """Drop the oldest messages."""
        if not count:
            return
        for index in range(self._first, self._first + count):
            self._messages[index] = None
        self._first += count
        if self._first * 2 > len(self._messages):
            del self._messages[: self._first]
            del self._times[: self._first]
            self._first = 0
