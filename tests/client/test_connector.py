"""Tests of rtpush.client.connector, by way of a client of a node in memory."""

from __future__ import annotations

import attrs
from twisted.internet.defer import fail

from rtpush.client import Client, Status
from rtpush.client.negotiation import TRANSPORTS
from rtpush.client.subscription import ignore
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.pushes import GapPush
from tests.client.memory import MemoryTests, collector

#: Long enough to come back when the first attempt succeeds: 1 s and up to 1 s of jitter.
BACK = 3.0


class ConnectionTests(MemoryTests):
    """Finding a transport, losing it, and finding a better one."""

    def statuses(self, client: Client) -> list[Status]:
        """Return a list that all statuses of a client go to."""
        heard: list[Status] = []
        client.on_status(heard.append)
        return heard

    def test_states(self) -> None:
        """A client is closed until it is asked for something, then connecting, open, closed."""
        client = self.client()
        self.assertEqual((client.state, client.transport), (State.CLOSED, None))
        heard = self.statuses(client)
        client.connect()
        self.run_for(1)
        self.assertEqual((client.state, client.transport), (State.OPEN, "websocket"))
        self.wait(client.close(), 1)
        self.assertEqual([status.state for status in heard], [State.CONNECTING, State.OPEN, State.CLOSED])

    def test_ways_down(self) -> None:
        """A transport that does not come through is left within seconds, wherever it gets stuck."""
        for obstacles, transport, within in (
            ({}, "websocket", 0.1),
            ({"/ws": "refuse"}, "sse", 0.1),
            ({"/ws": "mute"}, "sse", 5.1),
            ({"/ws": "hold"}, "sse", 5.1),
            ({"/ws": "refuse", "/sse": "refuse"}, "longpoll", 0.1),
            ({"/ws": "refuse", "/sse": "hold"}, "longpoll", 5.1),
            ({"/ws": "mute", "/sse": "mute"}, "longpoll", 10.1),
            ({"/negotiate": "refuse", "/ws": "refuse"}, "sse", 0.1),
            ({"/negotiate": "hold"}, "websocket", 5.1),
        ):
            with self.subTest(obstacles=obstacles):
                self.network.obstacles = obstacles
                client = self.client()
                got, take = collector()
                client.subscribe("demo:a", take)
                self.run_for(within)
                self.assertEqual(client.transport, transport)
                self.network.obstacles = {}
                self.publish("demo:a", 1)
                self.run_for(1)
                self.assertEqual(got, [1])

    def test_remembers(self) -> None:
        """After a cut, what worked is tried first."""
        self.network.obstacles = {"/ws": "mute"}
        client = self.client()
        client.subscribe("demo:a", ignore)
        self.run_for(6)
        self.network.cut()
        self.run_for(BACK)
        self.assertEqual((client.state, client.transport), (State.OPEN, "sse"))

    def test_climbs(self) -> None:
        """When a better transport comes through again, the client moves to it, and nothing is lost or doubled."""
        self.network.obstacles = {"/ws": "mute", "/sse": "hold"}
        client = self.client()
        heard = self.statuses(client)
        got, take = collector()
        gaps: list[GapPush] = []
        client.subscribe("demo:a", take, on_gap=gaps.append)
        self.run_for(11)
        self.assertEqual(client.transport, "longpoll")
        for number in range(300):
            if number == 20:
                self.network.obstacles = {"/ws": "mute"}
            if number == 150:
                self.network.obstacles = {}
            self.publish("demo:a", number)
            self.run_for(1)
        self.run_for(5)
        self.assertEqual(got, list(range(300)))
        self.assertEqual(gaps, [])
        self.assertEqual(
            [status.transport for status in heard if status.state is State.OPEN], ["longpoll", "sse", "websocket"]
        )

    def test_climb_that_fails(self) -> None:
        """An attempt to climb that comes to nothing disturbs nobody, and the next one is later."""
        self.network.obstacles = {"/ws": "refuse"}
        client = self.client("websocket", "longpoll")
        heard = self.statuses(client)
        client.subscribe("demo:a", ignore)
        self.run_for(61)
        self.network.obstacles = {}
        self.run_for(115)
        self.assertEqual(client.transport, "longpoll")
        self.run_for(10)
        self.assertEqual(client.transport, "websocket")
        self.assertEqual([status.transport for status in heard], [None, "longpoll", "websocket"])

    def test_climb_with_publishes(self) -> None:
        """What is published while the client climbs is there once and in order."""
        self.network.obstacles = {"/ws": "refuse"}
        client = self.client(climb_after=1.0)
        client.subscribe("demo:a", ignore)
        self.run_for(0.5)
        self.network.obstacles = {}
        results = []
        for number in range(100):
            results.append(client.publish("demo:a", number))
            self.network.flush()
            self.clock.advance(0.01)
        self.run_for(5)
        self.assertEqual(client.transport, "websocket")
        self.assertEqual([self.successResultOf(result).offset for result in results], list(range(1, 101)))

    def test_short_lives(self) -> None:
        """A transport that is cut again and again is left for the next one."""
        client = self.client()
        got, take = collector()
        client.subscribe("demo:a", take)
        self.run_for(1)
        for number in range(3):
            self.assertEqual(client.transport, "websocket")
            self.network.cut()
            self.publish("demo:a", number)
            self.run_for(BACK)
        self.assertEqual(client.transport, "sse")
        self.assertEqual(got, [0, 1, 2])

    def test_silence(self) -> None:
        """A connection on which nothing comes for a heartbeat and a grace is given up, and the client comes back."""
        for transport, path, longest in (
            ("websocket", "/ws", 40.1),
            ("sse", "/sse", 40.1),
            ("longpoll", "/poll", 50.1),
            ("shortpoll", "/poll", 20.1),
        ):
            with self.subTest(transport=transport):
                client = self.client(transport)
                got, take = collector()
                self.wait(client.subscribe(f"demo:{transport}", take).when_live())
                self.run_for(100)
                self.assertEqual(client.transport, transport)
                self.network.obstacles = {path: "hold"}
                self.run_for(longest)
                self.assertEqual(client.state, State.CONNECTING)
                self.network.obstacles = {}
                self.publish(f"demo:{transport}", 1)
                self.run_for(15)
                self.assertEqual(got, [1])

    def test_idle_stays(self) -> None:
        """A connection on which nothing happens but heartbeats stays for hours."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                client.subscribe("demo:a", ignore)
                self.run_for(1)
                heard = self.statuses(client)
                self.run_for(1800)
                self.assertEqual(heard, [])
                self.assertEqual(client.state, State.OPEN)
                self.wait(client.close(), 1)

    def test_backoff(self) -> None:
        """While the server is away the attempts get rarer, up to the maximum; one connection is tried in each."""
        self.network.is_down = True
        client = self.client()
        heard = self.statuses(client)
        client.connect()
        self.run_for(400)
        delays = [status.delay for status in heard if status.delay is not None]
        for attempt, delay in enumerate(delays):
            low = min(2.0**attempt, 30.0)
            self.assertTrue(low <= delay < low + 1, (attempt, delay))
        self.assertGreater(len(delays), 10)
        self.assertIn("connection refused", heard[1].reason)

    def test_backoff_begins_again(self) -> None:
        """A connection that was open resets the backoff."""
        self.network.is_down = True
        client = self.client()
        client.connect()
        self.run_for(20)
        self.network.is_down = False
        self.run_for(40)
        heard = self.statuses(client)
        self.network.cut()
        self.run_for(BACK)
        assert heard[0].delay is not None
        self.assertLess(heard[0].delay, 2.0)

    def test_busy_server(self) -> None:
        """A server that is busy says when to come back; the client asks nothing before."""
        for path in ("/negotiate", "/ws", "/sse", "/poll"):
            with self.subTest(path=path):
                self.network.obstacles = {path: "busy"}
                client = self.client({"/ws": "websocket", "/poll": "longpoll"}.get(path, "sse"))
                heard = self.statuses(client)
                client.subscribe("demo:a", ignore)
                self.run_for(6.9)
                self.assertEqual([status.delay for status in heard], [None, 7.0])
                self.network.obstacles = {}
                self.run_for(1)
                self.assertEqual(client.state, State.OPEN)

    def break_broker(self) -> None:
        """Have the broker refuse everything until :meth:`mend_broker`."""
        for name in ("publish", "history", "history_before", "subscribe"):
            setattr(self.node.broker, name, lambda *_: fail(RtpushError(ErrorCode.UNAVAILABLE, "the broker is away")))

    def mend_broker(self) -> None:
        """Have it work again."""
        for name in ("publish", "history", "history_before", "subscribe"):
            delattr(self.node.broker, name)

    def test_broker_away(self) -> None:
        """While the broker is away a client on any transport tries again, and does not leave its transport for that."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport, *[name for name in TRANSPORTS if name != transport])
                self.network.obstacles = {
                    f"/{route}": "refuse"
                    for name, route in (("websocket", "ws"), ("sse", "sse"))
                    if TRANSPORTS.index(name) < TRANSPORTS.index(transport)
                }
                got, take = collector()
                ended: list[Exception] = []
                self.break_broker()
                client.subscribe("demo:a", take, on_end=ended.append)
                self.run_for(120)
                self.mend_broker()
                self.run_for(40)
                self.publish("demo:a", transport)
                self.run_for(10)
                self.assertEqual((got, ended), ([transport], []))
                self.assertEqual(client.state, State.OPEN)
                self.wait(client.close(), 1)

    def test_broker_away_for_polls(self) -> None:
        """A poll that is refused for a while is no reason for a lesser transport, however often that happens."""
        client = self.client("shortpoll", "longpoll", direction="rare")
        got, take = collector()
        client.subscribe("demo:a", take)
        self.run_for(1)
        for n in range(5):
            self.break_broker()
            self.publish_past_broker(n)
            self.run_for(30)
            self.mend_broker()
            self.run_for(6)
            self.assertEqual(client.transport, "shortpoll")
        self.assertEqual(got, [0, 1, 2, 3, 4])

    def publish_past_broker(self, number: int) -> None:
        """Publish a message as another node would."""
        self.node.broker._publish(Publication("demo:a", Payload(b"%d" % number, Kind.JSON)))

    def test_publish_while_broker_is_away(self) -> None:
        """A publish fails with what it is, on any transport, and the next one goes through; nothing is closed."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                client = self.client(transport)
                client.subscribe("demo:a", ignore)
                self.run_for(1)
                heard = self.statuses(client)
                self.break_broker()
                published = client.publish("demo:a", 1)
                self.run_for(1)
                failure = self.failureResultOf(published, RtpushError)
                self.assertIs(failure.value.kind, ErrorCode.UNAVAILABLE)
                self.mend_broker()
                self.wait(client.publish("demo:a", 2), 1)
                self.assertEqual(heard, [])
                self.wait(client.close(), 1)

    def test_nothing_in_common(self) -> None:
        """Where the server offers no transport that is wanted, that is the end."""
        server = attrs.evolve(self.config.server, transports=("sse",))
        self.restart(attrs.evolve(self.config, server=server))
        client = self.client("websocket")
        client.connect()
        self.run_for(1)
        self.assertEqual(client.state, State.CLOSED)
        self.assertIn("offers none of websocket", client.status.reason)

    def test_bad_arguments(self) -> None:
        """What cannot be a URL, transport, channel or position is a ValueError at once."""
        self.assertRaises(ValueError, Client, self.clock, "memory")
        self.assertRaises(ValueError, self.client, "pigeon")
        client = self.client()
        for channel, options in (("", {}), ("a,b", {}), ("a", {"position": "x"}), ("a", {"since": "yesterday"})):
            self.assertRaises(ValueError, client.subscribe, channel, ignore, **options)
        client.subscribe("demo:a", ignore)
        self.assertRaises(ValueError, client.subscribe, "demo:a", ignore)
