"""Tests of rtpush.registry.connection: the life of a connection, its heartbeat, its queue and its presence."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.protocol.forms import POLL, SSE, SSE_ENVELOPE, RawForm
from rtpush.protocol.lifecycle import IllegalTransition, State
from rtpush.protocol.limits import Limits
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, PresenceEntry, Subscribed, Unsubscribed
from rtpush.protocol.recovery import Gap
from rtpush.registry.connection import _MAX_COMMANDS
from rtpush.registry.subscription import Since
from tests.protocol.parsers import read_events, read_frames
from tests.registry.fakes import FakeSink, PresenceBroker, World, events, frames, got, pushed


class LifecycleTests(SynchronousTestCase):
    """From CONNECTING to CLOSED."""

    def setUp(self) -> None:
        """Have a world."""
        self.world = World()

    def test_ordinary_life(self) -> None:
        """A connection is registered, opened, closes and is gone; the node knows it until then."""
        sink = self.world.connect(opened=False)
        connection = sink.connection
        self.assertIs(connection.state, State.CONNECTING)
        self.assertEqual(self.world.node.connections, {connection.id: connection})
        connection.opened()
        self.assertIs(connection.state, State.OPEN)
        connection.closing()
        self.assertIs(connection.state, State.CLOSING)
        self.assertIn(connection.id, self.world.node.connections)
        connection.lost()
        self.assertIs(connection.state, State.CLOSED)
        self.assertEqual(self.world.node.connections, {})
        self.assertNotIn(connection, self.world.node.wheel)

    def test_said_twice(self) -> None:
        """Transports may say more than once that they close or are gone."""
        connection = self.world.connect().connection
        connection.closing()
        connection.closing()
        connection.lost()
        connection.lost()
        connection.closing()
        self.assertIs(connection.state, State.CLOSED)
        self.assertEqual(len(self.world.node.wheel), 0)

    def test_opened_once(self) -> None:
        """A connection cannot be opened twice, nor after its end."""
        connection = self.world.connect().connection
        self.assertRaises(IllegalTransition, connection.opened)
        connection.lost()
        self.assertRaises(IllegalTransition, connection.opened)

    def test_ids(self) -> None:
        """Each has an id of its own, which nobody can guess."""
        ids = {self.world.connect().connection.id for _ in range(100)}
        self.assertEqual(len(ids), 100)
        self.assertTrue(all(len(id_) >= 16 for id_ in ids))

    def test_nothing_before_open(self) -> None:
        """Nothing is written before the transport has accepted the client, or after it began to close."""
        sink = self.world.connect(opened=False)
        self.assertTrue(sink.connection.deliver(b"x"))
        sink.connection.opened()
        self.assertTrue(sink.connection.deliver(b"y"))
        sink.connection.closing()
        self.assertTrue(sink.connection.deliver(b"z"))
        self.assertEqual(sink.written, [b"y"])

    def test_end_ends_subscriptions(self) -> None:
        """When a connection closes its subscriptions end."""
        for end in ("closing", "lost"):
            sink = self.world.connect()
            for channel in ("a:x", "a:y"):
                self.world.follow(sink, channel)
            self.world.settle()
            getattr(sink.connection, end)()
            self.assertEqual((sink.connection.subscriptions, self.world.node.channels), ({}, {}))
            self.world.settle()
            self.assertEqual(self.world.broker.subscribed, set())

    def test_disconnect(self) -> None:
        """The server's farewell says why, and whether and when to come back; then the transport closes."""
        sink = self.world.connect()
        sink.connection.disconnect(Disconnect.SERVICE_RESTART, after=1.5)
        assert sink.finished is not None
        farewell, code, reason = sink.finished
        self.assertEqual((code, reason), (1012, "service_restart"))
        told = {"code": 1012, "reason": "service_restart", "reconnect": True, "after": 1.5}
        self.assertEqual(json.loads(read_frames(farewell)[0].payload), {"disconnect": told})
        self.assertIs(sink.connection.state, State.CLOSING)

    def test_disconnect_with_words(self) -> None:
        """Whoever disconnects may choose the code and the reason."""
        sink = self.world.connect()
        sink.connection.disconnect(Disconnect.DISCONNECTED, code=4777, reason="go away")
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4777, "go away"))

    def test_disconnect_before_open(self) -> None:
        """One that is not open yet can be disconnected, too."""
        sink = self.world.connect(opened=False)
        sink.connection.disconnect(Disconnect.SERVICE_RESTART)
        self.assertIs(sink.connection.state, State.CLOSING)

    def test_disconnect_once(self) -> None:
        """What ends or has ended is not ended again."""
        sink = self.world.connect()
        sink.connection.disconnect(Disconnect.DISCONNECTED)
        sink.connection.disconnect(Disconnect.SERVICE_RESTART)
        assert sink.finished is not None
        self.assertEqual(sink.finished[1], 4500)
        gone = self.world.connect()
        gone.connection.lost()
        gone.connection.disconnect(Disconnect.DISCONNECTED)
        self.assertIsNone(gone.finished)

    def test_cursor_of_farewell(self) -> None:
        """The farewell of a stream has the cursor of the moment, though the subscriptions end with it."""
        sink = self.world.connect(SSE, transport="sse")
        sink.connection.subscribe("a:x", Since.NOW)
        self.world.settle()
        sink.connection.go("a:x")
        self.world.broker.emit("a:x", 1, 2)
        self.world.settle()
        sink.connection.disconnect(Disconnect.RECONNECT)
        assert sink.finished is not None
        (event,) = read_events(sink.finished[0]).events
        self.assertEqual((event.name, event.last_id), ("disconnect", "e1:2"))

    def test_fault(self) -> None:
        """A fault of ours ends the connection with 1011, and is in the log."""
        sink = self.world.connect()
        try:
            raise ZeroDivisionError("ours")
        except ZeroDivisionError:
            sink.connection.failed("testing")
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (1011, "internal_error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_of_the_transport(self) -> None:
        """A transport that cannot even be closed is aborted; one that cannot be aborted is left."""
        sink = self.world.connect()
        sink.broken = ZeroDivisionError("broken")
        try:
            sink.write(b"")
        except ZeroDivisionError:
            sink.connection.failed("testing")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)


