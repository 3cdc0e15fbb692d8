"""
One worker as its parent sees it: a process, and after its end another.

It is replaced when it ends or hangs, and what it writes is logged.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from rtpush.protocol.backoff import Backoff
from rtpush.service.child import PULSE, Order
from rtpush.service.loglines import RELAYED, LogLine
from rtpush.service.logs import relay

__all__ = ["LOOK", "PATIENCE", "Worker"]

#: Seconds that a worker may take to end, besides the window in which its clients leave, before it is killed.
PATIENCE = 5.0

#: Seconds between two looks at whether workers hang; and how many they may take at least to start.
LOOK = 1.0
_START = 60.0

#: When the replacement of a worker starts, if its predecessors too have ended soon. The first starts at once.
_BACKOFF = Backoff(base=0.5, maximum=30.0, jitter=0.5)

#: Seconds after which the end of a worker is not counted as soon.
_SOON = 10.0

#: The most bytes of a line of a worker's log that are kept together.
_LINE = 65536


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
            self._timer = self._clock.callLater(PATIENCE, self._kill)

    def look(self, watchdog: float) -> None:
        """
        See whether its process hangs; then it is killed. To be called every :data:`LOOK` seconds.

        :param watchdog: For how many seconds it may be silent.
        """
        # By looks, not by the clock: when the machine or the parent has slept, nobody is to blame.
        self._silent += LOOK
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
