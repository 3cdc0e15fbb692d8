"""Reading lines from a file descriptor, no faster than they can be published."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["LineReader"]

#: How many lines are read ahead.
_READ_AHEAD = 1000

#: The longest line, in bytes.
_MAX_LINE = 64 * 1024 * 1024


@implementer(IReadDescriptor)
class LineReader:
    """
    The lines of a file descriptor, without their ends: LF or CRLF.

    It is read only when it is ready, and is not made non-blocking: others may have it open too.

    :param reactor: One that watches file descriptors (:class:`twisted.internet.interfaces.IReactorFDSet`).

    :ivar closed: Whether no more lines are read.
    :ivar error: What is wrong with the input.
    """

    def __init__(self, reactor: Any, fd: int) -> None:
        self.closed = False
        self.error: str | None = None
        self._reactor = reactor
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._waiting: Deferred[list[bytes]] | None = None

    def take(self, most: int) -> Deferred[list[bytes]]:
        """Return the next lines, at least one; none at the end."""
        if self._lines or self.closed:
            taken = [self._lines.popleft() for _ in range(min(most, len(self._lines)))]
            return succeed(taken)
        self._waiting = Deferred()
        waiting = self._waiting.addCallback(lambda _: self.take(most))
        try:
            self._reactor.addReader(self)
        except OSError as error:
            self._fail(error)
        return waiting

    def close(self) -> None:
        """Read no more, and forget what was not taken."""
        self._end()
        self._lines.clear()

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "lines"

    def doRead(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if data:
            self._take_in(data)
        else:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        """Hear that the other end of a pipe is closed, when all of it has been read."""
        self._end()

    def _take_in(self, data: bytes) -> None:
        first, *more = data.split(b"\n")
        self._rest.append(first)
        self._rest_size += len(first)
        if more:
            self._lines.append(b"".join(self._rest).removesuffix(b"\r"))
            self._lines.extend([line.removesuffix(b"\r") for line in more[:-1]])
            self._rest = [more[-1]]
            self._rest_size = len(more[-1])
        if self._rest_size > _MAX_LINE:
            self._rest_size = 0
            self._fail(ValueError(f"a line is longer than {_MAX_LINE} bytes"))
        if len(self._lines) >= _READ_AHEAD:
            self._reactor.removeReader(self)
        if self._lines:
            self._tell()

    def _fail(self, error: Exception) -> None:
        self.error = f"cannot read: {error}"
        self._end()

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._reactor.removeReader(self)
            if self._rest_size:
                self._lines.append(b"".join(self._rest))
            self._tell()

    def _tell(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback([])
