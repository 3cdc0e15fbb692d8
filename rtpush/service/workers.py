"""
Workers: processes that accept connections from the same sockets, and the parent that opens those and starts them.

The parent serves nobody. It replaces workers that end or hang, logs what they write, and ends with them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from rtpush.protocol.backoff import Backoff
from rtpush.service.board import Board
from rtpush.service.child import BOARD, FIRST_SOCKET, PULSE, Order, packed
from rtpush.service.config import Config
from rtpush.service.leaving import Plan
from rtpush.service.loglines import RELAYED, LogLine
from rtpush.service.logs import relay
from rtpush.service.reloading import changed
from rtpush.service.schema import AUTO
from rtpush.service.sockets import listen, secured

__all__ = ["Worker", "Workers", "worker_count"]

#: When the replacement of a worker starts, if its predecessors too have ended soon. The first starts at once.
_BACKOFF = Backoff(base=0.5, maximum=30.0, jitter=0.5)

#: Seconds after which the end of a worker is not counted as soon.
_SOON = 10.0

#: Seconds that a worker may take to end, besides the window in which its clients leave, before it is killed.
_PATIENCE = 5.0

#: Seconds between two looks at whether workers hang; and how many they may take at least to start.
_LOOK = 1.0
_START = 60.0

#: How many workers may end before they are ready, if none ever was. Then it is hopeless: it would be so forever.
_HOPELESS = 3

#: The most bytes of a line of a worker's log that are kept together.
_LINE = 65536

# In a terminal Ctrl-C reaches all processes: the workers leave it, and the end of the terminal, to the parent.
_PROGRAM = """
from signal import SIG_IGN, SIGHUP, SIGINT, signal
signal(SIGINT, SIG_IGN)
signal(SIGHUP, SIG_IGN)
from twisted.scripts.twistd import run
run()
"""


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

    :param count: How many workers there are.
    :param path: Where the configuration was read.
    :param text: The configuration as it was read.
    :param reactor_name: The name of the reactor that the workers are to use; empty for the default.
    :param give_up: Called when no worker can be started at all.
    :ivar config: The configuration.
    :ivar when_ready: Has a result when all workers are ready for clients.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: Config,
        count: int,
        path: str,
        text: str,
        *,
        reactor_name: str = "",
        chance: Callable[[], float] = random.random,
        give_up: Callable[[], object],
    ) -> None:
        self.config = config
        self.when_ready: Deferred[None] = Deferred()
        self._reactor = reactor
        self._give_up = give_up
        # The working directory may be another one when a worker is replaced.
        self._path = os.path.abspath(path)
        self._configuration = packed(text)
        #: Orders for each worker that starts.
        self._standing = b""
        self._reactor_name = reactor_name
        self._ports: list[Any] = []
        self._board: Board | None = None
        self._workers = [
            Worker(reactor, number, self._spawn, chance, self._is_ready, self._is_hopeless)
            for number in range(1, count + 1)
        ]
        #: How many workers have ended before they were ready. Nothing is counted when one has been.
        self._failures: int | None = 0
        self._is_hasty = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def startService(self) -> None:
        """
        Listen everywhere and start the workers.

        :raises CannotListen: if an address cannot be had; nothing is started then.
        """
        super().startService()  # type: ignore[no-untyped-call]
        for address in self.config.addresses:
            port: Any = listen(self._reactor, address, _SharedSocket(), self.config.tls_of(address))
            # Before the reactor can turn: so nothing is ever accepted here.
            port.stopReading()
            self._ports.append(port)
            self._log.info("listening on {address} ({host})", address=address, host=port.getHost())
        self._board = Board.of(len(self._workers))
        for worker in self._workers:
            worker.start()
        self._looking.start(_LOOK, now=False)

    def hasten(self) -> None:
        """Let the end that is about to begin be one in haste."""
        self._is_hasty = True

    def end(self) -> None:
        """Let the end that has begun be over now."""
        for worker in self._workers:
            worker.end()

    def reload(self, text: str, config: Config) -> list[str]:
        """
        Have all workers go on with another configuration, and with the certificates that are in their files now.

        :returns: A line for each thing that stays as it is all the same.
        :raises CannotListen: if a certificate cannot be used. Nothing has changed then.
        """
        config, lines = changed(self.config, config)
        for address in config.addresses:
            secured(self._reactor, address, _SharedSocket(), config.tls_of(address))
        self.config = config
        self._standing = Order(reload=text).line()
        for worker in self._workers:
            worker.order(self._standing)
        return lines

    def stopService(self) -> Deferred[None]:
        """Ask all workers to end, and wait for them."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._looking.running:
            self._looking.stop()
        window = Plan.hasty().window if self._is_hasty else self.config.server.drain_window
        leave = Order(leave="hasty" if self._is_hasty else "slowly")
        ended = [worker.stop(leave.line(), window + _PATIENCE) for worker in self._workers]
        done: Deferred[None] = gatherResults(ended).addCallback(self._ended)
        return done

    def _is_ready(self) -> None:
        self._failures = None
        if not self.when_ready.called and all(worker.was_ready for worker in self._workers):
            self.when_ready.callback(None)

    def _is_hopeless(self) -> bool:
        """Tell, when a worker has ended before it was ready, whether no other one is to be started."""
        if self._failures is None:
            return False
        self._failures += 1
        if self._failures == _HOPELESS:
            self._log.critical("no worker can be started: giving up")
            self._give_up()
        return self._failures >= _HOPELESS

    def _look(self) -> None:
        for worker in self._workers:
            worker.look(self.config.server.watchdog)

    def _ended(self, _: object) -> None:
        # Until now: where the workers end, they refuse connections when they have accepted the last one.
        for port in self._ports:
            port.stopListening()
        board, self._board = self._board, None
        if board is not None:
            board.close()

    def _spawn(self, number: int, protocol: ProcessProtocol) -> IProcessTransport:
        """Start a process."""
        options = ["-n", "--pidfile="]
        if self._reactor_name:
            # First: naming the logger imports it.
            options.insert(0, f"--reactor={self._reactor_name}")
        command = [sys.executable, "-c", _PROGRAM, *options, "rtpush", f"--config={self._path}", f"--worker={number}"]
        assert self._board is not None
        fds: dict[int, Any] = {0: "w", 1: "r", 2: "r", BOARD: self._board.fileno(), PULSE: "r"}
        fds.update((fd, port.fileno()) for fd, port in enumerate(self._ports, FIRST_SOCKET))
        process: IProcessTransport = self._reactor.spawnProcess(protocol, command[0], command, env=None, childFDs=fds)
        process.writeToChild(0, self._configuration + self._standing)
        return process


