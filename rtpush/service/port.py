"""Accepts connections from a listening socket: of this process, or of several that share it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocol, IProtocolFactory, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rtpush.transports.polling import Polling, polling_of
from rtpush.transports.tcp import Address, Stream, address_of

__all__ = ["Port", "shut_down"]

#: The most connections that are accepted before other work is done.
_MOST_AT_ONCE = 100

#: The most connections that may have waited to be accepted.
_MOST_WAITING = 65536

#: Seconds without accepting after the system had no room for another connection. They wait, or others accept them.
_REST = 0.5

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@implementer(IListeningPort, IReadDescriptor)
class Port:
    """
    Accepts connections.

    All processes that share a socket wake up for a burst of connections. So that each gets its part, it accepts one,
    and one more each time when it comes back and there are still some: when all are busy, the burst does not wait for
    them long.

    :param listening: A listening socket, which now belongs to this object.
    :param release: What else is to be done at the end, just before the socket is closed.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        listening: socket.socket,
        factory: IProtocolFactory,
        release: Callable[[], object] | None = None,
    ) -> None:
        listening.setblocking(False)
        if listening.family != socket.AF_UNIX:
            # Connections have it from here: so none has to be told.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._reactor = reactor
        self._polling = polling_of(reactor)
        self._socket = listening
        # What the public method does around this one is to make a socket object, which costs half as much again as all
        # that is done here for a connection.
        self._accept: Callable[[], tuple[int, Any]] = listening._accept  # type: ignore[attr-defined]
        self._family = listening.family
        self._factory = factory
        self._release = release
        self._at_once = 1
        self._rest: IDelayedCall | None = None
        self._is_open = True
        self.startListening()

    # IListeningPort

    def startListening(self) -> None:
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more. If other processes share the socket, they go on."""
        if self._is_open:
            self._is_open = False
            self.stopReading()
            if self._release is not None:
                self._release()
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def accept_waiting(self) -> None:
        """Accept all connections that wait now, since soon nobody will."""
        for _ in range(_MOST_WAITING // _MOST_AT_ONCE):
            accepted: list[tuple[int, Any]] = []
            try:
                self._accept_some(_MOST_AT_ONCE, accepted)
            except OSError:
                return
            finally:
                self._serve(accepted)

    def refuse(self) -> None:
        """Refuse connections from now on, for all processes that share the socket."""
        shut_down(self._socket)

    def serve_with(self, factory: IProtocolFactory) -> None:
        """Serve the connections to come by another factory."""
        before, self._factory = self._factory, factory
        factory.doStart()
        before.doStop()

    def getHost(self) -> Address:
        return address_of(self._family, self._socket.getsockname())

    # What the reactor calls

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "port"

    def doRead(self) -> None:
        accepted: list[tuple[int, Any]] = []
        try:
            self._accept_some(self._at_once, accepted)
        except BlockingIOError:
            # There are no more, or another process was quicker.
            self._at_once = 1
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._pause(error)
            elif error.errno == errno.EINVAL:
                # It listens no more: who opened it has shut it down.
                self._reactor.removeReader(self)
        else:
            self._at_once = min(self._at_once + 1, _MOST_AT_ONCE)
        self._serve(accepted)

    def _accept_some(self, most: int, accepted: list[tuple[int, Any]]) -> None:
        """
        Accept connections.

        :param accepted: Gets their descriptors, and who has connected.
        :raises OSError: if there are no more, or there is no room for more.
        """
        for _ in range(most):
            try:
                accepted.append(self._accept())
            except OSError as error:
                if isinstance(error, BlockingIOError) or error.errno in _NO_ROOM or error.errno == errno.EINVAL:
                    raise
                # A client that is gone already.

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
        self.stopListening()

    def stopReading(self) -> None:
        """Accept nothing from now on, but go on listening."""
        self._reactor.removeReader(self)
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _serve(self, accepted: list[tuple[int, Any]]) -> None:
        streams = [stream for fd, peer in accepted if (stream := self._begin(fd, peer)) is not None]
        if streams and isinstance(self._polling, Polling):
            # Who connects has mostly said something by now.
            self._polling.look(streams)

    def _begin(self, fd: int, peer: Any) -> Stream | None:
        protocol: IProtocol | None = None
        try:
            os.set_blocking(fd, False)
            protocol = self._factory.buildProtocol(address_of(self._family, peer))
        except Exception:
            self._log.failure("a connection of {peer} cannot be served", peer=peer)
        if protocol is None:
            os.close(fd)
            return None
        stream = Stream(self._polling, fd, self._family, protocol)
        try:
            stream.resumeProducing()
            protocol.makeConnection(stream)
        except Exception:
            self._log.failure("a connection of {peer} cannot be served", peer=peer)
            stream.abortConnection()
        return stream

    def _pause(self, error: OSError) -> None:
        self._log.warn("accepting no connection for {rest} s: {reason}", rest=_REST, reason=error.strerror)
        self._reactor.removeReader(self)
        self._rest = self._reactor.callLater(_REST, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self._reactor.addReader(self)


def shut_down(listening: socket.socket) -> None:
    """Refuse connections from now on, for all processes that share a socket."""
    try:
        listening.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Not every system can do that to a listening socket.
        pass
