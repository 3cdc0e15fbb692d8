"""Tests of rtpush.service.port."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IReadDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rtpush.service.port import Port
from rtpush.transports.tcp import Stream


class _Socket:
    """A listening socket with connections that wait, or with errors."""

    def __init__(self, family: int = socket.AF_INET, peer: object = ("127.0.0.1", 12345)) -> None:
        self.family = family
        self.waiting: list[int | OSError] = []
        self.options: list[tuple[int, int, object]] = []
        self.is_closed = False
        self._peer = peer

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.options.append((level, option, value))

    def _accept(self) -> tuple[int, object]:
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "")
        first = self.waiting.pop(0)
        if isinstance(first, OSError):
            raise first
        return first, self._peer

    def close(self) -> None:
        self.is_closed = True


class _Reactor(Clock):
    """Knows who reads."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.removeWriter = lambda writer: None


class _Factory(Factory):
    """Counts the connections that it is asked to serve."""

    noisy = False

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []
        self.made = 0
        self.lost: list[Failure] = []
        self.runs = 0
        self.refuses = False
        self.build_problem: Exception | None = None
        self.make_problem: Exception | None = None

    def doStart(self) -> None:
        self.runs += 1

    def doStop(self) -> None:
        self.runs -= 1

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]
        self.addresses.append(addr)
        if self.build_problem is not None:
            raise self.build_problem
        return None if self.refuses else _Counted(self)


class _Counted(Protocol):
    def __init__(self, factory: _Factory) -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        if self._factory.make_problem is not None:
            raise self._factory.make_problem
        self._factory.made += 1

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self._factory.lost.append(reason)


