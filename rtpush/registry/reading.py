"""
Reads of a channel's history, shared by all who want the same at about the same time.

After a restart or an outage all clients of a channel come back within seconds, with positions that differ little. So
what was read for one is kept for some seconds, with what comes meanwhile; and those who come while history is being
read wait together for the next read, which is for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Gap, Page

if TYPE_CHECKING:
    from rtpush.registry.channel import Channel
    from rtpush.registry.node import Node

__all__ = ["SharedReads"]

#: Seconds for which what was read is kept. What history has dropped comes from here so much longer at most.
_KEPT_FOR = 5.0

#: The most that is kept for one channel, and for all of a node's. What is more is read again.
_MOST_MESSAGES = 10_000
_MOST_BYTES = 8 * 1024 * 1024
_MOST_BYTES_OF_ALL = 64 * 1024 * 1024

#: About how many bytes a message takes besides its payload.
_OVERHEAD = 300

#: How many are served before other work is done.
_SERVED_AT_ONCE = 200

_Asker = tuple[Position | None, "Deferred[Page]"]


class SharedReads:
    """
    The reads of one channel, and what they gave: a run of messages without a hole.

    It leaves its channel after some seconds, so what it keeps does not grow old; the next read begins another one.
    """

    __slots__ = (
        "_channel",
        "_epoch",
        "_is_reading",
        "_lost",
        "_messages",
        "_node",
        "_oldest_next",
        "_size",
        "_start",
        "_waiting",
    )

    def __init__(self, channel: Channel, node: Node) -> None:
        self._channel = channel
        self._node = node
        self._epoch = ""
        #: The run: the messages after the offset ``_start``.
        self._messages: list[Message] = []
        self._start = 0
        self._size = 0
        #: The newest offset of which it is known that history does not reach back to it.
        self._lost = -1
        self._waiting: list[_Asker] = []
        self._is_reading = False
        #: Whether to find out next how far history reaches back.
        self._oldest_next = False
        node.deadlines.set(self, node.clock.seconds() + _KEPT_FOR)

    def read(self, since: Position | None) -> Page | Deferred[Page]:
        """
        Return a page of history after a position; :obj:`None` is before the oldest message kept.

        It is at least as new as this call. The Deferred fails as that of :meth:`rtpush.interfaces.IBroker.history`.
        """
        known = None if since is None else self._known(since)
        if known is not None:
            return known
        answer: Deferred[Page] = Deferred()
        self._waiting.append((since, answer))
        if not self._is_reading:
            self._go()
        if answer.called and isinstance(answer.result, Page):
            return answer.result
        return answer

    def follow(self, messages: Sequence[Message]) -> None:
        """Take what was delivered to all who are at the channel's position."""
        if self._messages:
            end = self._start + len(self._messages)
            news = []
            for message in messages:
                position = message.position
                if position is not None and position.offset == end + 1 and position.epoch == self._epoch:
                    news.append(message)
                    end += 1
            self._add(news)

    def tick(self) -> None:
        """It has been there long enough."""
        self._forget()
        if self._is_reading:
            self._node.deadlines.set(self, self._node.clock.seconds() + _KEPT_FOR)
        elif self._channel.reads is self:
            self._channel.reads = None

    def failed(self, doing: str) -> None:
        """Something of ours went wrong."""
        self._channel.failed(doing)

    def _known(self, since: Position) -> Page | None:
        """Return a page without asking the broker, if that can be."""
        now = self._channel.position
        if since == now:
            return Page((), now)
        if since.epoch != self._epoch or now.epoch != self._epoch:
            return None
        place = since.offset - self._start
        if 0 <= place < len(self._messages):
            end = self._start + len(self._messages)
            messages = self._messages[place : place + self._node.limits.page_messages]
            return Page(messages, Position(self._epoch, max(end, now.offset)))
        return Page((), now, Gap.HISTORY_LOST) if since.offset <= self._lost else None

    def _go(self) -> None:
        """Read for all who wait."""
        while self._waiting and not self._is_reading:
            asking, self._waiting = self._waiting, []
            since = self._beginning(asking)
            self._is_reading = True
            page = self._channel.read_alone(since, self._node.limits.page_messages)
            page.addCallbacks(
                self._was_read, self._was_not_read, callbackArgs=(since, asking), errbackArgs=(asking,)
            )

    def _beginning(self, asking: Sequence[_Asker]) -> Position | None:
        """Return where a read has to begin that is of use to as many as possible."""
        positions = [since for since, _ in asking if since is not None]
        if len(positions) < len(asking) or (self._oldest_next and len(positions) > 1):
            return None
        epoch = self._channel.position.epoch
        return min(positions, key=lambda position: (position.epoch != epoch, position.epoch, position.offset))

    def _was_read(self, page: Page, since: Position | None, asking: Sequence[_Asker]) -> None:
        self._keep(page, since)
        # If the first is lost, others may be too: so these are not asked for one by one.
        self._oldest_next = page.gap is Gap.HISTORY_LOST
        served: list[tuple[Deferred[Page], Page]] = []
        left: list[_Asker] = []
        for asker in asking:
            part = _part(page, since, asker[0])
            if part is None:
                left.append(asker)
            else:
                served.append((asker[1], part))
        self._waiting[:0] = left
        served.reverse()
        self._serve(served)

    def _serve(self, served: list[tuple[Deferred[Page], Page]]) -> None:
        """Give out answers from the end of a list; those who want more after theirs are still read for together."""
        for _ in range(min(len(served), _SERVED_AT_ONCE)):
            answer, page = served.pop()
            answer.callback(page)
        if served:
            self._node.clock.callLater(0, self._serve, served)
        else:
            self._is_reading = False
            self._go()

    def _was_not_read(self, failure: Failure, asking: Sequence[_Asker]) -> None:
        for _, answer in asking:
            answer.errback(failure)
        self._is_reading = False
        self._go()

    def _keep(self, page: Page, since: Position | None) -> None:
        """Make what was read a part of the run, if it is next to it, or newer."""
        epoch = page.top.epoch
        if epoch != self._channel.position.epoch:
            return
        if epoch != self._epoch:
            self._forget()
            self._epoch = epoch
        if page.gap is Gap.HISTORY_LOST and since is not None:
            self._lost = max(self._lost, since.offset)
        if page.gap is not None or not page.messages:
            return
        first = page.messages[0].position
        assert first is not None
        start, end = first.offset - 1, first.offset - 1 + len(page.messages)
        if since is None:
            self._lost = max(self._lost, start - 1)
        own_end = self._start + len(self._messages)
        if start <= own_end and end >= self._start and self._messages:
            older = page.messages[: max(self._start - start, 0)]
            self._messages[:0] = older
            self._start -= len(older)
            self._resize(_size(older))
            self._add(page.messages[max(own_end - start, 0) :])
        elif end > own_end or not self._messages:
            self._drop(len(self._messages))
            self._start = start
            self._add(page.messages)

    def _add(self, messages: Sequence[Message]) -> None:
        """Make the run longer, and then drop its oldest messages if it is too long."""
        self._messages += messages
        self._resize(_size(messages))
        if self._node.shared_bytes > _MOST_BYTES_OF_ALL:
            self._drop(len(self._messages))
            return
        count, size = max(len(self._messages) - _MOST_MESSAGES, 0), self._size
        size -= _size(self._messages[:count])
        while size > _MOST_BYTES:
            size -= _size(self._messages[count : count + 1])
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        """Drop the oldest messages."""
        if count:
            self._resize(-_size(self._messages[:count]))
            del self._messages[:count]
            self._start += count

    def _resize(self, by: int) -> None:
        self._size += by
        self._node.shared_bytes += by

    def _forget(self) -> None:
        self._drop(len(self._messages))
        self._lost = -1


def _size(messages: Sequence[Message]) -> int:
    """Return about how many bytes messages take."""
    return sum([len(message.payload.data) + _OVERHEAD for message in messages])


def _part(page: Page, start: Position | None, since: Position | None) -> Page | None:
    """Return what a page that was read from one position says of another one; nothing if it says nothing."""
    if since == start:
        return page
    if since is None:
        return None
    top = page.top
    if since.epoch != top.epoch:
        return Page((), top, Gap.EPOCH_CHANGED)
    if since.offset >= top.offset:
        return Page((), top, Gap.POSITION_AHEAD if since.offset > top.offset else None)
    if page.gap is not None:
        return None
    first = page.messages[0].position if page.messages else None
    place = since.offset - (top.offset if first is None else first.offset - 1)
    if place < 0:
        return Page((), top, Gap.HISTORY_LOST)
    return Page(page.messages[place:], top) if place < len(page.messages) else None
