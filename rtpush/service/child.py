"""
What a worker has from the parent that started it: its configuration, its sockets, its log, and the time of its end.

The standard input is a pipe on which the parent writes the configuration, and then now and then an :class:`Order`, and
which ends with the parent; so all workers have the configuration that the parent has checked, however old it is. What
the worker writes is logged by the parent; on a pipe of its own it shows that it lives. Sockets are file descriptors
from :data:`FIRST_SOCKET` on, in the order of the listen addresses.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import msgspec
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["BOARD", "FIRST_SOCKET", "PULSE", "Order", "ParentWatch", "Pulse", "packed", "unpacked"]

#: The file descriptor of the board where workers pin what they have counted.
BOARD = 3

#: The file descriptor of the pipe on which a worker shows that it lives.
PULSE = 4

#: The file descriptor of the first socket.
FIRST_SOCKET = 5

#: Seconds between two signs of life.
_BEAT = 1.0


class Order(msgspec.Struct, omit_defaults=True):
    """
    What the parent wants: one line on the pipe.

    :ivar reload: Go on with this configuration.
    :ivar leave: End, with the other workers: in haste, if that is what it says, or with all the time there is.
    :ivar end: End now.
    """

    reload: str | None = None
    leave: Literal["", "hasty", "slowly"] = ""
    end: bool = False

    def line(self) -> bytes:
        """Return what the parent writes."""
        return msgspec.json.encode(self) + b"\n"


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
    data = bytearray()
    while len(data) < size:
        # A pipe gives what it has, and this is to leave there what comes after it.
        piece = stream.read(size - len(data))
        if not piece:
            raise ValueError("there is too little")
        data += piece
    return data.decode()


@implementer(IReadDescriptor)
class ParentWatch(Service):
    """
    Takes the orders of the parent, and sees it go away.

    :param told: Called with each order.
    :param gone: Called when the parent is gone, once.
    :param fd: The pipe that ends with the parent.
    """

    def __init__(
        self, reactor: IReactorFDSet, told: Callable[[Order], object], gone: Callable[[], object], fd: int = 0
    ) -> None:
        self._reactor = reactor
        self._told = told
        self._gone = gone
        self._fd = fd
        self._rest = b""

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
        data = os.read(self._fd, 65536)
        if not data:
            # Some reactors see the end of a pipe themselves, others when there is nothing to read.
            return CONNECTION_DONE
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._told(msgspec.json.decode(line, type=Order))
        return None

    def connectionLost(self, reason: Failure) -> None:
        self._gone()


class Pulse:
    """
    Shows the parent that this worker is ready, and from then on that its reactor turns.

    :param fd: The pipe that the parent reads.
    """

    def __init__(self, clock: IReactorTime, fd: int = PULSE) -> None:
        self._fd = fd
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock

    def start(self) -> None:
        """Begin."""
        os.set_blocking(self._fd, False)
        self._beating.start(_BEAT)

    def stop(self) -> None:
        """End."""
        if self._beating.running:
            self._beating.stop()

    def _beat(self) -> None:
        try:
            os.write(self._fd, b".")
        except OSError:
            # The parent reads late, or is gone, which is seen elsewhere.
            pass
