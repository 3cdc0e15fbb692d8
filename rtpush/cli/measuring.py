"""A short measurement of this machine: what a server process of ours spends on connections, messages and requests."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from rtpush.cli.exits import Failed
from rtpush.cli.load.calling import Caller, Road
from rtpush.cli.load.crowd import Links
from rtpush.cli.load.dialling import Dialler, Target, raise_file_limit
from rtpush.cli.load.links import LINKS, Link, LongPollLink, ShortPollLink
from rtpush.cli.load.pace import publish_on_time
from rtpush.cli.processes import can_measure, cpu_seconds, kernel_socket_bytes, machine, user_bytes
from rtpush.planning.figures import SHIPPED, Costs, Figures

__all__ = ["measure"]

_CONFIG = """
[server]
listen = tcp:0:interface=127.0.0.1
heartbeat = {heartbeat}
heartbeat_grace = 60
[api]
open = yes
[limits]
connect_rate = 0
[namespace:default]
history_size = 100
"""
_PROGRAM = "from twisted.scripts.twistd import run; run()"

#: Connections of each transport, and before the first look at the memory.
_CONNECTIONS, _WARM = 2000, 50
#: How many connections are opened at once.
_WINDOW = 40
#: Messages that all of them get, and how many a second: so few that none are joined.
_MESSAGES, _RATE = 30, 15.0
_SIZE = 128
#: Publishes without subscribers, and short polls on each of some connections.
_PUBLISHES, _POLLERS, _POLLS = 1500, 8, 400
#: Seconds between heartbeats where those are measured, and for how long.
_HEARTBEAT, _HEARTBEATS_FOR = 0.5, 3.0
#: A socket takes between so much and so much of the kernel; what was measured beside that was somebody else's.
_KERNEL_LEAST, _KERNEL_MOST = 1000.0, 20000.0

#: The steps, for the progress.
_STEPS = 5


async def measure(reactor: Any, report: Callable[[float, str], object]) -> Figures:
    """
    Measure, which takes about 20 seconds.

    :param report: Told which part is done, from 0 to 1, and what is being done.
    :raises Failed: if this machine cannot be measured.
    """
    if not can_measure():
        raise Failed("only Linux counts what is to be measured: use the figures of another machine (--figures)")
    if raise_file_limit() < _CONNECTIONS + 100:
        raise Failed(f"expected that {_CONNECTIONS + 100} files may be open (ulimit -n)")
    costs: dict[str, Costs] = {}
    kernel = SHIPPED.kernel
    process = publish = 0.0
    for step, name in enumerate(("websocket", "sse", "longpoll", "shortpoll")):
        report(step / _STEPS, f"measuring {name}")
        async with _Server(reactor, heartbeat=3600) as server:
            if name == "websocket":
                process = user_bytes(server.pid)
                publish = await _publish_cost(server)
            links = server.links(name)
            memory, opening, kernel_now = await _hold(server, links)
            if name == "websocket" and _KERNEL_LEAST <= kernel_now <= _KERNEL_MOST:
                kernel = kernel_now
            report((step + 0.5) / _STEPS, f"measuring {name}")
            if name == "shortpoll":
                delivery = await _poll_cost(server)
            else:
                delivery = await _delivery_cost(server, links, publish)
            links.close()
        costs[name] = Costs(memory=memory, opening=opening, delivery=delivery)
    report((_STEPS - 1) / _STEPS, "measuring heartbeats")
    async with _Server(reactor, heartbeat=_HEARTBEAT) as server:
        heartbeat = await _heartbeat_cost(server)
    return Figures(
        machine=machine(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        costs=costs,
        publish=publish,
        heartbeat=heartbeat,
        process=process,
        kernel=kernel,
        redis=SHIPPED.redis,
    )


class _Server(ProcessProtocol):
    """A server process of our own, on a free port of 127.0.0.1, for as long as the block."""

    def __init__(self, reactor: Any, heartbeat: float) -> None:
        self.reactor = reactor
        self._heartbeat = heartbeat
        self._said = b""
        self._listening: Deferred[int] = Deferred()
        self._ended: Deferred[None] = Deferred()

    async def __aenter__(self) -> _Server:
        self._folder = tempfile.TemporaryDirectory(prefix="rtpush-plan-")
        path = Path(self._folder.name) / "rtpush.ini"
        path.write_text(_CONFIG.format(heartbeat=self._heartbeat))
        command = [sys.executable, "-c", _PROGRAM, "--nodaemon", "--pidfile=", "rtpush", f"--config={path}"]
        self._process = self.reactor.spawnProcess(self, command[0], command, env=None, path=self._folder.name)
        self.pid: int = self._process.pid
        port = await self._listening.addTimeout(60, self.reactor)
        self.dialler = Dialler(self.reactor, Target.of(f"http://127.0.0.1:{port}/"))
        return self

    async def __aexit__(self, *failure: object) -> None:
        try:
            self._process.signalProcess("KILL")
        except ProcessExitedAlready:
            pass
        await self._ended
        self._folder.cleanup()

    def links(self, name: str) -> Links:
        """Return an empty crowd of a transport."""

        def make(channel: str, links: Links) -> Link:
            link = LINKS[name](self.dialler.target, channel, links, self.reactor, {})
            if isinstance(link, ShortPollLink):
                # They are to wait.
                link.pause = lambda: 3600.0
            return link

        return Links(make, self.dialler, time.monotonic)

    async def settled(self) -> None:
        """Wait until the server has done what it has to do."""
        before = cpu_seconds(self.pid)
        for _ in range(50):
            await deferLater(self.reactor, 0.1)
            now = cpu_seconds(self.pid)
            if now - before < 0.003:
                return
            before = now

    async def spent(self, work: Awaitable[Any]) -> float:
        """Do something; return the CPU seconds of the server for it."""
        before = cpu_seconds(self.pid)
        await work
        await self.settled()
        return cpu_seconds(self.pid) - before

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-20_000:]
        found = re.search(rb"listening on .* port=(\d+)", self._said)
        if found is not None and not self._listening.called:
            self._listening.callback(int(found[1]))

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if not self._listening.called:
            last = self._said.decode(errors="replace").strip().rpartition("\n")[2]
            self._listening.errback(Failed(f"the server to be measured does not start: {last}"))
        self._ended.callback(None)


async def _hold(server: _Server, links: Links) -> tuple[float, float, float]:
    """Open connections; return the bytes and CPU seconds that each costs, and its bytes in the kernel."""
    await links.open(["held"] * _WARM, _WINDOW, lambda done: None)
    await server.settled()
    memory, kernel = user_bytes(server.pid), kernel_socket_bytes()
    spent = await server.spent(links.open(["held"] * _CONNECTIONS, _WINDOW, lambda done: None))
    if links.reasons:
        reason, times = links.reasons.most_common(1)[0]
        raise Failed(f"{times} of {_CONNECTIONS} connections failed: {reason}")
    grown = user_bytes(server.pid) - memory
    # Both ends of each are here.
    sockets = (kernel_socket_bytes() - kernel) / 2
    return max(grown, 0) / _CONNECTIONS, spent / _CONNECTIONS, sockets / _CONNECTIONS


async def _delivery_cost(server: _Server, links: Links, publish: float) -> float:
    """Return the CPU seconds of a message to one of many."""
    published: dict[str, int] = {}

    async def deliver() -> None:
        await publish_on_time(
            server.reactor,
            Road(server.dialler, ""),
            ["held"],
            rate=_RATE,
            seconds=_MESSAGES / _RATE,
            size=_SIZE,
            clock=time.monotonic,
            published=published,
        )
        deadline = time.monotonic() + 30
        while not links.have_all(published) and time.monotonic() < deadline:
            await deferLater(server.reactor, 0.02)

    before = _answers(links)
    spent = await server.spent(deliver())
    # A poll that comes late is answered with several messages at once.
    delivered = _answers(links) - before or links.came
    if not delivered:
        raise Failed("no message came while the cost of one was measured")
    return max(spent - published["held"] * publish, 0.0) / delivered


def _answers(links: Links) -> int:
    """Return how many polls were answered."""
    return sum(link.answers for link in links.links if isinstance(link, LongPollLink))


async def _publish_cost(server: _Server) -> float:
    """Return the CPU seconds of a publish."""
    road = Road(server.dialler, "")
    caller = road.caller()

    async def publish() -> None:
        for _ in range(_PUBLISHES):
            await road.publish(caller, "quiet", ["x" * _SIZE])

    try:
        return await server.spent(publish()) / _PUBLISHES
    finally:
        caller.close()


async def _poll_cost(server: _Server) -> float:
    """Return the CPU seconds of a short poll that finds nothing new."""
    callers = [Caller(server.dialler) for _ in range(_POLLERS)]

    async def poll(caller: Caller) -> None:
        for _ in range(_POLLS):
            await caller.call("GET", "poll?channel=held&timeout=0", None, {"If-None-Match": '"none"'})

    async def all_of_them() -> None:
        await gatherResults([Deferred.fromCoroutine(poll(caller)) for caller in callers], consumeErrors=True)

    try:
        return await server.spent(all_of_them()) / (_POLLERS * _POLLS)
    finally:
        for caller in callers:
            caller.close()


async def _heartbeat_cost(server: _Server) -> float:
    """Return the CPU seconds of a heartbeat."""
    idle = await server.spent(partial(deferLater, server.reactor, 1.0)())
    links = server.links("websocket")
    await links.open(["held"] * _CONNECTIONS, _WINDOW, lambda done: None)
    before = cpu_seconds(server.pid)
    await deferLater(server.reactor, _HEARTBEATS_FOR)
    spent = cpu_seconds(server.pid) - before
    count = len(links.links) * _HEARTBEATS_FOR / _HEARTBEAT
    links.close()
    return max(spent - idle * _HEARTBEATS_FOR, 0.0) / max(count, 1.0)
