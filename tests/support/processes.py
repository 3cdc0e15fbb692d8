"""Programs that a test starts, and that end with it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from tests.programs import find
from tests.support.waiting import until, within

__all__ = ["Process", "children_of", "program", "resident_bytes"]

#: Seconds for a process to end when it is asked to.
_PATIENCE = 10.0


def program(name: str) -> str:
    """Return where a program is; the test that asks is skipped if it is missing."""
    path = find(name)
    if path is None:
        raise SkipTest(f"{name} is missing")
    return path


class Process(ProcessProtocol):
    """
    A program that runs. It is ended with the test, whatever becomes of that.

    :param listener: Gets what it writes to either output, as it comes.
    :ivar out: What it wrote to its standard output so far.
    :ivar err: The same for standard error.
    :ivar code: Its exit code, or minus the number of the signal that ended it; :obj:`None` while it runs.
    """

    def __init__(
        self,
        test: TestCase,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        listener: Callable[[bytes], object] = bool,
    ) -> None:
        self.out = b""
        self.err = b""
        self.code: int | None = None
        self._command = command
        self._listener = listener
        self._waiting: list[Deferred[int]] = []
        environment = {**os.environ, **(env or {})}
        self.transport: Any = None
        test.addCleanup(self.stop)
        reactor.spawnProcess(self, command[0], list(command), env=environment, path=cwd)

    @property
    def pid(self) -> int:
        """The process id."""
        pid: int = self.transport.pid
        return pid

    def outReceived(self, data: bytes) -> None:
        self.out += data
        self._listener(data)

    def errReceived(self, data: bytes) -> None:
        self.err += data
        self._listener(data)

    def processEnded(self, reason: Failure) -> None:
        status: Any = reason.value
        self.code = -status.signal if status.signal else status.exitCode
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(self.code)

    def send(self, data: bytes) -> None:
        """Write to its standard input."""
        self.transport.write(data)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def ended(self) -> Deferred[int]:
        """Wait for its end; the result is its exit code."""
        deferred: Deferred[int] = Deferred(self._waiting.remove)
        if self.code is not None:
            deferred.callback(self.code)
        else:
            self._waiting.append(deferred)
        return deferred

    async def says(self, pattern: bytes, seconds: float = 20.0) -> re.Match[bytes]:
        """Wait until it has written something, to either output, that matches."""

        def look() -> re.Match[bytes] | None:
            found = re.search(pattern, self.out) or re.search(pattern, self.err)
            if found is None and self.code is not None:
                raise AssertionError(f"it has ended with {self.code} before it said {pattern!r}: {self}")
            return found

        found: re.Match[bytes] = await until(look, f"{pattern!r}", seconds, seen=lambda: str(self))
        return found

    async def stop(self) -> None:
        """End it, and what it has started: it is asked first, and killed if that does not help."""
        if self.transport is None or self.code is not None:
            return
        started = children_of(self.pid)
        self.signal(signal.SIGTERM)
        try:
            await within(_PATIENCE, self.ended())
        except (TimeoutError, DeferTimeoutError):
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.signal(signal.SIGKILL)
            await self.ended()

    def __str__(self) -> str:
        return f"{' '.join(self._command)[:200]}\n{self.out[-4000:].decode()}\n{self.err[-4000:].decode()}"


def children_of(pid: int) -> list[int]:
    """Return the living children of a process."""
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name is in parentheses and may hold anything; state and parent come after it.
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                children.append(int(entry.parent.name))
    return children


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"nothing says how much memory {pid} holds")
