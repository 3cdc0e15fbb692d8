"""
A connection over TCP or a Unix socket, with little memory and a write that writes.

Twisted's own keeps a socket object, a buffer and a dozen attributes for each connection, and leaves every write to the
reactor: three system calls and a turn of the loop for what one does nearly always. This one has a file descriptor and
a few slots; it writes at once where nothing waits, and keeps what the kernel does not take.

To its protocol it is what :class:`twisted.internet.tcp.Server` is, but for TLS, which is to be put on top of it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProducer,
    IProtocol,
    IPushProducer,
    IReadWriteDescriptor,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rtpush.transports.polling import Polling

__all__ = ["Address", "Stream", "address_of"]

Address = IPv4Address | IPv6Address | UNIXAddress

T = TypeVar("T")

#: The most bytes that are read at once; and how many may wait to be written before a producer is to pause.
_BUFFER_SIZE = 65536

#: The most pieces that one system call takes.
_MOST_PIECES = os.sysconf("SC_IOV_MAX")

#: The socket takes nothing now, but may later.
_NOT_NOW = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS}

#: The name of a socket that has none.
_NOBODY: dict[int, Any] = {socket.AF_INET: ("0.0.0.0", 0), socket.AF_INET6: ("::", 0), socket.AF_UNIX: ""}

#: What waits where nothing more is written: a list, so that a write looks further.
_NOTHING: list[bytes | memoryview] = []

#: The most bytes that are kept for the end of a turn.
_MAX_GATHERED = 16384

_read, _write = os.read, os.write

#: Close with a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


def address_of(family: int, name: Any) -> Address:
    """Return an address as Twisted has it."""
    if family == socket.AF_UNIX:
        return UNIXAddress(name or None)
    return (IPv6Address if family == socket.AF_INET6 else IPv4Address)("TCP", *name)


@implementer(ITCPTransport, IConsumer, IPushProducer, IReadWriteDescriptor, IHalfCloseableDescriptor, ILoggingContext)
class Stream:
    """
    A connection that was accepted. It reads from when it is told to resume.

    :param fd: The file descriptor of the socket, non-blocking, which now belongs to this object.
    :param family: The kind of socket: one of the constants ``AF_*``.
    :ivar protocol: Who is told what comes; another one may be set. None when the connection is gone.
    :ivar connected: Whether it is there.
    :ivar disconnecting: Whether it is to end: nothing more is read.
    :ivar events: What it waits for; see :mod:`rtpush.transports.polling`.
    """

    __slots__ = (
        "_family",
        "_fd",
        "_is_ending",
        "_is_mute",
        "_is_paused",
        "_is_pulled",
        "_is_reset",
        "_producer",
        "_size",
        "_waiting",
        "connected",
        "disconnecting",
        "events",
        "protocol",
        "reactor",
    )

    _log = Logger()

    def __init__(self, reactor: Any, fd: int, family: int, protocol: IProtocol) -> None:
        self.reactor = reactor
        self.protocol: IProtocol | None = protocol
        self.connected = True
        self.disconnecting = False
        self.events = 0
        self._fd = fd
        self._family = family
        #: What the kernel has not taken, and how many bytes that is.
        self._waiting: list[bytes | memoryview] | None = None
        self._size = 0
        self._producer: Any = None
        #: Whether the producer writes each time when it is asked to, and never else.
        self._is_pulled = False
        #: Whether the producer was told to pause.
        self._is_paused = False
        #: Whether the writing half is to be closed when all is written.
        self._is_ending = False
        #: Whether nothing more can be written.
        self._is_mute = False
        #: Whether a write has met an error, which reading would not meet again.
        self._is_reset = False

    def __repr__(self) -> str:
        return f"<Stream {self._fd} of {self.logPrefix()}>"

    # ITransport

    def write(self, data: bytes) -> None:
        """
        Write bytes, at once if nothing waits. They are dropped if that is impossible.

        What is wrong with the socket is told by the reactor's next event, never from here: so this may be called in a
        loop over many connections.
        """
        if self._waiting is None:
            # Nothing else is looked at before: in a fan-out each look costs as much as all that is done here.
            try:
                sent = _write(self._fd, data)
            except OSError as error:
                sent = 0
                # A pipe is broken when the other side has closed: reading tells that as it is.
                self._is_reset = error.errno not in _NOT_NOW and error.errno != errno.EPIPE
            if sent == len(data):
                if self._is_pulled and sent:
                    self.reactor.addWriter(self)
                return
            self._waiting = [memoryview(data)[sent:] if sent else data]
            self._size = len(data) - sent
            self.reactor.addWriter(self)
        else:
            if not isinstance(data, bytes):
                raise TypeError(f"cannot write {type(data).__name__}: expected bytes")
            if self._is_mute or not data:
                return
            self._waiting.append(data)
            self._size += len(data)
            if self._size > _BUFFER_SIZE and not self.events & select.EPOLLOUT and isinstance(self.reactor, Polling):
                # It is kept for the end of the turn, and too much for that.
                self.flush()
                return
        if self._size > _BUFFER_SIZE and self._producer is not None and not self._is_pulled:
            self._is_paused = True
            self._producer.pauseProducing()

    def write_soon(self, data: bytes) -> None:
        """Write bytes at the end of this turn, with those of other connections, if there are not many."""
        if self._waiting is None and len(data) <= _MAX_GATHERED and isinstance(self.reactor, Polling):
            self._waiting = [data]
            self._size = len(data)
            if self.reactor.gather(self):
                return
            self._waiting = None
        self.write(data)

    def flush(self) -> None:
        """Write what :meth:`write_soon` was given, and what came after it."""
        waiting = self._waiting
        if waiting is None or self._is_mute or self.events & select.EPOLLOUT:
            return
        self._waiting, self._size = None, 0
        self.write(b"".join(waiting))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write some pieces as one."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """End the connection when all is written, and all that a producer has to write that was told to pause."""
        if not self.connected or self.disconnecting:
            return
        self.reactor.removeReader(self)
        if self._is_mute:
            self.connectionLost(Failure(CONNECTION_DONE))
        else:
            self.disconnecting = True
            self.reactor.addWriter(self)

    def getPeer(self) -> Any:
        """Return the address of the other side: an unspecified one if the system does not know it any more."""
        return self._address(socket.socket.getpeername)

    def getHost(self) -> Any:
        """Return the address of this side: an unspecified one if the system does not know it any more."""
        return self._address(socket.socket.getsockname)

    # ITCPTransport

    def loseWriteConnection(self) -> None:
        """Close the writing half when all is written; what comes is still read."""
        if not self._is_mute:
            self._is_ending = True
            self.reactor.addWriter(self)

    def abortConnection(self) -> None:
        """End the connection now, whatever waits. The protocol is told in the next turn."""
        if not self.connected or (self.disconnecting and self._is_mute):
            return
        self.disconnecting = True
        self._fall_silent()
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self.reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def getTcpNoDelay(self) -> bool:
        """Tell whether small segments are sent at once: no for a Unix socket, which knows none."""
        return self._option(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Have small segments sent at once. It means nothing to a Unix socket."""
        self._set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Tell whether the system looks after a silent connection."""
        return self._option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have the system look after a silent connection."""
        self._set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Let a producer write.

        :raises RuntimeError: if there is one already.
        """
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer!r}: {self._producer!r} was never unregistered")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = producer
        self._is_pulled = not streaming
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer has written all."""
        self._producer = None
        self._is_pulled = False
        if self.disconnecting and not self._is_mute:
            self.reactor.addWriter(self)

    # IPushProducer

    def pauseProducing(self) -> None:
        """Read no more for now."""
        if self.connected:
            self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read."""
        if self.connected and not self.disconnecting:
            self.reactor.addReader(self)

    def stopProducing(self) -> None:
        """Read no more: the same as to lose the connection."""
        self.loseConnection()

    # What the reactor calls

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    def doRead(self) -> Any:
        data = self.read()
        if isinstance(data, bytes):
            self.take(data)
            return None
        return data

    def read(self) -> bytes | Exception | None:
        """Return what has come: nothing if that is nothing, or why no more can come."""
        if self.disconnecting:
            return None
        try:
            data = _read(self._fd, _BUFFER_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        return data or (CONNECTION_LOST if self._is_reset else CONNECTION_DONE)

    def take(self, data: bytes) -> None:
        """Give what :meth:`read` has returned to the protocol, unless the connection has been ended since."""
        if not self.disconnecting and self.protocol is not None:
            self.protocol.dataReceived(data)

    def doWrite(self) -> Any:
        if self._is_mute:
            return None
        if self._waiting is not None:
            try:
                sent = os.writev(self._fd, self._waiting[:_MOST_PIECES])
            except OSError as error:
                return None if error.errno in _NOT_NOW else CONNECTION_LOST
            self._size -= sent
            if self._size:
                _drop(self._waiting, sent)
                return None
            self._waiting = None
        self.reactor.removeWriter(self)
        if self._producer is not None and (self._is_pulled or self._is_paused):
            self._is_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            return CONNECTION_DONE
        elif self._is_ending:
            self._end_writing()
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """The other side writes no more."""
        protocol: Any = self.protocol
        if not IHalfCloseableProtocol.providedBy(protocol):
            self.connectionLost(reason)
            return
        try:
            protocol.readConnectionLost()
        except Exception:
            self._failed("the end of reading")

    def writeConnectionLost(self, reason: Failure) -> None:
        """The reactor says this of no stream."""
        self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        if not self.connected:
            return
        self.connected = False
        self._fall_silent()
        producer, self._producer = self._producer, None
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
            self._close(with_reset=isinstance(reason.value, ConnectionAborted))
            protocol, self.protocol = self.protocol, None
            assert protocol is not None
            protocol.connectionLost(reason)

    def _end_writing(self) -> None:
        # First, since the protocol may lose the connection when it is told.
        self._fall_silent()
        try:
            self._on_socket(lambda borrowed: borrowed.shutdown(socket.SHUT_WR))
        except OSError:
            # The other side is gone: reading tells.
            pass
        protocol: Any = self.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            try:
                protocol.writeConnectionLost()
            except Exception:
                self._failed("the end of writing")

    def _failed(self, what: str) -> None:
        failure = Failure()
        self._log.failure("a protocol cannot take {what} of {peer}", failure=failure, what=what, peer=self.getPeer())
        self.connectionLost(failure)

    def _fall_silent(self) -> None:
        """Write nothing more, nor what waits."""
        self._is_mute = True
        self._waiting = _NOTHING
        self._size = 0

    def _close(self, *, with_reset: bool) -> None:
        closing = socket.socket(self._family, socket.SOCK_STREAM, 0, self._fd)
        self._fd = -1
        try:
            if with_reset:
                closing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            else:
                # So the other side reads an end, even if it has sent what was not read here.
                closing.shutdown(socket.SHUT_RDWR)
        except OSError:
            # There is nobody any more.
            pass
        closing.close()

    def _on_socket(self, ask: Callable[[socket.socket], T]) -> T:
        """Do something with a socket object; the descriptor stays ours."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        # With the family named, the system is not asked for it.
        borrowed = socket.socket(self._family, socket.SOCK_STREAM, 0, self._fd)
        try:
            return ask(borrowed)
        finally:
            borrowed.detach()

    def _address(self, ask: Callable[[socket.socket], Any]) -> Address:
        try:
            return address_of(self._family, self._on_socket(ask))
        except OSError:
            # Its reset has come, or we have closed it.
            return address_of(self._family, _NOBODY[self._family])

    def _option(self, level: int, option: int) -> bool:
        try:
            return bool(self._on_socket(lambda borrowed: borrowed.getsockopt(level, option)))
        except OSError:
            return False

    def _set_option(self, level: int, option: int, enabled: bool) -> None:
        try:
            self._on_socket(lambda borrowed: borrowed.setsockopt(level, option, enabled))
        except OSError:
            # Another kind of socket, or one that is gone.
            pass


def _drop(pieces: list[bytes | memoryview], sent: int) -> None:
    """Drop the bytes that were sent, which are fewer than there are."""
    count = 0
    while sent >= len(pieces[count]):
        sent -= len(pieces[count])
        count += 1
    del pieces[:count]
    if sent:
        pieces[0] = memoryview(pieces[0])[sent:]
