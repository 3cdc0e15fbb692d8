"""Tests of rtpush.registry.revoking: what is taken back is known, whatever the broker drops."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.permissions import Grant
from rtpush.auth.revocation import Revocation
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import REVOCATIONS, Access
from rtpush.protocol.commands import HistoryQuery, Publication
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.position import Position
from rtpush.service.assemble import build_node
from rtpush.service.config import parse
from tests.auth.makers import SECRET, hs

_CONFIG = f"""
[server]
listen = tcp:0:interface=127.0.0.1
[auth]
keys =
    hs HS256 {SECRET.decode()}
[namespace:a]
history_size = 10
"""


def _away(*_: object) -> Deferred[Any]:
    return fail(RtpushError(ErrorCode.UNAVAILABLE, "away"))


class RevokingTests(SynchronousTestCase):
    """A node, and a broker that does not do what it should."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.node: Any = build_node(parse(_CONFIG), self.clock, self.clock.seconds)
        self.broker = self.node.broker
        self.revoking = self.node.revoking
        self.addCleanup(lambda: self.successResultOf(self.node.stop()))

    def start(self) -> None:
        """Start the node."""
        self.successResultOf(self.node.start())

    def revocation(self, user: str) -> Revocation:
        """Make a revocation of a user."""
        now = self.clock.seconds()
        return Revocation(user=user, before=now, until=now + 3600)

    def tell(self, user: str) -> Position:
        """Publish one as another node does."""
        payload = Payload(self.revocation(user).encode(), Kind.JSON)
        position: Position = self.successResultOf(self.broker.publish(Publication(REVOCATIONS, payload)))
        return position

    def known(self) -> list[str]:
        """Return the users whose tokens are taken back."""
        return sorted(each.user for each in self.revoking.revocations.all(self.clock.seconds()))

    def test_published(self) -> None:
        """What is taken back here is there at once, and in history."""
        self.start()
        self.successResultOf(self.revoking.publish(self.revocation("x")))
        self.assertEqual(self.known(), ["x"])
        query = HistoryQuery(channel=REVOCATIONS)
        self.assertEqual(len(self.successResultOf(self.node.history(query, Access.SERVER)).messages), 1)
        self.failureResultOf(self.node.history(query, Access.ANYONE), RtpushError)

    def test_told(self) -> None:
        """What another node takes back arrives as it is told."""
        self.start()
        for user in "abc":
            self.tell(user)
        self.assertEqual(self.known(), ["a", "b", "c"])

    def test_before(self) -> None:
        """What was taken back before this node has started is read, however much it is."""
        for number in range(2500):
            self.tell(f"{number:04}")
        self.start()
        self.assertEqual(len(self.known()), 2500)

    def test_away_at_the_start(self) -> None:
        """As long as it is not known what was taken back, no token is called good; then it is."""
        token = hs(sub="42", iat=self.clock.seconds(), exp=self.clock.seconds() + 100).decode()
        self.tell("43")
        patched = self.patch(self.broker, "history", _away)
        self.start()
        failure = self.failureResultOf(self.node.checked(token), RtpushError)
        self.assertIs(failure.value.kind, ErrorCode.UNAVAILABLE)
        patched.restore()
        self.clock.advance(1.1)
        self.assertIsInstance(self.successResultOf(self.node.checked(token)), Grant)
        self.assertEqual(self.known(), ["43"])

    def test_missed(self) -> None:
        """What the broker drops is read when the next one comes, or when the broker compares."""
        self.start()
        self.tell("a")
        deaf = self.patch(self.node, "received", lambda message: None)
        self.tell("b")
        deaf.restore()
        self.assertEqual(self.known(), ["a"])
        self.tell("c")
        self.assertEqual(self.known(), ["a", "b", "c"])
        deaf = self.patch(self.node, "received", lambda message: None)
        top = self.tell("d")
        deaf.restore()
        self.node.compared(REVOCATIONS, top)
        self.assertEqual(self.known(), ["a", "b", "c", "d"])
        # What is the same as before is not read again.
        self.patch(self.broker, "history", lambda *_: self.fail("there is nothing to read"))
        self.node.compared(REVOCATIONS, top)

    def test_reading_fails(self) -> None:
        """What cannot be read now, is read later."""
        self.start()
        self.tell("a")
        deaf = self.patch(self.node, "received", lambda message: None)
        self.tell("b")
        deaf.restore()
        away = self.patch(self.broker, "history", _away)
        self.tell("c")
        self.assertEqual(self.known(), ["a"])
        away.restore()
        self.clock.advance(1.1)
        self.assertEqual(self.known(), ["a", "b", "c"])

    def test_new_epoch(self) -> None:
        """When history begins anew, it is read from its beginning; what was known stays."""
        self.start()
        self.tell("a")
        del self.broker._channels[REVOCATIONS]
        self.broker._life += 1
        self.broker.subscribe(REVOCATIONS)
        top = self.tell("b")
        self.node.compared(REVOCATIONS, top)
        self.assertEqual(self.known(), ["a", "b"])
        self.tell("c")
        self.assertEqual(self.known(), ["a", "b", "c"])

    def test_broker_away(self) -> None:
        """If only this node knows, that is told; it does it all the same."""
        self.start()
        self.patch(self.broker, "publish", _away)
        self.failureResultOf(self.revoking.publish(self.revocation("x")), RtpushError)
        self.assertEqual(self.known(), ["x"])

    def test_garbage(self) -> None:
        """What is no revocation is logged; the next one counts."""
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.start()
        self.broker.publish(Publication(REVOCATIONS, Payload(b'{"user":7}', Kind.JSON)))
        self.tell("a")
        self.assertEqual(self.known(), ["a"])
        self.assertEqual(len([each for each in events if each["log_format"].startswith("a revocation")]), 1)

    def test_without_tokens(self) -> None:
        """Where no tokens are in use nothing is followed, until a reload brings keys."""
        config = _CONFIG.replace("[auth]", "[log]").replace("keys =", "#").replace("    hs HS256", "#")
        self.node = build_node(parse(config), self.clock, self.clock.seconds)
        self.start()
        self.assertFalse(self.node.revoking.is_known)
        new = parse(_CONFIG)
        self.node.tokens.reload(new.auth)
        self.node.reconfigure(
            new.namespaces,
            limits=new.limits,
            backoff=new.backoff,
            heartbeat=new.server.heartbeat,
            heartbeat_grace=new.server.heartbeat_grace,
        )
        self.assertTrue(self.node.revoking.is_known)
