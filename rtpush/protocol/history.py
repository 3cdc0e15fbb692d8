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

    :ivar ttl: How many seconds a message is kept. It may be changed; what is over it goes with the next message.
    :ivar epoch: The epoch of all positions here.
    :ivar top: The offset of the newest message ever appended; it stays when messages expire.
    """

    __slots__ = ("_base", "_count", "_messages", "_size", "_times", "epoch", "top", "ttl")

    def __init__(self, epoch: str, size: int, ttl: float) -> None:
        self.epoch = epoch
        self.top = 0
        self.ttl = ttl
        self._size = size
        # Rings, which grow until they have their size; the place of an offset follows from the offset at the first one.
        self._messages: list[Message | None] = []
        self._times: list[float] = []
        self._base = 1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """How many messages are kept at most. It may be changed; then what is over it goes at once."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = size
        self._keep(min(size, self._count))

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
        if not self._size:
            return
        messages, times = self._messages, self._times
        if len(messages) < self._size:
            if not messages:
                self._base = self.top
            messages.append(message)
            times.append(now)
            self._count += 1
        else:
            place = (self.top - self._base) % self._size
            messages[place] = message
            times[place] = now
            if self._count < self._size:
                self._count += 1
        if times[(self.top - self._count + 1 - self._base) % len(times)] <= now - self.ttl:
            self.expire(now)

    def expire(self, now: float) -> float | None:
        """Drop what is older than the time to live; return when the next one will be, if there is one."""
        limit = now - self.ttl
        times, due = self._times, None
        while self._count:
            place = self._place(self.top - self._count + 1)
            if times[place] > limit:
                due = times[place] + self.ttl
                break
            self._messages[place] = None
            self._count -= 1
        if len(times) > 2 * self._count:
            self._keep(self._count)
        return due

    def after(self, offset: int, limit: int) -> list[Message]:
        """Return at most ``limit`` messages with an offset above ``offset``, oldest first."""
        first = max(offset, self.top - self._count) + 1
        return self._run(first, min(limit, self.top + 1 - first))

    def before(self, offset: int, limit: int) -> list[Message]:
        """Return at most ``limit`` messages with an offset below ``offset``, newest first."""
        end = min(offset, self.top + 1)
        count = min(limit, end - 1 - (self.top - self._count))
        return self._run(end - count, count)[::-1]

    def _keep(self, count: int) -> None:
        """Make rings that are no larger than what they hold, which is so many of the newest messages."""
        kept = range(self.top - count + 1, self.top + 1)
        places = [self._place(offset) for offset in kept]
        self._messages = [self._messages[place] for place in places]
        self._times = [self._times[place] for place in places]
        self._count, self._base = count, kept.start

    def _place(self, offset: int) -> int:
        return (offset - self._base) % len(self._messages)

    def _run(self, first: int, count: int) -> list[Message]:
        """Return a number of messages from an offset on, all of which are kept."""
        if count <= 0:
            return []
        place = self._place(first)
        found = self._messages[place : place + count]
        found += self._messages[: count - len(found)]
        return [message for message in found if message is not None]
