"""Tests of tokens for single channels in the Python client: against a node in memory, on every transport."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.revocation import Revocation
from rtpush.client import Client, NotDelivered, ServerEnded
from rtpush.client.following import Following
from rtpush.client.negotiation import TRANSPORTS
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Message
from rtpush.protocol.pushes import Unsubscribed
from rtpush.testing import InMemoryServer
from tests.auth.makers import hs
from tests.client.test_token import CONFIG


def _same(given: Any) -> Any:
    return given


class Seen:
    """
    A subscription, and what is heard of it.

    :ivar asked: How often another token was asked for.
    """

    def __init__(self, client: Client, channel: str, token: Any = None) -> None:
        self.got: list[bytes] = []
        self.ends: list[Exception] = []
        self.asked = 0
        self._source = token
        given = self._give if callable(token) else token
        self.subscription = client.subscribe(channel, self._message, token=given, on_end=self.ends.append)

    def _give(self) -> Any:
        self.asked += 1
        return self._source()

    def _message(self, message: Message) -> None:
        self.got.append(message.payload.data)


class ChannelTokenTests(SynchronousTestCase):
    """A client that follows some channels with tokens of their own."""

    def setUp(self) -> None:
        self.server = InMemoryServer(f"{CONFIG}\n[namespace:news]\nhistory_size = 100\nanonymous = yes\n")
        self.addCleanup(self.server.close)

    def token(self, channel: str = "demo:a", lasts: float = 1000, **claims: Any) -> str:
        """Make a token for a channel."""
        now = self.server.node.now()
        made = {"iat": now, "exp": now + lasts, "channel": channel, "actions": ["subscribe", "publish"], **claims}
        return hs(**made).decode()

    def client(self, *transports: str, **options: Any) -> Client:
        """Make a client."""
        client = Client(
            self.server.clock,
            self.server.url,
            transports=transports,
            endpoints=self.server,
            random=Random("".join(transports)),
            direction="rare",
            **options,
        )
        self.addCleanup(client.close)
        return client

    def done(self, deferred: Deferred[Any], seconds: float = 2) -> Any:
        """Return what comes within some seconds."""
        self.server.advance(seconds)
        return self.successResultOf(deferred)

    def test_shown(self) -> None:
        """It is shown to follow its channel and to publish there, on every transport; others have none."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                seen, other = Seen(client, "demo:a", self.token()), Seen(client, "news:b")
                refused = Seen(client, "demo:b")
                first = client.publish("demo:a", "x")
                self.assertIsNotNone(self.done(first))
                self.server.advance(12)
                self.assertIsNotNone(self.done(client.publish("demo:a", "y")))
                self.server.publish("news:b", "z")
                self.server.advance(12)
                self.assertEqual((seen.got[-1:], other.got), ([b"y"], [b"z"]))
                [error] = refused.ends
                self.assertIs(getattr(error, "kind", None), ErrorCode.UNAUTHORIZED)
                seen.subscription.unsubscribe()
                late = client.publish("demo:a", "x")
                self.server.advance(2)
                self.failureResultOf(late, RtpushError)
                client.close()
                self.server.advance(1)

    def test_renewed(self) -> None:
        """Before its end, or at it on polls, another one is asked for; nothing is lost, and nothing comes twice."""
        ended: list[Unsubscribed] = []
        hear = Following.unsubscribed
        self.patch(Following, "unsubscribed", lambda self, push: (ended.append(push), hear(self, push)))
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                seen = Seen(client, "demo:a", lambda: self.token(lasts=100))
                other = Seen(client, "news:b")
                self.server.advance(3)
                statuses: list[Any] = []
                client.on_status(statuses.append)
                for number in range(60):
                    self.server.publish("demo:a", str(number))
                    self.server.publish("news:b", str(number))
                    self.server.advance(5)
                self.server.advance(12)
                expected = [str(number).encode() for number in range(60)]
                self.assertEqual((seen.got, other.got), (expected, expected))
                self.assertTrue(3 <= seen.asked <= 12, seen.asked)
                # One that is told of its end has replaced it before.
                self.assertEqual(bool(ended), transport == "longpoll")
                ended.clear()
                self.assertEqual((statuses, seen.ends), ([], []))
                client.close()
                self.server.advance(1)

    def test_published(self) -> None:
        """What is published when it has ended, before anybody has said so, is published with another one."""
        client = self.client("shortpoll")
        seen = Seen(client, "demo:a", lambda: self.token(lasts=22))
        self.server.advance(1)
        over = self.server.node.now() + 22 - 1 + self.server.node.leeway
        self.server.advance(over + 0.01 - self.server.node.now())
        published = client.publish("demo:a", "x"), client.publish("news:b", "x")
        self.server.advance(0.1)
        self.assertNoResult(published[0])
        self.failureResultOf(published[1], RtpushError)
        self.server.advance(15)
        self.assertIsNotNone(self.successResultOf(published[0]))
        self.assertEqual((seen.got, seen.asked, seen.ends), ([b"x"], 2, []))

    def test_replaced(self) -> None:
        """One that has ended while there was no connection is replaced when it is refused; other channels go on."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                seen = Seen(client, "demo:a", lambda: self.token(lasts=100))
                other = Seen(client, "news:b")
                self.server.advance(3)
                self.server.network.is_down = True
                self.server.network.cut()
                self.server.advance(120)
                self.server.network.is_down = False
                self.server.publish("demo:a", "x")
                self.server.publish("news:b", "y")
                published = client.publish("demo:a", "z")
                self.server.advance(50)
                self.assertIsNotNone(self.successResultOf(published))
                self.server.advance(12)
                self.assertEqual((seen.got, other.got, seen.ends), ([b"x", b"z"], [b"y"], []))
                client.close()
                self.server.advance(1)

    def test_only_one(self) -> None:
        """One that has ended and is the only one ends its channel; so does one that is none. Others go on."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                ended = Seen(client, "demo:a", self.token(lasts=-100))
                none = Seen(client, "demo:b", "nonsense")
                other = Seen(client, "news:b")
                self.server.advance(8)
                self.server.publish("news:b", "x")
                self.server.advance(12)
                kinds = [getattr(error, "kind", None) for error in (*ended.ends, *none.ends)]
                self.assertEqual(kinds, [ErrorCode.TOKEN_EXPIRED, ErrorCode.INVALID_TOKEN])
                self.assertEqual((other.got, client.state), ([b"x"], State.OPEN))
                client.close()
                self.server.advance(1)

    def test_ends(self) -> None:
        """One that cannot be replaced ends its channel when it ends, though it was the only one of the connection."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport, token=hs(sub="42", exp=self.server.node.now() + 9000).decode())
                seen = Seen(client, "demo:a", self.token(lasts=100, sub="42"))
                self.server.advance(140)
                self.assertEqual(len(seen.ends), 1)
                self.assertIs(client.state, State.OPEN)
                client.close()
                self.server.advance(1)

    def test_always_over(self) -> None:
        """If all that is given has ended, it is asked for by and by, and other channels go on."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                seen = Seen(client, "demo:a", lambda: self.token(lasts=-100))
                other = Seen(client, "news:b")
                self.server.advance(90)
                self.server.publish("news:b", "x")
                self.server.advance(12)
                self.assertEqual((other.got, seen.ends), ([b"x"], []))
                self.assertTrue(2 < seen.asked < 12, seen.asked)
                client.close()
                self.server.advance(1)

    def test_taken_back(self) -> None:
        """One that was taken back ends its channel, whatever gives others, and nothing else."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                seen = Seen(client, "demo:a", lambda: self.token(jti="j"))
                other = Seen(client, "news:b")
                self.server.advance(3)
                until = self.server.node.now() + 1000
                self.server.node.revoking.publish(Revocation(id="j", before=until, until=until))
                self.server.advance(40)
                [error] = seen.ends
                self.assertIsInstance(error, ServerEnded | RtpushError)
                self.server.publish("news:b", "x")
                self.server.advance(12)
                self.assertEqual((other.got, seen.asked, client.state), ([b"x"], 1, State.OPEN))
                client.close()
                self.server.restart()

    def test_waits(self) -> None:
        """While the application has none, the channel waits with what is for it; others do not."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                promised: Deferred[str] = Deferred()
                outcomes = [fail(ValueError("logged out")), promised]
                client = self.client(transport)
                seen, other = Seen(client, "demo:a", partial(outcomes.pop, 0)), Seen(client, "news:b")
                published = client.publish("demo:a", "x")
                self.server.advance(4)
                self.server.publish("news:b", "y")
                self.server.advance(12)
                self.assertEqual((other.got, seen.asked), ([b"y"], 2))
                self.assertNoResult(published)
                promised.callback(self.token())
                self.assertIsNotNone(self.done(published, 4))
                client.close()
                self.server.advance(1)

    def test_given_up(self) -> None:
        """What was given up while it waited for a token is not sent later."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                promised: Deferred[str] = Deferred()
                client = self.client(transport)
                channel = f"demo:{transport}"
                Seen(client, channel, partial(_same, promised))
                published = client.publish(channel, "x")
                self.server.advance(70)
                self.failureResultOf(published, NotDelivered)
                promised.callback(self.token(channel))
                self.server.advance(10)
                position = self.server.publish(channel, "y")
                self.assertEqual(getattr(position, "offset", None), 1)
                client.close()
                self.server.advance(1)

    def test_down_and_up(self) -> None:
        """It is kept on the way down to another transport and up again."""
        client = self.client("sse", "longpoll", climb_after=20)
        seen = Seen(client, "demo:a", lambda: self.token(lasts=60))
        self.server.advance(3)
        for number in range(30):
            self.server.publish("demo:a", str(number))
            if number % 7 == 3:
                self.server.network.cut()
            self.server.advance(5)
        self.server.advance(30)
        self.assertEqual(seen.got, [str(number).encode() for number in range(30)])
        self.assertEqual(seen.ends, [])

    def test_own_is_none(self) -> None:
        """That the client's own token is none is not taken for a fault of the channel's."""
        for transport in TRANSPORTS[1:]:
            with self.subTest(transport=transport):
                client = self.client(transport, token="nonsense")
                seen = Seen(client, "demo:a", self.token())
                self.server.advance(20)
                self.assertIs(client.state, State.CLOSED)
                self.assertIsInstance(seen.ends[0], ServerEnded)
