"""What is there in a run: nodes, their Redis, HAProxy before them, and networks between all of these."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.trial.unittest import TestCase

from tests.chaos.history import Loss, Timeline
from tests.chaos.namespaces import Cable, why_not
from tests.chaos.proxy import HarmfulProxy
from tests.chaos.schedule import CLIENT_SIDE, Profile
from tests.support.haproxy import HAProxy
from tests.support.ports import reserved_port
from tests.support.redis import RedisServer, Sentinels
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until, within

__all__ = ["API_KEY", "KEPT", "Node", "World"]

#: With a cable a node listens where an open API may not be.
API_KEY = "chaos-0123456789abcdef"

#: How many messages a channel of the namespace "short" keeps.
KEPT = 60

_CONFIG: dict[str, dict[str, object]] = {
    "broker": {"engine": "redis"},
    "api": {"open": "no", "keys": API_KEY},
    # Small, so that recovery is often in the middle of something.
    "namespace:short": {"history_size": KEPT, "history_ttl": 3600, "publish": "anyone"},
    "limits": {"page_messages": 40, "queue_bytes": 16384},
}
_SERVER: dict[str, object] = {"heartbeat": 2, "heartbeat_grace": 2}
_REDIS: dict[str, object] = {"timeout": 2, "node_ttl": 4}

#: Seconds after a failover within which nodes may find out what was lost.
_SETTLING = 5.0


class Node:
    """
    One node, which ends and is started again at the same port.

    :ivar lock: Held while something happens to it that must end first.
    :ivar host: Where it listens.
    :ivar port: The port there.
    :ivar cable: What connects it with all others, if that can be pulled out.
    """

    def __init__(self, test: TestCase, index: int, redis: str, timeline: Timeline, cable: Cable | None) -> None:
        self.name = f"node{index + 1}"
        self.lock = DeferredLock()
        self.cable = cable
        self.host = "127.0.0.1" if cable is None else cable.inside
        self.port = reserved_port(test)
        self._test = test
        self._timeline = timeline
        listen = f"tcp:{self.port}:interface={self.host}"
        changes = {
            **_CONFIG,
            "server": {**_SERVER, "node": self.name, "listen": listen},
            "redis": {**_REDIS, "url": redis},
        }
        self._path = write_config(test, changes)
        self.server: Server | None = None
        #: All that its processes have written.
        self.output = b""

    async def start(self) -> None:
        """Start it; it listens when this has a result."""
        within = () if self.cable is None else self.cable.command
        self.server = await Server.start_with(self._test, self._path, listener=self._heard, within=within)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.server is not None
        self.server.process.signal(number)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        await self._ended()

    async def stop(self) -> None:
        """End it in good order; or, if it does not end, as a crash would."""
        self.signal(signal.SIGTERM)
        try:
            await self._ended()
        except TimeoutError:
            self._timeline.note(self.name, "PROBLEM: does not end when it is asked to")
            await self.kill()

    async def _ended(self) -> None:
        assert self.server is not None
        await soon(self.server.process.ended())

    def _heard(self, data: bytes) -> None:
        self.output += data
        for line in data.decode(errors="replace").splitlines():
            self._timeline.note(self.name, re.sub(r"^\S+ ", "", line)[:300])

    def tracebacks(self) -> list[str]:
        """Return what it said that no failure is a reason for."""
        text = self.output.decode(errors="replace")
        return [
            f"{self.name}: {text[max(0, each.start() - 600) : each.end() + 1500]}"
            for each in re.finditer("Traceback", text)
        ]


class World:
    """
    All of it.

    :ivar doors: What clients go through: to HAProxy, and to each node.
    :ivar pipes: What each node goes through to Redis, if that is one that does not move.
    :ivar redis: The Redis servers: one, or a master and its replica, whichever of them that is at the moment.
    :ivar direct: Ports of this machine from which a way without harm leads to each node.
    :ivar no_cables: Why no cable of a node can be pulled out; empty if they can.
    :ivar losses: When Redis may have lost something.
    :ivar redis_lock: Held while something happens to Redis that must end first.
    """

    def __init__(self, test: TestCase, profile: Profile, random: Random, timeline: Timeline) -> None:
        self.test = test
        self.profile = profile
        self.random = random
        self.timeline = timeline
        self.nodes: list[Node] = []
        self.doors: dict[int, HarmfulProxy] = {}
        self.direct: list[int] = []
        self.no_cables = ""
        self.pipes: list[HarmfulProxy] = []
        self.redis: list[RedisServer] = []
        self.sentinels: Sentinels | None = None
        self.losses: list[Loss] = []
        self.redis_lock = DeferredLock()

    async def start(self, nodes: int) -> None:
        """Start everything; when this has a result HAProxy finds all nodes ready."""
        durable = ("--appendonly", "yes", "--appendfsync", "always")
        master = await RedisServer.start(self.test, *durable)
        self.redis.append(master)
        if self.profile.sentinel:
            self.redis.append(await RedisServer.start(self.test, *durable, replica_of=master))
            self.sentinels = await Sentinels.start(self.test, master)
            for port in self.sentinels.ports:
                # Another failover may follow soon.
                await self.sentinels.command(port, "SENTINEL", "SET", "mymaster", "failover-timeout", "4000")
        # With sentinels nodes speak with Redis directly, which is here.
        self.no_cables = "with sentinels there are none" if self.profile.sentinel else why_not()
        for index in range(nodes):
            cable = None if self.no_cables else Cable(self.test, index)
            if self.sentinels is not None:
                url = self.sentinels.url
            else:
                host = "127.0.0.1" if cable is None else cable.host
                pipe = await self._proxy(master.port, interface=host)
                self.pipes.append(pipe)
                url = f"redis://{host}:{pipe.port}/0"
            self.nodes.append(Node(self.test, index, url, self.timeline, cable))
        await gatherResults([Deferred.fromCoroutine(node.start()) for node in self.nodes])
        # HAProxy speaks with this machine only; these pass on what it says, and do no harm.
        ways = [await self._proxy(node.port, host=node.host) for node in self.nodes]
        haproxy = await HAProxy.start(self.test, [way.port for way in ways])
        for node in self.nodes:
            await haproxy.becomes(node.name, "UP")
        self.doors[CLIENT_SIDE] = await self._proxy(haproxy.port)
        for index, node in enumerate(self.nodes):
            self.doors[index] = await self._proxy(node.port, host=node.host)
        self.direct = [way.port for way in ways]

    async def _proxy(self, port: int, *, host: str = "127.0.0.1", interface: str = "127.0.0.1") -> HarmfulProxy:
        proxy = HarmfulProxy(port, self.random, host=host, interface=interface)
        await proxy.start(self.test)
        return proxy

    def heal(self) -> None:
        """Let the networks do no more harm."""
        for proxy in (*self.doors.values(), *self.pipes):
            proxy.heal()

    async def master(self) -> RedisServer:
        """Return the Redis that is the master."""
        if self.sentinels is None:
            return self.redis[0]
        port = await self.sentinels.master_port()
        return next(server for server in self.redis if server.port == port)

    async def may_lose(self, fault: Callable[[RedisServer, RedisServer], Any]) -> None:
        """
        Let a fault befall the master and its replica, after which the other one is the master.

        It is over when what was the master is the replica.
        """
        master = await self.master()
        [replica] = [server for server in self.redis if server is not master]
        begin = self.timeline.now
        # The end is not known yet.
        self.losses.append(Loss(begin, float("inf")))
        try:
            await fault(master, replica)
            await until(lambda: self._is_in_step(master), "the old master to be the replica", 60)
            self.timeline.note("redis", f"{replica.port} is the master, {master.port} its replica")
        except AssertionError as error:
            # Sentinels may have their reasons not to fail over now.
            self.timeline.note("redis", error)
        self.losses[-1] = Loss(begin, self.timeline.now + _SETTLING)

    async def _is_in_step(self, server: RedisServer) -> bool:
        try:
            told = await within(2, Deferred.fromCoroutine(server.command("INFO", "replication")))
        except Exception:
            return False
        return b"master_link_status:up" in told
