"""Tests of rtpush.broker.redis.broker, with a real Redis."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from rtpush.broker.redis.address import parse_address
from rtpush.broker.redis.broker import RedisBroker
from rtpush.broker.redis.scripts import Scripts
from rtpush.broker.redis.session import Dialler
from rtpush.interfaces import IBroker
from rtpush.protocol.channel import Namespaces
from tests.broker.contract import BrokerContract
from tests.support.redis import RedisServer
from tests.support.waiting import until


class ShiftedScripts(Scripts):
    """
    Scripts that take the time from a key, as far as they ask for it.

    What Redis itself lets expire is made older by :meth:`RedisContractTests.advance`.
    """

    def _read(self, name: str) -> str:
        return super()._read(name).replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")


class RedisContractTests(BrokerContract, TestCase):
    """The contract of all brokers."""

    async def setUp(self) -> None:
        """Start a Redis whose time stands still."""
        self.redis = await RedisServer.start(self)
        self.now = 1_700_000_000.0
        await self._set_clock()

    async def _set_clock(self) -> None:
        await self.redis.command("DEL", "clock")
        await self.redis.command("RPUSH", "clock", int(self.now), int(self.now * 1_000_000 % 1_000_000))

    def make_broker(self, namespaces: Namespaces) -> IBroker:
        """Return a broker at this Redis."""
        listed = [namespaces.of(f"{name}:") for name in ("h", "long", "none")]
        scripts = ShiftedScripts(
            "rt", listed, message_bytes=1000, position_ttl=600.0, idempotency_window=self.window
        )
        broker: IBroker = RedisBroker(
            reactor,
            namespaces,
            [Dialler(reactor, parse_address(self.redis.url), scripts, client_name="n", timeout=5.0)],
            scripts,
            name="n",
            position_ttl=10 * self.history_ttl,
            idempotency_window=self.window,
            timeout=5.0,
            node_ttl=15.0,
            chance=lambda: 0.5,
        )
        return broker

    async def begin(self) -> None:
        """Start a broker, and wait until it is connected."""
        await super().begin()
        await until(lambda: self.broker.problem() is None, "Redis", seen=lambda: str(self.broker.problem()))

    def advance(self, seconds: float) -> Deferred[None]:
        """Let time pass for all that is in Redis."""
        return Deferred.fromCoroutine(self._advance(seconds))

    async def _advance(self, seconds: float) -> None:
        self.now += seconds
        await self._set_clock()
        for key in await self.redis.command("KEYS", "*"):
            left = await self.redis.command("PTTL", key)
            if left > 0:
                await self.redis.command("PEXPIRE", key, max(left - int(seconds * 1000), 0))
