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
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.service.child import unpacked
from rtpush.service.schema import AUTO
from rtpush.service.sockets import CannotListen
from rtpush.service.workers import Worker, Workers, worker_count
from tests.support.waiting import soon


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
        self.worker = Worker(self.clock, 2, self._spawn, lambda: 0.0)

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
        del self.logged[:]
        stopped = self.worker.stop()
        self.assertEqual(self.processes[0].signals, ["TERM"])
        self.clock.advance(2.0)
        self.assertNoResult(stopped)
        self.processes[0].ends(None, 15)
        self.successResultOf(stopped)
        self.assertEqual((self.clock.getDelayedCalls(), len(self.processes), self.logged), ([], 1, []))

    def test_stop_stubborn(self) -> None:
        """One that does not end is killed."""
        self.worker.start()
        stopped = self.worker.stop()
        self.clock.advance(30.0)
        self.assertEqual(self.processes[0].signals, ["TERM", "KILL"])
        self.assertNoResult(stopped)
        self.processes[0].ends(None, 9)
        self.successResultOf(stopped)
        self.assertIn("worker 2 does not end; it is killed", self.logged)

    def test_stop_between(self) -> None:
        """Where there is no process, nothing is waited for, and none comes any more."""
        self.worker.start()
        self.processes[0].ends(1)
        self.successResultOf(self.worker.stop())
        self.clock.advance(60.0)
        self.assertEqual(len(self.processes), 1)

    def test_stop_ended(self) -> None:
        """A process that has ended, but is not yet known to have, is waited for."""
        self.worker.start()
        self.processes[0].gone = True
        stopped = self.worker.stop()
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

    def _path(self) -> str:
        """Return a path for a Unix socket, which must be short."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return f"{directory.name}/sock"

    def _start(self, addresses: list[str], count: int = 2, reactor_name: str = "") -> Workers:
        workers = Workers(
            self.reactor, addresses, count, "a.ini", "text \N{SNOWMAN}", reactor_name=reactor_name, chance=lambda: 0.0
        )
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
            for fd, family in ((3, socket.AF_INET), (4, socket.AF_UNIX)):
                with socket.socket(fileno=os.dup(process.fds[fd])) as listening:
                    self.assertEqual(listening.family, family)
                    self.assertTrue(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            self.assertEqual(len(process.fds), 5)

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
        with socket.socket(fileno=os.dup(self.reactor.processes[0].fds[3])) as listening:
            listening.setblocking(False)
            listening.accept()[0].close()

    async def test_file_removed(self) -> None:
        """The file of a Unix socket goes when the parent ends, and not before all workers are asked to."""
        path = self._path()
        workers = self._start([f"unix:{path}"])
        self.reactor.processes[0].ends(1)
        self.assertTrue(Path(path).exists())
        await self._stop(workers)
        self.assertEqual(self.reactor.processes[1].signals, ["TERM"])
        self.assertFalse(Path(path).exists())

    def test_cannot_listen(self) -> None:
        """If an address cannot be had, no process is started."""
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        workers = Workers(self.reactor, [address], 2, "a.ini", "")
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