class _SharedSocket(Factory):
    """The factory of a port that accepts nothing."""

    noisy = False


class Worker:
    """
    One of the workers: a process, and after its end another.

    :param number: It, counted from 1.
    :param spawn: Starts its process.
    :param ready: Called when a process is ready for clients.
    :param hopeless: Called when one ends that never was; tells whether there is to be no other one.
    :ivar was_ready: Whether a process of it has ever been ready.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        number: int,
        spawn: Callable[[int, ProcessProtocol], IProcessTransport],
        chance: Callable[[], float],
        ready: Callable[[], object],
        hopeless: Callable[[], bool],
    ) -> None:
        self.was_ready = False
        self._ready = ready
        self._hopeless = hopeless
        #: Whether the process is ready, and how long ago it has shown that it lives.
        self._is_ready = False
        self._silent = 0.0
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
        self._is_ready = False
        self._silent = 0.0
        try:
            self._process = self._spawn(self._number, _Output(self._wrote, self._lives, self._exited))
        except OSError as error:
            self._replace(f"worker {self._number} cannot start: {error.strerror or error}")
            return
        self._log.info(
            "worker {number} starts (process {pid})",
            number=self._number,
            pid=self._process.pid,
        )

    def order(self, line: bytes) -> None:
        """Write an order to its process, if there is one."""
        if self._process is not None:
            self._process.writeToChild(0, line)

    def stop(self, leave: bytes, patience: float) -> Deferred[None]:
        """
        Ask its process to end; the result is there when it has ended.

        :param leave: The order to do so.
        :param patience: Seconds after which it is killed.
        """
        self._cancel()
        if self._process is None:
            return succeed(None)
        self._ended = Deferred()
        self.order(leave)
        if not self._is_ready:
            # It may read its orders late, and has no clients.
            self._signal("TERM")
        self._timer = self._clock.callLater(patience, self._kill)
        return self._ended

    def end(self) -> None:
        """Have its process, which is asked to end, do so now."""
        if self._process is not None and self._ended is not None:
            self.order(Order(end=True).line())
            self._cancel()
            self._timer = self._clock.callLater(_PATIENCE, self._kill)

    def look(self, watchdog: float) -> None:
        """
        See whether its process hangs; then it is killed. To be called every :data:`_LOOK` seconds.

        :param watchdog: For how many seconds it may be silent.
        """
        # By looks, not by the clock: when the machine or the parent has slept, nobody is to blame.
        self._silent += _LOOK
        if self._process is not None and self._silent > (watchdog if self._is_ready else max(watchdog, _START)):
            self._log.error("worker {number} hangs; it is killed", number=self._number)
            self._silent = 0.0
            self._signal("KILL")

    def _lives(self) -> None:
        self._silent = 0.0
        if not self._is_ready:
            self._is_ready = self.was_ready = True
            self._ready()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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
        told = relay(line)
        if told is None:
            # Written past the log, or by what Python says when it ends in a hurry.
            told = LogLine(ts=time.time(), level="info", logger="worker", message=line, worker=self._number)
        else:
            line = f"{told.logger}: {told.message}"
        level = LogLevel.levelWithName(told.level)
        self._log.emit(level, "worker {number}: {line}", number=self._number, line=line, **{RELAYED: told})

    def _exited(self, how: str) -> None:
        self._process = None
        if self._ended is not None:
            self._cancel()
            self._ended.callback(None)
        elif self._is_ready or not self._hopeless():
            self._replace(f"worker {self._number} has ended: {how}")
        else:
            self._log.error("worker {number} has ended: {how}", number=self._number, how=how)

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
    :param lives: Called when it shows that it lives.
    :param ended: Takes a word on how it ended, when all lines are there.
    """

    def __init__(
        self, line: Callable[[str], object], lives: Callable[[], object], ended: Callable[[str], object]
    ) -> None:
        self._line = line
        self._lives = lives
        self._ended = ended
        self._rest: dict[int, bytes] = {}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == PULSE:
            self._lives()
            return
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
