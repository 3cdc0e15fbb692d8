"""
Workers: processes that accept connections from the same sockets, and the parent that opens those and starts them.

The parent serves nobody. It replaces workers that end, logs what they write, and ends with them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.protocol.backoff import Backoff
from rtpush.service.child import FIRST_SOCKET, packed
from rtpush.service.schema import AUTO
from rtpush.service.sockets import listen

__all__ = ["Worker", "Workers", "worker_count"]

#: When the replacement of a worker starts, if its predecessors too have ended soon. The first starts at once.
_BACKOFF = Backoff(base=0.5, maximum=30.0, jitter=0.5)

#: Seconds after which the end of a worker is not counted as soon.
_SOON = 10.0

#: Seconds that a worker may take to say farewell to its clients before it is killed.
_PATIENCE = 8.0

#: The most bytes of a line of a worker's log that are kept together.
_LINE = 65536

# In a terminal Ctrl-C reaches all processes: the workers leave it to the parent.
_PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from twisted.scripts.twistd import run; run()"


def worker_count(workers: int) -> int:
    """Return how many workers there are to be: as configured, or one for each processor that this process may use."""
    if workers != AUTO:
        return workers
    # Not every system can tell.
    allowed: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return (len(allowed(0)) if allowed is not None else os.cpu_count()) or 1


class Workers(Service):
    """
    The parent.

    :param addresses: Where to listen: endpoint strings.
    :param count: How many workers there are.
    :param path: Where the configuration was read.
    :param text: The configuration itself.
    :param reactor_name: The name of the reactor that the workers are to use; empty for the default.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str],
        count: int,
        path: str,
        text: str,
        *,
        reactor_name: str = "",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._addresses = addresses
        # The working directory may be another one when a worker is replaced.
        self._path = os.path.abspath(path)
        self._configuration = packed(text)
        self._reactor_name = reactor_name
        self._ports: list[Any] = []
        self._workers = [Worker(reactor, number, self._spawn, chance) for number in range(1, count + 1)]

    def startService(self) -> None:
        """
        Listen everywhere and start the workers.

        :raises CannotListen: if an address cannot be had; nothing is started then.
        """
        super().startService()  # type: ignore[no-untyped-call]
        for address in self._addresses:
            port: Any = listen(self._reactor, address, _SharedSocket())
            # Before the reactor can turn: so nothing is ever accepted here.
            port.stopReading()
            self._ports.append(port)
            self._log.info("listening on {address} ({host})", address=address, host=port.getHost())
        for worker in self._workers:
            worker.start()

    def stopService(self) -> Deferred[None]:
        """Ask all workers to end, and wait for them."""
        super().stopService()  # type: ignore[no-untyped-call]
        ended = [worker.stop() for worker in self._workers]
        closed = [maybeDeferred(port.stopListening) for port in self._ports]
        done: Deferred[None] = gatherResults([*ended, *closed]).addCallback(lambda _: None)
        return done

    def _spawn(self, number: int, protocol: ProcessProtocol) -> IProcessTransport:
        """Start a process."""
        options = ["-n", "--pidfile=", "--logger=rtpush.service.child.log_to_parent"]
        if self._reactor_name:
            # First: naming the logger imports it.
            options.insert(0, f"--reactor={self._reactor_name}")
        command = [sys.executable, "-c", _PROGRAM, *options, "rtpush", f"--config={self._path}", f"--worker={number}"]
        fds: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
        fds.update((fd, port.fileno()) for fd, port in enumerate(self._ports, FIRST_SOCKET))
        process: IProcessTransport = self._reactor.spawnProcess(protocol, command[0], command, env=None, childFDs=fds)
        process.writeToChild(0, self._configuration)
        return process


class _SharedSocket(Factory):
    """The factory of a port that accepts nothing."""

    noisy = False


class Worker:
    """
    One of the workers: a process, and after its end another.

    :param number: It, counted from 1.
    :param spawn: Starts its process.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        number: int,
        spawn: Callable[[int, ProcessProtocol], IProcessTransport],
        chance: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._number = number
        self._spawn = spawn
        self._chance = chance
        self._process: IProcessTransport | None = None
        self._timer: IDelayedCall | None = None
        self._ended: Deferred[None] | None = None
        self._started = 0.0
        self._soon = 0

    def start(self) -> None:
        """Start a process."""
        self._timer = None
        self._started = self._clock.seconds()
        try:
            self._process = self._spawn(self._number, _Output(self._wrote, self._exited))
        except OSError as error:
            self._replace(f"worker {self._number} cannot start: {error.strerror or error}")
            return
        self._log.info(
            "worker {number} starts (process {pid})",
            number=self._number,
            pid=self._process.pid,
        )

    def stop(self) -> Deferred[None]:
        """Ask its process to end; the result is there when it has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is None:
            return succeed(None)
        self._ended = Deferred()
        self._signal("TERM")
        self._timer = self._clock.callLater(_PATIENCE, self._kill)
        return self._ended

    def _kill(self) -> None:
        self._timer = None
        self._log.warn("worker {number} does not end; it is killed", number=self._number)
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        assert self._process is not None
        try:
            self._process.signalProcess(name)
        except ProcessExitedAlready:
            # Its end is reported soon.
            pass

    def _wrote(self, line: str) -> None:
        self._log.info("worker {number}: {line}", number=self._number, line=line)

    def _exited(self, how: str) -> None:
        self._process = None
        if self._ended is None:
            self._replace(f"worker {self._number} has ended: {how}")
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended.callback(None)

    def _replace(self, problem: str) -> None:
        if self._clock.seconds() - self._started >= _SOON:
            self._soon = 0
        delay = _BACKOFF.delay(self._soon - 1, self._chance()) if self._soon else 0.0
        self._soon += 1
        self._log.error(
            "{problem}; another one starts {when}", problem=problem, when=f"in {delay:.1f} s" if delay else "at once"
        )
        self._timer = self._clock.callLater(delay, self.start)


class _Output(ProcessProtocol):
    """
    What a process writes, as lines, and how it ends.

    :param line: Takes each line. One that is very long comes in pieces.
    :param ended: Takes a word on how it ended, when all lines are there.
    """

    def __init__(self, line: Callable[[str], object], ended: Callable[[str], object]) -> None:
        self._line = line
        self._ended = ended
        self._rest: dict[int, bytes] = {}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._rest.get(childFD, b"") + data).split(b"\n")
        if len(rest) > _LINE:
            lines.append(rest)
            rest = b""
        self._rest[childFD] = rest
        for line in lines:
            self._line(line.decode(errors="replace"))

    def processEnded(self, reason: Failure) -> None:
        for rest in self._rest.values():
            if rest:
                self._line(rest.decode(errors="replace"))
        status: Any = reason.value
        if status.signal:
            self._ended(f"killed by signal {status.signal} ({signal.strsignal(status.signal)})")
        else:
            self._ended(f"exit code {status.exitCode}")
