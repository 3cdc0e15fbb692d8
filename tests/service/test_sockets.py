"""Tests of rtpush.service.sockets."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from typing import Any

from OpenSSL import crypto
from twisted.internet import reactor, ssl
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from rtpush.service.sockets import CannotListen, SharedPort, listen, listen_inherited
from tests.support.waiting import soon


class _Echo(Protocol):
    """Sends back what comes."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class _Client(Protocol):
    """Says something once, and waits for the same."""

    def __init__(self, said: bytes = b"hello", heard: bytes = b"hello") -> None:
        self.heard: Deferred[None] = Deferred()
        self._said = said
        self._expected = heard
        self._received = b""

    def connectionMade(self) -> None:
        self.transport.write(self._said)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received == self._expected:
            self.heard.callback(None)


class ListenTests(TestCase):
    """Addresses that this process opens."""

    def test_taken(self) -> None:
        """One that another program has is told in a line."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            address = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            error = self.assertRaises(CannotListen, listen, reactor, address, Factory())
        self.assertEqual(str(error), f"{address}: cannot listen: Address already in use")

    def test_not_there(self) -> None:
        """So is a socket that systemd has not given, and what is no endpoint."""
        for address in ("systemd:domain=INET:index=0", "tpc:80"):
            error = self.assertRaises(CannotListen, listen, reactor, address, Factory())
            self.assertTrue(str(error).startswith(f"{address}: cannot listen: "), error)


class InheritedTests(TestCase):
    """Sockets that another process has opened: here, one that this process has, of which it knows nothing else."""

    def _directory(self) -> str:
        """Return a directory whose name is short: those of Unix sockets must be."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return directory.name

    def _open(self, address: str) -> Any:
        """Return the port of the process that opens the socket and does not accept from it."""
        port: Any = listen(reactor, address, Factory())
        port.stopReading()
        self.addCleanup(port.stopListening)
        return port

    def _inherit(self, address: str, port: Any) -> Any:
        inherited = listen_inherited(reactor, os.dup(port.fileno()), address, Factory.forProtocol(_Echo))
        self.addCleanup(inherited.stopListening)
        return inherited

    async def _talk(self, endpoint: Any, **said: bytes) -> None:
        client = await soon(connectProtocol(endpoint, _Client(**said)))
        await soon(client.heard)
        gone: Deferred[None] = Deferred()
        client.connectionLost = lambda reason: gone.callback(None)
        client.transport.loseConnection()
        await soon(gone)

    async def test_tcp(self) -> None:
        """Connections over TCP are accepted, on the port that the socket has, whatever the address says."""
        address = "tcp:0:interface=127.0.0.1"
        port = self._open(address)
        inherited = self._inherit(address, port)
        self.assertEqual(inherited.getHost(), port.getHost())
        self.assertIsInstance(inherited.getHost(), IPv4Address)
        await self._talk(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))

    async def test_tcp6(self) -> None:
        """So are those over IPv6."""
        address = r"tcp6:0:interface=\:\:1"
        try:
            port = self._open(address)
        except CannotListen as error:
            raise SkipTest("there is no IPv6") from error
        inherited = self._inherit(address, port)
        self.assertEqual(
            (inherited.getHost().host, inherited.getHost().port), (port.getHost().host, port.getHost().port)
        )
        await self._talk(TCP6ClientEndpoint(reactor, "::1", port.getHost().port))

    async def test_unix(self) -> None:
        """So are those over a Unix socket, whose file keeps its mode, and outlives those that share it."""
        path = f"{self._directory()}/sock"
        address = f"unix:{path}:mode=600"
        port = self._open(address)
        inherited = self._inherit(address, port)
        self.assertEqual(inherited.getHost(), UNIXAddress(path))
        await self._talk(UNIXClientEndpoint(reactor, path))
        await inherited.stopListening()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        await self._talk_to_another(address, port, UNIXClientEndpoint(reactor, path))

    async def _talk_to_another(self, address: str, port: Any, endpoint: Any) -> None:
        self._inherit(address, port)
        await self._talk(endpoint)

    async def test_stop(self) -> None:
        """When one ends, the others go on, and what waits to be accepted is not lost."""
        address = "tcp:0:interface=127.0.0.1"
        port = self._open(address)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await self._inherit(address, port).stopListening()
        waiting = await soon(connectProtocol(endpoint, _Client()))
        await self._talk_to_another(address, port, endpoint)
        await soon(waiting.heard)
        waiting.transport.loseConnection()

    async def test_tls(self) -> None:
        """On an address that speaks TLS, each that shares it does."""
        certificate = ssl.KeyPair.generate(size=2048).selfSignedCert(1, CN="localhost")
        path = f"{self._directory()}/both.pem"
        with open(path, "wb") as file:
            file.write(certificate.dumpPEM() + certificate.privateKey.dump(crypto.FILETYPE_PEM))
        address = f"ssl:0:interface=127.0.0.1:privateKey={path}"
        port = self._open(address)
        self._inherit(address, port)
        await self._talk(
            SSL4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, ssl.CertificateOptions(verify=False))
        )

    async def test_haproxy(self) -> None:
        """Addresses within others work too."""
        address = "haproxy:tcp:0:interface=127.0.0.1"
        port = self._open(address)
        self._inherit(address, port)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await self._talk(endpoint, said=b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nhi", heard=b"hi")

    async def test_systemd(self) -> None:
        """A socket of systemd's, which only the first process can look up, is accepted from all the same."""
        port = self._open("tcp:0:interface=127.0.0.1")
        self._inherit("systemd:domain=INET:index=0", port)
        await self._talk(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))