class SubscribeTests(SynchronousTestCase):
    """Subscribing and its end."""

    def setUp(self) -> None:
        """Have a world where connections may follow three channels."""
        self.world = World(limits=Limits(channels_per_connection=3))
        self.sink = self.world.connect()
        self.connection = self.sink.connection

    def refusal(self, channel: str) -> RtpushError:
        """Return the error for a channel."""
        error: RtpushError = self.assertRaises(RtpushError, self.connection.subscribe, channel, Since.NOW)
        return error

    def test_refused(self) -> None:
        """A channel that is unknown, badly named or not for clients is refused, and nothing is left of it."""
        for channel, kind in (
            ("nobody:x", ErrorCode.UNKNOWN_CHANNEL),
            ("x", ErrorCode.UNKNOWN_CHANNEL),
            ("a b", ErrorCode.BAD_CHANNEL),
            ("closed:x", ErrorCode.PERMISSION_DENIED),
        ):
            self.assertIs(self.refusal(channel).kind, kind)
        self.assertEqual((self.connection.subscriptions, self.world.node.channels), ({}, {}))

    def test_twice(self) -> None:
        """A channel cannot be followed twice, whether the first time has an answer yet or not."""
        self.connection.subscribe("a:x", Since.NOW)
        self.assertIs(self.refusal("a:x").kind, ErrorCode.ALREADY_SUBSCRIBED)
        self.world.settle()
        self.assertIs(self.refusal("a:x").kind, ErrorCode.ALREADY_SUBSCRIBED)

    def test_limit(self) -> None:
        """No more channels can be followed at once than the limit; one that was left makes room."""
        for channel in ("a:1", "a:2", "a:3"):
            self.world.follow(self.sink, channel)
        error = self.refusal("a:4")
        self.assertIs(error.kind, ErrorCode.LIMIT_EXCEEDED)
        self.assertIn("3", error.message)
        self.connection.unsubscribe("a:1")
        self.world.follow(self.sink, "a:4")
        self.world.settle()
        self.assertEqual(set(self.connection.subscriptions), {"a:2", "a:3", "a:4"})

    def test_unsubscribe(self) -> None:
        """What was left is delivered no more; it can be followed again, from now."""
        self.world.follow(self.sink, "a:x")
        self.world.settle()
        self.world.broker.emit("a:x", 1)
        self.world.settle()
        self.connection.unsubscribe("a:x")
        self.world.broker.emit("a:x", 2)
        self.world.settle()
        self.world.follow(self.sink, "a:x")
        self.world.settle()
        self.world.broker.emit("a:x", 3)
        self.world.settle()
        self.assertEqual(got(self.sink), [1, 3])

    def test_unsubscribe_unknown(self) -> None:
        """What is not followed cannot be left."""
        error = self.assertRaises(RtpushError, self.connection.unsubscribe, "a:x")
        self.assertIs(error.kind, ErrorCode.NOT_SUBSCRIBED)

    def test_unsubscribe_before_the_answer(self) -> None:
        """What is left before it began has failed, whatever the broker says then."""
        for answer in ("result", "failure"):
            results = self.world.follow(self.sink, "a:x")
            subscribing = self.world.broker.calls[0]
            self.connection.unsubscribe("a:x")
            if answer == "result":
                self.world.broker.fire(subscribing)
                self.assertIs(results[0].value.kind, ErrorCode.NOT_SUBSCRIBED)
            else:
                self.world.broker.fail(subscribing)
                self.assertIs(results[0].value.kind, ErrorCode.UNAVAILABLE)
            self.world.settle()
            self.assertEqual(frames(self.sink), [])
            self.assertEqual((self.connection.order, self.world.node.channels), ([], {}))

    def test_again_before_the_answer(self) -> None:
        """One that is left and followed again at once is followed once; its first command has failed."""
        first = self.world.follow(self.sink, "a:x")
        self.connection.unsubscribe("a:x")
        second = self.world.follow(self.sink, "a:x")
        self.world.settle()
        self.assertIs(first[0].value.kind, ErrorCode.NOT_SUBSCRIBED)
        self.assertIsInstance(second[0], Subscribed)
        self.world.broker.emit("a:x", 1)
        self.world.settle()
        self.assertEqual([next(iter(frame)) for frame in frames(self.sink)], ["subscribed", "message"])

    def test_lost_before_the_answer(self) -> None:
        """A connection that is gone before the broker answers leaves nothing behind."""
        for transport in ("websocket", "sse"):
            for step in (1, 2):
                sink = self.world.connect(transport=transport)
                results = self.world.follow(sink, "a:x", Position("other", 1))
                self.world.broker.answer(step - 1)
                sink.connection.lost()
                self.world.settle()
                self.assertIs(results[0].value.kind, ErrorCode.NOT_SUBSCRIBED)
                self.assertEqual((sink.written, self.world.node.channels), ([], {}))
                self.assertEqual(self.world.broker.subscribed, set())

    def test_ended_by_the_server(self) -> None:
        """The client is told that the server ended a subscription, and the connection stays."""
        for channel in ("a:x", "a:y"):
            self.world.follow(self.sink, channel)
        self.world.settle()
        self.assertTrue(self.connection.end_subscription("a:x", "enough"))
        self.assertEqual(
            pushed(self.sink, "unsubscribed"), [{"channel": "a:x", "code": 4501, "reason": "enough"}]
        )
        self.assertTrue(self.connection.end_subscription("a:y", "enough"))
        self.assertIsNone(self.sink.finished)
        self.assertFalse(self.connection.end_subscription("a:y", "enough"))

    def test_last_one_of_a_stream(self) -> None:
        """A stream whose last subscription is ended has no use any more."""
        sink = self.world.connect(SSE, transport="sse")
        for channel in ("a:x", "a:y"):
            sink.connection.subscribe(channel, Since.NOW)
        self.world.settle()
        sink.connection.end_subscription("a:x", "enough")
        self.assertIsNone(sink.finished)
        sink.connection.end_subscription("a:y", "enough")
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4501, "enough"))
        self.assertEqual([name for name, _, _ in events(sink)], ["unsubscribed"] * 2)

    def test_raw(self) -> None:
        """A form without room for it is closed with the reason."""
        sink = self.world.connect(RawForm())
        sink.connection.subscribe("a:x", Since.NOW)
        self.world.settle()
        sink.connection.end_subscription("a:x", "enough")
        assert sink.finished is not None
        self.assertEqual(sink.finished, (b"", 4501, "enough"))

    def test_poll(self) -> None:
        """A poll is answered with it."""
        sink = self.world.connect(POLL, transport="longpoll")
        sink.ends_after_write = True
        sink.connection.subscribe("a:x", Since.NOW)
        self.world.settle()
        sink.connection.end_subscription("a:x", "enough")
        (answer,) = map(json.loads, sink.written)
        self.assertEqual(answer["unsubscribed"]["code"], 4501)
        self.assertIsNone(sink.finished)


