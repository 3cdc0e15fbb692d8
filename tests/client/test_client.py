"""Tests of rtpush.client.client: its end, and whatever may happen to it, against a node in memory."""

from __future__ import annotations

from random import Random
from typing import Any

from rtpush.client import Client, ClientClosed, NotDelivered, Subscription
from rtpush.client.negotiation import TRANSPORTS
from rtpush.client.subscription import ignore
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Message
from rtpush.protocol.pushes import GapPush
from tests.client.memory import MemoryTests, collector

#: Long enough for any transport to bring what is there: short polls rest for 5 s.
SETTLE = 6.0


class _Closer:
    """Closes a client when it is called, and counts that."""

    def __init__(self, client: Client) -> None:
        self.calls = 0
        self._client = client

    def __call__(self, *_: object) -> None:
        self.calls += 1
        self._client.close()


class EndTests(MemoryTests):
    """Closing, and callbacks that misbehave."""

    def test_close(self) -> None:
        """What waits when the client is closed fails, and nothing can be asked of it then."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                ends: list[Exception] = []
                subscription = client.subscribe("demo:a", ignore, on_end=ends.append)
                live = subscription.when_live()
                result = client.publish("demo:a", 1)
                closing = client.close()
                self.failureResultOf(result, ClientClosed)
                self.failureResultOf(live, ClientClosed)
                self.wait(closing)
                self.assertEqual(ends, [])
                self.assertIsInstance(subscription.error, ClientClosed)
                self.failureResultOf(client.publish("demo:a", 1), ClientClosed)
                self.assertRaises(ClientClosed, client.subscribe, "demo:b", ignore)
                self.assertRaises(ClientClosed, client.connect)
                self.wait(client.close(), 1)

    def test_close_leaves_nothing(self) -> None:
        """A closed client has no connection, at whatever moment it is closed."""
        for transport in TRANSPORTS:
            for turns in range(14):
                with self.subTest(transport=transport, turns=turns):
                    client = self.client(transport)
                    client.subscribe("demo:a", ignore)
                    client.publish("demo:a", 1).addErrback(lambda _: None)
                    for _ in range(turns):
                        self.network.flush()
                        self.clock.advance(0)
                    self.wait(client.close(), 1)
                    self.assertEqual(self.network.links, [])

    def test_close_in_callbacks(self) -> None:
        """A client may be closed by whatever it calls, and nothing is left of it then."""
        self.publish("demo:a", 1, 2)
        for transport in TRANSPORTS:
            for moment in ("open", "message", "answer", "gone"):
                with self.subTest(transport=transport, moment=moment):
                    self.network.is_down = False
                    client = self.client(transport)
                    close = _Closer(client)
                    if moment == "open":
                        client.on_status(lambda status, close=close: status.transport and close())
                    if moment == "gone":
                        client.on_status(lambda status, close=close: status.delay and close())
                    client.subscribe("demo:a", close if moment == "message" else ignore, since="earliest")
                    if moment == "answer":
                        client.publish("demo:a", 3).addCallback(close)
                    self.run_for(1)
                    self.network.is_down = True
                    self.network.cut()
                    self.run_for(SETTLE)
                    self.assertEqual(close.calls, 1)
                    self.assertEqual(client.state, State.CLOSED)
                    self.assertEqual(self.network.links, [])

    def test_close_when_nothing_opens(self) -> None:
        """A client may be closed when it says that its first attempt has failed, and tries no more."""
        self.network.is_down = True
        client = self.client()
        close = _Closer(client)
        client.on_status(lambda status: status.delay and close())
        client.connect()
        self.run_for(100)
        self.assertEqual((close.calls, client.state), (1, State.CLOSED))

    def test_unsubscribe_in_a_callback(self) -> None:
        """A subscription that ends itself gets nothing more."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.publish(f"demo:{transport}", *range(10))
                client = self.client(transport)
                got: list[Any] = []

                subscriptions: list[Subscription] = []

                def take(message: Message, got: list[Any] = got, mine: list[Subscription] = subscriptions) -> None:
                    got.append(message.payload.as_object())
                    if len(got) == 3:
                        mine[0].unsubscribe()

                subscription = client.subscribe(f"demo:{transport}", take, since="earliest")
                subscriptions.append(subscription)
                self.run_for(SETTLE)
                self.assertEqual(got, [0, 1, 2])
                assert subscription.position is not None
                self.assertEqual(subscription.position.offset, 3)

    def test_callback_that_fails(self) -> None:
        """What a callback raises is logged, and stops nothing."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                got: list[Any] = []

                def take(message: Message, got: list[Any] = got) -> None:
                    got.append(message.payload.as_object())
                    raise ZeroDivisionError

                client.on_status(lambda _: 1 / 0)
                self.wait(client.subscribe(f"demo:{transport}", take).when_live())
                self.publish(f"demo:{transport}", 1, 2)
                self.run_for(SETTLE)
                self.assertEqual(got, [1, 2])
                self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)
                self.wait(client.close(), 1)
                self.flushLoggedErrors(ZeroDivisionError)


class AnythingTests(MemoryTests):
    """Whatever the network does."""

    def test_anything(self) -> None:
        """Through chance cuts, outages and obstacles each message comes once, in order; so does what is published."""
        for seed in range(10):
            with self.subTest(seed=seed):
                self._live_through(Random(seed), str(seed))

    def _live_through(self, random: Random, seed: str) -> None:
        client = self.client(climb_after=random.choice([1.0, 5.0, 60.0]))
        gaps: list[GapPush] = []
        channels = [f"demo:{seed}-{number}" for number in range(3)]
        published = dict.fromkeys(channels, 0)
        followed: dict[str, list[Any]] = {}
        for channel in channels:
            followed[channel], take = collector()
            client.subscribe(channel, take, since=random.choice(["now", "earliest"]), on_gap=gaps.append)
        self.run_for(1)
        for number in range(150):
            self._stir(random)
            channel = random.choice(channels)
            if not self.network.is_down:
                self.publish(channel, published[channel])
                published[channel] += 1
            if random.random() < 0.2:
                client.publish(f"demo:{seed}", number).addErrback(lambda failure: failure.trap(NotDelivered) and None)
            self.run_for(random.choice([0, 0.01, 0.3, 1, 7]))
        self.network.obstacles = {}
        self.network.is_down = False
        self.run_for(150)
        self.assertEqual(followed, {channel: list(range(published[channel])) for channel in channels})
        self.assertEqual(gaps, [])
        page = self.wait(self.api().history(f"demo:{seed}", limit=1000))
        numbers = [message.payload.as_object() for message in page.messages]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.wait(client.close(), 1)

    def _stir(self, random: Random) -> None:
        """Change the network, or do not."""
        chance = random.random()
        if chance < 0.2:
            # Some of what is on its way may still arrive.
            for _ in range(random.randrange(4)):
                self.network.flush()
            self.network.cut()
        elif chance < 0.35:
            paths = random.sample(["/ws", "/sse", "/poll", "/emit", "/negotiate"], random.randrange(4))
            self.network.obstacles = {path: random.choice(["refuse", "busy", "hold", "mute"]) for path in paths}
        elif chance < 0.5:
            self.network.obstacles = {}
        self.network.is_down = chance > 0.96 or (self.network.is_down and chance > 0.3)
