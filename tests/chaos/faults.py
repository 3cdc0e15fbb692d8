"""What each kind of fault does, and how it is undone."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from tests.chaos.history import Loss
from tests.chaos.proxy import HarmfulProxy
from tests.chaos.schedule import Fault
from tests.chaos.world import Node, World
from tests.support.redis import RedisServer
from tests.support.waiting import pause

__all__ = ["Absent", "do"]

#: Seconds within which every node finds out that Redis has lost a channel.
_AUDIT = 65.0


class Absent(Protocol):
    """A client that comes and goes."""

    def come(self) -> None:
        """Be there."""

    def leave(self) -> None:
        """Be away."""


async def do(fault: Fault, world: World, clients: Sequence[Absent]) -> None:
    """Let a fault happen; when this has a result it is undone, as far as the one whom it befell has to be told."""
    world.timeline.note("fault", f"begins: {fault}")
    if fault.kind in _NODE:
        node = world.nodes[fault.target]
        await node.lock.acquire()
        try:
            await _NODE[fault.kind](node, fault)
        finally:
            node.lock.release()
    elif fault.kind in _REDIS:
        await world.redis_lock.acquire()
        try:
            world.timeline.note("fault", f"befalls redis: {fault}")
            await _REDIS[fault.kind](world, fault)
        finally:
            world.redis_lock.release()
    elif fault.kind == "away":
        clients[fault.target].leave()
        await pause(fault.seconds)
        clients[fault.target].come()
    elif fault.kind.startswith("redis "):
        await _NETWORK[fault.kind.removeprefix("redis ")](world.pipes[fault.target], fault)
    else:
        await _NETWORK[fault.kind](world.doors[fault.target], fault)
    world.timeline.note("fault", f"is over: {fault}")


# Nodes


async def _kill(node: Node, fault: Fault) -> None:
    await node.kill()
    await pause(fault.seconds)
    await node.start()


async def _restart(node: Node, fault: Fault) -> None:
    await node.stop()
    await pause(fault.seconds)
    await node.start()


async def _stop(node: Node, fault: Fault) -> None:
    node.signal(signal.SIGSTOP)
    await pause(fault.seconds)
    node.signal(signal.SIGCONT)


async def _unplug(node: Node, fault: Fault) -> None:
    if node.cable is None:
        return
    node.cable.pull()
    await pause(fault.seconds)
    node.cable.plug()


_NODE: Mapping[str, Callable[[Node, Fault], Awaitable[None]]] = {
    "kill": _kill,
    "restart": _restart,
    "stop": _stop,
    "unplug": _unplug,
}


# Networks


async def _cut(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.cut(fault.amount)


async def _cuts(proxy: HarmfulProxy, fault: Fault) -> None:
    left = fault.seconds
    while left > 0:
        proxy.cut(fault.amount)
        await pause(0.1)
        left -= 0.1


async def _delay(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.delay = fault.amount
    await pause(fault.seconds)
    proxy.delay = 0.0


async def _buffer(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.holds = True
    await pause(fault.seconds)
    proxy.holds = False


async def _truncate(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.truncates = int(fault.amount)
    await pause(fault.seconds)
    proxy.truncates = None


async def _reorder(proxy: HarmfulProxy, fault: Fault) -> None:
    # Those who are there come back at once, and all overtake each other.
    proxy.late = 2.0
    proxy.cut(fault.amount)
    await pause(fault.seconds)
    proxy.late = 0.0


async def _silence(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.silence(fault.amount)


async def _swallow(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.swallows = True
    proxy.cut(fault.amount)
    await pause(fault.seconds)
    proxy.swallows = False


async def _choke(proxy: HarmfulProxy, fault: Fault) -> None:
    proxy.chokes = True
    await pause(fault.seconds)
    proxy.chokes = False


_NETWORK: Mapping[str, Callable[[HarmfulProxy, Fault], Awaitable[None]]] = {
    "cut": _cut,
    "cuts": _cuts,
    "delay": _delay,
    "buffer": _buffer,
    "truncate": _truncate,
    "reorder": _reorder,
    "silence": _silence,
    "swallow": _swallow,
    "choke": _choke,
}


# Redis


async def _redis_kill(world: World, fault: Fault) -> None:
    redis = await world.master()
    await redis.kill()
    await pause(fault.seconds)
    await redis.restart()


async def _redis_restart(world: World, fault: Fault) -> None:
    await (await world.master()).restart()


async def _redis_stop(world: World, fault: Fault) -> None:
    redis = await world.master()
    redis.pause()
    await pause(fault.seconds)
    redis.resume()


async def _client_kill(world: World, fault: Fault) -> None:
    left = fault.seconds
    while left > 0:
        redis = await world.master()
        for kind in ("normal", "pubsub"):
            await redis.command("CLIENT", "KILL", "TYPE", kind)
        await pause(0.2)
        left -= 0.2


async def _failover(world: World, fault: Fault) -> None:
    sentinels = world.sentinels
    assert sentinels is not None

    async def begin(master: RedisServer, replica: RedisServer) -> None:
        await sentinels.failover()

    await world.may_lose(begin)


async def _crash(world: World, fault: Fault) -> None:
    sentinels = world.sentinels
    assert sentinels is not None

    async def begin(master: RedisServer, replica: RedisServer) -> None:
        await master.kill()
        try:
            await sentinels.replaced(master.port)
            await pause(fault.seconds)
        finally:
            await master.restart()

    await world.may_lose(begin)


async def _crash_with_loss(world: World, fault: Fault) -> None:
    sentinels = world.sentinels
    assert sentinels is not None

    async def begin(master: RedisServer, replica: RedisServer) -> None:
        # The replica cannot come back to its master, which goes on for a while: there is no such user.
        await replica.command("CONFIG", "SET", "masteruser", "nobody", "masterauth", "nothing")
        try:
            await master.command("CLIENT", "KILL", "TYPE", "replica")
            await pause(fault.seconds)
            await master.kill()
            await sentinels.replaced(master.port)
        finally:
            await replica.command("CONFIG", "SET", "masteruser", "", "masterauth", "")
            await master.restart()

    await world.may_lose(begin)


async def _split(world: World, fault: Fault) -> None:
    sentinels = world.sentinels
    assert sentinels is not None

    async def begin(master: RedisServer, replica: RedisServer) -> None:
        # When it goes on it takes itself for the master, until the sentinels tell it otherwise.
        master.pause()
        try:
            await sentinels.replaced(master.port)
            await pause(fault.seconds / 10)
        finally:
            master.resume()

    await world.may_lose(begin)


async def _flush(world: World, fault: Fault) -> None:
    world.losses.append(Loss(world.timeline.now, world.timeline.now + _AUDIT))
    await (await world.master()).command("FLUSHALL")


_REDIS: Mapping[str, Callable[[World, Fault], Awaitable[None]]] = {
    "redis kill": _redis_kill,
    "redis restart": _redis_restart,
    "redis stop": _redis_stop,
    "client kill": _client_kill,
    "failover": _failover,
    "crash": _crash,
    "crash with loss": _crash_with_loss,
    "split": _split,
    "flush": _flush,
}
