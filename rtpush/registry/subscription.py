"""
A subscription: a connection in a channel, and its way from its position to now.

It joins the channel first and keeps what arrives; then it reads history from its position, page by page; it delivers
what it read, then what arrived and history did not give; then it is live, and the fan-out serves it. A reader that
does not keep up leaves the live ones, keeps its place, and comes back the same way; so does one for which history
cannot be read for a while.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.protocol.channel import SlowReader
from rtpush.protocol.forms import Batch
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, Subscribed
from rtpush.protocol.recovery import Gap, Page, unseen

if TYPE_CHECKING:
    from rtpush.registry.channel import Channel
    from rtpush.registry.connection import Connection

__all__ = ["Since", "Stage", "Subscription"]

#: How many messages are kept while history is read; beyond that they are read from history too.
_MAX_ARRIVED = 1000

#: How many bytes of payload are given to a connection before it is asked whether it still keeps up.
_CHUNK_BYTES = 128 * 1024


class Since(enum.Enum):
    """Where a subscription without a position begins."""

    NOW = "now"
    EARLIEST = "earliest"


class Stage(enum.Enum):
    """How far a subscription is on its way to now."""

    #: The broker's answer or the first page of history is awaited.
    JOINING = "joining"
    #: All is known; the transport says when to go.
    HELD = "held"
    #: A page of history is awaited.
    READING = "reading"
    #: At the channel's position or ahead of it, and served by itself.
    SINGLE = "single"
    #: At the channel's position, served by the fan-out.
    LIVE = "live"
    #: Keeps its position until the connection has room again; then it goes on from there.
    BEHIND = "behind"
    #: The same; then it goes on with the newest message alone.
    SKIPPING = "skipping"
    #: Keeps its position until a page of history that could not be read may be readable again.
    STALLED = "stalled"
    ENDED = "ended"


# To look up a member of an enumeration takes longer than most of what is done with it here.
_NOW = Since.NOW
_JOINING, _HELD, _READING, _SINGLE, _LIVE = Stage.JOINING, Stage.HELD, Stage.READING, Stage.SINGLE, Stage.LIVE
_ENDED = Stage.ENDED


class Subscription:
    """
    A connection in a channel.

    :ivar stage: How far it is; see :class:`Stage`.
    """

    __slots__ = ("_arrived", "_asked", "_page", "_position", "channel", "connection", "stage")

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.connection = connection
        self.channel = channel
        self.stage = _JOINING
        self._position = channel.position
        #: What arrived while history was read; nothing if that were too many.
        self._arrived: list[Message] | None = []
        self._page: Page | None = None
        #: Where the client asked to begin, until delivery begins, if that may be elsewhere than at ``_position``.
        self._asked: Position | Since | None = None
        channel.waiting[self] = None

    @property
    def position(self) -> Position:
        """The position of the last message that was delivered."""
        return self.channel.position if self.stage is _LIVE else self._position

    @property
    def asked(self) -> Position | Since:
        """Where the client is as long as delivery has not begun: where it asked to begin."""
        return self._position if self._asked is None else self._asked

    @property
    def ended(self) -> bool:
        """Whether nothing is delivered any more."""
        return self.stage is _ENDED

    def begin(self, since: Position | Since) -> Subscribed | Deferred[Subscribed]:
        """
        Find out where delivery begins. Nothing is delivered before :meth:`go`.

        :returns: It, if that is known, as it mostly is; else a Deferred that fails with
            :class:`rtpush.errors.RtpushError` if the broker does not answer.
        """
        if self.channel.position.epoch:
            return self._joined(None, since)
        self._asked = since
        begun: Deferred[Subscribed] = self.channel.when_ready().addCallback(self._joined, since)
        return begun

    def begin_after(self, allowed: Deferred[Any], since: Position | Since) -> Deferred[Subscribed]:
        """Do the same when something else is known, without which nothing is delivered."""
        self._asked = since

        def begin(_: object) -> Subscribed | Deferred[Subscribed]:
            if self.ended:
                raise RtpushError(ErrorCode.NOT_SUBSCRIBED, f"no longer subscribed to {self.channel.name!r}")
            return self.begin(since)

        begun: Deferred[Subscribed] = allowed.addCallback(begin)
        return begun

    def _joined(self, _: None, since: Position | Since) -> Subscribed | Deferred[Subscribed]:
        self._position = self.channel.position
        start = since if isinstance(since, Position) else None
        if since is _NOW or since == self._position:
            # What arrived before was delivered to the others already.
            self._arrived = []
            if start is not None:
                self.connection.counts.recovered += 1
            if self.stage is _JOINING:
                self.stage = _HELD
            return Subscribed(self.channel.name, self._position, True)
        self._asked = since
        page = self.channel.read(start)
        if isinstance(page, Page):
            return self._began(page, start)
        begun: Deferred[Subscribed] = page.addCallback(self._began, start)
        return begun

    def _began(self, page: Page, start: Position | None) -> Subscribed:
        if page.gap is not None:
            self.connection.counts.gaps += 1
            self._position = self._after_gap(page)
            self._arrived = []
        elif start is not None:
            self.connection.counts.recovered += 1
            self._position = start
        elif page.messages:
            first = page.messages[0].position
            assert first is not None
            self._position = Position(first.epoch, first.offset - 1)
        else:
            self._position = page.top
        if self.stage is _JOINING:
            self.stage = _HELD
            self._page = page
        return Subscribed(self.channel.name, self._position, page.gap is None)

    def gap(self) -> GapPush | None:
        """Return what is to be told if recovery failed at the beginning."""
        page = self._page
        return None if page is None or page.gap is None else GapPush(self.channel.name, self._position, page.gap)

    def go(self) -> None:
        """Deliver from here on."""
        if self.stage is _HELD:
            if self._page is not None and (gap := self.gap()) is not None:
                self.connection.push(gap)
                if self.stage is not _HELD:
                    return
            self.stage = _READING
            page, self._page = self._page, None
            self._asked = None
            if page is not None or self._arrived is None or self._arrived:
                self._advance(page or Page((), self._position))
                return
            self._arrived = None
            self.stage = _SINGLE
            self._go_live_if_possible()

    def _advance(self, page: Page) -> None:
        """Deliver a page, then the next ones, then what arrived meanwhile."""
        known: Page | None = page
        while known is not None and self._give(known.messages):
            if known.gap is None and not known.complete:
                known = self._next_page()
                continue
            rest = None if self._arrived is None else unseen(self._arrived, self._position)
            if rest is None:
                self._arrived = []
                known = self._next_page()
                continue
            if self._give(rest):
                self._settle()
            return

    def _read(self) -> None:
        """Go on with history."""
        page = self._next_page()
        if page is not None:
            self._advance(page)

    def _next_page(self) -> Page | None:
        """Read the next page; return it if it is there already."""
        self.stage = _READING
        page = self.channel.read(self._position)
        if isinstance(page, Page):
            return self._taken(page)
        page.addCallback(self._page_read).addErrback(self._failed)
        return None

    def _page_read(self, page: Page) -> None:
        taken = self._taken(page)
        if taken is not None:
            self._advance(taken)

    def _taken(self, page: Page) -> Page | None:
        """Return a page if there is still somebody for it, who has been told of its gap."""
        if self.stage is not _READING:
            return None
        if page.gap is not None:
            self._position = self._after_gap(page)
            self._arrived = []
            self.connection.counts.gaps += 1
            self.connection.push(GapPush(self.channel.name, self._position, page.gap))
            if self.ended:
                return None
        return page

    def _after_gap(self, page: Page) -> Position:
        """Return where the stream goes on: where the channel is, or beyond, if it does not know of a new epoch yet."""
        now = self.channel.position
        return now if now.epoch == page.top.epoch else page.top

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, RtpushError) or error.kind is not ErrorCode.UNAVAILABLE:
            self.connection.failed("recovery", failure)
        elif self.stage is _READING:
            self.stage = Stage.STALLED
            self._arrived = None

    def _give(self, messages: Sequence[Message]) -> bool:
        """Deliver messages of history as long as the connection keeps up; tell whether all could be."""
        for chunk in _chunks(messages):
            if self.connection.paused:
                self.stage = Stage.BEHIND
                self._arrived = None
                return False
            last = chunk[-1].position
            assert last is not None
            self._send(chunk, last)
            if self.ended:
                return False
        return True

    def _send(self, messages: Sequence[Message], last: Position) -> None:
        """Send messages to this one alone."""
        data = self.connection.form.messages(Batch(messages, last), self.connection.cursor_of(self))
        self._position = last
        if self.connection.deliver(data):
            self._count(len(messages), len(data))

    def _count(self, messages: int, size: int) -> None:
        """Count messages that were sent to this one alone."""
        connection = self.connection
        connection.node.counts.delivered(self.channel.namespace.name, connection.transport, messages, size)

    def _settle(self) -> None:
        """Nothing is left to catch up with."""
        self._arrived = None
        self.stage = _SINGLE
        self._go_live_if_possible()

    def _go_live_if_possible(self) -> None:
        if self._position == self.channel.position and self.connection.shares:
            self.stage = _LIVE
            self.channel.go_live(self, self.connection.sink.form)

    def offer(self, batch: Batch) -> None:
        """Take a batch that just went to the live ones, as far as it is for this one."""
        if self.stage is _SINGLE:
            self._give_single(batch)
        elif self._arrived is not None:
            self._arrived.extend(batch.messages)
            if len(self._arrived) > _MAX_ARRIVED:
                self._arrived = None

    def _give_single(self, batch: Batch) -> None:
        position = self._position
        messages = [
            message
            for message in batch.messages
            if message.position is None
            or (message.position.epoch == position.epoch and message.position.offset > position.offset)
        ]
        if messages:
            self._position = next((m.position for m in reversed(messages) if m.position is not None), position)
            if len(messages) < len(batch.messages) or self._position != batch.position:
                batch = Batch(messages, self._position)
            data = self.connection.form.messages(batch, self.connection.cursor_of(self))
            is_latest = self.channel.namespace.slow_reader is SlowReader.LATEST
            if not (self.connection.deliver_at_once if is_latest else self.connection.deliver)(data):
                self.refused(position)
                return
            self._count(len(messages), len(data))
        if self.stage is _SINGLE:
            self._go_live_if_possible()

    def refused(self, position: Position) -> None:
        """The connection had no room for what came after a position: it is a slow reader."""
        policy = self.channel.namespace.slow_reader
        self.connection.node.counts.slow_readers[policy.value] += 1
        if policy is SlowReader.DISCONNECT:
            self.connection.disconnect(Disconnect.SLOW_READER)
            return
        self._leave_live()
        self.stage = Stage.SKIPPING if policy is SlowReader.LATEST else Stage.BEHIND
        self._position = position

    @property
    def awaits_room(self) -> bool:
        """Whether nothing is delivered before :meth:`resume`."""
        return self.stage in (Stage.BEHIND, Stage.SKIPPING)

    def resume(self) -> None:
        """The connection has room again."""
        if self.stage is Stage.SKIPPING and self._position.epoch == self.channel.position.epoch:
            self._skip()
        elif self.awaits_room:
            self.stage = _READING
            self._arrived = []
            if self._position == self.channel.position:
                self._settle()
            else:
                self._read()

    def _skip(self) -> None:
        """Go on with the newest message, and tell if there were others between."""
        now, newest = self.channel.position, self.channel.newest
        if now.offset > self._position.offset:
            if newest is None or newest.position != now:
                newest, start = None, now
            else:
                start = Position(now.epoch, now.offset - 1)
            if start != self._position:
                self._position = start
                self.connection.counts.gaps += 1
                self.connection.push(GapPush(self.channel.name, start, Gap.SKIPPED))
                if self.ended:
                    return
            if newest is not None:
                # Even if the gap alone has filled the buffer: else others might take all the room, again and again.
                self._send([newest], now)
                if self.ended:
                    return
        self._settle()

    def retry(self) -> None:
        """History may be readable again."""
        if self.stage is Stage.STALLED:
            self._arrived = []
            self._read()

    def interrupted(self, gap: Gap, before: Position) -> None:
        """The channel itself lost messages after the position ``before``, and goes on from its new one."""
        if self.stage is _LIVE or (self.stage is _SINGLE and self._position == before):
            self._leave_live()
            self._position = self.channel.position
            self.connection.counts.gaps += 1
            self.connection.push(GapPush(self.channel.name, self._position, gap))
            if not self.ended:
                self._settle()
        elif self.stage is _SINGLE:
            # It was ahead of the channel: history knows whether anything is missing from there.
            self._arrived = []
            self._read()
        else:
            # What did not arrive is to be read from history too, which may tell of a gap.
            self._arrived = None

    def end(self) -> None:
        """Deliver nothing more."""
        if self.stage is _LIVE:
            self._position = self.channel.position
            self.channel.leave_live(self, self.connection.sink.form)
        else:
            self.channel.waiting.pop(self, None)
        self.stage = _ENDED
        self._arrived = self._page = None

    def _leave_live(self) -> None:
        if self.stage is _LIVE:
            self._position = self.channel.position
            self.channel.leave_live(self, self.connection.sink.form)
            self.channel.waiting[self] = None
            self.stage = _SINGLE


def _chunks(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Split messages into runs of about ``_CHUNK_BYTES``."""
    start = size = 0
    for index, message in enumerate(messages):
        size += len(message.payload.data)
        if size >= _CHUNK_BYTES:
            yield messages[start : index + 1]
            start, size = index + 1, 0
    if start < len(messages):
        yield messages[start:]
