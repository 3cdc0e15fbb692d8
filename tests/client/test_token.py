"""Tests of the token of the Python client: against a node in memory, on every transport."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.revocation import Revocation
from rtpush.client import Client, ClientClosed, LinkLost, ServerEnded, Status
from rtpush.client.negotiation import TRANSPORTS
from rtpush.client.token import Token
from rtpush.errors import RtpushError
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Message
from rtpush.testing import InMemoryServer
from tests.auth.makers import SECRET, hs

CONFIG = f"""
[server]
listen = tcp:8080:interface=127.0.0.1
node = memory
[api]
open = yes
[auth]
keys =
    hs HS256 {SECRET.decode()}
[namespace:demo]
history_size = 1000
subscribe = token
publish = token
presence = yes
[namespace:default]
history_size = 100
"""


def collector(got: list[bytes]) -> Callable[[Message], None]:
    """Return what collects the payloads of messages."""
    return lambda message: got.append(message.payload.data)


class TokenTests(SynchronousTestCase):
    """What gives the token."""

    def test_given(self) -> None:
        """One that is given is there at once, and stays, since there is no other."""
        token = Token("a")
        self.assertEqual((token.now, token.renews), ("a", False))
        token.forget()
        self.successResultOf(token.ready())
        self.assertEqual(token.now, "a")
        self.assertIsNone(Token(None).now)

    def test_asked(self) -> None:
        """It is asked for when it is needed, once for all who wait."""
        answers: list[Deferred[str]] = []

        def source() -> Deferred[str]:
            answers.append(Deferred())
            return answers[-1]

        token = Token(source)
        waiting = [token.ready(), token.renew(), token.ready()]
        self.assertEqual(len(answers), 1)
        answers[0].callback("a")
        for each in waiting:
            self.successResultOf(each)
        self.successResultOf(token.ready())
        self.assertEqual((token.now, len(answers)), ("a", 1))
        token.forget()
        token.ready()
        self.assertEqual((token.now, len(answers)), (None, 2))

    def test_coroutine(self) -> None:
        """What is called may be a coroutine function."""

        async def source() -> str:
            return "a"

        token = Token(source)
        self.successResultOf(token.ready())
        self.assertEqual(token.now, "a")

    def test_failure(self) -> None:
        """If there is none, that is told in one line; so is what is no token. Next time it is asked again."""
        outcomes: list[Any] = [ValueError("logged out"), 7, "a"]

        def source() -> Any:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        token = Token(source)
        self.assertIn("logged out", str(self.failureResultOf(token.ready(), LinkLost).value))
        self.failureResultOf(token.ready(), LinkLost)
        self.successResultOf(token.ready())


class ClientTests(SynchronousTestCase):
    """A client with a token."""

    def setUp(self) -> None:
        self.server = InMemoryServer(CONFIG)
        self.addCleanup(self.server.close)
        self.asked = 0

    def token(self, lasts: float = 1000, **claims: Any) -> str:
        """Make a token."""
        now = self.server.node.now()
        permitted = {"demo:*": ["subscribe", "publish", "presence"]}
        made = {"sub": "42", "iat": now, "exp": now + lasts, "channels": permitted, **claims}
        return hs(**made).decode()

    def client(self, transport: str, token: Any) -> Client:
        """Make a client."""
        client = Client(
            self.server.clock,
            self.server.url,
            transports=[transport],
            token=token,
            endpoints=self.server,
            random=Random(transport),
            direction="rare",
        )
        self.addCleanup(client.close)
        return client

    def source(self, lasts: float) -> Any:
        """Return what gives tokens, and counts them."""

        def give() -> str:
            self.asked += 1
            return self.token(lasts)

        return give

    def test_shown(self) -> None:
        """It is shown on every transport: to subscribe, to publish, and in presence."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                got: list[bytes] = []
                client = self.client(transport, self.token())
                client.subscribe("demo:a", collector(got))
                self.server.advance(1)
                published = client.publish("demo:a", "x")
                self.server.advance(12)
                self.successResultOf(published)
                self.assertEqual(got, [b"x"], (transport, client.status))
                if transport in ("websocket", "sse"):
                    there = client.presence("demo:a")
                    self.server.advance(1)
                    self.assertEqual([each.user for each in self.successResultOf(there)], ["42"])
                client.close()
                self.server.advance(1)

    def test_without(self) -> None:
        """Without one, what needs one is refused, and the client goes on."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                ends: list[Exception] = []
                client = self.client(transport, None)
                client.subscribe("demo:a", lambda message: None, on_end=ends.append)
                self.server.advance(8)
                [error] = ends
                self.assertIsInstance(error, RtpushError)
                self.assertIsNot(client.state, State.CLOSED)
                client.close()
                self.server.advance(1)

    def test_hopeless(self) -> None:
        """One that is no good, or is over and the only one, ends the client: it does not come back for ever."""
        now = self.server.node.now()
        for transport in TRANSPORTS:
            for token in ("nonsense", self.token(nbf=now + 1000), self.token(-100)):
                with self.subTest(transport=transport, token=token):
                    ends: list[Exception] = []
                    client = self.client(transport, token)
                    client.subscribe("demo:a", lambda message: None, on_end=ends.append)
                    self.server.advance(60)
                    self.assertEqual((client.state, len(ends)), (State.CLOSED, 1))

    def test_renewed(self) -> None:
        """Before it ends another one is asked for and shown; nothing is lost, and nothing comes twice."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                got: list[bytes] = []
                statuses: list[Status] = []
                client = self.client(transport, self.source(100))
                client.subscribe("demo:a", collector(got))
                self.server.advance(1)
                client.on_status(statuses.append)
                for number in range(100):
                    self.server.publish("demo:a", str(number))
                    self.server.advance(5)
                self.server.advance(10)
                self.assertEqual(got, [str(number).encode() for number in range(100)])
                self.assertGreater(self.asked, 4)
                if transport in ("websocket", "sse"):
                    self.assertEqual(statuses, [])
                client.close()
                self.server.advance(1)

    def test_expired_between(self) -> None:
        """One that has ended while there was no connection is replaced, not shown for ever."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                got: list[bytes] = []
                client = self.client(transport, self.source(100))
                client.subscribe("demo:a", collector(got))
                self.server.advance(1)
                self.server.network.is_down = True
                self.server.network.cut()
                self.server.advance(120)
                self.server.network.is_down = False
                self.server.publish("demo:a", "x")
                self.server.advance(60)
                self.assertEqual(got[-1:], [b"x"])
                self.assertIsNot(client.state, State.CLOSED)
                client.close()
                self.server.advance(1)

    def test_taken_back(self) -> None:
        """When it is taken back the client is closed, whatever gives others."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                ends: list[Exception] = []
                client = self.client(transport, self.source(1000))
                client.subscribe("demo:a", lambda message: None, on_end=ends.append)
                self.server.advance(1)
                until = self.server.node.now() + 1000
                self.server.node.revoking.publish(Revocation(user="42", before=until, until=until))
                self.server.advance(40)
                self.assertEqual((client.state, len(ends)), (State.CLOSED, 1))
                self.assertIsInstance(ends[0], ServerEnded | ClientClosed)
                self.server.restart()

    def test_none_to_be_had(self) -> None:
        """While the application has none, the client waits, and asks again."""
        outcomes: list[Any] = [ValueError("not yet"), ValueError("not yet"), None]

        def give() -> str:
            outcome = outcomes.pop(0) if outcomes else None
            if outcome is not None:
                raise outcome
            return self.token()

        statuses: list[Status] = []
        client = self.client("websocket", give)
        client.on_status(statuses.append)
        client.connect()
        self.server.advance(10)
        self.assertIn("there is no token: not yet", [status.reason for status in statuses])
        self.assertEqual(client.state, State.OPEN)

