"""How it is with each Redis, as the metrics tell it."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from rtpush.interfaces import ILinked
from tests.broker.redis.nodes import Node
from tests.support.redis import RedisServer
from tests.support.waiting import until


class LinkStatusTests(TestCase):
    """A Redis that comes and goes."""

    async def test_status(self) -> None:
        """It is up when what is published arrives; while nothing does, the lag grows, until it is back."""
        redis = await RedisServer.start(self)
        node = Node(self, redis.url)
        self.assertTrue(ILinked.providedBy(node.broker))
        [status] = node.broker.links()
        self.assertEqual((status.is_up, status.sessions, status.pending), (False, 0, 0))
        await until(lambda: node.broker.links()[0].is_up, "Redis")
        [status] = node.broker.links()
        self.assertEqual((status.name, status.sessions), (f"127.0.0.1:{redis.port}/0", 1))
        self.assertLess(status.lag, 5)
        await redis.kill()
        await until(lambda: not node.broker.links()[0].is_up, "the loss of Redis")
        before = node.broker.links()[0].lag
        await until(lambda: node.broker.links()[0].lag > before + 0.1, "more lag")
        await redis.restart()
        await until(lambda: node.broker.links()[0].is_up, "Redis")
        self.assertEqual(node.broker.links()[0].sessions, 2)

    async def test_hung(self) -> None:
        """One that hangs is behind by as long as it does not answer."""
        redis = await RedisServer.start(self)
        node = Node(self, redis.url)
        await until(lambda: node.broker.links()[0].is_up, "Redis")
        redis.pause()
        self.addCleanup(redis.resume)
        await until(lambda: node.broker.links()[0].lag > 1.5, "lag")
        self.assertTrue(node.broker.links()[0].is_up)
        self.assertGreater(node.broker.links()[0].pending, 0)
