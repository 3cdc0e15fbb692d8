"""Tests of rtpush.registry.reading: reads of history that are shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.limits import Limits
from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Gap, Page
from rtpush.registry import reading as reading_module
from rtpush.registry.channel import Channel
from rtpush.registry.reading import SharedReads
from rtpush.registry.subscription import Since, Stage
from tests.registry.fakes import FakeSink, World, got, payload, pushed

#: How many come back in a storm.
CROWD = 2000


class StormTests(SynchronousTestCase):
    """Very many come back to one channel at once."""

    def setUp(self) -> None:
        """Have a channel with a past, which a client follows."""
        self.reads: list[tuple[Position | None, int]] = []
        self.begin(World())

    def begin(self, world: World, channel: str = "a:x", past: int = 100) -> None:
        """Use another world."""
        self.world, self.broker, self.channel = world, world.broker, channel
        read = self.broker.history
        del self.reads[:]

        def history(channel: str, since: Position | None, limit: int) -> Deferred[Page]:
            self.reads.append((since, limit))
            return read(channel, since, limit)

        self.patch(self.broker, "history", history)
        self.broker.emit(channel, *range(1, past + 1))
        self.first = world.connect()
        world.follow(self.first, channel)
        world.settle()
        self.epoch = self.broker.top(channel).epoch

    def come(self, places: Callable[[int], int], count: int = CROWD) -> list[tuple[int, FakeSink]]:
        """Have clients come back, each from its place; return them with these."""
        crowd = []
        for number in range(count):
            place, sink = places(number), self.world.connect()
            self.world.follow(sink, self.channel, Position(self.epoch, place))
            crowd.append((place, sink))
        return crowd

    def check(self, crowd: list[tuple[int, FakeSink]], end: int) -> None:
        """See that each has exactly what it missed, in order, and is live."""
        for place, sink in crowd:
            self.assertEqual(got(sink), list(range(place + 1, end + 1)), place)
            self.assertEqual(pushed(sink, "gap"), [])
            self.assertIs(sink.connection.subscriptions[self.channel].stage, Stage.LIVE)

    def test_together(self) -> None:
        """Those who come while history is read are all served by the next read, from the oldest of their positions."""
        crowd = self.come(lambda number: 100 - number * 7 % 31)
        self.assertEqual(len(self.broker.calls), 1)
        self.world.settle()
        self.check(crowd, 100)
        self.assertEqual(self.reads, [(Position(self.epoch, 100 - 7), 500), (Position(self.epoch, 70), 500)])

    def test_one_after_the_other(self) -> None:
        """What was read for one is there for those who come soon after it."""
        self.broker.is_near = True
        crowd = self.come(lambda number: 70 + number * 7 % 31)
        self.world.turn()
        self.check(crowd, 100)
        self.assertLessEqual(len(self.reads), 5)

    def test_while_messages_come(self) -> None:
        """So it is while messages come: they are kept with what was read."""
        for near in (False, True):
            self.begin(World())
            self.broker.is_near = near
            crowd = []
            for step in range(50):
                crowd += self.come(lambda number, step=step: 80 + number * 7 % 20 + step, count=20)
                self.broker.emit("a:x", 101 + step)
                self.world.settle()
            self.check(crowd, 150)
            self.assertLess(len(self.reads), 8, near)

    def test_while_messages_are_on_the_way(self) -> None:
        """The read of others may be older than what one has not seen: it waits for the next one."""
        crowd = self.come(lambda number: 90, count=1)
        (call,) = self.broker.calls
        call.do()
        self.broker.emit("a:x", 101, 102)
        self.broker.deliver()
        self.world.turn()
        crowd += self.come(lambda number: 90, count=10)
        self.world.settle()
        self.check(crowd, 102)
        self.assertEqual(len(self.reads), 2)

    def test_far_behind(self) -> None:
        """Those who need several pages share each of them."""
        for near in (False, True):
            self.begin(World(limits=Limits(page_messages=20)))
            self.broker.is_near = near
            crowd = self.come(lambda number: 3 + number * 7 % 50, count=300)
            self.world.settle()
            self.check(crowd, 100)
            self.assertLess(len(self.reads), 20, near)

    def test_lost(self) -> None:
        """If history does not reach back far enough for many, each is told, and they are not asked for one by one."""
        for near in (False, True):
            self.begin(World(), "short:x")
            self.broker.is_near = near
            crowd = self.come(lambda number: 100 - (number * 37) % 100)
            self.world.settle()
            self.assertLess(len(self.reads), 12, near)
            for place, sink in crowd:
                lost = place < 97
                self.assertEqual(got(sink), [] if lost else list(range(place + 1, 101)), place)
                gaps = [(gap["offset"], gap["reason"]) for gap in pushed(sink, "gap")]
                self.assertEqual(gaps, [(100, "history_lost")] if lost else [], place)
                self.assertIs(sink.connection.subscriptions["short:x"].stage, Stage.LIVE)

    def test_nothing_kept(self) -> None:
        """The same where nothing is kept at all."""
        self.begin(World(), "none:x")
        crowd = self.come(lambda number: number % 101)
        self.world.settle()
        self.assertEqual(self.reads, [(Position("e1", 0), 500), (None, 500)])
        for place, sink in crowd:
            self.assertEqual(len(pushed(sink, "gap")), int(place < 100))

    def test_other_epoch(self) -> None:
        """Positions of another epoch, and such as are ahead, are told of in one read."""
        kinds = [Position("old", 5), Position("older", 500), Position(self.epoch, 170), Position(self.epoch, 98)]
        sinks = []
        for number in range(CROWD):
            sink = self.world.connect()
            self.world.follow(sink, "a:x", kinds[number % len(kinds)])
            sinks.append(sink)
        self.world.settle()
        self.assertEqual(len(self.reads), 2)
        for number, sink in enumerate(sinks):
            reasons = [gap["reason"] for gap in pushed(sink, "gap")]
            expected = [["epoch_changed"], ["epoch_changed"], ["position_ahead"], []][number % len(kinds)]
            self.assertEqual(reasons, expected)
            self.assertEqual(got(sink), [99, 100] if number % len(kinds) == 3 else [])

    def test_new_epoch(self) -> None:
        """A node that has not heard of a new epoch serves those of both."""
        self.broker.begin_anew("a:x")
        self.broker.emit("a:x", 1, 2, 3)
        self.broker.on_the_way.clear()
        new = self.broker.top("a:x")
        sinks = []
        for number in range(100):
            sink = self.world.connect()
            self.world.follow(sink, "a:x", [Position(new.epoch, 1), Position(self.epoch, 98)][number % 2])
            sinks.append(sink)
        self.world.settle()
        self.assertLess(len(self.reads), 5)
        self.broker.emit("a:x", 4)
        self.world.settle()
        for number, sink in enumerate(sinks):
            reasons = [gap["reason"] for gap in pushed(sink, "gap")]
            self.assertEqual((got(sink), reasons), [([2, 3, 4], []), ([4], ["epoch_changed"])][number % 2])

    def test_from_the_oldest(self) -> None:
        """New clients that want all there is share a read too, with those who come back."""
        sinks = [self.world.connect() for _ in range(100)]
        for number, sink in enumerate(sinks):
            self.world.follow(sink, "a:x", [Since.EARLIEST, Position(self.epoch, 95)][number % 2])
        self.world.settle()
        self.assertEqual(self.reads, [(None, 500), (None, 500)])
        for number, sink in enumerate(sinks):
            self.assertEqual(got(sink), list(range(1 + number % 2 * 95, 101)))

    def test_broker_away(self) -> None:
        """If history cannot be read, all who wait for that read hear of it, and the next ones try again."""
        results: list[Any] = []
        for number in range(10):
            results.append(self.world.follow(self.world.connect(), "a:x", Position(self.epoch, 90 + number % 5)))
        for failed in (1, 10):
            (call,) = self.broker.calls
            self.broker.fail(call)
            self.assertEqual([len(result) for result in results].count(1), failed)
        self.assertEqual([result[0].value.kind for result in results], [ErrorCode.UNAVAILABLE] * 10)
        crowd = self.come(lambda number: 90, count=3)
        self.world.settle()
        self.check(crowd, 100)

    def test_served_in_parts(self) -> None:
        """So many are served in several turns, in which others have theirs."""
        crowd = self.come(lambda number: 99)
        self.broker.answer(1)
        self.broker.answer(1)
        served = [sum(bool(got(sink)) for _, sink in crowd)]
        self.broker.emit("a:x", 101)
        self.broker.deliver()
        self.world.clock.advance(0)
        self.world.settle()
        self.assertEqual(served, [201])
        self.check(crowd, 101)

    def test_gone_meanwhile(self) -> None:
        """Who is gone before it is served does not keep the others from it."""
        crowd = self.come(lambda number: 95, count=20)
        for _, sink in crowd[::2]:
            sink.connection.lost()
        self.world.settle()
        self.check(crowd[1::2], 100)
        self.assertEqual([got(sink) for _, sink in crowd[::2]], [[]] * 10)


class KeepingTests(SynchronousTestCase):
    """What is kept, and for how long."""

    def setUp(self) -> None:
        """Have a channel with a past that somebody follows."""
        self.world = World(limits=Limits(page_messages=10))
        self.broker = self.world.broker
        self.broker.emit("a:x", *range(1, 101))
        self.sink = self.world.connect()
        self.world.follow(self.sink, "a:x")
        self.world.settle()
        self.channel: Channel = self.world.node.channels["a:x"]

    def read(self, place: int | None) -> Page:
        """Read from a position; return the page."""
        page = self.channel.read(None if place is None else Position("e1", place))
        if isinstance(page, Page):
            return page
        self.world.settle()
        return self.successResultOf(page)

    def asks(self, place: int | None) -> bool:
        """Tell whether the broker is asked for a page, which must be right."""
        position = None if place is None else Position("e1", place)
        page = self.channel.read(position)
        if asked := not isinstance(page, Page):
            self.world.settle()
            page = self.successResultOf(page)
        start = place or 0
        most = min(10, 100 - start)
        numbers = [int(message.payload.data) for message in page.messages]
        self.assertTrue(min(most, 1) <= len(numbers) <= most)
        self.assertEqual(numbers, list(range(start + 1, start + 1 + len(numbers))))
        self.assertEqual((page.top, page.gap), (Position("e1", 100), None))
        return asked

    def test_pages_join(self) -> None:
        """Pages that touch become one run, whichever was read first."""
        for place in (60, 70, 50, 45, 65):
            self.assertEqual(self.asks(place), place != 65, place)
        for place in range(45, 80):
            self.assertFalse(self.asks(place), place)
        self.assertTrue(self.asks(80))

    def test_newer_is_better(self) -> None:
        """Of two that do not touch, the newer one is kept."""
        self.assertTrue(self.asks(80))
        self.assertTrue(self.asks(20))
        self.assertFalse(self.asks(80))
        self.assertTrue(self.asks(20))
        self.assertTrue(self.asks(92))
        self.assertTrue(self.asks(80))

    def test_oldest(self) -> None:
        """The oldest message is always asked for: what was the oldest may not be it any more."""
        self.assertTrue(self.asks(None))
        self.assertTrue(self.asks(None))
        self.assertFalse(self.asks(5))

    def test_own_position(self) -> None:
        """After the channel's own position there is nothing to ask for."""
        self.assertFalse(self.asks(100))

    def test_lifetime(self) -> None:
        """After some seconds nothing is kept, even if it was used all the time."""
        self.assertTrue(self.asks(95))
        for _ in range(4):
            self.world.wait(1)
            self.assertFalse(self.asks(95))
        self.assertGreater(self.world.node.shared_bytes, 0)
        self.world.wait(1.5)
        self.assertIsNone(self.channel.reads)
        self.assertEqual((self.world.node.shared_bytes, len(self.world.node.deadlines)), (0, 0))
        self.assertTrue(self.asks(95))

    def test_lifetime_while_reading(self) -> None:
        """A read that takes longer is not forgotten."""
        page = self.channel.read(Position("e1", 95))
        assert isinstance(page, Deferred)
        self.world.wait(12)
        self.world.settle()
        self.assertEqual(len(self.successResultOf(page).messages), 5)
        self.world.wait(6)
        self.assertIsNone(self.channel.reads)

    def test_channel_is_gone(self) -> None:
        """What was kept for a channel that nobody follows any more goes too."""
        self.asks(95)
        self.sink.connection.lost()
        self.world.settle()
        self.assertEqual(self.world.node.channels, {})
        self.world.wait(6)
        self.assertEqual((self.world.node.shared_bytes, len(self.world.node.deadlines)), (0, 0))

    def test_bounds(self) -> None:
        """No more than so many messages and bytes are kept: the oldest go."""
        self.patch(reading_module, "_MOST_MESSAGES", 15)
        self.asks(80)
        self.asks(90)
        self.assertFalse(self.asks(85))
        self.assertTrue(self.asks(84))
        self.world.wait(6)
        self.patch(reading_module, "_MOST_BYTES", 5 * (2 + reading_module._OVERHEAD) + 1)
        self.asks(70)
        self.assertFalse(self.asks(75))
        self.assertEqual(self.world.node.shared_bytes, 5 * (2 + reading_module._OVERHEAD))

    def test_bound_of_all(self) -> None:
        """Nor for all channels together."""
        self.patch(reading_module, "_MOST_BYTES_OF_ALL", 15 * (2 + reading_module._OVERHEAD))
        self.asks(80)
        self.assertFalse(self.asks(80))
        self.asks(90)
        self.assertEqual(self.world.node.shared_bytes, 0)
        self.assertTrue(self.asks(90))

    def test_news(self) -> None:
        """Messages that are delivered are kept after what was read, but for those that have no place in it."""
        self.asks(95)
        self.broker.emit("a:x", 101, 102)
        self.broker.emit("a:x", 7, history=False)
        self.broker.emit("a:x", 103)
        self.world.settle()
        page = self.channel.read(Position("e1", 98))
        assert isinstance(page, Page)
        self.assertEqual([message.payload for message in page.messages], [payload(n) for n in range(99, 104)])
        self.assertTrue(page.complete)

    def test_hole(self) -> None:
        """Where the channel itself has lost messages, what is kept ends there."""
        self.asks(95)
        self.broker._histories["a:x"].size = 3
        self.broker.emit("a:x", *range(101, 111))
        self.broker.drop(9)
        self.world.settle()
        self.assertEqual([gap["reason"] for gap in pushed(self.sink, "gap")], ["history_lost"])
        page = self.channel.read(Position("e1", 98))
        assert isinstance(page, Page)
        self.assertEqual(([int(m.payload.data) for m in page.messages], page.complete), ([99, 100], False))
        self.assertIs(self.read(100).gap, Gap.HISTORY_LOST)

    def test_fault(self) -> None:
        """That something is wrong with it is in the log, with the channel's name."""
        reads = SharedReads(self.channel, self.world.node)
        try:
            raise ZeroDivisionError("broken")
        except ZeroDivisionError:
            reads.failed("keeping")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure(self) -> None:
        """A failure reaches who has asked."""
        page = self.channel.read(Position("e1", 95))
        assert isinstance(page, Deferred)
        self.broker.fail(self.broker.calls[0])
        failure: Failure = self.failureResultOf(page, RtpushError)
        self.assertIs(failure.value.kind, ErrorCode.UNAVAILABLE)
