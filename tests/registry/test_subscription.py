"""Tests of rtpush.registry.subscription: from a position to now, and how slow readers fare."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.forms import POLL, SSE_ENVELOPE, RawForm
from rtpush.protocol.lifecycle import State
from rtpush.protocol.limits import Limits
from rtpush.protocol.position import Position
from rtpush.registry import subscription as subscription_module
from rtpush.registry.subscription import Since, Stage, Subscription
from tests.registry.fakes import FakeSink, World, events, frames, got, pushed


class BeginTests(SynchronousTestCase):
    """Where delivery begins."""

    def setUp(self) -> None:
        """Have a world with a channel that has three messages."""
        self.world = World()
        self.broker = self.world.broker
        self.broker.emit("a:x", 1, 2, 3)
        self.sink = self.world.connect()

    def follow(self, since: Position | Since, channel: str = "a:x") -> Any:
        """Follow a channel; return where it begins."""
        results = self.world.follow(self.sink, channel, since)
        self.world.settle()
        (result,) = results
        return result

    def test_now(self) -> None:
        """From now, there is nothing of before; no history is read for it."""
        results = self.world.follow(self.sink, "a:x")
        self.assertEqual([call.name for call in self.broker.calls], ["subscribe"])
        self.broker.answer(1)
        self.assertEqual(self.broker.calls, [])
        (subscribed,) = results
        self.assertEqual((subscribed.position, subscribed.recovered), (Position("e1", 3), True))
        self.broker.emit("a:x", 4)
        self.world.settle()
        self.assertEqual(got(self.sink), [4])

    def test_earliest(self) -> None:
        """From the oldest message kept, all that is kept comes."""
        subscribed = self.follow(Since.EARLIEST)
        self.assertEqual((subscribed.position, subscribed.recovered), (Position("e1", 0), True))
        self.broker.emit("a:x", 4)
        self.world.settle()
        self.assertEqual(got(self.sink), [1, 2, 3, 4])

    def test_earliest_of_what_is_left(self) -> None:
        """The oldest message that is kept need not be the first there was."""
        self.broker.emit("short:x", *range(1, 11))
        subscribed = self.follow(Since.EARLIEST, "short:x")
        self.assertEqual((subscribed.position, subscribed.recovered), (Position("e2", 7), True))
        self.assertEqual(got(self.sink), [8, 9, 10])

    def test_earliest_of_nothing(self) -> None:
        """Where nothing is kept, that is now."""
        self.broker.emit("none:x", 1)
        subscribed = self.follow(Since.EARLIEST, "none:x")
        self.assertEqual((subscribed.position, subscribed.recovered), (Position("e2", 1), True))

    def test_position(self) -> None:
        """From a position, what came after it comes, and then what comes."""
        subscribed = self.follow(Position("e1", 1))
        self.assertEqual((subscribed.position, subscribed.recovered), (Position("e1", 1), True))
        self.broker.emit("a:x", 4)
        self.world.settle()
        self.assertEqual(got(self.sink), [2, 3, 4])
        self.assertEqual([next(iter(frame)) for frame in frames(self.sink)], ["subscribed", *["message"] * 3])

    def test_newest_position(self) -> None:
        """From the newest position there is nothing to read."""
        results = self.world.follow(self.sink, "a:x", Position("e1", 3))
        self.broker.answer(1)
        self.assertEqual(self.broker.calls, [])
        self.assertEqual(results[0].position, Position("e1", 3))
        self.assertIs(self.sink.connection.subscriptions["a:x"].stage, Stage.LIVE)

    def test_gaps(self) -> None:
        """A position that cannot be honoured is told: not recovered, then a gap, and on from now."""
        self.broker.emit("short:x", *range(1, 11))
        for channel, since, reason in (
            ("a:x", Position("other", 1), "epoch_changed"),
            ("a:x", Position("e1", 9), "position_ahead"),
            ("short:x", Position("e2", 2), "history_lost"),
        ):
            self.sink = self.world.connect()
            subscribed = self.follow(since, channel)
            top = self.broker.top(channel)
            self.assertEqual((subscribed.position, subscribed.recovered), (top, False))
            told, gap = frames(self.sink)
            self.assertEqual(list(told), ["subscribed"])
            self.assertEqual(
                gap, {"gap": {"channel": channel, "epoch": top.epoch, "offset": top.offset, "reason": reason}}
            )
            self.broker.emit(channel, 77)
            self.world.settle()
            self.assertEqual(got(self.sink), [77])

    def test_history_away(self) -> None:
        """If history cannot be read, one does not follow the channel."""
        results = self.world.follow(self.sink, "a:x", Position("e1", 1))
        self.broker.answer(1)
        self.broker.fail(self.broker.calls[0])
        self.assertIs(results[0].value.kind, ErrorCode.UNAVAILABLE)
        self.assertEqual((self.sink.connection.subscriptions, self.sink.connection.order), ({}, []))
        self.world.settle()
        self.assertEqual(self.broker.subscribed, set())
        self.assertIs(self.sink.connection.state, State.OPEN)

    def catching_up(self) -> FakeSink:
        """Return a client that has read one page of three."""
        self.world = World(limits=Limits(page_messages=2))
        self.broker = self.world.broker
        self.broker.emit("a:x", *range(1, 7))
        sink = self.world.connect()
        self.world.follow(sink, "a:x", Since.EARLIEST)
        self.broker.answer(2)
        self.assertEqual(got(sink), [1, 2])
        return sink

    def test_history_away_later(self) -> None:
        """If it cannot be read on the way, the client stays, and it is read when the broker compares."""
        sink = self.catching_up()
        subscription = sink.connection.subscriptions["a:x"]
        self.broker.emit("a:x", 7)
        for _ in range(3):
            self.broker.fail(self.broker.calls[0])
            self.assertIs(subscription.stage, Stage.STALLED)
            self.broker.deliver()
            self.world.turn()
            self.broker.compare("a:x", Position("e1", 0))
        self.broker.emit("a:x", 8)
        self.world.settle()
        self.assertEqual(got(sink), list(range(1, 9)))
        self.assertIs(sink.connection.state, State.OPEN)
        self.assertIs(subscription.stage, Stage.LIVE)

    def test_history_away_and_begun_anew(self) -> None:
        """If all is lost meanwhile, that is one gap, and the stream goes on."""
        sink = self.catching_up()
        self.broker.fail(self.broker.calls[0])
        self.broker.begin_anew("a:x")
        self.broker.compare("a:x")
        self.world.settle()
        self.broker.emit("a:x", 9)
        self.world.settle()
        self.assertEqual(
            pushed(sink, "gap"), [{"channel": "a:x", "epoch": "e2", "offset": 0, "reason": "epoch_changed"}]
        )
        self.assertEqual(got(sink), [1, 2, 9])

    def test_slow_reader_and_history_away(self) -> None:
        """One that waits for the broker and does not read either waits for both, in any order."""
        for drained_first in (True, False):
            sink = self.catching_up()
            sink.connection.pauseProducing()
            self.broker.fail(self.broker.calls[0])
            if drained_first:
                sink.drain()
                self.broker.compare("a:x")
            else:
                self.broker.compare("a:x")
                self.world.settle()
                self.assertEqual(got(sink), [1, 2])
                sink.drain()
            self.world.settle()
            self.assertEqual(got(sink), [1, 2, 3, 4, 5, 6])

    def test_ended_while_history_is_away(self) -> None:
        """One that is gone when the broker is back is not read for."""
        sink = self.catching_up()
        self.broker.fail(self.broker.calls[0])
        other = self.world.connect()
        self.world.follow(other, "a:x")
        sink.connection.unsubscribe("a:x")
        self.broker.compare("a:x")
        self.assertEqual(self.broker.calls, [])

    def test_gone_before_history_fails(self) -> None:
        """That history cannot be read for one that is gone is nothing."""
        sink = self.catching_up()
        sink.connection.lost()
        self.broker.fail(self.broker.calls[0])
        self.world.settle()
        self.assertEqual(self.world.node.channels, {})

    def test_history_broken_later(self) -> None:
        """Any other failure on the way ends the one connection, and the client comes back with its position."""
        sink = self.catching_up()
        other = self.world.connect()
        self.world.follow(other, "a:x")
        self.broker.fail(self.broker.calls[0], ErrorCode.INTERNAL)
        assert sink.finished is not None
        self.assertEqual(sink.finished[1], 1011)
        self.assertEqual(len(self.flushLoggedErrors(RtpushError)), 1)
        self.assertIs(other.connection.state, State.OPEN)

    def test_retrying_breaks(self) -> None:
        """One for which a comparison raises does not keep it from the others."""
        sinks = [self.catching_up()]
        sinks.append(self.world.connect())
        self.world.follow(sinks[1], "a:x", Position("e1", 1))
        self.broker.answer(2)
        while self.broker.calls:
            self.broker.fail(self.broker.calls[0])
        self.assertEqual([sink.connection.subscriptions["a:x"].stage for sink in sinks], [Stage.STALLED] * 2)
        self.patch(Subscription, "retry", breaking(sinks[0]))
        self.broker.compare("a:x")
        self.world.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(got(sinks[1]), [2, 3, 4, 5, 6])


def breaking(sink: FakeSink) -> Callable[[Subscription], None]:
    """Return a ``retry`` that raises for one connection."""
    retry = Subscription.retry

    def raising(subscription: Subscription) -> None:
        if subscription.connection is sink.connection:
            raise ZeroDivisionError("broken")
        retry(subscription)

    return raising


class NoHoleTests(SynchronousTestCase):
    """What is published while a subscription begins."""

    #: What happens one after the other, from subscribing to live.
    STEPS = 5

    def run_with(self, moment: int, arrival: str, since: Position | Since, size: str) -> tuple[FakeSink, World]:
        """Publish two messages at a moment of a subscription's way, which arrive then or only at the end."""
        world = World()
        broker = world.broker
        channel = f"{size}:x"
        broker.emit(channel, 1, 2)
        other = world.connect()
        world.follow(other, channel)
        sink = world.connect()

        def publish(now: int) -> None:
            if now == moment:
                broker.emit(channel, 3, 4)
                if arrival == "at once":
                    broker.deliver()
                elif arrival == "at once and flushed":
                    broker.deliver()
                    world.turn()
                elif arrival == "the second one alone":
                    broker.drop(1)
                    broker.deliver()

        publish(0)
        world.follow(sink, channel, since)
        publish(1)
        if broker.calls:
            broker.calls[0].do()
        publish(2)
        broker.answer(1)
        publish(3)
        for call in broker.calls:
            call.do()
        publish(4)
        broker.answer(1)
        publish(5)
        world.settle()
        broker.emit(channel, 5)
        world.settle()
        return sink, world

    def test_at_every_moment(self) -> None:
        """A message comes exactly once, whenever it is published and however it arrives."""
        arrivals = ("at the end", "at once", "at once and flushed", "the second one alone")
        for since, first in ((Position("e1", 0), 1), (Position("e1", 1), 2), (Position("e1", 2), 3)):
            for moment in range(self.STEPS + 1):
                for arrival in arrivals:
                    sink, _ = self.run_with(moment, arrival, since, "a")
                    self.assertEqual(got(sink), list(range(first, 6)), (since, moment, arrival))
                    self.assertEqual(pushed(sink, "gap"), [])

    def test_from_now(self) -> None:
        """From now, one begins where one is told, and gets all after that."""
        for moment in range(self.STEPS + 1):
            for arrival in ("at the end", "at once", "at once and flushed", "the second one alone"):
                sink, _ = self.run_with(moment, arrival, Since.NOW, "a")
                (subscribed,) = pushed(sink, "subscribed")
                self.assertEqual(got(sink), list(range(subscribed["offset"] + 1, 6)), (moment, arrival))

    def test_held(self) -> None:
        """What comes before the transport says go waits; also if it is very much; also over a gap."""
        world = World()
        sink = world.connect()
        sink.connection.subscribe("a:x", Since.NOW)
        world.settle()
        world.broker.emit("a:x", *range(1, 11))
        world.settle()
        self.assertEqual(sink.written, [])
        sink.connection.go("a:x")
        self.assertEqual(got(sink), list(range(1, 11)))

    def test_held_too_many(self) -> None:
        """More than is kept meanwhile comes from history."""
        self.patch(subscription_module, "_MAX_ARRIVED", 5)
        world = World()
        sink = world.connect()
        sink.connection.subscribe("a:x", Since.NOW)
        world.settle()
        for number in range(20):
            world.broker.emit("a:x", number)
            world.settle()
        self.assertIsNone(sink.connection.subscriptions["a:x"]._arrived)
        sink.connection.go("a:x")
        world.settle()
        self.assertEqual(got(sink), list(range(20)))

    def test_held_over_a_gap(self) -> None:
        """A gap of the channel that happens meanwhile is told afterwards."""
        for channel, reason in (("none:x", "history_lost"), ("a:x", "epoch_changed")):
            world = World()
            sink = world.connect()
            sink.connection.subscribe(channel, Since.NOW)
            world.settle()
            if reason == "epoch_changed":
                world.broker.begin_anew(channel)
            world.broker.emit(channel, 1, 2)
            world.broker.drop(1)
            world.settle()
            sink.connection.go(channel)
            world.settle()
            world.broker.emit(channel, 3)
            world.settle()
            self.assertEqual([gap["reason"] for gap in pushed(sink, "gap")], [reason])
            self.assertEqual(got(sink), [3])

    def test_filled_while_held(self) -> None:
        """A hole that the channel fills from history meanwhile is none."""
        world = World()
        sink = world.connect()
        sink.connection.subscribe("a:x", Since.NOW)
        world.settle()
        world.broker.emit("a:x", 1, 2)
        world.broker.drop(1)
        world.settle()
        sink.connection.go("a:x")
        world.settle()
        self.assertEqual((got(sink), pushed(sink, "gap")), ([1, 2], []))

    def test_go_twice(self) -> None:
        """To go again changes nothing, nor does it for what was never followed."""
        world = World()
        sink = world.connect()
        world.broker.emit("a:x", 1)
        world.follow(sink, "a:x", Since.EARLIEST)
        world.settle()
        for channel in ("a:x", "a:y"):
            sink.connection.go(channel)
        world.settle()
        self.assertEqual(got(sink), [1])


