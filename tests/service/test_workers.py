"""Tests of rtpush.service.workers."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.service.board import Board
from rtpush.service.child import BOARD, FIRST_SOCKET, PULSE, Order, unpacked
from rtpush.service.config import Config, Server
from rtpush.service.settings.serving import AUTO
from rtpush.service.sockets import CannotListen
from rtpush.service.workers import Workers, worker_count
from tests.service.spawned import SpawnedProcess
from tests.support.waiting import soon

_SLOWLY = Order(leave="slowly").line()


class _Reactor:
    """The real reactor, which listens; but the processes are only pretended."""

    def __init__(self, clock: Clock) -> None:
        self.processes: list[SpawnedProcess] = []
        self.seconds = clock.seconds
        self.callLater = clock.callLater

    def spawnProcess(
        self,
        protocol: ProcessProtocol,
        executable: str,
        command: list[str],
        env: object,
        childFDs: dict[int, Any],
    ) -> SpawnedProcess:
        assert (executable, env) == (sys.executable, None)
        self.processes.append(SpawnedProcess(protocol, len(self.processes), command, childFDs))
        return self.processes[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class WorkersTests(TestCase):
    """The parent."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = _Reactor(self.clock)
        self.given_up: list[None] = []

    def _path(self) -> str:
        """Return a path for a Unix socket, which must be short."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return f"{directory.name}/sock"

    def _workers(self, addresses: list[str], count: int, reactor_name: str = "", **server: Any) -> Workers:
        return Workers(
            self.reactor,
            Config(server=Server(listen=tuple(addresses), **server)),
            count,
            "a.ini",
            "text \N{SNOWMAN}",
            reactor_name=reactor_name,
            chance=lambda: 0.0,
            give_up=lambda: self.given_up.append(None),
        )

    def _start(self, addresses: list[str], count: int = 2, reactor_name: str = "", **server: Any) -> Workers:
        workers = self._workers(addresses, count, reactor_name, **server)
        workers.startService()
        self.addCleanup(self._stop, workers)
        return workers

    async def _stop(self, workers: Workers) -> None:
        if not workers.running:
            return
        stopped = workers.stopService()
        for process in self.reactor.processes:
            if not process.gone:
                process.ends(None, 15)
        await soon(stopped)

    def test_started(self) -> None:
        """Each process has the sockets in the order of the addresses, its number, and the configuration."""
        self._start(["tcp:0:interface=127.0.0.1", f"unix:{self._path()}:mode=600"], 3, "poll")
        self.assertEqual(len(self.reactor.processes), 3)
        for number, process in enumerate(self.reactor.processes, 1):
            self.assertEqual(unpacked(BytesIO(process.written)), "text \N{SNOWMAN}")
            path = os.path.abspath("a.ini")
            self.assertEqual(process.command[-3:], ["rtpush", f"--config={path}", f"--worker={number}"])
            self.assertIn("--reactor=poll", process.command)
            self.assertEqual([process.fds[fd] for fd in range(3)], ["w", "r", "r"])
            self.assertEqual(process.fds[PULSE], "r")
            self.assertEqual(Board(process.fds[BOARD]).numbers(), range(1, 4))
            for fd, family in ((FIRST_SOCKET, socket.AF_INET), (FIRST_SOCKET + 1, socket.AF_UNIX)):
                with socket.socket(fileno=os.dup(process.fds[fd])) as listening:
                    self.assertEqual(listening.family, family)
                    self.assertTrue(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            self.assertEqual(len(process.fds), 7)

    async def test_accepts_nothing(self) -> None:
        """The parent leaves connections to its workers."""
        path = self._path()
        self._start([f"unix:{path}"])
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(path)
        # A turn in which the reactor would have accepted it.
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.05, turned.callback, None)
        await turned
        client.setblocking(False)
        self.assertRaises(BlockingIOError, client.recv, 1)
        with socket.socket(fileno=os.dup(self.reactor.processes[0].fds[FIRST_SOCKET])) as listening:
            listening.setblocking(False)
            listening.accept()[0].close()

    async def test_file_removed(self) -> None:
        """The file of a Unix socket goes when the parent ends, and not before all workers are asked to."""
        path = self._path()
        workers = self._start([f"unix:{path}"])
        self.reactor.processes[0].ends(1)
        self.assertTrue(Path(path).exists())
        await self._stop(workers)
        self.assertEqual(self.reactor.processes[1].written.split(b"text \xe2\x98\x83")[1], _SLOWLY)
        self.assertFalse(Path(path).exists())

    def test_cannot_listen(self) -> None:
        """If an address cannot be had, no process is started."""
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        workers = self._workers([address], 2)
        error = self.assertRaises(CannotListen, workers.startService)
        self.assertEqual(str(error), f"{address}: cannot listen: Address already in use")
        self.assertEqual(self.reactor.processes, [])

    async def test_stops_when_all_have_ended(self) -> None:
        """The end waits for the last worker."""
        workers = self._start(["tcp:0:interface=127.0.0.1"], 3)
        stopped = workers.stopService()
        for process in self.reactor.processes:
            self.assertFalse(stopped.called)
            process.ends(None, 15)
        await soon(stopped)

    def _beat(self, number: int) -> None:
        """Have the newest process of a worker show that it lives."""
        argument = f"--worker={number}"
        process = [process for process in self.reactor.processes if argument in process.command][-1]
        process.protocol.childDataReceived(PULSE, b".")

    def _orders(self, process: SpawnedProcess) -> list[Order]:
        """Return what a process has read after its configuration."""
        stream = BytesIO(process.written)
        unpacked(stream)
        return [msgspec.json.decode(line, type=Order) for line in stream]

    def test_ready(self) -> None:
        """It is ready when all workers have been."""
        workers = self._start(["tcp:0:interface=127.0.0.1"], 2)
        self._beat(1)
        self._beat(1)
        self.assertFalse(workers.when_ready.called)
        self.reactor.processes[0].ends(1)
        self._beat(2)
        self.assertTrue(workers.when_ready.called)
        self.clock.advance(0)
        self._beat(1)

    def test_leaving(self) -> None:
        """Workers are told how to leave, and that it is over if that is said later; they have the window for it."""
        for is_hasty, how, window in ((False, "slowly", 40.0), (True, "hasty", 1.0)):
            with self.subTest(how):
                workers = self._start(["tcp:0:interface=127.0.0.1"], 1, drain_window=40.0)
                self._beat(1)
                if is_hasty:
                    workers.hasten()
                workers.stopService()
                process = self.reactor.processes[-1]
                self.clock.advance(window + 4.0)
                self.assertEqual((self._orders(process), process.signals), ([Order(leave=how)], []))
                workers.end()
                self.assertEqual(self._orders(process)[1:], [Order(end=True)])
                self.clock.advance(5.0)
                self.assertEqual(process.signals, ["KILL"])
                process.ends(None, 9)

    def test_watchdog(self) -> None:
        """A worker that does not beat for as long as the configuration says is killed."""
        self._start(["tcp:0:interface=127.0.0.1"], 2, watchdog=3.0)
        self._beat(1)
        self._beat(2)
        for _ in range(4):
            self.clock.advance(1.0)
            self._beat(1)
        self.assertEqual([process.signals for process in self.reactor.processes], [[], ["KILL"]])

    def test_asleep(self) -> None:
        """When the whole machine has slept, nobody is killed for it."""
        self._start(["tcp:0:interface=127.0.0.1"], 1, watchdog=3.0)
        self._beat(1)
        self.clock.advance(1000.0)
        self.assertEqual(self.reactor.processes[0].signals, [])

    def test_reload(self) -> None:
        """A new configuration goes to all workers, and to those that replace them after the first one."""
        workers = self._start(["tcp:0:interface=127.0.0.1"], 2)
        new = attrs.evolve(workers.config, server=attrs.evolve(workers.config.server, heartbeat=7.0, listen=("tcp:1",)))
        lines = workers.reload("new", new)
        self.assertEqual(lines, ["[server] listen can only be changed by a restart: it stays as it is"])
        self.assertEqual(workers.config.server.heartbeat, 7.0)
        self.reactor.processes[0].ends(1)
        workers.reload("newer", new)
        self.clock.advance(0)
        self.assertEqual(
            [self._orders(process) for process in self.reactor.processes],
            [
                [Order(reload="new")],
                [Order(reload="new"), Order(reload="newer")],
                [Order(reload="newer")],
            ],
        )

    def test_hopeless(self) -> None:
        """If no worker was ever ready, it gives up after a few."""
        self._start(["tcp:0:interface=127.0.0.1"], 2)
        for number in range(3):
            self.assertEqual(self.given_up, [])
            self.reactor.processes[number].ends(1)
            self.clock.advance(0)
        self.assertEqual(self.given_up, [None])

    def test_hope(self) -> None:
        """If one was, it goes on for ever."""
        self._start(["tcp:0:interface=127.0.0.1"], 2)
        self._beat(2)
        for _ in range(20):
            [process for process in self.reactor.processes if "--worker=1" in process.command][-1].ends(1)
            self.clock.advance(31.0)
        self.assertEqual(self.given_up, [])
        self.assertEqual(len(self.reactor.processes), 22)


class CountTests(SynchronousTestCase):
    """How many there are."""

    def test_number(self) -> None:
        """A number is taken as it is."""
        self.assertEqual(worker_count(7), 7)

    def test_auto(self) -> None:
        """Auto is one for each processor that this process may use."""
        self.patch(os, "sched_getaffinity", lambda pid: {0, 3, 5})
        self.assertEqual(worker_count(AUTO), 3)

    def test_auto_elsewhere(self) -> None:
        """Where the system does not say which it may use, it is one for each that there is."""
        if hasattr(os, "sched_getaffinity"):
            self.patch(os, "sched_getaffinity", None)
        self.patch(os, "cpu_count", lambda: None)
        self.assertEqual(worker_count(AUTO), 1)
