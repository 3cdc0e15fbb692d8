"""
The promise of the registry: every message exactly once and in order, or a gap that is told and was one.

A state machine publishes, delivers, loses and repeats messages, answers the node's calls to the broker in any order or
lets them fail, compares positions, connects clients on every transport, pauses, cuts and reconnects them. Each client
believes only what it was sent, and checks that.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode
from rtpush.protocol.channel import Namespace, SlowReader
from rtpush.protocol.codecs import JSON
from rtpush.protocol.forms import POLL, SSE_ENVELOPE, WebSocketForm, poll_body
from rtpush.protocol.lifecycle import State
from rtpush.protocol.limits import Limits
from rtpush.protocol.position import Position, parse_cursor
from rtpush.protocol.sse import event
from rtpush.registry import channel as channel_module
from rtpush.registry import reading as reading_module
from rtpush.registry import subscription as subscription_module
from rtpush.registry.subscription import Since, Stage
from tests.protocol.parsers import read_events, read_frames
from tests.registry.fakes import Call, FakeBroker, FakeSink, World

CHANNELS = ("k:a", "k:b")


class Client:
    """
    A client, over all its connections.

    :ivar places: The position of the last message in each channel, as far as the client knows.
    """

    def __init__(self, world: World, channels: tuple[str, ...], since: Since, room: int | None) -> None:
        self.world = world
        self.channels = channels
        self.since = since
        self.room = room
        self.places: dict[str, Position | None] = dict.fromkeys(channels)
        #: Channels of which a gap must be told next.
        self.owed: set[str] = set()
        self.volatile: set[int] = set()
        self.sink: FakeSink | None = None
        self.read = 0

    # What a transport does

    def connect(self) -> None:
        """Connect with the cursor that the client has."""
        self.sink = self.make_sink()
        self.read = 0
        self.owed.clear()
        self.begin()

    def make_sink(self) -> FakeSink:
        """Return the transport's end."""
        raise NotImplementedError

    def begin(self) -> None:
        """Subscribe."""
        raise NotImplementedError

    def subscribe(self, channel: str) -> Deferred[Any]:
        """Subscribe to one channel from where the client is."""
        assert self.sink is not None
        return maybeDeferred(self.sink.connection.subscribe, channel, self.places[channel] or self.since)

    def refused(self, sink: FakeSink) -> None:
        """Be told that a channel cannot be followed for a while: come back later."""
        if self.sink is sink:
            sink.connection.lost()
            self.sink = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that may carry something."""
        return self.sink is not None and self.sink.connection.state in (State.CONNECTING, State.OPEN)

    def cut(self, received: int) -> None:
        """Lose the connection, and of what was written all but the first so many writes that were not read yet."""
        assert self.sink is not None
        self.hear(self.sink.written[self.read : self.read + received])
        self.sink.connection.lost()
        self.sink = None

    # What the client checks

    def listen(self) -> None:
        """Read all that was written."""
        assert self.sink is not None
        writes = self.sink.written[self.read :]
        self.read += len(writes)
        self.hear(writes)
        if self.sink.finished is not None:
            assert self.sink.finished[1] != 1011, "an internal error"
            self.sink.connection.lost()
            self.sink = None

    def hear(self, writes: list[bytes]) -> None:
        """Take what was written."""
        raise NotImplementedError

    def message(self, envelope: dict[str, Any]) -> None:
        """Take a message."""
        channel = envelope["channel"]
        assert channel in self.channels
        assert channel not in self.owed, "a message before the gap that was to be told"
        if "offset" not in envelope:
            assert envelope["data"] not in self.volatile, "a volatile message came twice"
            self.volatile.add(envelope["data"])
            return
        position = Position(envelope["epoch"], envelope["offset"])
        assert int(self.world.broker.published[channel, position].payload.data) == envelope["data"]
        last = self.places[channel]
        if last is not None:
            assert position == Position(last.epoch, last.offset + 1), f"{position} after {last}"
        self.places[channel] = position

    def begins(self, channel: str, position: Position, recovered: bool) -> None:
        """Hear where delivery begins."""
        last = self.places[channel]
        if last is None:
            assert recovered
        elif recovered:
            assert position == last
        else:
            self.owed.add(channel)
        self.places[channel] = last or position

    def gap(self, push: dict[str, Any]) -> None:
        """Hear of a gap: it must be one."""
        channel = push["channel"]
        self.owed.discard(channel)
        last = self.places[channel]
        position = Position(push["epoch"], push["offset"])
        history = self.world.broker.history_of(channel)
        if push["reason"] == "skipped":
            assert self.world.node.namespaces.of(channel).slow_reader is SlowReader.LATEST
            assert last is not None
            assert position.epoch == last.epoch
            assert position.offset > last.offset, "nothing was skipped"
        elif last is not None and last.epoch == history.epoch:
            kept = range(history.top - len(history) + 1, history.top + 1)
            assert last.offset + 1 not in kept, f"a gap after {last} was told, but nothing is lost"
            assert last.offset != history.top or position.epoch != last.epoch, "a gap where there is nothing new"
        self.places[channel] = position

    def check_cursor(self, cursor: str) -> None:
        """Compare a cursor with what the client knows, and take from it what it does not."""
        for channel, position in zip(self.channels, parse_cursor(cursor, len(self.channels)), strict=True):
            assert position is not None
            known = self.places[channel]
            assert known is None or known == position, f"the cursor says {position} after {known}"
            self.places[channel] = position


class WebSocketClient(Client):
    """Follows its channels one by one."""

    def make_sink(self) -> FakeSink:
        """Return a duplex transport."""
        return self.world.connect(WebSocketForm(JSON), room=self.room)

    def begin(self) -> None:
        """Subscribe to each channel."""
        for channel in self.channels:
            sink = self.sink
            assert sink is not None
            begun = self.subscribe(channel)
            begun.addCallbacks(self.begun, self.not_begun, callbackArgs=(sink,), errbackArgs=(sink,))
            if self.sink is not sink:
                return

    def not_begun(self, failure: Failure, sink: FakeSink) -> None:
        """Take it that one channel cannot be followed."""
        if failure.value.kind is ErrorCode.UNAVAILABLE:
            self.refused(sink)

    @staticmethod
    def begun(subscribed: Any, sink: FakeSink) -> None:
        """Tell where it begins, and go."""
        sink.connection.push(subscribed)
        sink.connection.go(subscribed.channel)

    def hear(self, writes: list[bytes]) -> None:
        """Take frames."""
        for frame in read_frames(b"".join(writes)):
            ((name, content),) = json.loads(frame.payload).items()
            if name == "message":
                self.message(content)
            elif name == "gap":
                self.gap(content)
            elif name == "subscribed":
                self.begins(
                    content["channel"], Position(content["epoch"], content["offset"]), content["recovered"]
                )
            else:
                raise AssertionError(name)


class SseClient(Client):
    """Follows all channels in one stream, and goes when ``release`` says so."""

    def make_sink(self) -> FakeSink:
        """Return a one-way transport."""
        self.released = False
        return self.world.connect(SSE_ENVELOPE, transport="sse", opened=False, room=self.room)

    def begin(self) -> None:
        """Subscribe to all channels."""
        self.held = gatherResults([self.subscribe(channel) for channel in self.channels], consumeErrors=True)
        sink = self.sink
        assert sink is not None
        self.held.addErrback(lambda failure: self.refused(sink))

    def release(self) -> None:
        """Open the stream if everything is known."""
        if self.held.called and not self.released and self.sink is not None and self.is_connected:
            self.released = True
            connection = self.sink.connection
            connection.opened()
            cursor = connection.cursor()
            told = [subscribed.recovered for subscribed in self.held.result]
            connection.deliver(event(json.dumps(told).encode(), name="open", cursor=cursor))
            for channel in self.channels:
                connection.go(channel)

    def hear(self, writes: list[bytes]) -> None:
        """Take events; each cursor must be where the client is."""
        for each in read_events(b"".join(writes)).events:
            content = json.loads(each.data)
            if each.name == "open":
                places = parse_cursor(each.last_id, len(self.channels))
                for channel, position, recovered in zip(self.channels, places, content, strict=True):
                    assert position is not None
                    self.begins(channel, position, recovered)
                continue
            if each.name == "gap":
                self.gap(content)
            else:
                self.message(content)
            if not self.owed and (each.name == "gap" or "offset" in content):
                self.check_cursor(each.last_id)


class PollClient(Client):
    """Asks again and again."""

    def make_sink(self) -> FakeSink:
        """Return a transport for one answer."""
        sink = self.world.connect(POLL, transport="longpoll", opened=False)
        sink.ends_after_write = True
        return sink

    def begin(self) -> None:
        """Subscribe to all channels, and answer if there is something."""
        begun = gatherResults([self.subscribe(channel) for channel in self.channels], consumeErrors=True)
        sink = self.sink
        assert sink is not None
        begun.addCallbacks(self.begun, lambda failure: self.refused(sink), callbackArgs=(sink,))

    def begun(self, subscribed: list[Any], sink: FakeSink) -> None:
        """Do what a poll does."""
        connection = sink.connection
        if connection.state is not State.CONNECTING:
            return
        connection.opened()
        gaps = [push.as_dict() for each in connection.order if (push := each.gap()) is not None]
        if gaps:
            connection.deliver(poll_body([], connection.cursor(), recovered=False, gaps=gaps))
            return
        for channel in self.channels:
            connection.go(channel)

    def listen(self) -> None:
        """Read the answer if there is one; then there is no connection any more."""
        super().listen()
        if self.sink is not None and self.sink.connection.state is State.CLOSED:
            self.sink = None

    def time_out(self) -> None:
        """Get an answer with nothing but a cursor."""
        if self.is_connected and self.sink is not None and self.sink.connection.state is State.OPEN:
            self.check_cursor(self.sink.connection.cursor())
            self.sink.connection.lost()
            self.sink = None

    def hear(self, writes: list[bytes]) -> None:
        """Take the answer."""
        for body in writes:
            answer = json.loads(body)
            for gap in answer.get("gaps", []):
                self.gap(gap)
            for envelope in answer["messages"]:
                self.message(envelope)
            self.check_cursor(answer["cursor"])


KINDS = [WebSocketClient, SseClient, PollClient]


def is_reading(call: Call) -> bool:
    """Tell whether a call reads history."""
    return call.name == "history"


_which = st.integers(0, 5)
_kinds = st.sampled_from(KINDS)
_channels = st.sampled_from(CHANNELS)
_followed = st.sampled_from([CHANNELS[:1], CHANNELS[:1], CHANNELS[1:], CHANNELS])
_rooms = st.sampled_from([None, 0, 150, 400])


class ExactlyOnce(RuleBasedStateMachine):
    """The world, step by step."""

    @initialize(
        size=st.sampled_from([0, 3, 1000, 1000]),
        slow=st.sampled_from(SlowReader),
        near=st.sampled_from([False, False, True]),
        first=st.lists(st.tuples(_kinds, _followed, _rooms), min_size=1, max_size=3),
    )
    def begin(
        self, size: int, slow: SlowReader, near: bool, first: list[tuple[type[Client], tuple[str, ...], int | None]]
    ) -> None:
        """Choose what the namespace keeps, and what happens to slow readers; some clients are there."""
        self.world = World(
            limits=Limits(queue_bytes=250, page_messages=3),
            namespaces=[Namespace(name="k", history_size=size, slow_reader=slow)],
        )
        self.broker: FakeBroker = self.world.broker
        self.broker.is_near = near
        self.clients: list[Client] = []
        self.numbers = 0
        for kind, channels, room in first:
            self.arrive(kind, channels, Since.NOW, room)
        self.come_to_rest()

    # The broker

    @rule(
        channel=_channels,
        count=st.integers(1, 9),
        history=st.sampled_from([True, True, True, False]),
        then=st.sampled_from(["wait", "deliver", "turn", "turn", "drop", "drop and deliver"]),
    )
    def publish(self, channel: str, count: int, history: bool, then: str) -> None:
        """Publish some messages, which may arrive at once or never."""
        self.numbers += count
        self.broker.emit(channel, *range(self.numbers - count, self.numbers), history=history)
        if then == "drop and deliver":
            self.broker.drop(count - 1)
        elif then == "drop":
            self.broker.drop(count)
        if then in ("deliver", "turn", "drop and deliver"):
            self.broker.deliver()
        if then == "turn":
            self.world.turn()

    @rule(count=st.integers(1, 10))
    def deliver(self, count: int) -> None:
        """Let some of what is on the way arrive."""
        self.broker.deliver(count)

    @rule(channel=_channels, back=st.integers(0, 4))
    def repeat(self, channel: str, back: int) -> None:
        """Deliver a message again that was published before, of an epoch that may be over."""
        on_the_way = {id(message) for message in self.broker.on_the_way}
        before = [
            message
            for (name, _), message in self.broker.published.items()
            if name == channel and id(message) not in on_the_way
        ]
        if len(before) > back and channel in self.broker.subscribed:
            self.broker.receiver.received(before[-1 - back])

    @rule(which=st.none() | _which)
    def answer(self, which: int | None) -> None:
        """Answer one of the node's calls, or all of them."""
        if which is None:
            self.broker.answer(20)
        elif self.broker.calls:
            self.broker.fire(self.broker.calls[which % len(self.broker.calls)])

    @rule()
    def do(self) -> None:
        """Have the broker do the node's calls, whose answers are on their way then."""
        for call in self.broker.calls:
            call.do()

    @precondition(lambda self: any(map(is_reading, self.broker.calls)))
    @rule(which=st.none() | _which)
    def fail_to_read(self, which: int | None) -> None:
        """Fail a call that reads history, or all of them."""
        reading = list(filter(is_reading, self.broker.calls))
        for call in reading if which is None else [reading[which % len(reading)]]:
            self.broker.fail(call)

    @rule(channel=_channels, back=st.sampled_from([0, 0, 0, 1, 3]))
    def compare(self, channel: str, back: int) -> None:
        """Compare a channel with what is the newest position, or was."""
        tops = [position for name, position in self.broker.published if name == channel]
        self.broker.compare(channel, tops[-back] if 0 < back <= len(tops) else None)

    @rule()
    def grow_old(self) -> None:
        """What was read for those who came together is kept no longer."""
        for channel in self.world.node.channels.values():
            if channel.reads is not None:
                channel.reads.tick()

    @rule(missed=st.integers(1, 9), received=st.integers(0, 3))
    def storm(self, missed: int, received: int) -> None:
        """All are cut at once, each at another place, and come back together."""
        for number, client in enumerate(self.clients):
            if client.is_connected:
                client.cut(received + number % 3)
        self.publish(CHANNELS[0], missed, True, "turn")
        self.connect_again()

    @rule(channel=_channels, count=st.integers(0, 5))
    def begin_anew(self, channel: str, count: int) -> None:
        """Have the broker lose a channel, and go on."""
        self.broker.begin_anew(channel)
        if count:
            self.publish(channel, count, True, "wait")

    # The reactor

    @rule()
    def turn(self) -> None:
        """Let a turn of the reactor pass."""
        self.world.turn()

    # The clients

    @rule(kind=_kinds, channels=_followed, since=st.sampled_from(Since), room=_rooms)
    def arrive(self, kind: type[Client], channels: tuple[str, ...], since: Since, room: int | None) -> None:
        """A new client comes."""
        if len(self.clients) < 6:
            self.clients.append(kind(self.world, channels, since, room))
            self.clients[-1].connect()

    @rule()
    def connect_again(self) -> None:
        """All that are not connected come back."""
        for client in self.clients:
            if not client.is_connected:
                if client.sink is not None:
                    client.listen()
                client.connect()

    @rule(which=_which, received=st.integers(0, 4), missed=st.integers(0, 9), at_once=st.booleans())
    def cut(self, which: int, received: int, missed: int, at_once: bool) -> None:
        """A client is cut, and has not got all that was sent; it misses some and comes back."""
        client = self.clients[which % len(self.clients)]
        if client.is_connected:
            client.cut(received)
        if missed:
            self.publish(client.channels[0], missed, True, "turn")
        if at_once:
            self.connect_again()

    @rule(which=_which, missed=st.integers(4, 9))
    def stall(self, which: int, missed: int) -> None:
        """A client comes back, and the broker goes away while it catches up."""
        client = self.clients[which % len(self.clients)]
        self.cut(which, 0, missed, True)
        while client.sink is not None:
            subscriptions = client.sink.connection.subscriptions.values()
            if any(subscription.stage is Stage.READING for subscription in subscriptions):
                self.fail_to_read(None)
                return
            if not self.broker.calls:
                return
            self.broker.answer(1)
            self.release()

    @rule(which=st.none() | _which)
    def drain(self, which: int | None) -> None:
        """A client, or each, reads all that waits for it."""
        for index, client in enumerate(self.clients):
            if client.sink is not None and which in (None, index):
                client.sink.drain()

    @rule()
    def release(self) -> None:
        """Streams whose channels are all known open."""
        for client in self.clients:
            if isinstance(client, SseClient):
                client.release()

    @rule(which=_which)
    def time_out(self, which: int) -> None:
        """A poll ends without anything."""
        client = self.clients[which % len(self.clients)]
        if isinstance(client, PollClient) and client.sink is not None:
            client.listen()
            client.time_out()

    @invariant()
    def everything_is_right(self) -> None:
        """What each client was sent follows on what it was sent before."""
        for client in getattr(self, "clients", []):
            if client.sink is not None:
                client.listen()

    @rule()
    def settle(self) -> None:
        """When nothing is on the way any more, and one more message came, everybody is at the newest one."""
        for _ in range(3):
            for channel in CHANNELS:
                self.publish(channel, 1, True, "wait")
            self.come_to_rest()
        self.everybody_is_there()

    @rule(channel=_channels, count=st.integers(0, 6), anew=st.booleans())
    def settle_by_comparison(self, channel: str, count: int, anew: bool) -> None:
        """When messages were lost on the way, or the epoch changed, a comparison is as good as a message."""
        if anew:
            self.broker.begin_anew(channel)
        self.publish(channel, count, True, "drop")
        self.come_to_rest()
        for each in CHANNELS:
            self.broker.compare(each)
        self.come_to_rest()
        self.everybody_is_there()

    def everybody_is_there(self) -> None:
        """See that each client is at the newest message."""
        for client in self.clients:
            if isinstance(client, PollClient):
                # One that had nothing to tell does not know yet where it begins.
                client.time_out()
        for client in self.clients:
            for channel in client.channels:
                assert client.places[channel] == self.broker.top(channel), "a client is left behind"

    def come_to_rest(self) -> None:
        """Let everything happen that can."""
        for _ in range(1000):
            self.world.settle()
            self.broker.compare_unread()
            self.release()
            before = [dict(client.places) for client in self.clients]
            busy = False
            for client in self.clients:
                if client.sink is not None:
                    client.listen()
                if not client.is_connected:
                    client.connect()
                    busy = True
                elif client.sink is not None and client.sink.connection.paused:
                    client.sink.drain()
                    busy = True
            self.world.settle()
            self.everything_is_right()
            moved = before != [client.places for client in self.clients]
            if not (busy or moved or self.broker.calls or self.broker.on_the_way):
                return
        raise AssertionError("it does not come to rest")

    def teardown(self) -> None:
        """See that everything ends well, and that nothing is held when all clients are gone."""
        if not hasattr(self, "world"):
            return
        self.settle()
        for client in self.clients:
            if client.sink is not None:
                client.sink.connection.lost()
        self.world.settle()
        assert self.world.node.connections == {}
        assert self.world.node.channels == {}
        assert self.broker.subscribed == set()
        self.world.wait(12)
        assert self.world.node.shared_bytes == 0
        assert len(self.world.node.deadlines) == 0


class ExactlyOnceTests(SynchronousTestCase):
    """The promise."""

    def test_exactly_once(self) -> None:
        """Whatever happens, in any order, each client gets each message once and in order, or a gap that is one."""
        self.patch(subscription_module, "_MAX_ARRIVED", 5)
        self.patch(subscription_module, "_CHUNK_BYTES", 8)
        self.patch(channel_module, "_SYNC_PAGE", 4)
        self.patch(channel_module, "_MAX_INCOMING", 5)
        self.patch(channel_module, "_BATCH_BYTES", 450)
        self.patch(reading_module, "_MOST_MESSAGES", 7)
        self.patch(reading_module, "_SERVED_AT_ONCE", 2)
        run_state_machine_as_test(ExactlyOnce, settings=settings(max_examples=100, stateful_step_count=40))
