"""Tests of rtpush.registry.channel: what comes from a broker that drops, repeats, forgets and fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.forms import SSE, SSE_ENVELOPE
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.registry import channel as channel_module
from rtpush.registry.subscription import Since
from tests.registry.fakes import FakeSink, World, events, frames, got, payload, pushed


class ChannelTests(SynchronousTestCase):
    """One channel of a node."""

    def setUp(self) -> None:
        """Have a world."""
        self.world = World()
        self.broker = self.world.broker

    def subscriber(self, channel: str = "a:x") -> FakeSink:
        """Connect a client that follows a channel from now."""
        sink = self.world.connect()
        self.world.follow(sink, channel)
        self.world.settle()
        return sink

    @contextmanager
    def lines(self) -> Iterator[list[str]]:
        """Collect the warnings that are logged, as text."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.warn:
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        try:
            yield lines
        finally:
            globalLogPublisher.removeObserver(observe)

    # Offsets

    def test_in_order(self) -> None:
        """What comes in order goes out in order."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3])

    def test_repeated(self) -> None:
        """What was delivered before is dropped, however late it comes again."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        messages = list(self.broker.on_the_way)
        for index in (0, 0, 1, 0, 1, 2, 2, 0):
            self.world.node.received(messages[index])
        self.broker.on_the_way.clear()
        self.world.settle()
        self.world.node.received(messages[1])
        self.world.turn()
        self.assertEqual(got(sink), [1, 2, 3])

    def test_dropped(self) -> None:
        """What is missing is read from history before anything after it goes out."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3, 4)
        self.broker.deliver(1)
        self.broker.drop(2)
        self.broker.deliver(1)
        self.world.turn()
        self.assertEqual(got(sink), [1])
        (call,) = self.broker.calls
        self.assertEqual(call.arguments[:2], ("a:x", Position("e1", 1)))
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3, 4])

    def test_more_while_reading(self) -> None:
        """What comes while history is read goes out after it, each once."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        self.broker.drop(2)
        self.broker.deliver(1)
        self.broker.emit("a:x", 4, 5)
        self.broker.deliver(1)
        self.broker.calls[0].do()
        self.broker.emit("a:x", 6)
        self.broker.deliver()
        self.world.turn()
        self.assertEqual(got(sink), [])
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3, 4, 5, 6])

    def test_dropped_again_while_reading(self) -> None:
        """A second hole is seen after the first one is filled."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver(1)
        self.broker.calls[0].do()
        self.broker.emit("a:x", 3, 4, 5)
        self.broker.drop(2)
        self.broker.deliver(1)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3, 4, 5])

    def test_pages(self) -> None:
        """Many missing ones are read page by page."""
        self.patch(channel_module, "_SYNC_PAGE", 4)
        sink = self.subscriber()
        self.broker.emit("a:x", *range(1, 15))
        self.broker.drop(13)
        self.broker.deliver()
        reads = 0
        while self.broker.calls:
            self.broker.answer(1)
            reads += 1
        self.world.turn()
        self.assertEqual(reads, 4)
        self.assertEqual(got(sink), list(range(1, 15)))

    def test_volatile(self) -> None:
        """Messages without a position go out as they come, after what is read if that is going on."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, history=False)
        self.broker.emit("a:x", 2, 3)
        self.broker.emit("a:x", 4, history=False)
        self.broker.deliver(1)
        self.broker.drop(1)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3, 4])

    # Gaps

    def test_lost(self) -> None:
        """If history has lost what is missing, everyone is told where the stream goes on, and it does."""
        sinks = [self.subscriber("short:x") for _ in range(2)]
        self.broker.emit("short:x", *range(1, 10))
        self.broker.drop(8)
        self.world.settle()
        self.broker.emit("short:x", 10)
        self.world.settle()
        for sink in sinks:
            self.assertEqual(
                pushed(sink, "gap"),
                [{"channel": "short:x", "epoch": "e1", "offset": 9, "reason": "history_lost"}],
            )
            self.assertEqual(got(sink), [10])

    def test_lost_without_history(self) -> None:
        """Where nothing is kept, any hole is a gap."""
        sink = self.subscriber("none:x")
        self.broker.emit("none:x", 1, 2, 3)
        self.broker.deliver(1)
        self.broker.drop(1)
        self.world.settle()
        self.broker.emit("none:x", 4)
        self.world.settle()
        self.assertEqual(got(sink), [1, 4])
        self.assertEqual([gap["offset"] for gap in pushed(sink, "gap")], [3])

    def test_epoch_changed(self) -> None:
        """A broker that begins anew is seen with its first message: a gap, and on with the new epoch."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.world.settle()
        self.broker.begin_anew("a:x")
        self.broker.emit("a:x", 3)
        self.world.settle()
        self.broker.emit("a:x", 4)
        self.world.settle()
        self.assertEqual(
            pushed(sink, "gap"), [{"channel": "a:x", "epoch": "e2", "offset": 1, "reason": "epoch_changed"}]
        )
        self.assertEqual([(m["epoch"], m["offset"]) for m in pushed(sink, "message")[2:]], [("e2", 2)])

    def test_straggler(self) -> None:
        """A message of an epoch that is over, come late, changes nothing; nor does it keep the node busy."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        straggler = self.broker.on_the_way.pop()
        self.broker.begin_anew("a:x")
        self.broker.emit("a:x", 3)
        self.world.settle()
        for near in (False, True):
            self.broker.is_near = near
            self.world.node.received(straggler)
            self.world.settle()
        self.broker.emit("a:x", 4)
        self.world.settle()
        self.assertEqual(got(sink), [1, 4])
        self.assertEqual(len(pushed(sink, "gap")), 1)

    def test_epoch_changes_while_reading(self) -> None:
        """An epoch that ends while its missing messages are read is one gap."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        self.broker.drop(1)
        self.broker.deliver()
        self.broker.begin_anew("a:x")
        self.broker.emit("a:x", 4)
        self.world.settle()
        self.broker.emit("a:x", 5)
        self.world.settle()
        self.assertEqual(got(sink), [5])
        self.assertEqual([(gap["epoch"], gap["offset"]) for gap in pushed(sink, "gap")], [("e2", 1)])

    def test_behind_the_broker(self) -> None:
        """A broker that lost its newest messages, but not its epoch, is a gap, when one comes that is beyond them."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        self.world.settle()
        self.broker._histories["a:x"].top = 1
        self.world.node.received(Message("a:x", payload(9), None, Position("e1", 7)))
        self.world.settle()
        self.assertEqual(
            pushed(sink, "gap"), [{"channel": "a:x", "epoch": "e1", "offset": 1, "reason": "position_ahead"}]
        )

    def test_pending_goes_first(self) -> None:
        """What came in the same turn before the gap goes out before it."""
        self.broker.is_near = True
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.begin_anew("a:x")
        self.broker.emit("a:x", 3)
        self.broker.emit("a:x", 4)
        self.world.turn()
        kinds = [next(iter(frame)) for frame in frames(sink)]
        self.assertEqual(kinds, ["subscribed", "message", "message", "gap", "message"])
        self.assertEqual(got(sink), [1, 2, 4])

    def test_faults_stay_apart(self) -> None:
        """One whose sink raises when it is told of the gap does not keep the others from hearing of it."""
        sinks = [self.subscriber("none:x") for _ in range(3)]
        sinks[0].broken = ZeroDivisionError("broken")
        self.broker.emit("none:x", 1, 2)
        self.broker.drop(1)
        self.world.settle()
        self.assertEqual([len(pushed(sink, "gap")) for sink in sinks], [0, 1, 1])
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_one_that_is_ahead(self) -> None:
        """One that read history further than the channel is asked for what history knows, not told of a gap."""
        first = self.subscriber("short:x")
        self.broker.emit("short:x", 1, 2, 3, 4, 5)
        on_the_way = list(self.broker.on_the_way)
        self.broker.on_the_way.clear()
        # It begins at 4, of which the channel knows nothing yet.
        ahead = self.world.connect()
        self.world.follow(ahead, "short:x", Position("e1", 4))
        self.world.settle()
        self.assertEqual(got(ahead), [5])
        self.world.node.received(on_the_way[-1])
        self.world.settle()
        self.broker.emit("short:x", 6)
        self.world.settle()
        self.assertEqual(len(pushed(first, "gap")), 1)
        self.assertEqual(pushed(ahead, "gap"), [])
        self.assertEqual((got(first), got(ahead)), ([6], [5, 6]))

    def test_one_that_is_in_the_new_epoch(self) -> None:
        """One that came with a position of the new epoch, which the channel knows nothing of yet, loses nothing."""
        first = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        self.world.settle()
        self.broker.emit("a:x", 8)
        late = self.broker.on_the_way.pop()
        self.broker.begin_anew("a:x")
        self.broker.emit("a:x", 4, 5)
        self.broker.on_the_way.clear()
        ahead = self.world.connect()
        self.world.follow(ahead, "a:x", Position("e2", 1))
        self.world.settle()
        # One of the old epoch that comes late, and a message without a position.
        self.world.node.received(late)
        self.broker.emit("a:x", 6, history=False)
        self.world.settle()
        self.broker.emit("a:x", 7)
        self.world.settle()
        self.assertEqual(got(ahead), [5, 6, 7])
        self.assertEqual(got(first), [1, 2, 3, 8, 6])
        self.assertEqual(pushed(ahead, "gap"), [])
        self.assertEqual(len(pushed(first, "gap")), 1)

    def test_several_channels(self) -> None:
        """A connection that follows several channels is told of the gap with its whole cursor."""
        sink = self.world.connect(SSE_ENVELOPE, transport="sse")
        for channel in ("none:x", "a:y"):
            sink.connection.subscribe(channel, Since.NOW)
        self.world.settle()
        for channel in ("none:x", "a:y"):
            sink.connection.go(channel)
        self.broker.emit("none:x", 1, 2)
        self.broker.drop(1)
        self.world.settle()
        ((name, _, last_id),) = events(sink)
        self.assertEqual((name, last_id), ("gap", "e1:2,e2:0"))

    # A broker that fails

    def test_history_away(self) -> None:
        """If history cannot be read, that is in the log; the next message tries again, and nothing is lost."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver()
        self.broker.fail(self.broker.calls[0])
        self.world.settle()
        self.assertEqual(got(sink), [])
        self.broker.emit("a:x", 3)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3])

    def test_history_broken(self) -> None:
        """An error that should not be is in the log as one; the next message tries again."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver()
        self.broker.fail(self.broker.calls[0], ErrorCode.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(RtpushError)), 1)
        self.broker.emit("a:x", 3)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3])

    def test_compared_after_a_failure(self) -> None:
        """A comparison makes it try again, even one that was made before what is missing was published."""
        sink = self.subscriber()
        before = self.broker.top("a:x")
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver()
        self.broker.fail(self.broker.calls[0])
        self.broker.compare("a:x", before)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2])
        self.broker.compare("a:x", before)
        self.assertEqual(self.broker.calls, [])

    def test_away_is_said_once(self) -> None:
        """An outage is one line in the log, however often history cannot be read in it, by however many."""
        sinks = [self.subscriber() for _ in range(3)]
        with self.lines() as lines:
            for outage in (1, 2):
                for sink in sinks:
                    sink.connection.pauseProducing()
                self.broker.emit("a:x", 1, 2)
                self.broker.drop(1)
                self.broker.deliver()
                for _ in range(5):
                    while self.broker.calls:
                        self.broker.fail(self.broker.calls[0])
                    self.broker.compare("a:x")
                self.world.settle()
                self.assertEqual(len(lines), outage)
        self.assertEqual(lines, ["a:x: history cannot be read: the broker is away"] * 2)

    def test_nothing_is_out_of_order(self) -> None:
        """What comes while history cannot be read waits for what is missing."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver()
        for number in (3, 4, 5):
            self.broker.emit("a:x", number)
            self.broker.deliver()
            self.broker.fail(self.broker.calls[0])
            self.world.turn()
        self.broker.emit("a:x", 6, history=False)
        self.broker.deliver()
        self.world.turn()
        self.assertEqual(got(sink), [6])
        self.broker.compare("a:x")
        self.world.settle()
        self.assertEqual(got(sink), [6, 1, 2, 3, 4, 5])

    def test_too_many_while_reading(self) -> None:
        """What is too much to keep while history is read is read from there too, without a message after it."""
        self.patch(channel_module, "_MAX_INCOMING", 3)
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver()
        self.broker.calls[0].do()
        self.broker.emit("a:x", *range(3, 50))
        self.broker.deliver()
        self.assertEqual(len(self.world.node.channels["a:x"]._incoming or ()), 3)
        self.world.settle()
        self.assertEqual(got(sink), list(range(1, 50)))

    # Comparisons

    def test_compared(self) -> None:
        """What was dropped is read when a comparison shows it; where nothing is missing, nothing is read."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2, 3)
        self.broker.deliver(1)
        self.broker.drop(2)
        self.broker.compare("a:x")
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3])
        for offset in (3, 2, 0):
            self.broker.compare("a:x", Position("e1", offset))
            self.assertEqual(self.broker.calls, [])

    def test_compared_by_the_next(self) -> None:
        """A single message that was dropped is seen too."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1)
        self.broker.drop()
        self.broker.compare("a:x")
        self.world.settle()
        self.assertEqual(got(sink), [1])

    def test_compared_with_what_is_on_the_way(self) -> None:
        """A message that comes after the comparison that tells of it comes once."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.compare("a:x")
        self.broker.deliver(1)
        self.world.settle()
        self.assertEqual(got(sink), [1, 2])

    def test_compared_in_another_epoch(self) -> None:
        """A broker that began anew is seen without a message: a gap, and on with the new epoch."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.world.settle()
        self.broker.begin_anew("a:x")
        self.broker.compare("a:x")
        self.world.settle()
        self.broker.emit("a:x", 3)
        self.world.settle()
        self.assertEqual(
            pushed(sink, "gap"), [{"channel": "a:x", "epoch": "e2", "offset": 0, "reason": "epoch_changed"}]
        )
        self.assertEqual(got(sink), [1, 2, 3])

    def test_compared_while_reading(self) -> None:
        """A comparison that comes while history is read may tell of more than what is read."""
        sink = self.subscriber()
        self.broker.emit("a:x", 1, 2)
        self.broker.drop(1)
        self.broker.deliver()
        self.broker.calls[0].do()
        self.broker.emit("a:x", 3)
        self.broker.drop()
        self.broker.compare("a:x")
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3])

    def test_compared_before_the_answer(self) -> None:
        """So may one that comes before the broker has answered where the channel is."""
        sink = self.world.connect()
        self.world.follow(sink, "a:x")
        self.broker.calls[0].do()
        self.broker.emit("a:x", 1)
        self.broker.drop()
        self.broker.compare("a:x")
        self.world.settle()
        self.assertEqual(got(sink), [1])

    def test_compared_for_nobody(self) -> None:
        """A comparison of a channel that nobody follows here is for nobody."""
        self.world.node.compared("a:x", Position("e1", 7))
        self.assertEqual((self.broker.calls, self.world.node.channels), ([], {}))

    # The broker's answer

    def test_cannot_be_subscribed(self) -> None:
        """If the broker cannot deliver the channel, all who wait hear so, and the next one makes it try again."""
        sinks = [self.world.connect() for _ in range(2)]
        results = [self.world.follow(sink, "a:x") for sink in sinks]
        self.broker.fail(self.broker.calls[0])
        for (failure,) in results:
            self.assertIs(failure.value.kind, ErrorCode.UNAVAILABLE)
        self.assertEqual(self.world.node.channels, {})
        self.assertEqual([sink.connection.subscriptions for sink in sinks], [{}, {}])
        self.world.settle()
        self.world.follow(sinks[0], "a:x")
        self.world.settle()
        self.broker.emit("a:x", 7)
        self.world.settle()
        self.assertEqual([got(sink) for sink in sinks], [[7], []])

    def test_cannot_be_subscribed_at_once(self) -> None:
        """A broker that refuses before the call returns is no different."""
        sink = self.world.connect()
        for _ in range(2):
            self.patch(self.broker, "subscribe", failing)
            (failure,) = self.world.follow(sink, "a:x")
            self.assertIs(failure.value.kind, ErrorCode.UNAVAILABLE)
            self.assertEqual(self.world.node.channels, {})
        del self.broker.subscribe
        self.world.follow(sink, "a:x")
        self.world.settle()
        self.broker.emit("a:x", 7)
        self.world.settle()
        self.assertEqual(got(sink), [7])

    def test_subscribing_again_when_it_fails(self) -> None:
        """One that tries again as soon as it hears of the failure is not left waiting for ever."""
        sink, other = self.world.connect(), self.world.connect()
        again: list[object] = []
        sink.connection.subscribe("a:x", Since.NOW).addErrback(lambda _: again.append(self.world.follow(sink, "a:x")))
        self.world.follow(other, "a:x")
        self.broker.fail(self.broker.calls[0])
        self.world.settle()
        self.broker.emit("a:x", 7)
        self.world.settle()
        self.assertEqual((got(sink), got(other)), ([7], []))

    # The broker's subscription

    def test_early_messages(self) -> None:
        """What comes before the broker's answer is sorted by it: what it covers is dropped, the rest goes out."""
        sink = self.world.connect()
        self.world.follow(sink, "a:x")
        self.broker.emit("a:x", 1, 2)
        self.broker.calls[0].do()
        self.broker.emit("a:x", 3, 4)
        for offset in (1, 2):
            self.world.node.received(self.broker.published["a:x", Position("e1", offset)])
        self.broker.deliver()
        self.world.turn()
        self.assertEqual(got(sink), [])
        self.world.settle()
        self.assertEqual(got(sink), [3, 4])

    def test_hole_in_early_messages(self) -> None:
        """A hole among them is filled too."""
        sink = self.world.connect()
        self.world.follow(sink, "a:x")
        self.broker.calls[0].do()
        self.broker.emit("a:x", 1, 2, 3)
        self.broker.drop(2)
        self.broker.deliver()
        self.world.settle()
        self.assertEqual(got(sink), [1, 2, 3])

    def test_last_one_out(self) -> None:
        """The last subscription that ends unsubscribes at the broker; what comes late is for nobody."""
        sinks = [self.subscriber() for _ in range(2)]
        sinks[0].connection.unsubscribe("a:x")
        self.world.settle()
        self.assertEqual(self.broker.subscribed, {"a:x"})
        self.broker.emit("a:x", 1)
        sinks[1].connection.unsubscribe("a:x")
        self.world.settle()
        self.assertEqual((self.broker.subscribed, self.world.node.channels), (set(), {}))
        self.assertEqual(got(sinks[1]), [])

    def test_gone_before_the_answer(self) -> None:
        """All may be gone before the broker answers, and others come."""
        gone = self.world.connect()
        self.world.follow(gone, "a:x")
        gone.connection.lost()
        sink = self.world.connect()
        self.world.follow(sink, "a:x")
        self.world.settle()
        self.broker.emit("a:x", 7)
        self.world.settle()
        self.assertEqual(got(sink), [7])
        self.assertEqual(gone.written, [])

    def test_number_of_subscriptions(self) -> None:
        """A channel knows how many subscriptions it has, and which."""
        live = [self.subscriber() for _ in range(2)]
        waiting = self.world.connect(SSE, transport="sse")
        waiting.connection.subscribe("a:x", Since.NOW)
        channel = self.world.node.channels["a:x"]
        self.assertEqual(len(channel), 3)
        self.assertEqual(
            {subscription.connection for subscription in channel.subscriptions()},
            {sink.connection for sink in (*live, waiting)},
        )


def failing(channel: str) -> Deferred[Position]:
    """Refuse to subscribe before returning."""
    return fail(RtpushError(ErrorCode.UNAVAILABLE, "the broker is away"))
