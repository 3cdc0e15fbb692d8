"""``GET /metrics`` of real processes."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody

from tests.support.redis import RedisServer
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until


class WorkerTests(TestCase):
    """Workers of one host, at a Redis."""

    timeout = 120

    async def _metrics(self, query: str = "") -> dict[str, dict[tuple[str, ...], float]]:
        """Return the values of all series, by the values of their labels."""
        # Another connection each time, so that each worker is asked now and then.
        agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        answer: Any = await soon(agent.request(b"GET", f"{self.server.url}metrics{query}".encode()))
        text = (await soon(readBody(answer))).decode()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    @staticmethod
    def _published(metrics: dict[str, dict[tuple[str, ...], float]]) -> float:
        """Return how many messages all workers have published."""
        return sum(value for (road, _), value in metrics["rtpush_published_messages_total"].items() if road == "api")

    async def test_workers(self) -> None:
        """
        Each worker tells of all; together they are their sum; one that dies takes nothing with it that was counted.

        What they log says which of them it was.
        """
        redis = await RedisServer.start(self)
        config = {
            "server": {"workers": 2, "node": "push"},
            "broker": {"engine": "redis"},
            "redis": {"url": redis.url},
            "log": {"format": "json"},
        }
        self.server = await Server.start_with(self, write_config(self, config))

        async def up() -> bool:
            ready = (await self._metrics()).get("rtpush_ready", {})
            return ready == {("1",): 1, ("2",): 1}

        await until(up, "both workers")
        for number in range(20):
            await self.server.publish("demo:a", [number])

        async def pinned() -> bool:
            # The age of those of the one that is asked is 0.
            metrics = await self._metrics()
            of_another = metrics["rtpush_sample_age_seconds"][("1",)] > 0
            return of_another and self._published(metrics) == 20

        await until(pinned, "all to be counted where others see it")

        async def both_counted() -> bool:
            summed = await self._metrics("?workers=summed")
            return bool(summed["rtpush_broker_sessions_total"] == {(f"127.0.0.1:{redis.port}/0",): 2})

        await until(both_counted, "the sessions of both workers to be seen")
        found = re.search(rb"worker 1 starts \(process (\d+)\)", self.server.process.out)
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)

        async def replaced() -> bool:
            sessions = (await self._metrics()).get("rtpush_broker_sessions_total", {})
            return sessions.get((f"127.0.0.1:{redis.port}/0", "1")) == 2

        await until(replaced, "another worker")
        self.assertEqual(self._published(await self._metrics()), 20)
        summed = await self._metrics("?workers=summed")
        self.assertEqual(summed["rtpush_published_messages_total"][("api",)], 20)
        await self.server.process.stop()
        lines = [json.loads(line) for line in self.server.process.out.splitlines()]
        nodes = {(line.get("worker"), line["node"]) for line in lines if "Redis" in line["message"]}
        self.assertEqual(nodes, {(1, "push/1"), (2, "push/2")})
