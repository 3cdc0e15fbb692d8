"""Tests of the Python client where an application is asked about it: against a node in memory, on every transport."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rtpush.client import Client, ServerEnded, Subscription
from rtpush.client.negotiation import TRANSPORTS
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.hooks.application import Application
from rtpush.hooks.settings import HookSettings
from rtpush.protocol.lifecycle import State
from rtpush.testing import InMemoryServer
from tests.hooks.fakes import FakeBackend

_CONFIG = """
[server]
listen = tcp:8080:interface=127.0.0.1
node = memory
transports = websocket, sse, longpoll, shortpoll
[api]
open = yes
[namespace:demo]
history_size = 100
publish = anyone
"""


class HookTests(SynchronousTestCase):
    """What the application says reaches the user of the client."""

    def start(self, transport: str, **answers: Any) -> None:
        """Start a server whose application answers so, and make a client that tells all that it hears."""
        self.backend = FakeBackend(**{"connect": {}, "subscribe": {}, "publish": {}, "disconnect": {}, **answers})
        self.server = InMemoryServer(_CONFIG)
        self.addCleanup(self.server.close)
        node, clock = self.server.node, self.server.clock
        node.hooks = Application(
            HookSettings(url="http://app.example/", remember=0),
            self.backend,
            clock,
            node="memory",
            now=clock.seconds,
            chance=lambda: 0.5,
            counts=node.counts.hooks,
        )
        self.heard: list[tuple[str, Any]] = []
        self.client = self.make(transport)

    def make(self, transport: str, **options: Any) -> Client:
        """Make a client."""
        client = Client(
            self.server.clock,
            self.server.url,
            transports=[transport],
            endpoints=self.server,
            random=Random(transport),
            direction="rare",
            **options,
        )
        self.addCleanup(client.close)
        client.on_data(lambda data: self.heard.append(("client", data)))
        return client

    def follow(self, channel: str, **options: Any) -> Subscription:
        """Follow a channel."""
        return self.client.subscribe(
            channel,
            lambda message: self.heard.append((channel, message.data)),
            on_data=lambda data: self.heard.append((channel, data)),
            on_end=lambda error: self.heard.append((channel, error)),
            **options,
        )

    def test_told(self) -> None:
        """What is said is heard before all messages, on every transport; also of a channel that is followed later."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.start(transport, connect={"data": {"unread": 7}}, subscribe={"data": [3]})
                self.server.publish("demo:a", "x")
                first = self.follow("demo:a", since="earliest")
                self.server.advance(12)
                self.assertEqual(self.heard, [("client", {"unread": 7}), ("demo:a", [3]), ("demo:a", "x")])
                self.assertEqual((self.client.data, first.data), ({"unread": 7}, [3]))
                self.backend.answers["subscribe"] = {"data": 4}
                later = self.follow("demo:b")
                self.assertIsNone(later.data)
                self.server.advance(12)
                self.assertIn(("demo:b", 4), self.heard)
                self.assertEqual(later.data, 4)

    def test_told_again(self) -> None:
        """After a cut it is heard again, unless polls just go on."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.start(transport, connect={"data": 1}, subscribe={"data": 1})
                self.follow("demo:a")
                self.server.advance(3)
                self.heard.clear()
                self.backend.answers |= {"connect": {"data": 2}, "subscribe": {"data": 2}}
                self.server.network.cut()
                self.server.advance(12)
                expected = [] if "poll" in transport else [("client", 2), ("demo:a", 2)]
                self.assertEqual(self.heard, expected)
                self.assertIs(self.client.state, State.OPEN)

    def test_nothing(self) -> None:
        """Where nothing is said, nothing is heard."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.start(transport)
                subscription = self.follow("demo:a")
                self.server.advance(12)
                self.assertEqual((self.heard, self.client.data, subscription.data), ([], None, None))
                self.assertIs(self.client.state, State.OPEN)

    def test_said(self) -> None:
        """What the client says goes with ``connect``, and nothing does if there is nothing."""
        self.start("websocket")
        self.make("websocket", data={"session": 5}, info={"name": "Ann"}).connect()
        self.client.connect()
        self.server.advance(1)
        said = sorted((str(each.get("data")), str(each.get("info"))) for each in self.backend.of("connect"))
        self.assertEqual(said, [("None", "None"), ("{'session': 5}", "{'name': 'Ann'}")])

    def test_kept_out(self) -> None:
        """Who is not let in hears why, and does not come back, with one channel, several or none."""
        for transport in TRANSPORTS:
            for code, told in ((None, 4503), (1234, 4503), (4567, 4567)):
                for channels in ([], ["demo:a"], ["demo:a", "demo:b"]):
                    with self.subTest(transport=transport, code=code, channels=channels):
                        deny = {"message": "log in first"} | ({} if code is None else {"code": code})
                        self.start(transport, connect={"deny": deny})
                        self.client.connect()
                        for channel in channels:
                            self.follow(channel)
                        self.server.advance(6)
                        self.assertIs(self.client.state, State.CLOSED)
                        self.assertIn("log in first", self.client.status.reason)
                        asked = len(self.backend.asked)
                        self.server.advance(200)
                        self.assertEqual(len(self.backend.asked), asked)
                        self.assertEqual([channel for channel, _ in self.heard], channels)
                        for _, error in self.heard:
                            self.assertIsInstance(error, ServerEnded)
                            self.assertEqual(error.code, told)

    def test_unauthorized(self) -> None:
        """The same if it says who that is it does not know."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.start(transport, connect=(401, b""))
                self.follow("demo:a")
                self.server.advance(6)
                self.assertIs(self.client.state, State.CLOSED)

    def test_later(self) -> None:
        """Who may come back later does so, when the application says that, or nothing at all."""
        for transport in TRANSPORTS:
            for answer in ({"deny": {"code": 4003}}, (500, b"")):
                with self.subTest(transport=transport, answer=answer):
                    self.start(transport, connect=answer)
                    self.follow("demo:a")
                    self.server.advance(5)
                    self.assertIs(self.client.state, State.CONNECTING)
                    self.backend.answers["connect"] = {"data": 1}
                    self.server.advance(60)
                    self.assertIs(self.client.state, State.OPEN)
                    self.assertEqual(self.heard, [("client", 1)])

    def test_denied(self) -> None:
        """A channel that is denied ends alone, with the application's code."""
        for transport in TRANSPORTS:
            for code in (None, 1234):
                with self.subTest(transport=transport, code=code):
                    deny = {"message": "it is full"} | ({} if code is None else {"code": code})
                    self.start(transport, subscribe={"deny": deny})
                    self.follow("demo:a")
                    self.follow("demo:b")
                    self.server.advance(6)
                    self.backend.answers["subscribe"] = {}
                    self.follow("demo:c")
                    self.server.advance(12)
                    self.server.publish("demo:c", 1)
                    self.server.advance(12)
                    self.assertEqual([channel for channel, _ in self.heard], ["demo:a", "demo:b", "demo:c"])
                    for _, error in self.heard[:2]:
                        assert isinstance(error, RtpushError)
                        self.assertIs(error.kind, ErrorCode.PERMISSION_DENIED)
                        self.assertEqual((error.code, error.message), (code or 102, "it is full"))
                    self.assertEqual(self.heard[2], ("demo:c", 1))

    def test_disconnected(self) -> None:
        """4003 has the client come back with what it has missed, and 4503 not."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                self.start(transport)
                self.follow("demo:a")
                self.server.advance(3)
                self.end(Disconnect.RECONNECT)
                self.server.publish("demo:a", 1)
                self.server.advance(5)
                self.assertEqual(self.heard, [("demo:a", 1)])
                self.end(Disconnect.PERMISSION_DENIED)
                self.server.advance(5)
                self.assertIs(self.client.state, State.CLOSED)
                [_, (_, error)] = self.heard
                self.assertEqual((type(error), error.code), (ServerEnded, 4503))

    def end(self, why: Disconnect) -> None:
        """End the client's connection."""
        for connection in list(self.server.node.connections.values()):
            connection.disconnect(why)
        self.server.advance()
