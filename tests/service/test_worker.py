"""Tests of rtpush.service.worker."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.child import PULSE, Order
from rtpush.service.worker import Worker
from tests.service.spawned import SpawnedProcess, logged

_SLOWLY = Order(leave="slowly").line()


class WorkerTests(SynchronousTestCase):
    """One worker: its process, and those that replace it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.processes: list[SpawnedProcess] = []
        self.logged = logged(self)
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
        self.processes.append(SpawnedProcess(protocol, 100 + len(self.processes)))
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
