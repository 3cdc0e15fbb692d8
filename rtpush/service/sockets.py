"""
Listening sockets: opened by this process, or inherited from a parent that shares them among its workers.

Addresses are Twisted's endpoint strings; but the sockets are opened here, and :class:`rtpush.service.port.Port` accepts
from them. Twisted's own ports make connections that need more memory; and they treat a listening socket that they
adopt as their own: they set another backlog, give a Unix socket's file another mode, and remove it at the end.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IProtocolNegotiationFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock

from rtpush.service.listen import SecureAddress, secure_address, unproxied
from rtpush.service.port import Port, shut_down
from rtpush.service.tls import Contexts, Tls, load_authorities, load_identity
from rtpush.transports.proxied import ProxiedFactory

__all__ = ["CannotListen", "is_kept", "listen", "listen_inherited", "secured"]


#: How many connections may wait to be accepted if the endpoint does not say. Twisted's endpoints say this number then,
#: which is soon full when many come back at once.
_BACKLOG = 4096
_UNSAID = 50

#: What holds for TLS if nothing is said.
_NOTHING_SAID = Tls()


class CannotListen(Exception):
    """An address cannot be had. Its text is one line."""


def listen(reactor: Any, address: str, factory: IProtocolFactory, tls: Tls = _NOTHING_SAID) -> IListeningPort:
    """
    Listen on an address.

    :param address: A Twisted endpoint string.
    :param tls: What holds for the address if it speaks TLS.
    :raises CannotListen: if that is impossible.
    """
    return _listen(_Opening(reactor), address, factory, tls)


def listen_inherited(
    reactor: Any, fd: int, address: str, factory: IProtocolFactory, tls: Tls = _NOTHING_SAID
) -> IListeningPort:
    """
    Listen on a socket that another process has opened for an address.

    :param fd: Its file descriptor, which now belongs to the port.
    :param address: The endpoint string, which says what is spoken on it.
    :raises CannotListen: if that is impossible.
    """
    inherited = _Inherited(reactor, fd)
    if is_kept(address):
        # Only the process that systemd has started can look it up.
        return inherited.accept(factory)
    return _listen(inherited, address, factory, tls)


def secured(
    reactor: Any, address: str, factory: IProtocolFactory, tls: Tls = _NOTHING_SAID
) -> IProtocolFactory | None:
    """
    Return what serves the connections to an address by the certificates that are in their files now.

    :returns: Nothing if the address is none with a certificate.
    :raises CannotListen: if the files cannot be used.
    """
    if not unproxied(address).startswith("ssl:"):
        return None
    wrapped: IProtocolFactory = _result(address, _Securing(reactor), factory, tls)
    return wrapped


def is_kept(address: str) -> bool:
    """Tell whether somebody else keeps the socket of an address when this process ends: it is for the next one."""
    return unproxied(address).startswith("systemd:")


def _listen(opening: _Opening, address: str, factory: IProtocolFactory, tls: Tls) -> IListeningPort:
    port: IListeningPort = _result(address, opening, factory, tls)
    return port


def _result(address: str, opening: _Opening, factory: IProtocolFactory, tls: Tls) -> Any:
    """Return what an endpoint makes of what an address says."""
    try:
        endpoint = unproxied(address)
        secure = secure_address(address)
        if secure is not None:
            endpoint = secure.endpoint
            factory = _wrapped(opening.reactor, factory, secure, tls)
        listening = serverFromString(opening, endpoint).listen(factory)
    except (ValueError, LookupError, OSError) as error:
        raise CannotListen(f"{address}: cannot listen: {error}") from error
    # Endpoints that listen have a result at once. A Deferred would keep what is wrong to itself.
    results: list[Any] = []
    failures: list[Failure] = []
    listening.addCallbacks(results.append, failures.append)
    for failure in failures:
        problem = failure.value
        cause = problem.socketError if isinstance(problem, CannotListenError) else problem
        raise CannotListen(f"{address}: cannot listen: {getattr(cause, 'strerror', None) or cause}") from problem
    return results[0]


class _Opening:
    """Stands in for the reactor where an endpoint listens: it opens what the endpoint asks for."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        try:
            listening = _open_tcp(port, backlog, interface)
        except OSError as error:
            raise CannotListenError(interface, port, error) from error
        return Port(self.reactor, listening, factory, lambda: shut_down(listening))

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        path = os.fsencode(address)
        unlock = _lock(path) if wantPID else None
        try:
            listening = _open_unix(path, backlog, mode)
        except OSError as error:
            if unlock is not None:
                unlock()
            raise CannotListenError(None, path, error) from error

        def release() -> None:
            shut_down(listening)
            if _is_file(path):
                _remove(path)
            if unlock is not None:
                unlock()

        return Port(self.reactor, listening, factory, release)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory) -> IListeningPort:
        # Whoever calls this keeps the descriptor.
        return Port(self.reactor, socket.socket(fileno=os.dup(fileDescriptor)), factory)