class HeartbeatTests(SynchronousTestCase):
    """Who is silent for too long."""

    def setUp(self) -> None:
        """Have a world with a heartbeat of 30 s and a grace of 10 s."""
        self.world = World(heartbeat=30.0, heartbeat_grace=10.0)

    def beats(self, sink: FakeSink, seconds: int, *, answer: bool = True) -> list[int]:
        """Let time pass; return the seconds at which heartbeats came, which the peer answers or not."""
        at = []
        for second in range(1, seconds + 1):
            before = sink.heartbeats
            self.world.wait(1)
            if sink.heartbeats > before:
                at.append(second)
                if answer:
                    sink.connection.heard()
        return at

    def test_stream(self) -> None:
        """A stream gets one every interval; its peer need not answer."""
        sink = self.world.connect(SSE, transport="sse")
        at = self.beats(sink, 200, answer=False)
        self.assertEqual(len(at), 6)
        self.assertTrue(all(29 <= later - earlier <= 31 for earlier, later in zip(at, at[1:], strict=False)))
        self.assertIsNone(sink.finished)

    def test_duplex(self) -> None:
        """A duplex peer that answers stays."""
        sink = self.world.connect()
        at = self.beats(sink, 200)
        self.assertEqual(len(at), 6)
        self.assertTrue(all(29 <= later - earlier <= 31 for earlier, later in zip(at, at[1:], strict=False)))
        self.assertIsNone(sink.finished)

    def test_spread(self) -> None:
        """The first heartbeat comes by chance earlier, so that those who came together do not beat together."""
        firsts = []
        for chance in (0.0, 0.5, 0.999):
            self.world.chance = chance
            firsts.append(self.beats(self.world.connect(), 31)[0])
        self.assertEqual(firsts, [30, 23, 16])

    def test_spread_of_streams(self) -> None:
        """So do those of streams."""
        self.world.chance = 0.5
        self.assertEqual(self.beats(self.world.connect(SSE, transport="sse"), 31), [23])

    def test_first_beat(self) -> None:
        """Whoever has chance in its interval already, as a poll, says when its first one is."""
        self.world.chance = 0.5
        sink = self.world.connect(SSE, transport="sse", opened=False)
        sink.connection.opened(12.0)
        self.assertEqual(self.beats(sink, 40), [12])

    def test_dead_peer(self) -> None:
        """A duplex peer that was silent for an interval and the grace is closed with 4001, and not before."""
        sink = self.world.connect()
        at = self.beats(sink, 40, answer=False)
        self.assertIsNone(sink.finished)
        self.beats(sink, 1)
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4001, "no_heartbeat"))
        self.assertEqual(len(at), 1)

    def test_dead_after_a_while(self) -> None:
        """One that answered for long and then dies is found as soon."""
        sink = self.world.connect()
        self.beats(sink, 150)
        silent = 0
        while sink.finished is None:
            self.world.wait(1)
            silent += 1
        self.assertLessEqual(silent, 41)
        self.assertGreaterEqual(silent, 10)

    def test_anything_counts(self) -> None:
        """Whatever the peer sends counts, not only its pong."""
        sink = self.world.connect()
        for _ in range(40):
            self.world.wait(5)
            sink.connection.heard()
        self.assertIsNone(sink.finished)

    def test_reader_that_does_not_read(self) -> None:
        """One whose buffer stays full for a whole interval is a slow reader, and gets no heartbeats meanwhile."""
        sink = self.world.connect(SSE, transport="sse")
        sink.connection.pauseProducing()
        self.assertEqual(self.beats(sink, 59), [])
        self.assertIsNone(sink.finished)
        self.beats(sink, 3)
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4000, "slow_reader"))

    def test_reader_that_reads_now_and_then(self) -> None:
        """One that reads in time stays, and has its heartbeats again."""
        for transport in ("sse", "websocket"):
            sink = self.world.connect(transport=transport)
            for _ in range(4):
                sink.connection.pauseProducing()
                self.beats(sink, 25)
                sink.connection.resumeProducing()
                if transport == "websocket":
                    sink.connection.heard()
                self.beats(sink, 4)
            self.assertIsNone(sink.finished, transport)
            self.assertGreaterEqual(len(self.beats(sink, 100)), 3)

    def test_duplex_reader_that_does_not_read(self) -> None:
        """A duplex peer that is asked, and then does not read, cannot be heard: it is a slow reader, not dead."""
        sink = self.world.connect()
        self.beats(sink, 31, answer=False)
        sink.connection.pauseProducing()
        self.beats(sink, 11, answer=False)
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4000, "slow_reader"))

    def test_closing_takes_too_long(self) -> None:
        """A peer that does not finish the closing handshake is aborted."""
        sink = self.world.connect()
        sink.connection.closing()
        self.world.wait(4.9)
        self.assertFalse(sink.aborted)
        self.world.wait(0.3)
        self.assertTrue(sink.aborted)
        sink.connection.lost()

    def test_closing_in_time(self) -> None:
        """One that does is not."""
        sink = self.world.connect()
        sink.connection.closing()
        self.world.wait(1)
        sink.connection.lost()
        self.world.wait(60)
        self.assertFalse(sink.aborted)

    def test_faults_stay_apart(self) -> None:
        """A heartbeat that raises ends that connection, and the others get theirs."""
        sinks = [self.world.connect(SSE, transport="sse") for _ in range(3)]
        sinks[0].broken = ZeroDivisionError("broken")
        self.world.wait(31)
        self.assertEqual([sink.heartbeats for sink in sinks], [0, 1, 1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_short_interval(self) -> None:
        """A grace that is longer than the interval is cut to it."""
        self.world = World(heartbeat=5.0, heartbeat_grace=10.0)
        sink = self.world.connect()
        self.assertGreaterEqual(len(self.beats(sink, 50)), 8)
        self.assertIsNone(sink.finished)
        self.beats(sink, 11, answer=False)
        self.assertIsNotNone(sink.finished)


class QueueTests(SynchronousTestCase):
    """What waits for a slow transport."""

    def setUp(self) -> None:
        """Have a connection whose queue takes 100 bytes."""
        self.world = World(limits=Limits(queue_bytes=100))
        self.sink = self.world.connect()
        self.connection = self.sink.connection

    def test_producer(self) -> None:
        """A connection is the producer of its transport."""
        verifyObject(IPushProducer, self.connection)

    def test_in_order(self) -> None:
        """What waits goes out in order, before what comes later."""
        self.connection.deliver(b"1")
        self.connection.pauseProducing()
        for data in (b"2", b"3"):
            self.assertTrue(self.connection.deliver(data))
        self.assertEqual(self.sink.written, [b"1"])
        self.assertEqual(self.connection.queued, 2)
        self.connection.resumeProducing()
        self.connection.deliver(b"4")
        self.assertEqual(self.sink.written, [b"1", b"2", b"3", b"4"])
        self.assertEqual(self.connection.queued, 0)

    def test_full(self) -> None:
        """What is over the bound is refused whole."""
        self.connection.pauseProducing()
        self.assertTrue(self.connection.deliver(b"x" * 60))
        self.assertFalse(self.connection.deliver(b"y" * 60))
        self.assertTrue(self.connection.deliver(b"z" * 40))
        self.connection.resumeProducing()
        self.assertEqual(self.sink.data, b"x" * 60 + b"z" * 40)

    def test_full_again_while_writing(self) -> None:
        """If the transport is full again before all is written, the rest waits on, in order."""
        self.connection.pauseProducing()
        for number in range(9):
            self.connection.deliver(b"%d" % number * 10)
        self.sink.room = 25
        self.sink.drain()
        self.assertTrue(self.connection.paused)
        self.assertEqual(len(self.sink.written), 3)
        self.assertFalse(self.sink.reading)
        self.connection.deliver(b"9" * 10)
        while self.connection.paused:
            self.sink.drain()
        self.assertEqual(self.sink.data, b"".join(b"%d" % number * 10 for number in range(10)))
        self.assertTrue(self.sink.reading)

    def test_reading_is_paused(self) -> None:
        """A client that does not read its answers is not read either, until it does, or is to close."""
        for end in (self.connection.resumeProducing, self.connection.closing):
            self.connection.pauseProducing()
            self.assertFalse(self.sink.reading)
            self.connection.pauseProducing()
            end()
            self.assertTrue(self.sink.reading)

    def test_too_many_commands(self) -> None:
        """A client with too many commands under way is not read until some are done, and the peer reads its answers."""
        commands: list[Deferred[None]] = [Deferred() for _ in range(_MAX_COMMANDS + 1)]
        for command in commands[:-1]:
            self.assertTrue(self.sink.reading)
            self.connection.doing(command)
        self.assertFalse(self.sink.reading)
        self.connection.doing(commands[-1])
        commands[0].callback(None)
        self.assertFalse(self.sink.reading)
        self.connection.pauseProducing()
        commands[1].callback(None)
        self.assertFalse(self.sink.reading)
        self.connection.resumeProducing()
        self.assertTrue(self.sink.reading)
        for command in commands[2:]:
            command.callback(None)
            self.assertTrue(self.sink.reading)

    def test_too_many_commands_for_one_that_does_not_read(self) -> None:
        """When the peer reads again but its commands are still under way, it is read when some are done."""
        commands: list[Deferred[None]] = [Deferred() for _ in range(_MAX_COMMANDS)]
        self.connection.pauseProducing()
        for command in commands:
            self.connection.doing(command)
        self.connection.resumeProducing()
        self.assertFalse(self.sink.reading)
        commands[7].callback(None)
        self.assertTrue(self.sink.reading)

    def test_closing_with_too_many_commands(self) -> None:
        """One that is to close is read, for its answer to that; the end of its commands changes nothing any more."""
        commands: list[Deferred[None]] = [Deferred() for _ in range(_MAX_COMMANDS)]
        for command in commands:
            self.connection.doing(command)
        self.connection.disconnect(Disconnect.RECONNECT)
        self.assertTrue(self.sink.reading)
        self.sink.reading = False
        commands[0].callback(None)
        self.connection.lost()
        commands[1].callback(None)
        self.assertFalse(self.sink.reading)

    def test_end_of_the_queue(self) -> None:
        """When the connection closes, what waits is dropped, and nothing is written after the farewell."""
        self.connection.pauseProducing()
        self.connection.deliver(b"x")
        self.connection.disconnect(Disconnect.RECONNECT)
        self.connection.resumeProducing()
        self.connection.pauseProducing()
        self.connection.stopProducing()
        self.assertEqual(self.sink.written, [])
        self.assertFalse(self.connection.paused)

    def test_resume_without_pause(self) -> None:
        """A transport may say at any time that it has room."""
        self.connection.resumeProducing()
        self.connection.deliver(b"x")
        self.assertEqual(self.sink.written, [b"x"])

    def test_push_without_room(self) -> None:
        """A client that has no room for what it must know is disconnected as a slow reader."""
        self.connection.pauseProducing()
        self.connection.deliver(b"x" * 100)
        self.connection.push(Subscribed("a:x", Position("e1", 1), True))
        assert self.sink.finished is not None
        self.assertEqual(self.sink.finished[1], 4000)

    def test_push_in_forms_without_room(self) -> None:
        """Raw frames have no room for pushes: some end the connection, others are nothing to such a client."""
        sink = self.world.connect(RawForm())
        sink.connection.push(Subscribed("a:x", Position("e1", 1), True))
        self.assertEqual((sink.written, sink.finished), ([], None))
        for push, expected in (
            (GapPush("a:x", Position("e1", 7), Gap.HISTORY_LOST), (b"", 4002, "e1:7")),
            (Unsubscribed("a:x", 4501, "enough"), (b"", 4501, "enough")),
        ):
            sink = self.world.connect(RawForm())
            sink.connection.push(push)
            self.assertEqual(sink.finished, expected)


class PresenceTests(SynchronousTestCase):
    """Who is in a channel."""

    def setUp(self) -> None:
        """Have a world whose broker knows presence."""
        self.world = World(broker=PresenceBroker)
        self.broker = self.world.broker
        assert isinstance(self.broker, PresenceBroker)

    def present(self, channel: str = "here:x") -> list[str]:
        """Return the ids of who is there."""
        return list(self.broker.present.get(channel, {}))

    def test_join_and_leave(self) -> None:
        """A connection is there from when it is subscribed until it unsubscribes or is gone."""
        ids = []
        for end in ("unsubscribe", "end", "lost", "disconnect"):
            sink = self.world.connect()
            sink.connection.info = b'{"name":"Ann"}'
            self.world.follow(sink, "here:x")
            self.world.settle()
            ids.append(sink.connection.id)
            self.assertEqual(self.present(), [sink.connection.id])
            self.assertEqual(
                self.broker.present["here:x"][sink.connection.id],
                PresenceEntry(sink.connection.id, "websocket", b'{"name":"Ann"}'),
            )
            match end:
                case "unsubscribe":
                    sink.connection.unsubscribe("here:x")
                case "end":
                    sink.connection.end_subscription("here:x", "enough")
                case "lost":
                    sink.connection.lost()
                case "disconnect":
                    sink.connection.disconnect(Disconnect.DISCONNECTED)
            self.world.settle()
            self.assertEqual(self.present(), [])

    def test_only_where_it_is_on(self) -> None:
        """A namespace without presence asks nothing of the broker."""
        sink = self.world.connect()
        self.world.follow(sink, "a:x")
        self.world.settle()
        sink.connection.unsubscribe("a:x")
        self.assertEqual([call.name for call in self.broker.calls], ["unsubscribe"])
        self.assertEqual(self.present("a:x"), [])

    def test_not_before_the_answer(self) -> None:
        """Whoever could not subscribe, or was gone before, never was there."""
        sink = self.world.connect()
        self.world.follow(sink, "here:x", Position("other", 1))
        self.broker.answer(1)
        self.broker.fail(self.broker.calls[0])
        gone = self.world.connect()
        self.world.follow(gone, "here:x")
        gone.connection.lost()
        joins = [call for call in self.broker.calls if call.name == "join"]
        self.world.settle()
        self.assertEqual((joins, self.present()), ([], []))

    def test_others_hear(self) -> None:
        """The others in the channel hear who came and went; the one itself does not."""
        sinks = [self.world.connect() for _ in range(2)]
        stream = self.world.connect(SSE_ENVELOPE, transport="sse")
        bare = self.world.connect(SSE, transport="sse")
        raw = self.world.connect(RawForm())
        everyone = [*sinks, stream, bare, raw]
        for sink in everyone:
            self.world.follow(sink, "here:x")
            self.world.settle()
        newcomer = self.world.connect()
        newcomer.connection.info = b"7"
        for sink in everyone:
            sink.written.clear()
        self.world.follow(newcomer, "here:x")
        self.world.settle()
        newcomer.connection.unsubscribe("here:x")
        self.world.settle()
        entry = {"channel": "here:x", "connection": newcomer.connection.id, "transport": "websocket", "info": 7}
        for sink in sinks:
            self.assertEqual(frames(sink), [{"join": entry}, {"leave": entry}])
        self.assertEqual(
            [(name, json.loads(data)) for name, data, _ in events(stream)], [("join", entry), ("leave", entry)]
        )
        self.assertEqual((bare.written, raw.written), ([], []))
        self.assertEqual([next(iter(frame)) for frame in frames(newcomer)], ["subscribed"])

    def test_no_announcements(self) -> None:
        """Where joins and leaves are not told, nobody hears, though all are listed."""
        sinks = [self.world.connect() for _ in range(2)]
        for sink in sinks:
            self.world.follow(sink, "quiet:x")
            self.world.settle()
        self.assertEqual(len(self.present("quiet:x")), 2)
        self.assertEqual(pushed(sinks[0], "join"), [])

    def test_polls_are_not_announced(self) -> None:
        """Polls come and go all the time: nobody is told, though they are listed."""
        sink = self.world.connect()
        self.world.follow(sink, "here:x")
        self.world.settle()
        for transport in ("longpoll", "shortpoll"):
            poll = self.world.connect(POLL, transport=transport)
            poll.connection.subscribe("here:x", Since.NOW)
            self.world.settle()
            self.assertIn(poll.connection.id, self.present())
            poll.connection.lost()
            self.world.settle()
        self.assertEqual([next(iter(frame)) for frame in frames(sink)], ["subscribed"])

    def test_encoded_once(self) -> None:
        """A join is encoded once for all that have the same form."""
        sinks = [self.world.connect() for _ in range(5)]
        for sink in sinks:
            self.world.follow(sink, "here:x")
            self.world.settle()
        self.world.follow(self.world.connect(), "here:x")
        self.world.settle()
        self.assertEqual(len({id(sink.written[-1]) for sink in sinks}), 1)

    def test_together(self) -> None:
        """Those who come and go in one turn are told in one write, in order, each of all but itself."""
        watcher, bare = self.world.connect(), self.world.connect(SSE, transport="sse")
        for sink in (watcher, bare):
            self.world.follow(sink, "here:x")
            self.world.settle()
        watcher.written.clear()
        bare.written.clear()
        self.broker.is_near = True
        sinks = [self.world.connect() for _ in range(4)]
        for sink in sinks:
            self.world.follow(sink, "here:x")
        sinks[1].connection.unsubscribe("here:x")
        ids = [sink.connection.id for sink in sinks]
        self.assertEqual(watcher.written, [])
        self.world.turn()
        self.assertEqual(len(watcher.written), 1)
        told = [(name, entry["connection"]) for frame in frames(watcher) for name, entry in frame.items()]
        everything = [*(("join", id_) for id_ in ids), ("leave", ids[1])]
        self.assertEqual(told, everything)
        for sink in (sinks[0], sinks[3]):
            told = [(name, each["connection"]) for frame in frames(sink)[1:] for name, each in frame.items()]
            self.assertEqual(told, [one for one in everything if one[1] != sink.connection.id])
        self.assertEqual(([next(iter(frame)) for frame in frames(sinks[1])], bare.written), (["subscribed"], []))

    def test_last_one_out(self) -> None:
        """If nobody follows the channel any more when the turn ends, nobody is told."""
        self.broker.is_near = True
        sink = self.world.connect()
        self.world.follow(sink, "here:x")
        sink.connection.unsubscribe("here:x")
        self.world.turn()
        self.assertEqual([next(iter(frame)) for frame in frames(sink)], ["subscribed"])

    def test_slow_reader_is_not_told(self) -> None:
        """One that has no room is not told who comes and goes, and stays."""
        self.world = World(broker=PresenceBroker, limits=Limits(queue_bytes=10))
        slow = self.world.connect()
        self.world.follow(slow, "here:x")
        self.world.settle()
        slow.connection.pauseProducing()
        slow.connection.deliver(b"x" * 10)
        self.world.follow(self.world.connect(), "here:x")
        self.world.settle()
        self.assertIs(slow.connection.state, State.OPEN)
        self.assertEqual(slow.connection.queued, 10)

    def test_faults_stay_apart(self) -> None:
        """One whose sink raises does not keep the others from hearing."""
        sinks = [self.world.connect() for _ in range(3)]
        for sink in sinks:
            self.world.follow(sink, "here:x")
            self.world.settle()
        for sink in sinks:
            sink.written.clear()
        sinks[0].broken = ZeroDivisionError("broken")
        self.world.follow(self.world.connect(), "here:x")
        self.world.settle()
        self.assertEqual([len(pushed(sink, "join")) for sink in sinks], [0, 1, 1])
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_unknown_channel(self) -> None:
        """What is heard of a channel that nobody here follows is for nobody."""
        self.world.node.joined("here:z", PresenceEntry("c1", "sse"))
        self.world.node.left("here:z", PresenceEntry("c1", "sse"))
        self.assertEqual(self.world.node.channels, {})

    def test_broker_away(self) -> None:
        """A presence that cannot be told is no fault of the connection; an error of another kind is in the log."""
        for kind, logged in ((ErrorCode.UNAVAILABLE, 0), (None, 1)):
            sink = self.world.connect()
            self.world.follow(sink, "here:x")
            self.broker.answer(1)
            (join,) = self.broker.calls
            self.broker.calls.remove(join)
            if kind is None:
                join.answer.errback(ZeroDivisionError("broken"))
            else:
                join.fail(kind)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), logged)
            self.assertIs(sink.connection.state, State.OPEN)
            sink.connection.lost()
            self.world.settle()
