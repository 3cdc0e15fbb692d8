"""Tests of rtpush.registry.limiter."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.limits import Limits
from rtpush.registry.counts import Counts
from rtpush.registry.limiter import Limiter


class _Talker:
    """As much of a connection as is looked at."""

    def __init__(self, peer: str = "") -> None:
        self.peer = peer


class LimiterTests(SynchronousTestCase):
    """Who is told no, and what is kept for that."""

    def setUp(self) -> None:
        self.time = 1000.0
        self.counts = Counts()

    def limiter(self, **limits: Any) -> Limiter:
        """Return one with these limits."""
        return Limiter(Limits(**limits), self.counts, lambda: self.time)

    def refused(self, limit: str, call: Any, *arguments: Any, **more: Any) -> None:
        """Something is refused, and counted under the name of its limit."""
        before = self.counts.limited[limit]
        error = self.assertRaises(RtpushError, call, *arguments, **more)
        self.assertIs(error.kind, ErrorCode.LIMIT_EXCEEDED)
        self.assertEqual(self.counts.limited[limit], before + 1)

    def test_nothing(self) -> None:
        """Without limits nobody is asked for an address, and nothing is kept."""
        limiter = self.limiter()
        self.assertFalse(limiter.by_address or limiter.of_talk)
        for number in range(5000):
            peer = f"203.0.{number >> 8}.{number & 255}"
            limiter.come(peer)
            limiter.enter(peer, number)
            limiter.ask(peer, publishes=True)
            self.assertTrue(limiter.hear(_Talker(peer), publishes=True))  # type: ignore[arg-type]
        self.assertEqual((len(limiter._hosts), len(limiter._talks)), (0, 0))

    def test_connections(self) -> None:
        """An address has so many; when one goes, another may come. Others and this machine are not meant."""
        limiter = self.limiter(connections_per_ip=2)
        talkers: list[Any] = [_Talker("2001:db8::1"), _Talker("2001:db8::2")]
        for talker in talkers:
            limiter.enter(talker.peer, 0)
        self.refused("connections_per_ip", limiter.enter, "2001:db8::3", 0)
        limiter.enter("2001:db8:0:1::", 0)
        for _ in range(10):
            limiter.enter("127.0.0.1", 0)
            limiter.enter("", 0)
        limiter.leave(talkers[0])
        limiter.enter("2001:db8::3", 0)
        self.refused("connections_per_ip", limiter.enter, "2001:db8::3", 0)

    def test_all(self) -> None:
        """A process has so many of all."""
        limiter = self.limiter(max_connections=3)
        limiter.enter("", 2)
        error = self.assertRaises(RtpushError, limiter.enter, "", 3)
        self.assertIs(error.kind, ErrorCode.UNAVAILABLE)
        self.assertEqual(self.counts.limited["max_connections"], 1)

    def test_arrivals(self) -> None:
        """So many a second of an address, five seconds' worth at once."""
        limiter = self.limiter(connect_rate_per_ip=2)
        for _ in range(10):
            limiter.come("203.0.113.7")
        self.refused("connect_rate_per_ip", limiter.come, "203.0.113.7")
        limiter.come("203.0.113.8")
        self.time += 1
        limiter.come("203.0.113.7")

    def test_commands(self) -> None:
        """So many commands of a connection, and so many publishes among them; one that goes on is not listening."""
        limiter = self.limiter(command_rate=4, publish_rate=1)
        one: Any = _Talker()
        for _ in range(5):
            self.assertTrue(limiter.hear(one, publishes=True))
        self.refused("publish_rate", limiter.hear, one, publishes=True)
        for _ in range(14):
            self.assertTrue(limiter.hear(one, publishes=False))
        self.refused("command_rate", limiter.hear, one, publishes=False)
        self.assertTrue(limiter.hear(_Talker(), publishes=True))  # type: ignore[arg-type]
        for _ in range(39):
            self.refused("command_rate", limiter.hear, one, publishes=False)
        self.assertFalse(limiter.hear(one, publishes=False))
        self.time += 30
        self.assertTrue(limiter.hear(one, publishes=False))

    def test_commands_of_an_address(self) -> None:
        """So many commands and polls of an address, whatever connections they come on."""
        limiter = self.limiter(command_rate_per_ip=4, publish_rate_per_ip=1)
        for _ in range(5):
            self.assertTrue(limiter.hear(_Talker("203.0.113.7"), publishes=True))  # type: ignore[arg-type]
        self.refused("publish_rate_per_ip", limiter.ask, "203.0.113.7", publishes=True)
        for _ in range(14):
            limiter.ask("203.0.113.7")
        self.refused("command_rate_per_ip", limiter.ask, "203.0.113.7")
        for _ in range(100):
            limiter.ask("127.0.0.1", publishes=True)

    def test_change(self) -> None:
        """With other limits one begins anew; connections that are there count, also those that came uncounted."""
        limiter = self.limiter(command_rate=1, connections_per_ip=1)
        one: Any = _Talker("203.0.113.7")
        limiter.enter(one.peer, 0)
        for _ in range(5):
            limiter.hear(one, publishes=False)
        limiter.change(Limits(command_rate=1, connections_per_ip=1), [one])
        self.assertTrue(limiter.hear(one, publishes=False))
        self.refused("connections_per_ip", limiter.enter, one.peer, 0)
        limiter.change(Limits(), [one])
        other: Any = _Talker("203.0.113.7")
        limiter.enter(other.peer, 1)
        limiter.change(Limits(connections_per_ip=2), [one, other])
        for gone in (one, other):
            self.refused("connections_per_ip", limiter.enter, one.peer, 0)
            limiter.leave(gone)
            limiter.enter(one.peer, 0)
        self.assertEqual(limiter._hosts[one.peer].connections, 2)

    def test_silent(self) -> None:
        """Of connections that talk no more nothing is kept; of those that are gone at once."""
        limiter = self.limiter(command_rate=1)
        talkers: list[Any] = [_Talker() for _ in range(10_000)]
        for talker in talkers:
            self.time += 0.01
            limiter.hear(talker, publishes=False)
        self.assertLess(len(limiter._talks), 2500)
        limiter.leave(talkers[-1])
        self.assertNotIn(talkers[-1], limiter._talks)

    def test_million(self) -> None:
        """A million addresses that come once leave what a bound says; one with a connection is never forgotten."""
        limiter = self.limiter(connect_rate_per_ip=1, connections_per_ip=1)
        limiter.enter("203.0.113.7", 0)
        most = 0
        for number in range(1_000_000):
            # All within the same moment: each is remembered as long as possible.
            limiter._host(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64").arrivals = _Used()  # type: ignore[assignment]
            most = max(most, len(limiter._hosts))
        self.assertLess(most, 250_000)
        self.refused("connections_per_ip", limiter.enter, "203.0.113.7", 0)


class _Used:
    """A bucket that is never full again."""

    def is_full(self, now: float) -> bool:
        """Say no."""
        return False
