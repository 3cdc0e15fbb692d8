"""Tests of rtpush.broker.memory."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.broker.memory import Epochs, MemoryBroker
from rtpush.errors import ErrorCode, RtpushError
from rtpush.interfaces import IBroker
from rtpush.protocol.channel import Namespace, Namespaces
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Gap, Page
from tests.broker.contract import BrokerContract, Receiver, numbers, publication

NAMESPACES = Namespaces(
    [
        Namespace(name="h", history_size=3, history_ttl=60.0),
        Namespace(name="none"),
        Namespace(name="long", history_size=3, history_ttl=10_000.0),
    ]
)

ANN = PresenceEntry("c1", "websocket")


class MemoryContractTests(BrokerContract, TestCase):
    """The contract of all brokers."""

    def make_broker(self, namespaces: Namespaces) -> IBroker:
        """Return a broker on a clock of its own."""
        self.clock = Clock()
        return MemoryBroker(
            self.clock, namespaces, position_ttl=10 * self.history_ttl, idempotency_window=self.window
        )

    def advance(self, seconds: float) -> Deferred[None]:
        """Let the clock's time pass."""
        self.clock.pump([seconds / 10] * 10)
        return succeed(None)


class MemoryTests(SynchronousTestCase):
    """What is only true of this engine: when it lets go of what."""

    position_ttl = 1000.0
    window = 300.0

    def setUp(self) -> None:
        """Start a broker whose epochs are e1, e2, …"""
        self.clock = Clock()
        self.epochs = 0
        self.broker = MemoryBroker(
            self.clock,
            NAMESPACES,
            position_ttl=self.position_ttl,
            idempotency_window=self.window,
            make_epoch=self.make_epoch,
        )
        self.receiver = Receiver()
        self.successResultOf(self.broker.start(self.receiver))
        self.addCleanup(self.broker.stop)

    def make_epoch(self, channel: str, life: int) -> str:
        """Return the next epoch."""
        self.epochs += 1
        return f"e{self.epochs}"

    def publish(self, channel: str, number: int = 0, **options: object) -> Position | None:
        """Publish, and return the result."""
        return self.successResultOf(self.broker.publish(publication(channel, number, **options)))

    def history(self, channel: str, since: Position | None = None) -> Page:
        """Read history."""
        return self.successResultOf(self.broker.history(channel, since, 100))

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in steps."""
        self.clock.pump([step] * round(seconds / step))

    def test_reconfigured(self) -> None:
        """Channels keep as much, and as long, as their namespaces say now; one without any keeps what it has."""
        old = [Namespace(name="h", history_size=3, history_ttl=60.0), Namespace(name="x", history_size=3)]
        namespaces = Namespaces(old)
        self.broker = MemoryBroker(self.clock, namespaces, position_ttl=1000.0, idempotency_window=300.0)
        self.successResultOf(self.broker.start(self.receiver))
        self.addCleanup(self.broker.stop)
        for number in range(3):
            self.publish("h:a", number)
            self.publish("x:a", number)
        new = [Namespace(name="h", history_size=4, history_ttl=10.0)]
        namespaces.replace(new)
        self.broker.reconfigured(new, 65536)
        self.publish("h:a", 3)
        self.assertEqual(numbers(self.history("h:a").messages), [0, 1, 2, 3])
        self.wait(11)
        self.assertEqual(numbers(self.history("h:a").messages), [])
        self.assertEqual(numbers(self.history("x:a").messages), [0, 1, 2])

    def test_everything_at_once(self) -> None:
        """Nothing here waits for anything: what was published is delivered when the call returns."""
        self.broker.subscribe("h:a")
        self.publish("h:a", 7)
        self.assertEqual(numbers(self.receiver.messages), [7])

    def test_epochs(self) -> None:
        """Epochs are 8 letters and digits that do not repeat, and each channel has its own."""
        made = {Epochs()("h:a", 0) for _ in range(998)} | {(epochs := Epochs())("h:b", 0), epochs("h:b", 1)}
        self.assertEqual(len(made), 1000)
        for epoch in made:
            self.assertEqual(len(epoch), 8)
            self.assertEqual(Position.parse(f"{epoch}:7").epoch, epoch)
        self.assertEqual([self.publish(channel) for channel in ("h:a", "h:b")], [Position("e1", 1), Position("e2", 1)])

    def test_unknown_channel(self) -> None:
        """A channel of no namespace is refused, and nothing is remembered of it."""
        for call in (
            self.broker.publish(publication("nobody:a")),
            self.broker.history("nobody:a", None, 1),
            self.broker.history_before("nobody:a", None, 1),
        ):
            self.assertIs(self.failureResultOf(call, RtpushError).value.kind, ErrorCode.UNKNOWN_CHANNEL)
        self.assertEqual(len(self.broker), 0)

    def test_history_is_released(self) -> None:
        """Messages go with their time to live, though nobody reads or publishes."""
        self.publish("h:a", 1)
        held = self.broker._channels["h:a"].history
        self.wait(59)
        self.assertEqual(len(held), 1)
        self.wait(2)
        self.assertEqual(len(held), 0)
        self.assertEqual(held._messages, [])

    def test_history_is_released_in_parts(self) -> None:
        """Each message goes at its own time."""
        for number in range(3):
            self.publish("h:a", number)
            self.wait(15)
        held = self.broker._channels["h:a"].history
        sizes = []
        for _ in range(4):
            sizes.append(len(held))
            self.wait(16)
        self.assertEqual(sizes, [3, 2, 1, 0])

    def test_keys_are_released(self) -> None:
        """Idempotency keys go with their window."""
        self.publish("none:a", key="one")
        self.wait(200)
        self.publish("none:a", key="two")
        held = self.broker._channels["none:a"]
        self.wait(101)
        self.assertEqual(list(held.keys or ()), ["two"])
        self.wait(200)
        self.assertIsNone(held.keys)

    def test_key_between_two_sweeps(self) -> None:
        """A key does not count a moment longer for not having been swept away yet."""
        self.wait(0.5, 0.5)
        self.publish("h:a", key="k")
        self.clock.advance(self.window - 0.1)
        self.assertEqual(self.publish("h:a", key="k"), Position("e1", 1))
        self.clock.advance(0.1)
        self.assertIn("k", self.broker._channels["h:a"].keys or ())
        self.assertEqual(self.publish("h:a", key="k"), Position("e1", 2))

    def test_channel_is_released(self) -> None:
        """A channel is forgotten when nothing happened to it for the time that positions are remembered."""
        self.publish("h:a")
        self.wait(900)
        self.publish("h:a")
        self.wait(999)
        self.assertEqual(len(self.broker), 1)
        self.wait(2)
        self.assertEqual(len(self.broker), 0)

    def test_history_outlives_position(self) -> None:
        """A channel that still has messages is not forgotten, however long nothing happens to it."""
        self.publish("long:a", 1)
        self.wait(9_990, 10)
        self.assertEqual(numbers(self.history("long:a").messages), [1])
        self.wait(20)
        self.assertEqual(len(self.broker), 0)

    def test_keys_outlive_position(self) -> None:
        """A channel that still has keys is not forgotten."""
        self.broker = MemoryBroker(self.clock, NAMESPACES, position_ttl=10.0, idempotency_window=300.0)
        self.broker.start(self.receiver)
        first = self.publish("none:a", key="k")
        self.wait(299)
        self.assertEqual(self.publish("none:a", key="k"), first)
        self.wait(302)
        self.assertEqual(len(self.broker), 0)
        self.broker.stop()

    def test_subscribed_channel_stays(self) -> None:
        """A channel that this node is subscribed to is remembered; its time runs from when it was left."""
        self.publish("h:a")
        self.broker.subscribe("h:a")
        self.wait(5000, 10)
        self.broker.unsubscribe("h:a")
        self.wait(990)
        self.assertEqual(self.history("h:a").top, Position("e1", 1))
        self.wait(11)
        self.assertEqual(len(self.broker), 0)

    def test_channel_with_somebody_stays(self) -> None:
        """A channel that somebody is in is remembered, and released after that."""
        self.broker.join("h:a", ANN)
        self.wait(5000, 10)
        self.assertEqual(self.successResultOf(self.broker.presence("h:a")), [ANN])
        self.broker.leave("h:a", ANN)
        self.wait(1001)
        self.assertEqual(len(self.broker), 0)

    def test_reading_is_released(self) -> None:
        """A channel that was only read, or subscribed to and left, is forgotten too."""
        self.history("h:a")
        self.successResultOf(self.broker.history_before("h:b", None, 1))
        self.broker.subscribe("h:c")
        self.broker.unsubscribe("h:c")
        self.publish("h:d", history=False)
        self.successResultOf(self.broker.presence("h:e"))
        self.assertEqual(len(self.broker), 4)
        self.wait(1001)
        self.assertEqual(len(self.broker), 0)

    def test_unused_is_forgotten_soon(self) -> None:
        """Of a channel without a message nothing is kept, and yet whoever comes back to it misses nothing."""
        self.broker = MemoryBroker(self.clock, NAMESPACES, position_ttl=1000.0, idempotency_window=300.0)
        self.broker.start(self.receiver)
        before = self.history("h:a").top
        self.wait(2)
        self.assertEqual(len(self.broker), 0)
        self.assertEqual(self.history("h:a", before), Page([], before))
        published = self.publish("h:a")
        self.assertEqual(published, Position(before.epoch, 1))
        self.wait(1002)
        self.assertEqual(len(self.broker), 0)
        self.assertIs(self.history("h:a", published).gap, Gap.EPOCH_CHANGED)
        self.broker.stop()

    def test_new_epoch_after_forgetting(self) -> None:
        """A channel that was forgotten begins anew, and an old position is a gap, not a place in it."""
        old = self.publish("h:a")
        self.wait(1001)
        self.assertEqual(self.publish("h:a"), Position("e2", 1))
        self.assertIs(self.history("h:a", old).gap, Gap.EPOCH_CHANGED)

    def test_hundred_thousand_channels(self) -> None:
        """Very many idle channels are all released, a few at a time."""
        for number in range(100_000):
            self.broker.publish(publication(f"h:{number}", key="k" if number % 10 == 0 else None))
            if number % 1000 == 0:
                self.clock.advance(1)
        self.assertEqual(len(self.broker), 100_000)
        self.wait(890, 10)
        self.assertEqual(len(self.broker), 100_000)
        self.wait(60)
        self.assertTrue(40_000 < len(self.broker) < 60_000)
        self.wait(60, 10)
        self.assertEqual(len(self.broker), 0)
        self.assertEqual(len(self.broker._wheel), 0)

    def test_idle_costs_nothing(self) -> None:
        """A subscribed channel that has nothing to expire is not looked at again and again."""
        self.broker.subscribe("h:a")
        self.wait(400)
        self.assertNotIn("h:a", self.broker._wheel)
        self.publish("h:a")
        self.wait(61)
        self.assertEqual(len(self.broker._channels["h:a"].history), 0)

    def test_stop(self) -> None:
        """A stopped broker has no timer running."""
        self.broker.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.broker.stop()

    def test_before_start(self) -> None:
        """What is published before the start is kept."""
        broker = MemoryBroker(self.clock, NAMESPACES, position_ttl=10, idempotency_window=10)
        self.successResultOf(broker.subscribe("h:a"))
        self.successResultOf(broker.publish(publication("h:a", 7)))
        self.successResultOf(broker.join("h:a", ANN))
        self.successResultOf(broker.leave("h:a", ANN))
        self.assertEqual(numbers(self.successResultOf(broker.history("h:a", None, 10)).messages), [7])


_channels = st.sampled_from(["h:a", "h:b", "none:a"])
_connections = st.sampled_from(["c1", "c2", "c3"])


class MemoryAgainstModel(RuleBasedStateMachine):
    """A memory broker, and next to it plain lists."""

    window = 30.0

    @initialize()
    def begin(self) -> None:
        """Start both."""
        self.clock = Clock()
        self.broker = MemoryBroker(self.clock, NAMESPACES, position_ttl=1e9, idempotency_window=self.window)
        self.receiver = Receiver()
        self.broker.start(self.receiver)
        self.published: dict[str, list[tuple[int, float]]] = {}
        self.keys: dict[tuple[str, str], tuple[float, int | None]] = {}
        self.subscribed: set[str] = set()
        self.expected: list[tuple[str, int, int]] = []
        self.present: dict[str, dict[str, None]] = {}
        self.heard: list[tuple[str, str, str]] = []
        self.count = 0

    def result(self, deferred: Deferred[object]) -> object:
        """Return a result that is there."""
        results: list[object] = []
        deferred.addCallback(results.append)
        (result,) = results
        return result

    @rule(channel=_channels, history=st.booleans(), key=st.none() | st.sampled_from(["k", "l"]))
    def publish(self, channel: str, history: bool, key: str | None) -> None:
        """Publish the next number."""
        now = self.clock.seconds()
        self.count += 1
        position = self.result(self.broker.publish(publication(channel, self.count, history=history, key=key)))
        offset = None if position is None else position.offset
        if key is not None:
            used = self.keys.get((channel, key))
            if used is not None and now - used[0] < self.window:
                assert offset == used[1]
                return
            self.keys[channel, key] = (now, offset)
        messages = self.published.setdefault(channel, [])
        if history:
            messages.append((self.count, now))
            assert offset == len(messages)
        else:
            assert offset is None
        if channel in self.subscribed:
            self.expected.append((channel, self.count, offset or 0))

    @rule(seconds=st.integers(1, 50))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(channel=_channels)
    def subscribe(self, channel: str) -> None:
        """Subscribe."""
        position = self.result(self.broker.subscribe(channel))
        assert position.offset == len(self.published.get(channel, ()))
        self.subscribed.add(channel)

    @rule(channel=_channels)
    def unsubscribe(self, channel: str) -> None:
        """Unsubscribe."""
        self.broker.unsubscribe(channel)
        self.subscribed.discard(channel)

    @rule(channel=_channels, connection=_connections)
    def join(self, channel: str, connection: str) -> None:
        """Join."""
        self.broker.join(channel, PresenceEntry(connection, "sse"))
        self.present.setdefault(channel, {})[connection] = None
        if channel in self.subscribed:
            self.heard.append(("join", channel, connection))

    @rule(channel=_channels, connection=_connections)
    def leave(self, channel: str, connection: str) -> None:
        """Leave."""
        self.broker.leave(channel, PresenceEntry(connection, "sse"))
        if connection in self.present.get(channel, ()):
            del self.present[channel][connection]
            if channel in self.subscribed:
                self.heard.append(("leave", channel, connection))

    @rule(channel=_channels, since=st.integers(0, 15), limit=st.integers(0, 4))
    def read(self, channel: str, since: int, limit: int) -> None:
        """Read history from an offset, and backward from it."""
        kept, top = self.kept(channel)
        epoch = self.result(self.broker.history(channel, None, 0)).top.epoch
        page = self.result(self.broker.history(channel, Position(epoch, since), limit))
        assert page.top == Position(epoch, top)
        if since > top:
            assert page.gap is Gap.POSITION_AHEAD
        elif since < top - len(kept):
            assert page.gap is Gap.HISTORY_LOST
        else:
            assert page.gap is None
            assert numbers(page.messages) == [number for offset, number in kept if offset > since][:limit]
        page = self.result(self.broker.history_before(channel, Position(epoch, since), limit))
        assert numbers(page.messages) == [number for offset, number in kept if offset < since][::-1][:limit]

    def kept(self, channel: str) -> tuple[list[tuple[int, int]], int]:
        """Return the offsets and numbers that history must have, and the newest offset."""
        published = self.published.get(channel, [])
        size = 3 if channel.startswith("h:") else 0
        now = self.clock.seconds()
        kept = [(index + 1, number) for index, (number, at) in enumerate(published) if now - at < 60]
        return kept[len(kept) - min(size, len(kept)) :], len(published)

    @invariant()
    def same(self) -> None:
        """Both delivered and hold the same."""
        delivered = [(m.channel, int(m.payload.data), m.offset) for m in self.receiver.messages]
        assert delivered == self.expected
        heard = [(what, channel, entry.connection) for what, channel, entry in self.receiver.presence]
        assert heard == self.heard
        for channel in ("h:a", "h:b", "none:a"):
            page = self.result(self.broker.history(channel, None, 100))
            assert numbers(page.messages) == [number for _, number in self.kept(channel)[0]]
            present = self.result(self.broker.presence(channel))
            assert [entry.connection for entry in present] == list(self.present.get(channel, ()))

    def teardown(self) -> None:
        """Stop the broker."""
        self.broker.stop()


class ModelTests(SynchronousTestCase):
    """The engine against plain lists."""

    def test_against_model(self) -> None:
        """Any sequence of operations gives what plain lists give."""
        run_state_machine_as_test(MemoryAgainstModel, settings=settings(max_examples=40, stateful_step_count=30))


class RoomTests(SynchronousTestCase):
    """How many channels it remembers."""

    def test_full(self) -> None:
        """Beyond the bound there are no new channels, until an old one is forgotten; all goes on in those that are."""
        clock = Clock()
        broker = MemoryBroker(clock, NAMESPACES, position_ttl=100.0, idempotency_window=0.0, max_channels=2)
        self.successResultOf(broker.start(Receiver()))
        self.addCleanup(broker.stop)

        def publish(channel: str) -> Deferred[Position | None]:
            return broker.publish(publication(channel, 1))

        self.successResultOf(publish("h:a"))
        self.successResultOf(broker.subscribe("h:b"))
        history, joined = broker.history("h:e", None, 1), broker.join("h:f", ANN)
        for failed in (publish("h:c"), broker.subscribe("h:d"), history, joined):
            error = self.failureResultOf(failed, RtpushError).value
            self.assertIs(error.kind, ErrorCode.UNAVAILABLE)
        self.successResultOf(publish("h:a"))
        self.successResultOf(publish("h:b"))
        clock.pump([1.0] * 1000)
        self.assertEqual(len(broker), 1)
        self.successResultOf(publish("h:c"))
