"""Tests of rtpush.registry.node: what is asked of a node, and its beginning and end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import rtpush
from rtpush.errors import ErrorCode, RtpushError
from rtpush.interfaces import IBrokerReceiver, IHealthCheck, IReconfigurable
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Access, Namespace, SlowReader
from rtpush.protocol.commands import HistoryQuery, Publication
from rtpush.protocol.limits import Limits
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.registry.subscription import Since
from tests.registry.fakes import NAMESPACES, FakeBroker, PresenceBroker, World, payload, pushed


@implementer(IHealthCheck)
class SickBroker(FakeBroker):
    """A broker that is not well."""

    def problem(self) -> str | None:
        """Say so."""
        return "the broker is away"


class AskTests(SynchronousTestCase):
    """What clients and backends ask for."""

    def setUp(self) -> None:
        """Have a broker that answers at once."""
        self.world = World(broker=PresenceBroker, limits=Limits(message_bytes=10))
        self.broker = self.world.broker
        self.broker.is_near = True
        self.node = self.world.node

    def test_receiver(self) -> None:
        """A node is what brokers deliver to."""
        verifyObject(IBrokerReceiver, self.node)

    def test_publish(self) -> None:
        """Clients may publish where the namespace lets them, backends everywhere."""
        for channel, access in (("a:x", Access.ANYONE), ("a:x", Access.SERVER), ("short:x", Access.SERVER)):
            self.successResultOf(self.node.publish(Publication(channel, payload(7)), access))
        self.assertEqual(self.broker.top("a:x").offset, 2)
        for channel, access, kind in (
            ("short:x", Access.ANYONE, ErrorCode.PERMISSION_DENIED),
            ("nobody:x", Access.SERVER, ErrorCode.UNKNOWN_CHANNEL),
            ("a x", Access.SERVER, ErrorCode.BAD_CHANNEL),
        ):
            published = self.node.publish(Publication(channel, payload(7)), access)
            self.assertIs(self.failureResultOf(published, RtpushError).value.kind, kind)

    def test_message_too_large(self) -> None:
        """A payload may have as many bytes as the limit, and no more."""
        position = self.successResultOf(self.node.publish(Publication("a:x", payload(10**9)), Access.ANYONE))
        self.assertEqual(position, self.broker.top("a:x"))
        published = self.node.publish(Publication("a:x", Payload(b"x" * 11, Kind.TEXT)), Access.SERVER)
        error = self.failureResultOf(published, RtpushError).value
        self.assertIs(error.kind, ErrorCode.MESSAGE_TOO_LARGE)
        self.assertIn("11 bytes", error.message)

    def test_history(self) -> None:
        """History is read forward or backward, from a position or an end."""
        self.broker.emit("a:x", 1, 2, 3)
        for query, expected in (
            (HistoryQuery(channel="a:x"), [1, 2, 3]),
            (HistoryQuery(channel="a:x", limit=2), [1, 2]),
            (HistoryQuery(channel="a:x", since="e1:2"), [3]),
            (HistoryQuery(channel="a:x", reverse=True, limit=2), [3, 2]),
            (HistoryQuery(channel="a:x", reverse=True, since="e1:2"), [1]),
            (HistoryQuery(channel="a:x", limit=0), []),
        ):
            page = self.successResultOf(self.node.history(query, Access.ANYONE))
            self.assertEqual([int(message.payload.data) for message in page.messages], expected)
            self.assertEqual(page.top, Position("e1", 3))

    def test_history_refused(self) -> None:
        """What is no position, limit or readable channel is refused; a backend may read what clients may not."""
        for query, kind in (
            (HistoryQuery(channel="a:x", since="7"), ErrorCode.BAD_CURSOR),
            (HistoryQuery(channel="a:x", limit=-1), ErrorCode.BAD_REQUEST),
            (HistoryQuery(channel="a:x", limit=10_001), ErrorCode.BAD_REQUEST),
            (HistoryQuery(channel="none:x"), ErrorCode.NOT_AVAILABLE),
            (HistoryQuery(channel="nobody:x"), ErrorCode.UNKNOWN_CHANNEL),
            (HistoryQuery(channel="closed:x"), ErrorCode.PERMISSION_DENIED),
        ):
            failure = self.failureResultOf(self.node.history(query, Access.ANYONE), RtpushError)
            self.assertIs(failure.value.kind, kind)
        self.successResultOf(self.node.history(HistoryQuery(channel="closed:x"), Access.SERVER))

    def test_presence(self) -> None:
        """Who is there is told where the namespace has presence, and the broker too."""
        ann = PresenceEntry("c1", "sse")
        self.broker.join("here:x", ann)
        self.assertEqual(self.successResultOf(self.node.presence("here:x", Access.ANYONE)), [ann])
        self.successResultOf(self.node.presence("closed:x", Access.SERVER))
        for channel, kind in (
            ("a:x", ErrorCode.NOT_AVAILABLE),
            ("nobody:x", ErrorCode.UNKNOWN_CHANNEL),
            ("closed:x", ErrorCode.PERMISSION_DENIED),
        ):
            failure = self.failureResultOf(self.node.presence(channel, Access.ANYONE), RtpushError)
            self.assertIs(failure.value.kind, kind)

    def test_broker_without_presence(self) -> None:
        """A broker without presence has none to tell, and is not asked."""
        world = World()
        failure = self.failureResultOf(world.node.presence("here:x", Access.ANYONE), RtpushError)
        self.assertIs(failure.value.kind, ErrorCode.NOT_AVAILABLE)
        sink = world.connect()
        world.follow(sink, "here:x")
        world.settle()
        sink.connection.unsubscribe("here:x")
        self.assertEqual([call.name for call in world.broker.calls], ["unsubscribe"])

    def test_questions(self) -> None:
        """Other nodes are answered by what was set for it; before that, and if it raises, there is no answer."""
        failure = self.failureResultOf(self.node.asked(b"what"), RtpushError)
        self.assertIs(failure.value.kind, ErrorCode.NOT_AVAILABLE)
        self.node.answering = lambda question: succeed(question[::-1])
        self.assertEqual(self.successResultOf(self.node.asked(b"what")), b"tahw")
        self.node.answering = lambda question: succeed(b"%d" % question[1])
        self.failureResultOf(self.node.asked(b""), IndexError)

    def test_status(self) -> None:
        """What the others are to know is there as JSON, and counts what there is."""
        sinks = [self.world.connect(transport=transport) for transport in ("websocket", "sse", "sse")]
        self.world.follow(sinks[0], "a:x")
        self.world.clock.advance(2.5)
        sinks[1].connection.lost()
        sinks[1].connection.lost()
        status = json.loads(self.node.status())
        self.assertEqual(
            {name: status[name] for name in ("node", "uptime", "leaving", "connections", "transports", "channels")},
            {
                "node": "n1",
                "uptime": 2.5,
                "leaving": False,
                "connections": 2,
                "transports": {"websocket": 1, "sse": 1},
                "channels": 1,
            },
        )
        self.assertEqual((status["version"], status["pid"]), (rtpush.__version__, os.getpid()))

    def test_retry_after(self) -> None:
        """Those who are refused come back after whole seconds that chance spreads."""
        found = set()
        for chance in range(100):
            self.world.chance = chance / 100
            found.add(self.node.retry_after())
        self.assertEqual(found, {1, 2, 3, 4, 5})

    def test_admission(self) -> None:
        """So many clients are let in at once and then a second; the others are told when it is their turn."""
        self.world = World(limits=Limits(connect_rate=10, connect_burst=20))
        self.node = self.world.node

        def come(count: int) -> list[int]:
            afters = []
            for _ in range(count):
                try:
                    self.node.admit()
                except RtpushError as error:
                    self.assertIs(error.kind, ErrorCode.UNAVAILABLE)
                    afters.append(self.node.retry_after())
            return afters

        self.assertEqual(come(20), [])
        afters = come(300)
        self.assertEqual(afters, [1 + number // 10 for number in range(1, 301)])
        self.assertEqual(self.node.counts.turned_away, 300)
        self.world.clock.advance(2)
        self.assertEqual(len(come(30)), 10)
        # Whose turn is very late comes back before it, by chance, and is told again.
        come(1000)
        self.world.chance = 0.5
        self.assertEqual(come(1), [31])

    def test_admission_is_changed(self) -> None:
        """Other limits hold at once."""
        node = self.node
        node.reconfigure(
            NAMESPACES,
            limits=Limits(connect_rate=1, connect_burst=2),
            backoff=Backoff(),
            heartbeat=30,
            heartbeat_grace=10,
        )
        node.admit()
        node.admit()
        self.assertRaises(RtpushError, node.admit)

    def test_message_for_nobody(self) -> None:
        """A message of a channel that nobody here follows is for nobody."""
        self.node.received(Message("a:z", payload(7), None, Position("e1", 1)))
        self.assertEqual(self.node.channels, {})


class LifeTests(SynchronousTestCase):
    """The beginning and end of a node."""

    def test_health(self) -> None:
        """A node is well if its broker is, or does not say, and while it does not leave."""
        world = World()
        self.assertIsNone(world.node.problem())
        world.node.leave_all()
        self.assertEqual(world.node.problem(), "this node is leaving")
        self.assertEqual(World(broker=SickBroker).node.problem(), "the broker is away")

    def test_leave_all(self) -> None:
        """Everyone is told to come back after a time of its own, and one that cannot be told is no hindrance."""
        world = World()
        sinks = [world.connect() for _ in range(3)]
        closing = world.connect()
        closing.connection.closing()
        sinks[1].broken = ZeroDivisionError("broken")
        chances = iter([0.0, 0.5, 0.75])
        world.node.chance = lambda: next(chances, 0.0)
        world.node.leave_all()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(closing.finished)
        afters = []
        for sink in (sinks[0], sinks[2]):
            assert sink.finished is not None
            self.assertEqual(sink.finished[1], 1012)
            sink.written = [sink.finished[0]]
            (told,) = pushed(sink, "disconnect")
            self.assertTrue(told["reconnect"])
            afters.append(told["after"])
        self.assertEqual(afters, [1.0, 2.5])

    def test_stop(self) -> None:
        """A node that stops aborts whoever is left, one that cannot be too, and its broker and timers stop."""
        world = World()
        sinks = [world.connect() for _ in range(3)]
        for sink in sinks:
            sink.ends_at_once = True
            world.follow(sink, "a:x")
        world.settle()
        sinks[0].broken = ZeroDivisionError("broken")
        self.successResultOf(world.node.stop())
        self.assertEqual([sink.aborted for sink in sinks], [False, True, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(world.broker.is_running)
        self.assertEqual(world.clock.getDelayedCalls(), [])
        sinks[0].broken = None
        self.successResultOf(world.node.stop())
        self.assertEqual(world.node.connections, {})

    def test_nothing_is_held(self) -> None:
        """When all connections are gone, the node holds nothing of them."""
        world = World(broker=PresenceBroker)
        for transport in ("websocket", "sse"):
            for number in range(10):
                sink = world.connect(transport=transport)
                for channel in ("a:x", f"a:{number}", "here:x"):
                    world.follow(sink, channel, Since.EARLIEST)
        world.settle()
        world.broker.emit("a:x", 1)
        for connection in list(world.node.connections.values()):
            connection.lost()
        world.settle()
        self.assertEqual((world.node.connections, world.node.channels, len(world.node.wheel)), ({}, {}, 0))
        self.assertEqual(world.broker.subscribed, set())

    def test_unsubscribe_fails(self) -> None:
        """A broker that cannot be told that a channel is not wanted any more is no fault of anyone."""
        world = World()
        for failure, logged in ((RtpushError(ErrorCode.UNAVAILABLE, "away"), 0), (ZeroDivisionError("broken"), 1)):
            sink = world.connect()
            world.follow(sink, "a:x")
            world.settle()
            sink.connection.lost()
            (call,) = world.broker.calls
            world.broker.calls.clear()
            call.answer.errback(failure)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), logged)

    def _reconfigure(self, world: World, namespaces: list[Namespace], **settings: Any) -> None:
        settings = {"limits": Limits(), "backoff": Backoff(), "heartbeat": 30.0, "heartbeat_grace": 10.0, **settings}
        world.node.reconfigure(namespaces, **settings)

    def test_reconfigure(self) -> None:
        """Other settings count at once, for channels that are there too; nobody is dropped for it."""
        world = World()
        sink = world.connect()
        world.follow(sink, "a:x")
        world.follow(sink, "short:x")
        world.settle()
        strict = Namespace(name="a", slow_reader=SlowReader.DISCONNECT)
        limits, backoff = Limits(message_bytes=1), Backoff(3, 4, 5)
        self._reconfigure(
            world, [strict], limits=limits, backoff=backoff, heartbeat=20.0, heartbeat_grace=60.0
        )
        self.assertIs(world.node.channels["a:x"].namespace, strict)
        self.assertEqual(world.node.channels["short:x"].namespace.name, "short")
        self.assertIs(world.node.limits, limits)
        self.assertIs(world.node.backoff, backoff)
        self.assertEqual((world.node.heartbeat, world.node.heartbeat_grace), (20.0, 20.0))
        self.assertIsNone(sink.finished)
        self.failureResultOf(world.node.publish(Publication("short:x", payload(1)), Access.SERVER), RtpushError)

    def test_presence_is_changed(self) -> None:
        """Who is in a channel is listed from when its namespace says so, and no more when it does not."""
        world = World(broker=PresenceBroker)
        for name in ("here:x", "a:x"):
            world.follow(world.connect(), name)
        world.settle()
        broker: Any = world.broker
        self.assertEqual({name for name, present in broker.present.items() if present}, {"here:x"})
        self._reconfigure(world, [Namespace(name="here"), Namespace(name="a", presence=True)])
        world.settle()
        self.assertEqual({name for name, present in broker.present.items() if present}, {"a:x"})

    def test_broker_is_told(self) -> None:
        """A broker that wants to hears of it."""
        told: list[object] = []

        @implementer(IReconfigurable)
        class Curious(FakeBroker):
            def reconfigured(self, namespaces: Sequence[Namespace], message_bytes: int) -> None:
                told.append((namespaces, message_bytes))

        self._reconfigure(World(broker=Curious), NAMESPACES, limits=Limits(message_bytes=7))
        self.assertEqual(told, [(NAMESPACES, 7)])
