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
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.service.board import Board
from rtpush.service.child import BOARD, FIRST_SOCKET, PULSE, Order, unpacked
from rtpush.service.config import Config, Server
from rtpush.service.schema import AUTO
from rtpush.service.sockets import CannotListen
from rtpush.service.workers import Worker, Workers, worker_count
from tests.support.waiting import soon

_SLOWLY = Order(leave="slowly").line()


@attrs.define(eq=False)
class _Process:
    """A process that is only pretended; it ends when the test says so."""

    protocol: ProcessProtocol
    pid: int
    command: list[str] = attrs.field(factory=list)
    fds: dict[int, Any] = attrs.field(factory=dict)
    signals: list[str] = attrs.field(factory=list)
    written: bytes = b""
    gone: bool = False

    def writeToChild(self, childFD: int, data: bytes) -> None:
        assert childFD == 0
        self.written += data

    def signalProcess(self, name: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(name)

    def ends(self, code: int | None = 0, signal: int | None = None) -> None:
        """End, by an exit code or a signal."""
        self.gone = True
        reason = ProcessTerminated(code, signal) if code or signal else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))


def _logged(test: SynchronousTestCase) -> list[str]:
    """Return a list that grows by the text of each event of the log until the test ends."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return lines


class WorkerTests(SynchronousTestCase):
    """One worker: its process, and those that replace it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.processes: list[_Process] = []
        self.logged = _logged(self)
        self.problem: OSError | None = None
        self.ready = 0
        self.is_hopeless = False
        self.worker = Worker(self.clock, 2, self._spawn, lambda: 0.0, self._is_ready, lambda: self.is_hopeless)

    def _is_ready(self) -> None:
        self.ready += 1

    def _beat(self) -> None:
        """Have the newest process show that it lives."""
        self.processes[-1].protocol.childDataReceived(PULSE, b".")

    def _spawn(self, number: int, protocol: ProcessProtocol) -> Any:
        self.assertEqual(number, 2)
        if self.problem is not None:
            raise self.problem
        self.processes.append(_Process(protocol, 100 + len(self.processes)))
        return self.processes[-1]

    def test_replaced_at_once(self) -> None:
        """The process that replaces the first comes at once, and one line says what became of that."""
        self.worker.start()
        self.processes[0].ends(None, 9)
        self.clock.advance(0)
        self.assertEqual(len(self.processes), 2)
        self.assertIn("worker 2 has ended: killed by signal 9 (Killed); another one starts at once", self.logged)

    def test_replaced_later(self) -> None:
        """Those that end soon, one after the other, are replaced after more and more time, up to a bound."""
        self.worker.start()
        waits = []
        for _ in range(12):
            self.processes[-1].ends(1)
            before, count = self.clock.seconds(), len(self.processes)
            while len(self.processes) == count:
                self.clock.advance(0.25)
            waits.append(self.clock.seconds() - before)
        self.assertEqual(waits[1:8], [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0])
        self.assertEqual(waits[-1], 30.0)
        self.assertIn("worker 2 has ended: exit code 1; another one starts in 0.5 s", self.logged)

    def test_forgiven(self) -> None:
        """After one that has lived for a while, it is at once again."""
        self.worker.start()
        for _ in range(4):
            self.clock.advance(0.0)
            self.processes[-1].ends(1)
            self.clock.advance(5.0)
        self.clock.advance(10.0)
        self.processes[-1].ends(1)
        count = len(self.processes)
        self.clock.advance(0.0)
        self.assertEqual(len(self.processes), count + 1)

    def test_cannot_start(self) -> None:
        """A process that the system does not give is asked for again."""
        self.problem = OSError(11, "Resource temporarily unavailable")
        self.worker.start()
        self.assertEqual(
            self.logged, ["worker 2 cannot start: Resource temporarily unavailable; another one starts at once"]
        )
        self.problem = None
        self.clock.advance(0.0)
        self.assertEqual(len(self.processes), 1)

    def test_stop(self) -> None:
        """It is asked to end, waited for, and not replaced; nothing is logged of that."""
        self.worker.start()
        self._beat()
        del self.logged[:]
        stopped = self.worker.stop(b"leave", 20.0)
        self.assertEqual((self.processes[0].signals, self.processes[0].written), ([], b"leave"))
        self.clock.advance(19.0)
        self.assertNoResult(stopped)
        self.processes[0].ends(0)
        self.successResultOf(stopped)
        self.assertEqual((self.clock.getDelayedCalls(), len(self.processes), self.logged), ([], 1, []))

    def test_stop_starting(self) -> None:
        """One that is not ready is told by a signal too, since it may not read yet."""
        self.worker.start()
        self.worker.stop(b"leave", 20.0)
        self.assertEqual((self.processes[0].signals, self.processes[0].written), (["TERM"], b"leave"))
        self.processes[0].ends(None, 15)

    def test_stop_stubborn(self) -> None:
        """One that does not end is killed."""
        self.worker.start()
        self._beat()
        stopped = self.worker.stop(b"leave", 20.0)
        self.clock.advance(20.0)
        self.assertEqual(self.processes[0].signals, ["KILL"])
        self.assertNoResult(stopped)
        self.processes[0].ends(None, 9)
        self.successResultOf(stopped)
        self.assertIn("worker 2 does not end; it is killed", self.logged)

    def test_end(self) -> None:
        """What was asked to end can be told to do so now; if it does not, it is killed soon."""
        self.worker.start()
        self._beat()
        self.worker.end()
        stopped = self.worker.stop(b"leave ", 3600.0)
        self.worker.end()
        self.assertEqual(self.processes[0].written, b"leave " + Order(end=True).line())
        self.clock.advance(5.0)
        self.assertEqual(self.processes[0].signals, ["KILL"])
        self.processes[0].ends(None, 9)
        self.successResultOf(stopped)
        self.worker.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ready(self) -> None:
        """The first sign of life of each process says that it is ready."""
        self.worker.start()
        self.assertEqual((self.ready, self.worker.was_ready), (0, False))
        self._beat()
        self._beat()
        self.assertEqual((self.ready, self.worker.was_ready), (1, True))
        self.processes[0].ends(1)
        self.clock.advance(0)
        self._beat()
        self.assertEqual(self.ready, 2)

    def _look(self, times: int) -> None:
        for _ in range(times):
            self.worker.look(5.0)

    def test_hangs(self) -> None:
        """A process that is silent for too long is killed, and replaced."""
        self.worker.start()
        self._beat()
        self._look(5)
        self._beat()
        self._look(5)
        self.assertEqual(self.processes[0].signals, [])
        self._look(1)
        self.assertEqual(self.processes[0].signals, ["KILL"])
        self.assertIn("worker 2 hangs; it is killed", self.logged)
        self.processes[0].ends(None, 9)
        self.clock.advance(0)
        self.assertEqual(len(self.processes), 2)

    def test_hangs_at_the_start(self) -> None:
        """One that starts has more time, but not for ever."""
        self.worker.start()
        self._look(60)
        self.assertEqual(self.processes[0].signals, [])
        self._look(1)
        self.assertEqual(self.processes[0].signals, ["KILL"])

    def test_nothing_hangs(self) -> None:
        """Where there is no process, none is killed."""
        self.worker.start()
        self.processes[0].ends(1)
        self._look(100)
        self.assertEqual(self.processes[0].signals, [])

    def test_hopeless(self) -> None:
        """One that was never ready is not replaced if that is hopeless; one that was is."""
        self.is_hopeless = True
        self.worker.start()
        self._beat()
        self.processes[0].ends(1)
        self.clock.advance(0)
        self.assertEqual(len(self.processes), 2)
        self.processes[1].ends(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.logged[-1], "worker 2 has ended: exit code 1")

    def test_stop_between(self) -> None:
        """Where there is no process, nothing is waited for, and none comes any more."""
        self.worker.start()
        self.processes[0].ends(1)
        self.successResultOf(self.worker.stop(b"leave", 20.0))
        self.clock.advance(60.0)
        self.assertEqual(len(self.processes), 1)

    def test_stop_ended(self) -> None:
        """A process that has ended, but is not yet known to have, is waited for."""
        self.worker.start()
        self.processes[0].gone = True
        stopped = self.worker.stop(b"leave", 20.0)
        self.assertNoResult(stopped)
        self.processes[0].ends(0)
        self.successResultOf(stopped)

    def test_lines(self) -> None:
        """What the process writes is logged line by line, however it comes, and what is left when it ends too."""
        self.worker.start()
        del self.logged[:]
        protocol = self.processes[0].protocol
        for fd, data in ((1, b"a\nb"), (2, b"error\n"), (1, b"c\n\xff {x}\nre"), (1, b"st")):
            protocol.childDataReceived(fd, data)
        self.processes[0].ends(0)
        self.assertEqual(
            self.logged[:-1],
            [f"worker 2: {line}" for line in ("a", "error", "bc", "\ufffd {x}", "rest")],
        )

    def test_endless_line(self) -> None:
        """A line that does not end is not kept: it comes in pieces."""
        self.worker.start()
        del self.logged[:]
        for _ in range(100):
            self.processes[0].protocol.childDataReceived(1, b"x" * 10_000)
        self.assertGreater(sum(map(len, self.logged)), 900_000)
        self.assertLess(max(map(len, self.logged)), 100_000)


class _Reactor:
    """The real reactor, which listens; but the processes are only pretended."""

    def __init__(self, clock: Clock) -> None:
        self.processes: list[_Process] = []
        self.seconds = clock.seconds
        self.callLater = clock.callLater

    def spawnProcess(
        self,
        protocol: ProcessProtocol,
        executable: str,
        command: list[str],
        env: object,
        childFDs: dict[int, Any],
    ) -> _Process:
        assert (executable, env) == (sys.executable, None)
        self.processes.append(_Process(protocol, len(self.processes), command, childFDs))
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

    def _orders(self, process: _Process) -> list[Order]:
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
