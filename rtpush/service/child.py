"""
What a worker has from the parent that started it: its configuration, its sockets, its log, and the time of its end.

The standard input is a pipe on which the parent writes the configuration, and which ends with the parent; so all
workers have the configuration that the parent has checked, however old it is. What the worker writes is logged by the
parent. Sockets are file descriptors from :data:`FIRST_SOCKET` on, in the order of the listen addresses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import FileLogObserver, LogEvent, eventAsText
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["FIRST_SOCKET", "ParentWatch", "log_to_parent", "packed", "unpacked"]

#: The file descriptor of the first socket.
FIRST_SOCKET = 3


def packed(text: str) -> bytes:
    """Return the configuration as the parent writes it."""
    data = text.encode()
    return b"%d\n%b" % (len(data), data)


def unpacked(stream: BinaryIO) -> str:
    """
    Read the configuration as a worker does.

    :raises ValueError: if something else is there.
    """
    size = int(stream.readline(10))
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("there is too little")
    return data.decode()


def log_to_parent() -> FileLogObserver:
    """Return an observer that writes what twistd would write, but without the time, which the parent adds."""
    return _LinesObserver(sys.stdout, _line)


def _line(event: LogEvent) -> str | None:
    text = eventAsText(event, includeTimestamp=False).rstrip()
    return f"{text}\n" if text else None


class _LinesObserver(FileLogObserver):
    def __call__(self, event: LogEvent) -> None:
        try:
            super().__call__(event)
        except OSError:
            # The parent is gone, and nobody reads this any more.
            pass


@implementer(IReadDescriptor)
class ParentWatch(Service):
    """
    Sees the parent go away.

    :param gone: Called then, once.
    :param fd: The pipe that ends with the parent.
    """

    def __init__(self, reactor: IReactorFDSet, gone: Callable[[], object], fd: int = 0) -> None:
        self._reactor = reactor
        self._gone = gone
        self._fd = fd

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.addReader(self)

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "parent"

    def doRead(self) -> Any:
        # Some reactors see the end of a pipe themselves, others when there is nothing to read.
        return None if os.read(self._fd, 4096) else CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        self._gone()
