"""
The world around a node, as tests want it: a broker that answers when it is told to, and sinks that keep what they get.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from rtpush.errors import ErrorCode, RtpushError
from rtpush.interfaces import IBroker, IBrokerReceiver, IPresence, ISink
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Access, Namespace, Namespaces, SlowReader
from rtpush.protocol.codecs import JSON
from rtpush.protocol.commands import Publication
from rtpush.protocol.forms import WebSocketForm, WireForm
from rtpush.protocol.history import History
from rtpush.protocol.limits import Limits
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Page, gap_between
from rtpush.registry.connection import Connection
from rtpush.registry.node import Node
from rtpush.registry.subscription import Since
from tests.protocol.parsers import read_events, read_frames

__all__ = ["NAMESPACES", "Call", "FakeBroker", "FakeSink", "PresenceBroker", "World", "payload"]

NAMESPACES = [
    Namespace(name="a", history_size=1000, publish=Access.ANYONE),
    Namespace(name="short", history_size=3),
    Namespace(name="none"),
    Namespace(name="strict", history_size=1000, slow_reader=SlowReader.DISCONNECT),
    Namespace(name="latest", history_size=1000, slow_reader=SlowReader.LATEST),
    Namespace(name="bare", slow_reader=SlowReader.LATEST),
    Namespace(name="here", history_size=1000, presence=True, join_leave=True),
    Namespace(name="quiet", history_size=1000, presence=True),
    Namespace(name="closed", history_size=1000, subscribe=Access.SERVER, presence=True),
]


def payload(number: int) -> Payload:
    """Return a payload that is a number."""
    return Payload(b"%d" % number, Kind.JSON)


class Call:
    """
    A call that the broker has not answered yet.

    :ivar name: The method.
    :ivar arguments: What it was called with.
    """

    def __init__(self, name: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.answer: Deferred[Any] = Deferred()
        self._run = run
        self._done = False
        self._result: Any = None

    def do(self) -> None:
        """Do what it asks for, as the broker sees things now; the answer is on its way then."""
        if not self._done:
            self._done = True
            self._result = self._run()

    def fire(self) -> None:
        """Have the answer arrive."""
        self.do()
        self.answer.callback(self._result)

    def fail(self, kind: ErrorCode = ErrorCode.UNAVAILABLE) -> None:
        """Have the call fail."""
        self.answer.errback(RtpushError(kind, "the broker is away"))


@implementer(IBroker)
class FakeBroker:
    """
    A broker in another place: its answers and deliveries are on the way until the test lets them arrive.

    It does calls in their order; answers may arrive in any.

    :ivar calls: Those without an answer yet.
    :ivar on_the_way: Messages that were published and are not delivered yet.
    :ivar published: All positioned messages ever, by channel and position.
    :ivar unread: Channels whose history could not be read: the broker owes the node a comparison of each.
    :ivar is_near: Whether everything arrives at once, as it does from a broker in this process.
    """

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        self._sizes = {namespace.name: namespace.history_size for namespace in namespaces}
        self._epochs = 0
        self._histories: dict[str, History] = {}
        self.subscribed: set[str] = set()
        self.calls: list[Call] = []
        self.on_the_way: deque[Message] = deque()
        self.published: dict[tuple[str, Position], Message] = {}
        self.unread: set[str] = set()
        self.is_near = False
        self.is_running = False
        self.receiver: IBrokerReceiver

    # The test's side

    def history_of(self, channel: str) -> History:
        """Return what is kept of a channel."""
        if channel not in self._histories:
            self.begin_anew(channel)
        return self._histories[channel]

    def top(self, channel: str) -> Position:
        """Return the newest position of a channel."""
        return self.history_of(channel).position

    def begin_anew(self, channel: str) -> None:
        """Lose everything of a channel: a new epoch begins."""
        self._epochs += 1
        self._histories[channel] = History(f"e{self._epochs}", self._sizes[channel.partition(":")[0]], 1e9)

    def emit(self, channel: str, *values: int, history: bool = True) -> list[Position]:
        """Have somebody publish numbers; return their positions."""
        positions = []
        for value in values:
            message = Message(channel, payload(value))
            if history:
                kept = self.history_of(channel)
                message = Message(channel, payload(value), None, kept.next_position())
                kept.append(message, 0.0)
                positions.append(kept.position)
                self.published[channel, kept.position] = message
            if channel in self.subscribed:
                self.on_the_way.append(message)
        if self.is_near:
            self.deliver()
        return positions

    def deliver(self, count: int | None = None) -> None:
        """Deliver messages that are on the way."""
        for _ in range(len(self.on_the_way) if count is None else count):
            if self.on_the_way:
                self.receiver.received(self.on_the_way.popleft())

    def drop(self, count: int = 1) -> None:
        """Lose messages that are on the way."""
        for _ in range(count):
            if self.on_the_way:
                self.on_the_way.popleft()

    def compare(self, channel: str, top: Position | None = None) -> None:
        """Tell the node the newest position of a channel, or one that was the newest once."""
        if channel in self.subscribed:
            self.unread.discard(channel)
            self.receiver.compared(channel, top or self.top(channel))

    def compare_unread(self) -> None:
        """Do so, as a broker must, where history could not be read."""
        for channel in sorted(self.unread):
            self.compare(channel)
        self.unread.clear()

    def answer(self, count: int | None = None) -> None:
        """Answer calls in their order, and those that they bring about; or so many of them."""
        answered = 0
        while self.calls and (count is None or answered < count):
            self.fire(self.calls[0])
            answered += 1

    def fire(self, call: Call) -> None:
        """Answer one call."""
        for earlier in self.calls[: self.calls.index(call) + 1]:
            earlier.do()
        self.calls.remove(call)
        call.fire()

    def fail(self, call: Call, kind: ErrorCode = ErrorCode.UNAVAILABLE) -> None:
        """Fail one call."""
        self.calls.remove(call)
        if call.name == "history":
            self.unread.add(call.arguments[0])
        call.fail(kind)

    def _call(self, name: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Deferred[Any]:
        call = Call(name, arguments, run)
        if self.is_near:
            call.fire()
        else:
            self.calls.append(call)
        return call.answer

    # IBroker

    def start(self, receiver: IBrokerReceiver) -> Deferred[None]:
        """Begin."""
        self.receiver = receiver
        self.is_running = True
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """End."""
        self.is_running = False
        return succeed(None)

    def publish(self, publication: Publication) -> Deferred[Position | None]:
        """Publish."""
        message = publication.message()

        def run() -> Position | None:
            positions = self.emit(message.channel, int(message.payload.data), history=publication.history)
            return positions[0] if positions else None

        return self._call("publish", (publication,), run)

    def history(self, channel: str, since: Position | None, limit: int) -> Deferred[Page]:
        """Read history."""

        def run() -> Page:
            kept = self.history_of(channel)
            gap = None if since is None else gap_between(since, kept.position, len(kept))
            if gap is not None:
                return Page((), kept.position, gap)
            return Page(kept.after(0 if since is None else since.offset, limit), kept.position)

        return self._call("history", (channel, since, limit), run)

    def history_before(self, channel: str, before: Position | None, limit: int) -> Deferred[Page]:
        """Read history backward."""

        def run() -> Page:
            kept = self.history_of(channel)
            return Page(kept.before(kept.top + 1 if before is None else before.offset, limit), kept.position)

        return self._call("history_before", (channel, before, limit), run)

    def subscribe(self, channel: str) -> Deferred[Position]:
        """Deliver a channel."""

        def run() -> Position:
            self.subscribed.add(channel)
            return self.top(channel)

        return self._call("subscribe", (channel,), run)

    def unsubscribe(self, channel: str) -> Deferred[None]:
        """Deliver it no longer."""
        return self._call("unsubscribe", (channel,), lambda: self.subscribed.discard(channel))


@implementer(IPresence)
class PresenceBroker(FakeBroker):
    """
    The same, with presence.

    :ivar present: Who is in each channel.
    """

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        super().__init__(namespaces)
        self.present: dict[str, dict[str, PresenceEntry]] = {}

    def join(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        """Come."""

        def run() -> None:
            self.present.setdefault(channel, {})[entry.connection] = entry
            self.receiver.joined(channel, entry)

        return self._call("join", (channel, entry), run)

    def leave(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        """Go."""

        def run() -> None:
            if self.present.get(channel, {}).pop(entry.connection, None) is not None:
                self.receiver.left(channel, entry)

        return self._call("leave", (channel, entry), run)

    def presence(self, channel: str) -> Deferred[Sequence[PresenceEntry]]:
        """List."""
        return self._call("presence", (channel,), lambda: list(self.present.get(channel, {}).values()))


@implementer(ISink)
class FakeSink:
    """
    A transport that keeps what it gets.

    :ivar room: How many bytes its buffer takes before it is full; :obj:`None` for any number.
    :ivar ends_at_once: Whether the transport is gone as soon as it was finished or aborted.
    :ivar is_straight: Whether the fan-out may write to it without asking.
    :ivar ends_after_write: Whether it is gone after one write, as a poll is.
    :ivar broken: What each use raises.
    """

    def __init__(self, form: WireForm) -> None:
        self.form = form
        self.connection: Connection
        self.written: list[bytes] = []
        self.heartbeats = 0
        self.finished: tuple[bytes, int, str] | None = None
        self.aborted = False
        self.reading = True
        self.room: int | None = None
        self.buffered = 0
        self.ends_at_once = False
        self.ends_after_write = False
        self.is_straight = True
        self.broken: Exception | None = None

    @property
    def data(self) -> bytes:
        """All bytes that were written."""
        return b"".join(self.written)

    def drain(self) -> None:
        """Have the peer read everything."""
        self.buffered = 0
        self.connection.resumeProducing()

    # ISink

    @property
    def straight(self) -> FakeSink | None:
        """Itself, unless a write ends it."""
        return self if self.is_straight and not self.ends_after_write else None

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self._use()
        assert self.finished is None, "written after the end"
        assert not self.aborted, "written after the abort"
        self.written.append(data)
        self.buffered += len(data)
        if self.ends_after_write:
            self.connection.lost()
        elif self.room is not None and self.buffered > self.room:
            self.connection.pauseProducing()

    def heartbeat(self) -> None:
        """Count a heartbeat."""
        self._use()
        self.heartbeats += 1

    def finish(self, farewell: bytes, code: int, reason: str) -> None:
        """End in good order."""
        self._use()
        assert self.finished is None, "finished twice"
        self.finished = (farewell, code, reason)
        if self.ends_at_once:
            self.connection.lost()

    def abort(self) -> None:
        """End at once."""
        self._use()
        self.aborted = True
        if self.ends_at_once:
            self.connection.lost()

    def address(self) -> str:
        """Tell an address."""
        return "127.0.0.1:5000"

    def pause_reading(self) -> None:
        """Read no more."""
        self.reading = False

    def resume_reading(self) -> None:
        """Read again."""
        self.reading = True

    def _use(self) -> None:
        if self.broken is not None:
            raise self.broken


class World:
    """
    A node on a clock, with a fake broker.

    :ivar chance: What the node's random numbers are.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        broker: Callable[[Sequence[Namespace]], FakeBroker] = FakeBroker,
        namespaces: Sequence[Namespace] = NAMESPACES,
        heartbeat: float = 30.0,
        heartbeat_grace: float = 10.0,
    ) -> None:
        self.clock = Clock()
        self.broker = broker(namespaces)
        self.chance = 0.0
        self.node = Node(
            self.clock,
            self.broker,
            Namespaces(namespaces),
            name="n1",
            limits=limits or Limits(),
            backoff=Backoff(1, 30, 2),
            heartbeat=heartbeat,
            heartbeat_grace=heartbeat_grace,
            chance=lambda: self.chance,
        )
        self.node.start()

    def connect(
        self,
        form: WireForm | None = None,
        *,
        transport: str = "websocket",
        duplex: bool | None = None,
        opened: bool = True,
        room: int | None = None,
    ) -> FakeSink:
        """Connect a client; return its sink, which knows its connection."""
        sink = FakeSink(form or WebSocketForm(JSON))
        sink.room = room
        sink.connection = self.node.connect(
            sink,
            transport,
            interval=self.node.heartbeat,
            duplex=transport == "websocket" if duplex is None else duplex,
        )
        if opened:
            sink.connection.opened()
        return sink

    def follow(self, sink: FakeSink, channel: str, since: Position | Since = Since.NOW) -> list[Any]:
        """
        Subscribe as a WebSocket does: tell where delivery begins, then go.

        :returns: A list that gets the result or failure.
        """
        results: list[Any] = []
        begun: Deferred[Any] = maybeDeferred(sink.connection.subscribe, channel, since)
        begun.addCallback(self._begun, sink)
        begun.addBoth(results.append)
        return results

    @staticmethod
    def _begun(subscribed: Any, sink: FakeSink) -> Any:
        sink.connection.push(subscribed)
        sink.connection.go(subscribed.channel)
        return subscribed

    def turn(self) -> None:
        """Let one turn of the reactor pass."""
        self.clock.advance(0)

    def wait(self, seconds: float) -> None:
        """Let time pass as it does: in small steps."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def settle(self) -> None:
        """Let everything arrive that is on the way."""
        for _ in range(1000):
            self.broker.answer(100)
            self.broker.deliver()
            self.turn()
            if not (self.broker.calls or self.broker.on_the_way):
                return
        raise AssertionError("it does not come to rest")


def frames(sink: FakeSink) -> list[dict[str, Any]]:
    """Return the objects that a WebSocket client got."""
    return [json.loads(frame.payload) for frame in read_frames(sink.data)]


def pushed(sink: FakeSink, name: str) -> list[Any]:
    """Return what a WebSocket client got of one kind."""
    return [frame[name] for frame in frames(sink) if name in frame]


def got(sink: FakeSink) -> list[int]:
    """Return the numbers that a WebSocket client got."""
    return [message["data"] for message in pushed(sink, "message")]


def events(sink: FakeSink) -> list[tuple[str, str, str]]:
    """Return ``(name, data, id)`` of what an ``EventSource`` got."""
    return [(event.name, event.data, event.last_id) for event in read_events(sink.data).events]