class _Inherited(_Opening):
    """The same, but whatever an endpoint asks for, it gets the inherited socket."""

    def __init__(self, reactor: Any, fd: int) -> None:
        super().__init__(reactor)
        self._fd = fd

    def accept(self, factory: IProtocolFactory) -> IListeningPort:
        return Port(self.reactor, socket.socket(fileno=self._fd), factory)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        return self.accept(factory)

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        return self.accept(factory)


class _Securing(_Opening):
    """The same, but nothing is opened: the result is what would serve the connections."""

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> Any:
        return factory


def _wrapped(clock: Any, factory: IProtocolFactory, secure: SecureAddress, tls: Tls) -> IProtocolFactory:
    """Return a factory that speaks TLS before another one."""
    if isinstance(factory, ProxiedFactory):
        # What a proxy says comes before that.
        return factory.around(_wrapped(clock, factory.factory, secure, tls))
    files = [*filter(None, [secure.files]), *tls.certificates]
    if not files:
        raise ValueError("there is no certificate: expected privateKey= and certKey= here, or [tls] certificates")
    offering: Any = IProtocolNegotiationFactory(factory, None)
    contexts = Contexts(
        clock,
        [load_identity(each) for each in files],
        min_version=tls.min_version,
        authorities=load_authorities(tls.client_ca) if tls.client_ca else (),
        protocols=tuple if offering is None else offering.acceptableProtocols,
    )
    wrapped: IProtocolFactory = TLSMemoryBIOFactory(contexts, False, factory, clock=clock)
    return wrapped


def _open_tcp(port: int, backlog: int, interface: str) -> socket.socket:
    family, name = socket.AF_INET, (interface, port)
    if isIPv6Address(interface):
        family = socket.AF_INET6
        # An interface may name a scope, which is a number to the system.
        found: Any = socket.getaddrinfo(interface, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        name = found[0][4]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        listening.bind(name)
        listening.listen(_BACKLOG if backlog == _UNSAID else backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _open_unix(path: bytes, backlog: int, mode: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        if _is_file(path):
            os.chmod(path, mode)
        listening.listen(_BACKLOG if backlog == _UNSAID else backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _lock(path: bytes) -> Callable[[], object]:
    """
    Take a path for this process, and clear away what another one has left there that has crashed.

    :returns: What gives it back.
    :raises CannotListenError: if another process has it.
    """
    lock = FilesystemLock(path + b".lock")
    if not lock.lock():
        raise CannotListenError(None, path, "Cannot acquire lock")
    try:
        if not lock.clean and stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except OSError:
        # What is in the way is told when the path is bound.
        pass
    return lock.unlock


def _is_file(path: bytes) -> bool:
    """Tell whether the path of a Unix socket is in the file system: Linux has names that are not."""
    return not path.startswith(b"\0")


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