class PortTests(SynchronousTestCase):
    """How it accepts."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.factory = _Factory()
        self.socket = _Socket()
        #: A connection that was accepted.
        self.fd = self._descriptor()
        self.port = self._port(self.socket)

    def _port(self, listening: Any, **options: Any) -> Port:
        return Port(self.reactor, listening, self.factory, **options)

    def _descriptor(self) -> int:
        """Return a file descriptor of a connection, which is closed at the end if it still is open."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours.fileno()

    def _assert_closed(self, fd: int) -> None:
        self.assertRaises(OSError, os.fstat, fd)

    def test_interfaces(self) -> None:
        """It has all that Twisted asks of a port."""
        self.assertTrue(verifyObject(IListeningPort, self.port))
        self.assertTrue(verifyObject(IReadDescriptor, self.port))

    def test_part_of_a_burst(self) -> None:
        """Of a burst it takes one connection, then one more each time; when there are no more, it begins again."""
        self.socket.waiting = [self.fd] * 14
        taken = []
        for _ in range(5):
            before = self.factory.made
            self.port.doRead()
            taken.append(self.factory.made - before)
        self.assertEqual(taken, [1, 2, 3, 4, 4])
        self.socket.waiting = [self.fd] * 2
        self.port.doRead()
        self.assertEqual(len(self.socket.waiting), 1)

    def test_bound(self) -> None:
        """However long the burst is, there is time for other work."""
        self.socket.waiting = [self.fd] * 20_000
        for _ in range(150):
            self.port.doRead()
        before = self.factory.made
        self.port.doRead()
        self.assertEqual(self.factory.made - before, 100)

    def test_address(self) -> None:
        """The factory is told who connects."""
        for family, peer, expected in (
            (socket.AF_INET, ("10.0.0.1", 1), IPv4Address("TCP", "10.0.0.1", 1)),
            (socket.AF_INET6, ("fe80::1", 2, 3, 4), IPv6Address("TCP", "fe80::1", 2, 3, 4)),
            (socket.AF_UNIX, "", UNIXAddress(None)),
            (socket.AF_UNIX, b"\0hidden", UNIXAddress(b"\0hidden")),
        ):
            listening = _Socket(family, peer)
            listening.waiting = [self.fd]
            self._port(listening).doRead()
            self.assertEqual(self.factory.addresses[-1], expected)

    def test_no_delay(self) -> None:
        """Of TCP alone it asks that small segments are sent at once."""
        self.assertEqual(self.socket.options, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)])
        listening = _Socket(socket.AF_UNIX)
        self._port(listening)
        self.assertEqual(listening.options, [])

    def test_no_room(self) -> None:
        """Without file descriptors it leaves the others what waits, for a while."""
        self.socket.waiting = [OSError(errno.EMFILE, "Too many open files"), self.fd]
        self.port.doRead()
        self.assertEqual((self.reactor.readers, self.factory.made), (set(), 0))
        self.reactor.advance(1.0)
        self.assertEqual(self.reactor.readers, {self.port})
        self.port.doRead()
        self.assertEqual(self.factory.made, 1)

    def test_served_before_there_was_no_room(self) -> None:
        """Those that were accepted before the descriptors ran out, in the same go, are served."""
        no_room = OSError(errno.EMFILE, "Too many open files")
        self.socket.waiting = [self.fd] * 4 + [no_room, self.fd, self.fd, no_room]
        for _ in range(3):
            self.port.doRead()
        self.assertEqual((self.reactor.readers & {self.port}, self.factory.made), (set(), 4))
        self.port.accept_waiting()
        self.assertEqual(self.factory.made, 6)

    def test_stop_without_room(self) -> None:
        """When it is stopped meanwhile, nothing is left of it."""
        self.socket.waiting = [OSError(errno.ENFILE, "Too many open files in system")]
        self.port.doRead()
        self.successResultOf(self.port.stopListening())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """Clients that are gone before they are accepted do not keep it from accepting others."""
        self.socket.waiting = [OSError(errno.ECONNABORTED, ""), OSError(errno.EHOSTUNREACH, ""), self.fd]
        for _ in range(2):
            self.port.doRead()
        self.assertEqual(self.factory.made, 1)

    def test_refused(self) -> None:
        """A connection that the factory does not want is closed."""
        fd = os.dup(self.fd)
        self.socket.waiting = [fd]
        self.factory.refuses = True
        self.port.doRead()
        self._assert_closed(fd)
        self.assertEqual(self.reactor.readers, {self.port})

    def test_mistake(self) -> None:
        """A mistake of the factory costs that connection only."""
        fd = os.dup(self.fd)
        self.socket.waiting = [fd, self.fd]
        self.factory.build_problem = RuntimeError("oops")
        self.port.doRead()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self._assert_closed(fd)
        self.factory.build_problem = None
        self.port.doRead()
        self.assertEqual(self.factory.made, 1)

    def test_mistake_at_the_start(self) -> None:
        """So does one of the protocol, whose connection is reset."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        listening = _Socket(socket.AF_UNIX, "")
        listening.waiting = [ours.detach()]
        self.factory.make_problem = RuntimeError("oops")
        self._port(listening).doRead()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.reactor.advance(0)
        self.assertEqual([type(reason.value) for reason in self.factory.lost], [ConnectionAborted])
        self.assertEqual(theirs.recv(1), b"")

    def test_shut_down(self) -> None:
        """When whoever opened the socket has shut it down, it is not asked again and again."""
        self.socket.waiting = [OSError(errno.EINVAL, "Invalid argument")]
        self.port.doRead()
        self.assertEqual(self.reactor.readers, set())

    def test_stop(self) -> None:
        """It stops once: what is to be done at the end is done while the socket is still open."""
        listening = _Socket()
        seen: list[bool] = []
        port = self._port(listening, release=lambda: seen.append(listening.is_closed))
        self.assertEqual(self.factory.runs, 2)
        self.successResultOf(port.stopListening())
        self.successResultOf(port.stopListening())
        self.assertEqual((seen, listening.is_closed), ([False], True))
        self.assertEqual((self.factory.runs, self.reactor.readers), (1, {self.port}))

    def test_reactor_ends(self) -> None:
        """When the reactor ends first, it stops too."""
        self.port.connectionLost(Failure(ConnectionAborted()))
        self.assertTrue(self.socket.is_closed)
        self.assertEqual(self.factory.runs, 0)

    def test_real_socket(self) -> None:
        """What it accepts does not block, sends small segments at once, and is not given to other programs."""
        listening = socket.create_server(("127.0.0.1", 0))
        port = self._port(listening)
        self.assertEqual(port.getHost(), IPv4Address("TCP", *listening.getsockname()))
        self.addCleanup(port.stopListening)
        client = socket.create_connection(listening.getsockname())
        self.addCleanup(client.close)
        port.doRead()
        (stream,) = [reader for reader in self.reactor.readers if isinstance(reader, Stream)]
        self.addCleanup(self.reactor.advance, 0)
        self.addCleanup(stream.abortConnection)
        self.assertTrue(stream.getTcpNoDelay())
        self.assertFalse(os.get_blocking(stream.fileno()))
        self.assertFalse(os.get_inheritable(stream.fileno()))
        self.assertEqual(stream.getPeer(), IPv4Address("TCP", *client.getsockname()))
        self.assertEqual(stream.getHost(), port.getHost())

    def test_accept_waiting(self) -> None:
        """All that wait are accepted in one go, but for those who are gone already."""
        self.socket.waiting = [self.fd, ConnectionAbortedError(), self.fd, self.fd]
        self.port.accept_waiting()
        self.assertEqual((self.factory.made, self.socket.waiting), (3, []))
        self.socket.waiting = [OSError(errno.EMFILE, "no room"), self.fd]
        self.port.accept_waiting()
        self.assertEqual(self.factory.made, 3)

    def test_serve_with(self) -> None:
        """Another factory serves the connections to come, and is running for that, as this one is no more."""
        other = _Factory()
        self.port.serve_with(other)
        self.assertEqual((self.factory.runs, other.runs), (0, 1))
        self.socket.waiting = [self.fd]
        self.port.doRead()
        self.assertEqual((self.factory.made, other.made), (0, 1))
        self.port.stopListening()
        self.assertEqual(other.runs, 0)
