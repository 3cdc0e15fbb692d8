"""Nodes that are one by Redis, and clients that follow and publish through all of them."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Mapping, Sequence
from io import BytesIO
from random import Random
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, ResponseFailed, readBody
from twisted.web.http_headers import Headers

from rtpush.errors import ErrorCode
from rtpush.protocol.position import Position
from tests.support.followers import TRANSPORTS, Follower
from tests.support.haproxy import HAProxy
from tests.support.server import Server
from tests.support.waiting import pause, soon, until

__all__ = ["Cluster", "Traffic"]

#: How many messages are published by one request.
_BATCH = 25

#: Seconds before a publish that was refused is tried again.
_PAUSE = 0.05


@attrs.frozen
class Cluster:
    """Two nodes at one Redis, and a HAProxy before them."""

    nodes: Sequence[Server]
    haproxy: HAProxy

    @classmethod
    async def start(cls, test: TestCase, changes: Mapping[str, Mapping[str, object]]) -> Cluster:
        """Start them, with changes to the sections of the usual configuration; when it has a result they are ready."""
        starting = []
        for name in ("node1", "node2"):
            server = {**changes.get("server", {}), "node": name}
            config = {"broker": {"engine": "redis"}, **changes, "server": server}
            starting.append(Deferred.fromCoroutine(Server.start(test, config)))
        nodes = await gatherResults(starting)
        haproxy = await HAProxy.start(test, [node.port for node in nodes])
        for name in ("node1", "node2"):
            await haproxy.becomes(name, "UP")
        return cls(nodes, haproxy)

    async def kill(self, index: int) -> None:
        """End a node as a crash would."""
        process = self.nodes[index].process
        process.signal(signal.SIGKILL)
        await soon(process.ended())

    def complaints(self) -> list[str]:
        """Return what the nodes have said that no failure is a reason for: tracebacks."""
        return [str(node.process) for node in self.nodes if b"Traceback" in node.process.out + node.process.err]


class Traffic:
    """
    Messages in one channel, published to all nodes at once, and clients of every transport that follow it.

    The messages are ``{"n": number}``, numbered from 0. Each is published again, to another node, until that is
    acknowledged; the same one never counts twice, by its idempotency key.

    :param count: How many messages there are, besides the first, after which the clients begin, and the last.
    :ivar pace: Seconds between two requests of a publisher.
    :ivar acknowledged: Where each message is, as far as that was acknowledged.
    :ivar refused: How many publishes were refused, or had no answer.
    """

    channel = "demo:nodes"

    def __init__(self, test: TestCase, cluster: Cluster, random: Random, count: int) -> None:
        self.pace = 0.0
        self.acknowledged: dict[int, Position] = {}
        self.followers: list[Follower] = []
        self.refused = 0
        self._test = test
        self._cluster = cluster
        self._random = random
        self._count = count
        pool = HTTPConnectionPool(reactor)
        test.addCleanup(pool.closeCachedConnections)
        self._agent = Agent(reactor, connectTimeout=5, pool=pool)

    async def begin(self) -> None:
        """Publish the first message, and let a client of each transport follow from there on each node."""
        await self._publish_all([0], self._cluster.nodes)
        nodes = ("node1", "node2")
        for node, other in (nodes, nodes[::-1]):
            # The one that drains gets no new connections, so that it is known who is where at first.
            await self._cluster.haproxy.command(f"set server nodes/{node} state ready")
            await self._cluster.haproxy.command(f"set server nodes/{other} state drain")
            followers = [
                Follower(
                    self._test,
                    self._cluster.haproxy.port,
                    transport,
                    self.channel,
                    self.acknowledged[0],
                    self._random,
                )
                for transport in TRANSPORTS
            ]
            self.followers += followers
            await until(self._are_served, "the clients to be there")
        await self._cluster.haproxy.command(f"set server nodes/{nodes[0]} state ready")

    @property
    def streams(self) -> list[Follower]:
        """Those clients whose connections last."""
        return [each for each in self.followers if "poll" not in each.transport]

    def _are_served(self) -> bool:
        return all(each.is_served for each in self.streams)

    async def publish(self) -> None:
        """Publish the rest, each node a part."""
        nodes, numbers = self._cluster.nodes, range(1, self._count + 1)
        parts = [(numbers[index :: len(nodes)], [*nodes[index:], *nodes[:index]]) for index in range(len(nodes))]
        await gatherResults([Deferred.fromCoroutine(self._publish_all(*part)) for part in parts])

    async def reached(self, share: float) -> None:
        """Wait until a share of the messages is acknowledged."""
        await until(
            lambda: len(self.acknowledged) >= share * self._count,
            f"{share:.0%} of the messages",
            every=0.005,
            seen=self.__str__,
        )

    async def publish_last(self, *nodes: Server) -> None:
        """Publish the last message, to some nodes, or any."""
        await self._publish_all([self._count + 1], nodes or self._cluster.nodes)

    async def arrive(self) -> None:
        """Wait until the last message is the last that every client has."""
        end = self.acknowledged[self._count + 1]

        def all_are_there() -> bool:
            self._test.assertEqual([each.problem for each in self.followers if each.problem is not None], [])
            return all(each.position == end for each in self.followers)

        await until(all_are_there, f"everything up to {end}", 30, seen=self.__str__)

    def __str__(self) -> str:
        """Say what came of it, in numbers."""
        followers = self.followers
        connections = sum(each.connections - 1 for each in followers)
        refusals = sum(each.refusals for each in followers)
        gaps = sum(len(each.gaps) for each in followers)
        lost = set(self.acknowledged).difference(*(each.numbers for each in followers), [0])
        return (
            f"{len(self.acknowledged)} messages acknowledged, {self.refused} publishes refused, {len(lost)} lost; "
            f"{len(followers)} subscribers: {connections} reconnections, {refusals} refusals, {gaps} gaps, "
            f"at {', '.join(sorted({str(each.position) for each in followers}))}"
        )

    async def _publish_all(self, numbers: Sequence[int], nodes: Sequence[Server]) -> None:
        """Publish messages in batches: to the first node, and whenever it refuses, to the next one."""
        others = itertools.cycle(nodes)
        node = next(others)
        for begin in range(0, len(numbers), _BATCH):
            left = list(numbers[begin : begin + _BATCH])
            while left:
                answers = await self._publish_batch(node, left)
                for number, answer in zip(left, answers, strict=True):
                    if "result" in answer:
                        self.acknowledged[number] = Position(answer["result"]["epoch"], answer["result"]["offset"])
                    else:
                        self._test.assertEqual(answer["error"]["code"], ErrorCode.UNAVAILABLE.code, answer)
                left = [number for number in left if number not in self.acknowledged]
                if left:
                    self.refused += len(left)
                    node = next(others)
                    await pause(_PAUSE)
            await pause(self.pace)

    async def _publish_batch(self, node: Server, numbers: Sequence[int]) -> Sequence[Any]:
        """Publish messages to a node; return what became of each."""
        batch = [{"channel": self.channel, "data": {"n": n}, "idempotency_key": str(n)} for n in numbers]
        body = FileBodyProducer(BytesIO(json.dumps({"messages": batch}).encode()))
        headers = Headers({"content-type": ["application/json"]})
        url = f"{node.url}api/v1/publish_batch".encode()
        try:
            response = await soon(self._agent.request(b"POST", url, headers, body))
            answer = json.loads(await soon(readBody(response)))
        except (ConnectError, ResponseFailed):
            # The node is gone.
            return [{"error": {"code": ErrorCode.UNAVAILABLE.code}}] * len(numbers)
        if response.code == 200:
            responses: Sequence[Any] = answer["result"]["responses"]
            return responses
        return [answer] * len(numbers)
