"""Two nodes that are one by Redis, behind HAProxy, while everything between them fails."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.support.judge import faults_of
from tests.support.nodes import Cluster, Traffic
from tests.support.redis import RedisServer, Sentinels
from tests.support.waiting import pause, until

_MESSAGES = 10_000

#: So that Redis loses nothing that it has acknowledged when it is killed.
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class NodeTests(TestCase):
    """
    Clients of every transport on both nodes follow a channel, to which both nodes publish at once.

    What each test prints tells how much happened in it.
    """

    timeout = 90

    def setUp(self) -> None:
        """Take a seed, which tells how the clients ask."""
        seed = int(os.environ.get("RTPUSH_SEED") or SystemRandom().randrange(1 << 32))
        sys.stdout.write(f"(RTPUSH_SEED={seed}) ")
        self.random = Random(seed)

    async def _start(self, url: str, *, count: int = _MESSAGES, **redis: object) -> Traffic:
        """Start the nodes, with what their configuration says of Redis, and the clients that follow."""
        self.cluster = await Cluster.start(self, {"redis": {"url": url, **redis}})
        traffic = Traffic(self, self.cluster, self.random, count)
        await traffic.begin()
        return traffic

    async def _publish(
        self, traffic: Traffic, fault: Callable[[], Coroutine[Any, Any, None]] | None = None, *, lossless: bool = True
    ) -> None:
        """Publish everything, with a fault in the middle of it, and judge what came of that."""
        doing: list[Deferred[None]] = [Deferred.fromCoroutine(traffic.publish())]
        if fault is not None:
            doing.append(Deferred.fromCoroutine(fault()))
        await gatherResults(doing)
        await traffic.publish_last()
        await self._arrive(traffic, lossless=lossless)

    async def _arrive(self, traffic: Traffic, *, lossless: bool = True) -> None:
        """Wait until all clients have the last message, and judge what they got."""
        await traffic.arrive()
        sys.stdout.write(f"({traffic}) ")
        logs = {f"{each.transport} {index}": each.log for index, each in enumerate(traffic.followers)}
        faults = faults_of(traffic.acknowledged, logs, lossless=lossless)
        self.assertEqual(faults[:10], [], f"{len(faults)} in all")
        self.assertEqual(self.cluster.complaints(), [])

    def _assert_all_stayed(self, traffic: Traffic) -> None:
        """See that no stream was cut for what befell Redis."""
        self.assertEqual([each.transport for each in traffic.streams if each.connections > 1], [])

    async def test_order(self) -> None:
        """Every subscriber sees the same order, and nothing is lost or doubled."""
        redis = await RedisServer.start(self)
        await self._publish(traffic := await self._start(redis.url))
        self.assertEqual((traffic.refused, sum(each.refusals for each in traffic.followers)), (0, 0))

    async def test_node_killed(self) -> None:
        """A node is killed: its clients move to the other one, and nothing is lost or doubled. (Redis speaks TLS.)"""
        redis = await RedisServer.start(self, tls=True, password="a:b/c@d e")
        traffic = await self._start(redis.url, ca=redis.ca, certificate=redis.certificate, key=redis.key)

        async def fault() -> None:
            await traffic.reached(0.3)
            await self.cluster.kill(0)

        await self._publish(traffic, fault)
        self.assertGreater(sum(each.connections for each in traffic.followers), len(traffic.followers))

    async def test_redis_restarted(self) -> None:
        """Redis is killed, and later ended in good order; it has kept everything, and nothing is lost or doubled."""
        redis = await RedisServer.start(self, *_DURABLE)
        traffic = await self._start(redis.url)

        async def fault() -> None:
            await traffic.reached(0.2)
            await redis.kill()
            await redis.restart()
            await traffic.reached(0.6)
            await redis.restart()

        await self._publish(traffic, fault)
        self.assertGreater(traffic.refused, 0)
        self._assert_all_stayed(traffic)

    async def test_redis_stopped(self) -> None:
        """Redis hangs for ten seconds: publishers are told so, subscribers stay, and nothing is lost or doubled."""
        redis = await RedisServer.start(self)
        traffic = await self._start(redis.url, timeout=2)

        async def fault() -> None:
            await traffic.reached(0.4)
            redis.pause()
            await pause(10)
            redis.resume()

        await self._publish(traffic, fault)
        self.assertGreater(traffic.refused, 0)
        self._assert_all_stayed(traffic)

    async def test_connections_killed(self) -> None:
        """Redis's connections are cut five times a second: nothing is lost or doubled."""
        redis = await RedisServer.start(self)
        traffic = await self._start(redis.url)
        killed = 0

        async def fault() -> None:
            nonlocal killed
            await traffic.reached(0.05)
            for _ in range(25):
                killed += await redis.command("CLIENT", "KILL", "TYPE", "normal")
                killed += await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
                await pause(0.2)

        await self._publish(traffic, fault)
        self.assertGreater(killed, 10)
        self._assert_all_stayed(traffic)

    async def test_redis_full(self) -> None:
        """Redis has no memory left for a while: publishers are told so, and nothing is lost or doubled."""
        redis = await RedisServer.start(self)
        traffic = await self._start(redis.url)

        async def fault() -> None:
            await traffic.reached(0.4)
            await redis.command("CONFIG", "SET", "maxmemory", 1)
            await until(lambda: traffic.refused > 200, "publishes to be refused")
            await redis.command("CONFIG", "SET", "maxmemory", 0)

        await self._publish(traffic, fault)
        self._assert_all_stayed(traffic)

    async def test_missed(self) -> None:
        """What a node missed that was cut off comes to its clients when it is back, though no other message follows."""
        redis = await RedisServer.start(self, unix=True)
        traffic = await self._start(redis.url, count=100)
        await traffic.publish()
        cut_off, other = self.cluster.nodes
        cut_off.process.signal(signal.SIGSTOP)
        for kind in ("normal", "pubsub"):
            self.assertGreater(await redis.command("CLIENT", "KILL", "TYPE", kind), 0)
        await traffic.publish_last(other)
        cut_off.process.signal(signal.SIGCONT)
        await self._arrive(traffic)

    async def test_failover(self) -> None:
        """Sentinels make a replica the master: what is lost by that is told, and all see the same afterwards."""
        master = await RedisServer.start(self, password="secret")
        await RedisServer.start(self, replica_of=master)
        sentinels = await Sentinels.start(self, master)
        traffic = await self._start(sentinels.url)

        async def nobody_is_left() -> bool:
            return not await master.command("PUBSUB", "CHANNELS", "rtpush:*")

        async def fault() -> None:
            await traffic.reached(0.3)
            traffic.pace = 0.1
            await sentinels.failover()
            await until(nobody_is_left, "the nodes to leave the old master")
            traffic.pace = 0.0

        await self._publish(traffic, fault, lossless=False)

    async def test_failover_with_loss(self) -> None:
        """The master dies with messages that its replica never had: every subscriber who saw them is told."""
        master = await RedisServer.start(self, password="secret")
        replica = await RedisServer.start(self, replica_of=master)
        sentinels = await Sentinels.start(self, master)
        traffic = await self._start(sentinels.url)

        async def fault() -> None:
            await traffic.reached(0.3)
            # The replica cannot come back: there is no such user.
            await replica.command("CONFIG", "SET", "masteruser", "nobody", "masterauth", "nothing")
            await master.command("CLIENT", "KILL", "TYPE", "replica")
            await traffic.reached(0.4)
            await master.kill()
            await sentinels.replaced(master.port)

        await self._publish(traffic, fault, lossless=False)
        self.assertEqual([each.transport for each in traffic.followers if not each.gaps], [])

    async def test_flushed(self) -> None:
        """Redis loses everything: each subscriber is told, once, and the stream goes on."""
        redis = await RedisServer.start(self)
        traffic = await self._start(redis.url)

        async def fault() -> None:
            await traffic.reached(0.5)
            await redis.command("FLUSHALL")

        await self._publish(traffic, fault, lossless=False)
        self.assertEqual([each.transport for each in traffic.followers if len(each.gaps) != 1], [])