class _Connection:
    """A connection that was accepted."""

    def fileno(self) -> int:
        return 99

    def setblocking(self, flag: bool) -> None:
        pass

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class _Socket:
    """A listening socket with connections that wait, or with errors."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.waiting: list[_Connection | OSError] = []

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def accept(self) -> tuple[_Connection, object]:
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "")
        first = self.waiting.pop(0)
        if isinstance(first, OSError):
            raise first
        return first, None

    def close(self) -> None:
        pass


class _Reactor(Clock):
    """Counts the connections that it adopts."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()
        self.adopted = 0
        self.problem: Exception | None = None
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard

    def adoptStreamConnection(self, fd: int, family: int, factory: object) -> None:
        assert (fd, family) == (99, socket.AF_INET)
        if self.problem is not None:
            raise self.problem
        self.adopted += 1


class SharedPortTests(SynchronousTestCase):
    """How it accepts."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.socket: Any = _Socket()
        self.port = SharedPort(self.reactor, self.socket, Factory())

    def test_part_of_a_burst(self) -> None:
        """Of a burst it takes one connection, then one more each time; when there are no more, it begins again."""
        self.socket.waiting = [_Connection() for _ in range(14)]
        taken = []
        for _ in range(5):
            before = self.reactor.adopted
            self.port.doRead()
            taken.append(self.reactor.adopted - before)
        self.assertEqual(taken, [1, 2, 3, 4, 4])
        self.socket.waiting = [_Connection() for _ in range(2)]
        self.port.doRead()
        self.assertEqual(len(self.socket.waiting), 1)

    def test_bound(self) -> None:
        """However long the burst is, there is time for other work."""
        self.socket.waiting = [_Connection() for _ in range(20_000)]
        for _ in range(150):
            self.port.doRead()
        before = self.reactor.adopted
        self.port.doRead()
        self.assertEqual(self.reactor.adopted - before, 100)

    def test_no_room(self) -> None:
        """Without file descriptors it leaves the others what waits, for a while."""
        self.socket.waiting = [OSError(errno.EMFILE, "Too many open files"), _Connection()]
        self.port.doRead()
        self.assertEqual((self.reactor.readers, self.reactor.adopted), (set(), 0))
        self.reactor.advance(1.0)
        self.assertEqual(self.reactor.readers, {self.port})
        self.port.doRead()
        self.assertEqual(self.reactor.adopted, 1)

    def test_no_room_to_adopt(self) -> None:
        """The same if the last descriptor was that of the connection itself."""
        self.socket.waiting = [_Connection()]
        self.reactor.problem = OSError(errno.EMFILE, "Too many open files")
        self.port.doRead()
        self.assertEqual(self.reactor.readers, set())
        self.port.stopListening()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """Clients that are gone before they are accepted do not keep it from accepting others."""
        self.socket.waiting = [OSError(errno.ECONNABORTED, ""), OSError(errno.EHOSTUNREACH, ""), _Connection()]
        for _ in range(2):
            self.port.doRead()
        self.assertEqual(self.reactor.adopted, 1)

    def test_mistake(self) -> None:
        """A mistake of whoever serves a connection costs that connection only."""
        self.socket.waiting = [_Connection(), _Connection()]
        self.reactor.problem = RuntimeError("oops")
        self.port.doRead()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.reactor.problem = None
        self.port.doRead()
        self.assertEqual(self.reactor.adopted, 1)

    def test_shut_down(self) -> None:
        """When whoever opened the socket has shut it down, it is not asked again and again."""
        self.socket.waiting = [OSError(errno.EINVAL, "Invalid argument")]
        self.port.doRead()
        self.assertEqual(self.reactor.readers, set())