class PagingTests(SynchronousTestCase):
    """Long histories and slow readers."""

    def setUp(self) -> None:
        """Have a world where pages are small."""
        self.patch(subscription_module, "_CHUNK_BYTES", 4)
        self.world = World(limits=Limits(page_messages=10, queue_bytes=300))
        self.broker = self.world.broker

    def numbers(self, begin: int, end: int) -> list[int]:
        """Return numbers of two digits."""
        return list(range(begin, end))

    def drain(self, sink: FakeSink) -> int:
        """Have the peer read until nothing more comes; return how often it did."""
        times = 0
        while sink.connection.paused:
            sink.drain()
            self.world.settle()
            times += 1
        return times

    def test_pages(self) -> None:
        """A long history comes page by page: the next is read when the one before was delivered."""
        self.broker.emit("a:x", *self.numbers(10, 45))
        sink = self.world.connect()
        self.world.follow(sink, "a:x", Since.EARLIEST)
        pages = 0
        self.broker.answer(1)
        while self.broker.calls:
            (call,) = self.broker.calls
            self.assertEqual((call.name, call.arguments[2]), ("history", 10))
            self.broker.answer(1)
            pages += 1
            self.assertEqual(got(sink), self.numbers(10, min(10 + pages * 10, 45)))
        self.assertEqual(pages, 4)
        self.assertIs(sink.connection.subscriptions["a:x"].stage, Stage.LIVE)

    def test_back_pressure(self) -> None:
        """A reader that does not keep up is given no more of history than its buffer takes, until it reads."""
        self.broker.emit("a:x", *self.numbers(10, 99))
        sink = self.world.connect(room=150)
        self.world.follow(sink, "a:x", Since.EARLIEST)
        self.world.settle()
        self.assertEqual(self.broker.calls, [])
        self.assertTrue(sink.connection.paused)
        self.assertEqual(sink.connection.queued, 0)
        self.assertLess(len(got(sink)), 6)
        self.assertGreater(self.drain(sink), 10)
        self.assertEqual(got(sink), self.numbers(10, 99))
        self.assertIs(sink.connection.subscriptions["a:x"].stage, Stage.LIVE)

    def test_publishing_meanwhile(self) -> None:
        """What is published while one catches up comes in its place."""
        self.broker.emit("a:x", *self.numbers(10, 50))
        sink = self.world.connect(room=150)
        self.world.follow(sink, "a:x", Since.EARLIEST)
        for number in self.numbers(50, 99):
            self.broker.emit("a:x", number)
            self.world.settle()
            sink.drain()
        self.world.settle()
        self.drain(sink)
        self.assertEqual(got(sink), self.numbers(10, 99))

    def test_slow_reader_recovers(self) -> None:
        """A live reader whose queue is full keeps its place, and reads what it missed when it has room."""
        slow, quick = self.world.connect(room=100), self.world.connect()
        for sink in (slow, quick):
            self.world.follow(sink, "a:x")
        self.world.settle()
        for number in self.numbers(10, 60):
            self.broker.emit("a:x", number)
            self.world.settle()
        self.assertEqual(got(quick), self.numbers(10, 60))
        self.assertLess(len(got(slow)), 5)
        self.assertLessEqual(slow.connection.queued, 300)
        self.assertGreater(slow.connection.queued, 200)
        self.assertIs(slow.connection.subscriptions["a:x"].stage, Stage.BEHIND)
        self.drain(slow)
        self.assertEqual(got(slow), self.numbers(10, 60))
        self.assertIs(slow.connection.subscriptions["a:x"].stage, Stage.LIVE)

    def test_slow_reader_that_lost_nothing(self) -> None:
        """One that was refused a volatile message alone goes on where it was."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "a:x")
        self.world.settle()
        self.assertTrue(sink.connection.paused)
        for number in self.numbers(10, 30):
            self.broker.emit("a:x", number, history=False)
            self.world.settle()
        self.assertIs(sink.connection.subscriptions["a:x"].stage, Stage.BEHIND)
        sink.room = None
        sink.drain()
        self.assertEqual(self.broker.calls, [])
        self.assertIs(sink.connection.subscriptions["a:x"].stage, Stage.LIVE)
        self.broker.emit("a:x", 99)
        self.world.settle()
        self.assertEqual(got(sink)[-1], 99)

    def test_slow_reader_behind_history(self) -> None:
        """One that is behind what is kept is told of the gap."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "short:x")
        self.world.settle()
        for number in self.numbers(10, 60):
            self.broker.emit("short:x", number)
            self.world.settle()
        sink.room = None
        sink.drain()
        self.world.settle()
        self.broker.emit("short:x", 99)
        self.world.settle()
        self.assertEqual([gap["reason"] for gap in pushed(sink, "gap")], ["history_lost"])
        numbers = got(sink)
        self.assertEqual(numbers[:-1], self.numbers(10, 10 + len(numbers) - 1))
        self.assertEqual(numbers[-1], 99)

    def test_slow_reader_disconnects(self) -> None:
        """Where the namespace says so, it is disconnected instead, and may come back with its position."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "strict:x")
        self.world.settle()
        for number in self.numbers(10, 60):
            self.broker.emit("strict:x", number)
            self.world.settle()
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4000, "slow_reader"))
        self.assertEqual(self.world.node.channels, {})

    def test_latest(self) -> None:
        """Where only the newest counts, a slow reader gets that alone when it reads again, and hears of the others."""
        for channel in ("latest:x", "bare:x"):
            slow, quick = self.world.connect(), self.world.connect()
            for sink in (slow, quick):
                self.world.follow(sink, channel)
            self.world.settle()
            slow.room = 150
            for number in self.numbers(10, 60):
                self.broker.emit(channel, number)
                self.world.settle()
            self.assertEqual(got(quick), self.numbers(10, 60))
            before = got(slow)
            self.assertLess(len(before), 5)
            self.assertEqual(slow.connection.queued, 0)
            self.assertIs(slow.connection.subscriptions[channel].stage, Stage.SKIPPING)
            slow.room = None
            slow.drain()
            self.assertEqual(self.broker.calls, [])
            self.broker.emit(channel, 60)
            self.world.settle()
            self.assertEqual(got(slow), [*before, 59, 60])
            epoch = self.broker.top(channel).epoch
            gap = {"channel": channel, "epoch": epoch, "offset": 49, "reason": "skipped"}
            self.assertEqual(pushed(slow, "gap"), [gap])
            # The gap comes before the message that follows on it.
            self.assertEqual([next(iter(frame)) for frame in frames(slow)][-3:], ["gap", "message", "message"])
            self.assertIs(slow.connection.subscriptions[channel].stage, Stage.LIVE)
            self.assertEqual((pushed(quick, "gap"), slow.connection.counts.gaps), ([], 1))
            slow.connection.counts.gaps = 0
        self.assertEqual(self.world.node.counts.slow_readers, {"latest": 2})

    def test_latest_of_one(self) -> None:
        """If that was the only one, nothing was skipped, and nothing is told."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "latest:x")
        self.world.settle()
        self.broker.emit("latest:x", 10)
        self.world.settle()
        self.broker.emit("latest:x", 11, history=False)
        self.world.settle()
        sink.room = None
        sink.drain()
        self.assertEqual((got(sink), pushed(sink, "gap")), ([10], []))
        self.assertIs(sink.connection.subscriptions["latest:x"].stage, Stage.LIVE)

    def test_latest_of_none(self) -> None:
        """If only volatile messages were skipped, there is nothing to tell, as they come at most once."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "latest:x")
        self.world.settle()
        self.broker.emit("latest:x", 10, 11, history=False)
        self.world.settle()
        sink.drain()
        self.assertEqual([*frames(sink)][1:], [])
        self.assertIs(sink.connection.subscriptions["latest:x"].stage, Stage.LIVE)

    def test_latest_again(self) -> None:
        """One whose buffer is full of the gap alone has its message too, and is slow again for the next one."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "latest:x")
        self.world.settle()
        self.broker.emit("latest:x", 10, 11, 12)
        self.world.settle()
        sink.drain()
        self.assertTrue(sink.connection.paused)
        self.broker.emit("latest:x", 13, 14)
        self.world.settle()
        for _ in range(3):
            sink.drain()
            self.world.settle()
        self.assertEqual([gap["offset"] for gap in pushed(sink, "gap")], [2, 4])
        self.assertEqual(got(sink), [12, 14])

    def test_latest_is_lost(self) -> None:
        """If the channel itself has lost the newest one, the gap is all there is to tell."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "bare:x")
        self.world.settle()
        self.broker.emit("bare:x", 10, 11)
        self.world.settle()
        self.broker.emit("bare:x", 12, 13)
        self.broker.drop(1)
        self.world.settle()
        sink.room = None
        sink.drain()
        self.broker.emit("bare:x", 14)
        self.world.settle()
        self.assertEqual([(gap["offset"], gap["reason"]) for gap in pushed(sink, "gap")], [(4, "skipped")])
        self.assertEqual(got(sink), [14])

    def test_latest_in_a_new_epoch(self) -> None:
        """If history began again meanwhile, that is what is told."""
        sink = self.world.connect(room=0)
        self.world.follow(sink, "latest:x")
        self.world.settle()
        self.broker.emit("latest:x", 10)
        self.world.settle()
        self.broker.begin_anew("latest:x")
        self.broker.emit("latest:x", 11, 12)
        self.world.settle()
        sink.room = None
        sink.drain()
        self.world.settle()
        self.broker.emit("latest:x", 13)
        self.world.settle()
        self.assertEqual([gap["reason"] for gap in pushed(sink, "gap")], ["epoch_changed"])
        self.assertEqual(got(sink)[-1], 13)

    def test_latest_recovers(self) -> None:
        """Who comes back with a position gets all since then: it is not slow for having been away."""
        self.broker.emit("latest:x", *self.numbers(10, 60))
        sink = self.world.connect(room=150)
        self.world.follow(sink, "latest:x", Position("e1", 5))
        self.world.settle()
        self.drain(sink)
        self.assertEqual((got(sink), pushed(sink, "gap")), (self.numbers(15, 60), []))

    def test_latest_of_several_channels(self) -> None:
        """In a stream of several channels each has its newest message, with a cursor that is right all the way."""
        sink = self.world.connect(SSE_ENVELOPE, transport="sse", room=100)
        follow_all(self.world, sink, "latest:x", "a:y", "latest:z")
        for number in self.numbers(10, 40):
            for place, channel in enumerate(("latest:x", "a:y", "latest:z")):
                self.broker.emit(channel, number + 30 * place)
            self.world.settle()
        stages = [subscription.stage for subscription in sink.connection.order]
        self.assertEqual(stages, [Stage.SKIPPING, Stage.BEHIND, Stage.SKIPPING])
        self.drain(sink)
        places = {"latest:x": 0, "a:y": 0, "latest:z": 0}
        skips = 0
        for name, data, last_id in events(sink):
            told = json.loads(data)
            if name == "gap":
                skips += 1
                self.assertGreater(told["offset"], places[told["channel"]])
                self.assertTrue(told["channel"].startswith("latest"))
            else:
                self.assertEqual(told["offset"], places[told["channel"]] + 1)
            places[told["channel"]] = told["offset"]
            self.assertEqual(last_id, ",".join(f"e{n}:{place}" for n, place in enumerate(places.values(), 1)))
        self.assertEqual(places, dict.fromkeys(places, 30))
        self.assertEqual(skips, 2)

    def test_latest_raw(self) -> None:
        """A form without room for gaps ends with one, and the client comes back to the newest message."""
        sink = self.world.connect(RawForm(), room=0)
        sink.connection.subscribe("latest:x", Since.NOW)
        self.world.settle()
        sink.connection.go("latest:x")
        self.broker.emit("latest:x", 10)
        self.world.settle()
        self.broker.emit("latest:x", 11, 12, 13)
        self.world.settle()
        sink.drain()
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4002, "e1:3"))

    def test_room_is_shared(self) -> None:
        """Each channel of a reader has its turn, though one is enough to fill its buffer again and again."""
        sink = self.world.connect(room=0)
        channels = ("a:x", "latest:y", "a:z")
        for channel in channels:
            self.world.follow(sink, channel)
            self.world.settle()
        heard = set()
        for number in self.numbers(10, 90):
            for channel in channels:
                self.broker.emit(channel, number)
            self.world.settle()
            if number > 20:
                sink.drain()
                self.world.settle()
        for push in pushed(sink, "message"):
            heard.add(push["channel"])
        self.assertEqual(heard, set(channels))

    def test_slow_reader_of_several_channels(self) -> None:
        """One that is served alone fares the same, and its cursor is right all the way."""
        sink = self.world.connect(SSE_ENVELOPE, transport="sse", room=100)
        follow_all(self.world, sink, "a:x", "a:y")
        for number in self.numbers(10, 40):
            self.broker.emit("a:x", number)
            self.broker.emit("a:y", number + 50)
            self.world.settle()
        stages = [subscription.stage for subscription in sink.connection.order]
        self.assertEqual(stages, [Stage.BEHIND] * 2)
        self.drain(sink)
        places = {"a:x": 0, "a:y": 0}
        for _, data, last_id in events(sink):
            envelope = json.loads(data)
            places[envelope["channel"]] += 1
            self.assertEqual(envelope["offset"], places[envelope["channel"]])
            self.assertEqual(last_id, f"e1:{places['a:x']},e2:{places['a:y']}")
        self.assertEqual(places, {"a:x": 30, "a:y": 30})

    def test_ends_while_catching_up(self) -> None:
        """One that is gone before its page comes gets nothing of it."""
        self.broker.emit("a:x", *self.numbers(10, 45))
        for end in ("unsubscribe", "lost"):
            sink = self.world.connect()
            self.world.follow(sink, "a:x", Since.EARLIEST)
            self.broker.answer(2)
            before = got(sink)
            if end == "unsubscribe":
                sink.connection.unsubscribe("a:x")
            else:
                sink.connection.lost()
            self.world.settle()
            self.assertEqual(got(sink), before)

    def test_raw_ends_at_a_gap(self) -> None:
        """A form without room for gaps ends with one, whose reason is where the stream goes on."""
        sink = self.world.connect(RawForm())
        sink.connection.subscribe("a:x", Position("other", 1))
        self.world.settle()
        sink.connection.go("a:x")
        assert sink.finished is not None
        self.assertEqual(sink.finished, (b"", 4002, "e1:0"))
        self.assertIs(sink.connection.subscriptions.get("a:x"), None)

    def test_raw_ends_at_a_gap_on_the_way(self) -> None:
        """So it does while it catches up, and when it is live."""
        sink = self.world.connect(RawForm(), room=0)
        sink.connection.subscribe("short:x", Since.NOW)
        self.world.settle()
        sink.connection.go("short:x")
        for number in self.numbers(10, 90):
            self.broker.emit("short:x", number)
            self.world.settle()
        self.drain(sink)
        assert sink.finished is not None
        self.assertEqual(sink.finished[1:], (4002, "e1:80"))
        live = self.world.connect(RawForm())
        live.connection.subscribe("none:x", Since.NOW)
        self.world.settle()
        live.connection.go("none:x")
        self.broker.emit("none:x", 1, 2)
        self.broker.drop(1)
        self.world.settle()
        assert live.finished is not None
        self.assertEqual(live.finished[1:], (4002, "e2:2"))

    def test_poll_ends_with_its_page(self) -> None:
        """A poll has one page, and no more is read for it."""
        self.broker.emit("a:x", *self.numbers(10, 45))
        sink = self.world.connect(POLL, transport="longpoll")
        sink.ends_after_write = True
        sink.connection.subscribe("a:x", Since.EARLIEST)
        self.world.settle()
        self.patch(subscription_module, "_CHUNK_BYTES", 1000)
        sink.connection.go("a:x")
        self.assertEqual(self.broker.calls[:-1], [])
        (answer,) = map(json.loads, sink.written)
        self.assertEqual([message["data"] for message in answer["messages"]], self.numbers(10, 20))
        self.assertEqual(answer["cursor"], "e1:10")


class CursorTests(SynchronousTestCase):
    """Cursors of connections that follow several channels."""

    def setUp(self) -> None:
        """Have a world."""
        self.world = World()
        self.broker = self.world.broker

    def test_one_behind(self) -> None:
        """While one channel catches up, the cursor keeps its place, and the others go on."""
        self.broker.emit("a:x", 1, 2, 3)
        self.broker.emit("a:y", 4)
        sink = self.world.connect(SSE_ENVELOPE, transport="sse")
        for channel, since in (("a:x", Position("e1", 0)), ("a:y", Since.NOW)):
            sink.connection.subscribe(channel, since)
        self.broker.answer()
        self.assertEqual(sink.connection.cursor(), "e1:0,e2:1")
        sink.connection.go("a:y")
        self.broker.emit("a:y", 5)
        self.world.settle()
        sink.connection.go("a:x")
        self.world.settle()
        self.assertEqual(
            [(json.loads(data)["data"], last_id) for _, data, last_id in events(sink)],
            [(5, "e1:0,e2:2"), (1, "e1:1,e2:2"), (2, "e1:2,e2:2"), (3, "e1:3,e2:2")],
        )

    def test_gap_in_one(self) -> None:
        """A gap in one channel moves its place alone."""
        self.broker.emit("a:x", 1)
        self.broker.emit("a:y", 4)
        sink = self.world.connect(SSE_ENVELOPE, transport="sse")
        follow_all(self.world, sink, "a:x", "a:y", since=[Position("old", 7), Position("e2", 0)])
        self.assertEqual(
            [(name, last_id) for name, _, last_id in events(sink)], [("gap", "e1:1,e2:0"), ("message", "e1:1,e2:1")]
        )

    def test_ended_channel_keeps_its_place(self) -> None:
        """A channel that the server ended stays in the cursor where it was."""
        sink = self.world.connect(SSE_ENVELOPE, transport="sse")
        follow_all(self.world, sink, "a:x", "a:y")
        self.broker.emit("a:x", 1)
        self.world.settle()
        sink.connection.end_subscription("a:x", "enough")
        self.broker.emit("a:x", 2)
        self.broker.emit("a:y", 3)
        self.world.settle()
        self.assertEqual(
            [(name, last_id) for name, _, last_id in events(sink)],
            [("message", "e1:1,e2:0"), ("unsubscribed", "e1:1,e2:0"), ("message", "e1:1,e2:1")],
        )

    def test_ahead_with_a_volatile_message(self) -> None:
        """A poll that is ahead of the channel's fan-out never gets a cursor that goes back."""
        other = self.world.connect()
        self.world.follow(other, "a:x")
        self.world.settle()
        self.broker.emit("a:x", 1, 2)
        self.broker.emit("a:x", 3, history=False)
        self.broker.deliver()
        # All of that is pending, and the poll knows the newest position already.
        sink = self.world.connect(POLL, transport="longpoll")
        sink.ends_after_write = True
        sink.connection.subscribe("a:x", Position("e1", 2))
        self.broker.answer()
        sink.connection.go("a:x")
        self.world.turn()
        (answer,) = map(json.loads, sink.written)
        self.assertEqual(([message["data"] for message in answer["messages"]], answer["cursor"]), ([3], "e1:2"))

    def test_ahead_with_nothing_else(self) -> None:
        """The same where there is nothing but the volatile message."""
        other = self.world.connect()
        self.world.follow(other, "a:x")
        self.world.settle()
        self.broker.emit("a:x", 1, 2)
        self.broker.on_the_way.clear()
        self.broker.emit("a:x", 3, history=False)
        sink = self.world.connect(POLL, transport="longpoll")
        sink.ends_after_write = True
        sink.connection.subscribe("a:x", Position("e1", 2))
        self.broker.answer()
        sink.connection.go("a:x")
        self.world.settle()
        (answer,) = map(json.loads, sink.written)
        self.assertEqual(([message["data"] for message in answer["messages"]], answer["cursor"]), ([3], "e1:2"))

    def test_ahead_of_a_part(self) -> None:
        """The same where the channel has a part of what the poll knows."""
        other = self.world.connect()
        self.world.follow(other, "a:x")
        self.world.settle()
        self.broker.emit("a:x", 1)
        self.broker.emit("a:x", 2, history=False)
        self.broker.deliver()
        self.broker.emit("a:x", 3)
        sink = self.world.connect(POLL, transport="longpoll")
        sink.ends_after_write = True
        sink.connection.subscribe("a:x", Position("e1", 2))
        self.broker.answer()
        sink.connection.go("a:x")
        self.world.turn()
        (answer,) = map(json.loads, sink.written)
        self.assertEqual(([message["data"] for message in answer["messages"]], answer["cursor"]), ([2], "e1:2"))


def follow_all(world: World, sink: FakeSink, *channels: str, since: list[Any] | None = None) -> None:
    """Follow channels as an event stream does: go when all are known."""
    begun = gatherResults(
        [
            sink.connection.subscribe(channel, start)
            for channel, start in zip(channels, since or [Since.NOW] * len(channels), strict=True)
        ]
    )
    world.broker.answer()
    assert begun.called
    for channel in channels:
        sink.connection.go(channel)
    world.settle()
