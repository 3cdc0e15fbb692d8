"""One run: everything is started, messages flow, faults happen, all is well again, and what came of it is judged."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.trial.unittest import TestCase

from tests.chaos import faults
from tests.chaos.checker import Violation, violations_of
from tests.chaos.clients import TRANSPORTS, WANDERER, BareClient
from tests.chaos.history import Began, Entry, Got, Timeline, View
from tests.chaos.programs import NodeClient, PythonClient
from tests.chaos.publishers import ClientPublisher, HttpPublisher, Ledger
from tests.chaos.schedule import CLIENT_SIDE, PROFILES, Fault, schedule_of
from tests.chaos.world import KEPT, World
from tests.programs import find
from tests.support.waiting import pause, until, within

__all__ = ["CLIENTS", "Run"]


#: The channels: three with much in them, and one with little.
_BUSY = ("demo:a", "demo:b", "demo:c")
_QUIET = "demo:quiet"
#: Of which little is kept, so that who is away for long misses some of it.
_SHORT = "short:d"
_CHANNELS = (*_BUSY, _QUIET, _SHORT)

#: Seconds after the last fault within which everybody has to be up to date.
_DEADLINE = 30.0

#: Seconds after that within which everything has to be acknowledged. A client that sends over HTTP waits for an answer
#: for 25 s before it takes a connection for dead.
_PATIENCE = 60.0

#: How many clients can be told to go away.
CLIENTS = 2 * len(TRANSPORTS) + 5


@attrs.frozen
class _Problem:
    time: float
    who: str
    what: str


class Run:
    """
    One run.

    :param seconds: How long faults happen.
    :param profile: One of :data:`tests.chaos.schedule.PROFILES`.
    :ivar schedule: What happens.
    """

    def __init__(self, test: TestCase, seed: int, seconds: float, profile: str, nodes: int = 2) -> None:
        self.schedule = schedule_of(seed, seconds, profile, nodes=nodes, clients=CLIENTS)
        self.command = (
            f"python -m tests.chaos --profile {profile} --seed {seed} --minutes {seconds / 60:g} --nodes {nodes}"
        )
        self._test = test
        self._seconds = seconds
        self._node_count = nodes
        self._random = Random(seed)
        self._timeline = Timeline(reactor.seconds)
        self._world = World(test, PROFILES[profile], self._random, self._timeline)
        self._ledger = Ledger(self._timeline, self._random)
        self._clients: list[BareClient | PythonClient | NodeClient] = []
        self._publishers: list[HttpPublisher | ClientPublisher] = []
        self._problems: list[_Problem] = []
        self._is_publishing = True
        self._end = 0.0

    async def go(self) -> None:
        """
        Do it all.

        :raises AssertionError: if a promise was broken; it tells which, what was around it, and how to do it again.
        """
        await self._world.start(self._node_count)
        if self._world.no_cables:
            sys.stdout.write(f"(no cables are pulled out: {self._world.no_cables}) ")
        publishers = self._publishers = self._make_publishers()
        await self._publish_each()
        self._make_clients()
        await until(self._all_began, "the clients to be there", 20, seen=lambda: str(self._where()))
        publishing = [Deferred.fromCoroutine(self._publish(publisher)) for publisher in publishers]
        publishing.append(Deferred.fromCoroutine(self._publish_bursts(publishers[0])))
        self._timeline.note("run", "faults begin")
        try:
            await self._do_faults()
        finally:
            self._is_publishing = False
        self._world.heal()
        self._timeline.note("run", "all is well again")
        healed = self._timeline.now
        try:
            await within(_PATIENCE, gatherResults(publishing, consumeErrors=True))
            await within(_PATIENCE, Deferred.fromCoroutine(self._publish_each()))
        except (TimeoutError, FirstError) as error:
            self._problem("publishers", f"not all is acknowledged {_PATIENCE:g} s after all is well again: {error}")
        try:
            await until(self._all_arrived, "everybody to be up to date", _DEADLINE)
        except AssertionError:
            # Who is not is told by the checker.
            self._timeline.note("run", "not everybody is up to date")
        self._end = self._timeline.now
        self._timeline.note("run", f"ends {self._end - healed:.1f} s after all was well again")
        for client in self._clients:
            client.leave()
        sys.stdout.write(f"({self}) ")
        self._judge()

    def __str__(self) -> str:
        acknowledged = sum(map(len, self._ledger.acknowledged.values()))
        views = self._views()
        entries = [entry for view in views for entry in view.entries]
        got = sum(isinstance(entry, Got) for entry in entries)
        gaps = sum(
            not isinstance(entry, Got) and not (isinstance(entry, Began) and entry.recovered) for entry in entries
        )
        connections = sum(client.connections for client in self._clients)
        return (
            f"{len(self.schedule)} faults, {acknowledged} messages in {self._ledger.attempts} calls, "
            f"{len(self._clients)} clients with {connections} connections, which got {got} messages and {gaps} gaps"
        )

    # Who is there

    def _make_publishers(self) -> list[HttpPublisher | ClientPublisher]:
        doors = {index: door.port for index, door in self._world.doors.items()}
        front = doors[CLIENT_SIDE]
        nodes = self._world.direct
        publishers: list[HttpPublisher | ClientPublisher] = [
            HttpPublisher(self._test, "publisher 1", [*nodes, front], self._ledger, self._problem),
            HttpPublisher(self._test, "publisher 2", [front, *doors.values()], self._ledger, self._problem),
        ]
        for transport, port in (("websocket", front), ("longpoll", doors[0])):
            publisher = ClientPublisher(f"publisher {transport}", port, transport, self._ledger, self._problem)
            self._test.addCleanup(publisher.client.close)
            publishers.append(publisher)
        return publishers

    def _make_clients(self) -> None:
        doors = {index: door.port for index, door in self._world.doors.items()}
        nodes = len(self._world.nodes)
        for index, transport in enumerate(TRANSPORTS):
            some = _CHANNELS[index % len(_BUSY) :: len(_BUSY)]
            for kind, door, channels in (
                ("front", CLIENT_SIDE, _BUSY if index % 2 else _CHANNELS),
                ("node", index % nodes, some),
            ):
                follows = channels[-1:] if transport == "raw" else channels
                self._add_bare(f"client {transport} {kind}", doors[door], transport, follows)
        for transport, door in (("websocket", CLIENT_SIDE), ("sse", 0), ("longpoll", nodes - 1)):
            name = f"client python {transport}"
            client = PythonClient(name, doors[door], transport, self._starts(_CHANNELS), self._timeline, self._problem)
            self._test.addCleanup(client.end)
            self._clients.append(client)
        node = find("node")
        if node is not None:
            js = NodeClient(self._test, node, "client js", doors[CLIENT_SIDE], _BUSY[0], self._timeline, self._problem)
            self._test.addCleanup(js.end)
            self._clients.append(js)
        self._add_bare("client wanderer", doors[CLIENT_SIDE], WANDERER, _CHANNELS)
        # Who follows everything at the node that nothing befalls, where there is one.
        self._add_bare("client witness", self._world.direct[-1], "websocket", _CHANNELS)
        for client in self._clients:
            client.come()

    def _add_bare(self, name: str, port: int, transport: str, channels: Sequence[str]) -> None:
        random = Random(self._random.random())
        client = BareClient(name, port, transport, self._starts(channels), random, self._timeline, self._problem)
        self._test.addCleanup(client.leave)
        self._clients.append(client)

    def _starts(self, channels: Sequence[str]) -> dict[str, Any]:
        return {channel: self._ledger.last(channel) for channel in channels}

    def _all_began(self) -> bool:
        return all(client.connections for client in self._clients)

    def _where(self) -> dict[str, int]:
        return {client.name: client.connections for client in self._clients}

    # What happens

    async def _publish(self, publisher: HttpPublisher | ClientPublisher) -> None:
        while self._is_publishing:
            channel = self._random.choice(_CHANNELS if self._random.random() < 0.1 else (*_BUSY, _SHORT))
            await publisher.publish(channel)
            await pause(self._random.expovariate(20))

    async def _publish_each(self) -> None:
        for channel in _CHANNELS:
            await self._publishers[0].publish(channel)

    async def _publish_bursts(self, publisher: HttpPublisher | ClientPublisher) -> None:
        assert isinstance(publisher, HttpPublisher)
        while self._is_publishing:
            channel = self._random.choice(_BUSY)
            if self._random.random() < 0.1:
                # More than nodes keep while they read history.
                for _ in range(15):
                    await publisher.publish_many(channel, 100)
            for _ in range(self._random.randrange(1, 8)):
                await publisher.publish_many(channel, self._random.randrange(1, 40))
            await pause(self._random.uniform(0, 4))

    async def _do_faults(self) -> None:
        begin = self._timeline.now
        doing = []
        for fault in self.schedule:
            await pause(max(0.0, begin + fault.at - self._timeline.now))
            doing.append(Deferred.fromCoroutine(self._do(fault)))
        await gatherResults(doing, consumeErrors=True)

    async def _do(self, fault: Fault) -> None:
        try:
            await faults.do(fault, self._world, self._clients)
        except Exception:
            # What cannot be done has a reason too, which may be one of ours.
            self._problem("fault", f"{fault}: {traceback.format_exc()}")

    def _all_arrived(self) -> bool:
        return all(
            client.positions.get(channel) == self._ledger.last(channel)
            for client in self._clients
            for channel in client.views
        )

    # What came of it

    def _problem(self, who: str, what: object) -> None:
        self._timeline.note(who, f"PROBLEM: {what}")
        self._problems.append(_Problem(self._timeline.now, who, str(what)))

    def _views(self) -> list[View]:
        return [view for client in self._clients for view in client.views.values()]

    def _judge(self) -> None:
        found = violations_of(
            self._views(), self._ledger.acknowledged, self._world.losses, self._end, kept={_SHORT: KEPT}
        )
        found += [Violation(each.time, each.who, "-", each.what) for each in self._problems]
        for node in self._world.nodes:
            found += [Violation(self._end, node.name, "-", each) for each in node.tracebacks()]
        if found:
            raise AssertionError(self._report(sorted(found)))

    def _report(self, found: Sequence[Violation]) -> str:
        first = found[0]
        view: list[Entry] = []
        for each in self._views():
            if (each.who, each.channel) == (first.who, first.channel):
                view = each.entries
        lines = [
            f"{len(found)} promises were broken. Again: {self.command}",
            *(f"  {each}" for each in found[:15]),
            "The schedule:",
            *(f"  {fault}" for fault in self.schedule),
            f"What was around the first one, {first}:",
            *(f"  {line}" for line in self._timeline.around(first.time, first.who, view)),
        ]
        return "\n".join(lines)
