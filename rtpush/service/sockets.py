"""
Listening sockets: opened by this process, or inherited from a parent that shares them among its workers.

Twisted can adopt a listening socket, but treats it as its own then: it sets another backlog, gives a Unix socket's file
another mode, and removes the file at the end. :class:`SharedPort` only accepts.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory, IReadDescriptor
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["CannotListen", "SharedPort", "listen", "listen_inherited"]

#: The most connections that are accepted before other work is done.
_MOST_AT_ONCE = 100

#: Seconds without accepting after the system had no room for another connection. They wait, or others accept them.
_REST = 0.5

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class CannotListen(Exception):
    """An address cannot be had. Its text is one line."""


def listen(reactor: Any, address: str, factory: IProtocolFactory) -> IListeningPort:
    """
    Listen on an address.

    :param address: A Twisted endpoint string.
    :raises CannotListen: if that is impossible.
    """
    try:
        listening = serverFromString(reactor, address).listen(factory)
    except (ValueError, LookupError, OSError) as error:
        raise CannotListen(f"{address}: cannot listen: {error}") from error
    # Endpoints that listen have a result at once. A Deferred would keep what is wrong to itself.
    ports: list[IListeningPort] = []
    failures: list[Failure] = []
    listening.addCallbacks(ports.append, failures.append)
    for failure in failures:
        problem = failure.value
        cause = problem.socketError if isinstance(problem, CannotListenError) else problem
        raise CannotListen(f"{address}: cannot listen: {getattr(cause, 'strerror', None) or cause}") from problem
    return ports[0]


def listen_inherited(reactor: Any, fd: int, address: str, factory: IProtocolFactory) -> IListeningPort:
    """
    Listen on a socket that another process has opened for an address.

    :param fd: Its file descriptor, which now belongs to the port.
    :param address: The endpoint string, which says what is spoken on it.
    :raises CannotListen: if that is impossible.
    """
    inherited = _Inherited(reactor, fd)
    if address.startswith("systemd:"):
        # Only the process that systemd has started can look it up.
        return inherited.adopt(factory)
    return listen(inherited, address, factory)


class _Inherited:
    """Stands in for the reactor where an endpoint listens: whatever it asks for, it gets the inherited socket."""

    def __init__(self, reactor: Any, fd: int) -> None:
        self._reactor = reactor
        self._fd = fd

    def adopt(self, factory: IProtocolFactory) -> IListeningPort:
        return SharedPort(self._reactor, socket.socket(fileno=self._fd), factory)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        return self.adopt(factory)

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        return self.adopt(TLSMemoryBIOFactory(contextFactory, False, factory, clock=self._reactor))

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        return self.adopt(factory)


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """
    Accepts connections from a socket that other processes accept from too.

    All of them wake up for a burst of connections. So that each gets its part, it accepts one, and one more each time
    when it comes back and there are still some: when all are busy, the burst does not wait for them long.

    :param listening: A listening socket, which now belongs to this object.
    """

    _log = Logger()

    def __init__(self, reactor: Any, listening: socket.socket, factory: IProtocolFactory) -> None:
        listening.setblocking(False)
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._at_once = 1
        self._rest: IDelayedCall | None = None
        self.startListening()

    def startListening(self) -> None:
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more. The socket is closed, but not shut down: others go on."""
        self._reactor.removeReader(self)
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._socket.close()
        self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        name: Any = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        return (IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address)("TCP", *name)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "shared port"

    def doRead(self) -> None:
        for _ in range(self._at_once):
            try:
                connection, _peer = self._socket.accept()
                with connection:
                    connection.setblocking(False)
                    self._reactor.adoptStreamConnection(connection.fileno(), self._socket.family, self._factory)
            except BlockingIOError:
                # There are no more, or another process was quicker.
                self._at_once = 1
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._pause(error)
                    return
                if error.errno == errno.EINVAL:
                    # It listens no more: who opened it has shut it down.
                    self._reactor.removeReader(self)
                    return
                # A client that is gone already.
            except Exception:
                self._log.failure("a connection cannot be accepted")
        self._at_once = min(self._at_once + 1, _MOST_AT_ONCE)

    def connectionLost(self, reason: Failure) -> None:
        """Nothing that is not done by :meth:`stopListening`."""

    def _pause(self, error: OSError) -> None:
        self._log.warn("accepting no connection for {rest} s: {reason}", rest=_REST, reason=error.strerror)
        self._reactor.removeReader(self)
        self._rest = self._reactor.callLater(_REST, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self._reactor.addReader(self)
