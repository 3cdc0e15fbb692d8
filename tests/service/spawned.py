"""What stands for the process of a worker in tests, and what is logged."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

__all__ = ["SpawnedProcess", "logged"]


@attrs.define(eq=False)
class SpawnedProcess:
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


def logged(test: SynchronousTestCase) -> list[str]:
    """Return a list that grows by the text of each event of the log until the test ends."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return lines
