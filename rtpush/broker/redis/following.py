"""
What a node follows in one Redis: its channels, and how far each was seen.

Redis delivers each message at most once, and after a failover it may have lost some that were seen already. So each
record is held against the one before it; where they do not fit, or one may have been missed, the channel is compared
with what Redis has now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.broker.redis.link import Link
from rtpush.broker.redis.protocol import unavailable
from rtpush.broker.redis.records import Record, entry_of
from rtpush.broker.redis.session import Session
from rtpush.errors import RtpushError
from rtpush.interfaces import IBrokerReceiver
from rtpush.protocol.position import Position

__all__ = ["Following"]

#: How many channels go into one command.
_BATCH = 500

#: How many records of a channel are kept while it is compared; beyond that it is compared once more.
_MOST_HELD = 1000

#: Seconds within which every channel is compared once, though nothing seems to be wrong.
_AUDIT = 60


class _Channel:
    """
    One channel.

    :ivar last: The position of the newest message that was seen or told of; :obj:`None` before any was.
    :ivar time: The time of that message.
    :ivar held: Records that wait until the channel has been compared; :obj:`None` when it need not be.
    """

    __slots__ = ("held", "last", "time")

    def __init__(self) -> None:
        self.last: Position | None = None
        self.time = 0
        self.held: list[Record] | None = []


class Following:
    """
    Follows channels in one Redis.

    :param prefix: What the names of all channels in Redis begin with.
    :param position_ttl: Milliseconds for which positions are kept.
    :param salt: Goes into new epochs.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, *, prefix: str, position_ttl: int, salt: str, patience: float) -> None:
        self.link: Link
        self.receiver: IBrokerReceiver | None = None
        self._clock = clock
        self._head = f"{prefix}:channel:{{"
        self._position_ttl = position_ttl
        self._salt = salt
        self._patience = patience
        self._channels: dict[str, _Channel] = {}
        #: What Redis is to be told: whether each channel is followed.
        self._changes: dict[str, bool] = {}
        #: Who wants to know the positions of channels, until when.
        self._asking: dict[str, list[tuple[float, Deferred[Position]]]] = {}
        #: Channels to compare now, and at the next tick.
        self._suspects: dict[str, None] = {}
        self._later: dict[str, None] = {}
        self._audit: Iterator[str] = iter(())
        self._working = False

    # What the broker calls

    def subscribe(self, channel: str) -> Deferred[Position]:
        """Follow a channel; see :meth:`IBroker.subscribe`."""
        if channel not in self._channels:
            self._channels[channel] = _Channel()
        self._change(channel, wanted=True)
        asked: Deferred[Position] = Deferred()
        self._asking.setdefault(channel, []).append((self._clock.seconds() + self._patience, asked))
        return asked

    def unsubscribe(self, channel: str) -> Deferred[None]:
        """Follow it no longer; see :meth:`IBroker.unsubscribe`."""
        if self._channels.pop(channel, None) is not None:
            self._suspects.pop(channel, None)
            self._later.pop(channel, None)
            self._change(channel, wanted=False)
        return succeed(None)

    def _change(self, channel: str, *, wanted: bool) -> None:
        # A session that is not there yet is told all that is followed then.
        if self.link.is_open:
            self._changes[channel] = wanted
            self.work_soon()

    def known(self, channel: str, position: Position | None) -> str:
        """Return the time of a message, if it is the last one that was seen of its channel; else nothing."""
        followed = self._channels.get(channel)
        return "" if followed is None or position is None or followed.last != position else str(followed.time)

    def suspect(self, channel: str) -> None:
        """Compare a channel at the next tick."""
        if channel in self._channels:
            self._later[channel] = None

    # What the link calls

    async def restore(self, session: Session) -> None:
        """Follow all channels in a new session, and compare them."""
        self._changes.clear()
        self._suspects.clear()
        names = list(self._channels)
        for begin in range(0, len(names), _BATCH):
            batch = names[begin : begin + _BATCH]
            await session.follow([self._name(channel) for channel in batch])
            await self._compare(session, batch)

    def tick(self) -> None:
        """A second has passed."""
        now = self._clock.seconds()
        for channel, asking in list(self._asking.items()):
            left = [each for each in asking if each[0] > now]
            if len(left) < len(asking):
                self._asking[channel] = left
                if not left:
                    del self._asking[channel]
                for _, asked in asking[: len(asking) - len(left)]:
                    asked.errback(self.link.away())
        if self.link.session is None:
            return
        for _ in range(len(self._channels) // _AUDIT + 1):
            channel = next(self._audit, "")
            if not channel:
                self._audit = iter(list(self._channels))
                break
            self.suspect(channel)
        self._suspects.update(self._later)
        self._later.clear()
        self.work_soon()

    def take(self, name: bytes, raw: bytes) -> None:
        """Take what was published on a channel."""
        channel = name.decode()[len(self._head) : -1]
        followed = self._channels.get(channel)
        receiver = self.receiver
        if followed is None or receiver is None:
            return
        tag = raw[:1]
        if tag == b"m":
            self._take(channel, followed, Record.parse(channel, raw))
        elif tag == b"v":
            receiver.received(Record.parse(channel, raw).message)
        elif tag == b"p":
            self._hold(channel, followed)
        elif tag in (b"j", b"l"):
            _, connection, said = raw.split(b" ", 2)
            (receiver.joined if tag == b"j" else receiver.left)(channel, entry_of(connection, said))

    def _take(self, channel: str, followed: _Channel, record: Record) -> None:
        if followed.held is not None:
            followed.held.append(record)
            if len(followed.held) > _MOST_HELD:
                followed.held.clear()
            return
        last, position = followed.last, record.message.position
        assert last is not None
        assert position is not None
        if record.time <= followed.time:
            # It was on its way while the position was asked for.
            return
        if position.epoch == last.epoch and (position.offset != last.offset + 1 or record.before != followed.time):
            self._hold(channel, followed)
            followed.held = [record]
            return
        followed.last, followed.time = position, record.time
        if self.receiver is not None:
            self.receiver.received(record.message)

    def _hold(self, channel: str, followed: _Channel) -> None:
        if followed.held is None:
            followed.held = []
        self._suspects[channel] = None
        self.work_soon()

    # Telling and asking Redis, in batches: while one is on its way, the next one gathers

    def work_soon(self) -> None:
        """Do what there is to do after this turn of the reactor."""
        if not self._working and (self._changes or self._suspects) and self.link.session is not None:
            self._working = True
            self._clock.callLater(0, self._work)

    def _work(self) -> None:
        session = self.link.session
        if session is None:
            # It is restored before it is there again.
            self._working = False
            return
        Deferred.fromCoroutine(self._step(session)).addBoth(self._worked)

    def _worked(self, result: object) -> None:
        self._working = False
        self.work_soon()

    async def _step(self, session: Session) -> None:
        names = list(islice(self._changes, _BATCH))
        changes = {channel: self._changes.pop(channel) for channel in names}
        suspects = list(islice(self._suspects, _BATCH))
        for channel in suspects:
            del self._suspects[channel]
        each = dict.fromkeys([*names, *suspects])
        compared = [channel for channel in each if channel in self._channels or channel in self._asking]
        gone = [self._name(channel) for channel, wanted in changes.items() if not wanted]
        come = [self._name(channel) for channel, wanted in changes.items() if wanted]
        try:
            if gone:
                await session.unfollow(gone)
            if come:
                await session.follow(come)
            await self._compare(session, compared)
        except RtpushError as error:
            # What was told is not known any more: the next session is told everything.
            session.abort(error.message)
        except Exception:
            self._log.failure("channels cannot be followed")
            session.abort("it cannot be used")

    async def _compare(self, session: Session, channels: Sequence[str]) -> None:
        """Ask for the newest positions of channels, and hold them against what was seen."""
        if not channels:
            return
        arguments: list[object] = [self._salt, self._position_ttl]
        for channel in channels:
            followed = self._channels.get(channel)
            if followed is None or followed.last is None:
                arguments += (channel, "", "", "")
            else:
                arguments += (channel, followed.last.epoch, followed.last.offset, followed.time)
        answer = await session.evaluate("positions", *arguments)
        for index, channel in enumerate(channels):
            epoch, offset, time = answer[3 * index : 3 * index + 3]
            if epoch:
                self._compared(channel, Position(epoch.decode(), int(offset)), int(time))
            else:
                self._not_compared(channel)

    def _not_compared(self, channel: str) -> None:
        """Redis cannot remember a position, since it is full."""
        self.suspect(channel)
        for _, asked in self._asking.pop(channel, ()):
            asked.errback(unavailable(f"Redis {self.link.name} has no room for {channel!r}"))

    def _compared(self, channel: str, top: Position, time: int) -> None:
        asking = self._asking.pop(channel, ())
        followed = self._channels.get(channel)
        if followed is None:
            for _, asked in asking:
                asked.callback(top)
            return
        before = followed.last
        # What was published after the answer may have overtaken it.
        if before is None or before.epoch != top.epoch or before.offset <= top.offset:
            followed.last, followed.time = top, time
        held, followed.held = followed.held or [], None
        for _, asked in asking:
            asked.callback(top)
        if before is not None and self.receiver is not None:
            try:
                self.receiver.compared(channel, top)
            except Exception:
                self._log.failure("{channel}: what was missed cannot be delivered", channel=channel)
        for record in held:
            self._take(channel, followed, record)

    def _name(self, channel: str) -> bytes:
        return f"{self._head}{channel}}}".encode()
