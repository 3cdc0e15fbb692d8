"""Tests of rtpush.registry.counts, and of what a node counts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import Disconnect, ErrorCode
from rtpush.protocol.channel import Access
from rtpush.protocol.commands import Publication
from rtpush.protocol.forms import SSE
from rtpush.protocol.limits import Limits
from rtpush.protocol.position import Position
from rtpush.registry.counts import BOUNDS, Counts, Each, Histogram
from tests.registry.fakes import FakeSink, World, payload


class HistogramTests(SynchronousTestCase):
    """Durations, sorted."""

    def test_bounds(self) -> None:
        """A duration is in the first bucket whose bound it does not pass; what is longer than all is in the last."""
        histogram = Histogram()
        for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] + 1):
            histogram.observe(seconds)
        self.assertEqual(histogram.buckets, [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1])
        self.assertAlmostEqual(histogram.sum, 2.01 * BOUNDS[0] + 2 * BOUNDS[-1] + 1)


class CountsTests(SynchronousTestCase):
    """The numbers themselves."""

    def test_each(self) -> None:
        """What is asked for is there, and stays."""
        each = Each(int)
        each["a"] += 2
        self.assertEqual(each["b"], 0)
        self.assertEqual(dict(each), {"a": 2, "b": 0})

    def test_delivered(self) -> None:
        """What goes out together is counted for each connection, in the transport and in the namespace."""
        counts = Counts()
        counts.delivered("demo", "sse", 3, 100, 10)
        counts.delivered("demo", "websocket", 1, 50)
        sse = counts.transports["sse"]
        self.assertEqual((sse.delivered, sse.delivered_bytes), (30, 1000))
        self.assertEqual(counts.namespaces["demo"].delivered, 31)

    def test_names(self) -> None:
        """Errors and reasons are counted by the names that they have on the wire."""
        counts = Counts()
        counts.refused(ErrorCode.BAD_CURSOR)
        counts.disconnected(Disconnect.NO_HEARTBEAT)
        self.assertEqual((counts.refusals, counts.disconnects), ({"bad_cursor": 1}, {"no_heartbeat": 1}))


class NodeTests(SynchronousTestCase):
    """What a node counts as things happen."""

    def setUp(self) -> None:
        self.world = World()
        self.counts = self.world.node.counts

    def _publish(self, channel: str, *numbers: int) -> None:
        for number in numbers:
            self.world.node.publish(Publication(channel, payload(number)), Access.SERVER)
        self.world.settle()

    def _follow(self, channel: str, since: Position | None = None) -> FakeSink:
        sink = self.world.connect()
        if since is None:
            self.world.follow(sink, channel)
        else:
            self.world.follow(sink, channel, since)
        self.world.settle()
        return sink

    def _states(self) -> tuple[int, int, int]:
        counts = self.counts.transports["websocket"]
        return counts.connecting, counts.open, counts.closing

    def test_states(self) -> None:
        """A connection is counted in the state that it is in, and in none when it is gone."""
        sink = self.world.connect(opened=False)
        self.assertEqual(self._states(), (1, 0, 0))
        sink.connection.opened()
        self.assertEqual(self._states(), (0, 1, 0))
        sink.ends_at_once = False
        sink.connection.disconnect(Disconnect.RECONNECT)
        self.assertEqual(self._states(), (0, 0, 1))
        sink.connection.lost()
        sink.connection.lost()
        self.assertEqual(self._states(), (0, 0, 0))
        self.world.connect(opened=False).connection.lost()
        self.world.connect().connection.lost()
        self.assertEqual(self._states(), (0, 0, 0))
        self.assertEqual(self.counts.transports["websocket"].accepted, 3)
        self.assertEqual(self.counts.disconnects, {"reconnect": 1})

    def test_messages(self) -> None:
        """What comes in is counted once, and what goes out for each client, with its bytes."""
        sinks = [self._follow("a:1") for _ in range(3)]
        stream = self.world.connect(SSE, transport="sse")
        self.world.follow(stream, "a:1")
        self.world.settle()
        before = len(sinks[0].data)
        self._publish("a:1", 1, 22)
        self.assertEqual(self.counts.published, {"api": 2})
        self.assertEqual(self.counts.received, 2)
        self.assertEqual(self.counts.transports["websocket"].delivered, 6)
        self.assertEqual(self.counts.transports["websocket"].delivered_bytes, 3 * (len(sinks[0].data) - before))
        self.assertEqual(self.counts.transports["sse"].delivered, 2)
        of_namespace = self.counts.namespaces["a"]
        self.assertEqual((of_namespace.published, of_namespace.published_bytes, of_namespace.delivered), (2, 3, 8))

    def test_what_is_not_allowed(self) -> None:
        """A message that is refused is none that was published."""
        refused = self.world.node.publish(Publication("none:1", payload(1)), Access.ANYONE, "emit")
        self.failureResultOf(refused)
        self.assertEqual(self.counts.published, {})

    def test_fanout(self) -> None:
        """The time until all have a message is taken once, however many they are."""
        for _ in range(5):
            self._follow("a:1")
        self.world.node.publish(Publication("a:1", payload(1)), Access.SERVER)
        self.world.broker.answer(100)
        self.world.broker.deliver()
        self.assertEqual(sum(self.counts.fanout.buckets), 0)
        self.world.clock.advance(0.3)
        self.assertEqual(sum(self.counts.fanout.buckets), 1)
        self.assertAlmostEqual(self.counts.fanout.sum, 0.3)

    def test_recoveries(self) -> None:
        """Who comes back with a position is counted, by whether history had what was missed; who is new is not."""
        self._follow("short:1")
        self._publish("short:1", *range(6))
        top = self.world.node.channels["short:1"].position
        self._follow("short:1", Position(top.epoch, top.offset - 2))
        self._follow("short:1", top)
        self._follow("short:1", Position(top.epoch, 1))
        counts = self.counts.transports["websocket"]
        self.assertEqual((counts.recovered, counts.gaps), (2, 1))

    def test_slow_readers(self) -> None:
        """A reader whose queue is full is counted by what is done about it; what it was not given is not delivered."""
        world = World(limits=Limits(queue_bytes=10))
        counts = world.node.counts
        for channel in ("a:1", "strict:1"):
            sink = world.connect()
            world.follow(sink, channel)
            world.settle()
            sink.connection.pauseProducing()
            self.assertEqual(list(world.node.paused), [sink.connection])
            for number in (1, 2):
                world.node.publish(Publication(channel, payload(number)), Access.SERVER)
                world.settle()
            sink.connection.disconnect(Disconnect.RECONNECT)
            self.assertEqual(list(world.node.paused), [])
        self.assertEqual(counts.slow_readers, {"recover": 1, "disconnect": 1})
        self.assertEqual(counts.transports["websocket"].delivered, 2)

    def test_lag(self) -> None:
        """How late the node's timer is, is counted each time that it comes."""
        world = World()
        world.wait(1)
        histogram = world.node.counts.lag
        self.assertEqual(sum(histogram.buckets), 10)
        before = histogram.sum
        world.clock.advance(0.75)
        self.assertAlmostEqual(histogram.sum - before, 0.65, 1)
        before = histogram.sum
        world.wait(1)
        self.assertLess(histogram.sum - before, 0.6)
