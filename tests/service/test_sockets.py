"""Tests of rtpush.service.sockets."""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
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
    _SystemdParser,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SkipTest, TestCase

from rtpush.protocol.addresses import TrustedProxies
from rtpush.service.sockets import CannotListen, listen, listen_inherited, secured
from rtpush.transports.proxied import ProxiedFactory
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


class _Announced:
    """An endpoint on whose connections the header of the PROXY protocol comes first."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        """Connect."""

        def build(address: Any) -> Any:
            protocol = build_inner(address)
            made = protocol.makeConnection

            def make(transport: Any) -> None:
                transport.write(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n")
                made(transport)

            protocol.makeConnection = make
            return protocol

        build_inner, factory.buildProtocol = factory.buildProtocol, build
        return self._endpoint.connect(factory)


class _SocketsTestCase(TestCase):
    """What both ways to a listening socket have in common."""

    def _directory(self) -> str:
        """Return a directory whose name is short: those of Unix sockets must be."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return directory.name

    def _certificate(self) -> str:
        """Return the path of a certificate and its key."""
        certificate = ssl.KeyPair.generate(size=2048).selfSignedCert(1, CN="localhost")
        path = f"{self._directory()}/both.pem"
        with open(path, "wb") as file:
            file.write(certificate.dumpPEM() + certificate.privateKey.dump(crypto.FILETYPE_PEM))
        return path

    async def _talk(self, endpoint: Any, **said: bytes) -> None:
        await self._converse(endpoint, _Client(**said))

    async def _converse(self, endpoint: Any, client: Any) -> None:
        await soon(connectProtocol(endpoint, client))
        await soon(client.heard)
        gone: Deferred[None] = Deferred()
        client.connectionLost = lambda reason: gone.callback(None)
        client.transport.loseConnection()
        await soon(gone)


class ListenTests(_SocketsTestCase):
    """Addresses that this process opens."""

    def _listen(self, address: str) -> Any:
        port = listen(reactor, address, Factory.forProtocol(_Echo))
        self.addCleanup(port.stopListening)
        return port

    def _refused(self, address: str) -> str:
        """Return why an address cannot be had."""
        error = self.assertRaises(CannotListen, listen, reactor, address, Factory())
        begin = f"{address}: cannot listen: "
        self.assertTrue(str(error).startswith(begin), error)
        return str(error)[len(begin) :]

    async def test_tcp(self) -> None:
        """Connections over TCP are accepted on the interface that is named."""
        port = self._listen("tcp:0:interface=127.0.0.2")
        self.assertEqual(port.getHost(), IPv4Address("TCP", "127.0.0.2", port.getHost().port))
        await self._talk(TCP4ClientEndpoint(reactor, "127.0.0.2", port.getHost().port))
        with socket.socket() as other:
            self.assertRaises(ConnectionRefusedError, other.connect, ("127.0.0.1", port.getHost().port))

    async def test_tcp_everywhere(self) -> None:
        """Without one they are accepted on all; a name is as good as a number."""
        for address in ("tcp:0", "tcp:0:interface=localhost"):
            port = self._listen(address)
            await self._talk(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))

    async def test_tcp6(self) -> None:
        """The same over IPv6."""
        try:
            port = self._listen(r"tcp6:0:interface=\:\:1")
        except CannotListen as error:
            raise SkipTest("there is no IPv6") from error
        self.assertEqual(port.getHost().host, "::1")
        await self._talk(TCP6ClientEndpoint(reactor, "::1", port.getHost().port))

    async def test_tls(self) -> None:
        """The same over TLS."""
        port = self._listen(f"ssl:0:interface=127.0.0.1:privateKey={self._certificate()}")
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, ssl.CertificateOptions(verify=False))
        await self._talk(endpoint)
        # More than is written at once.
        large = bytes(range(256)) * 8192
        await self._talk(endpoint, said=large, heard=large)

    async def test_unix(self) -> None:
        """A Unix socket's file has the mode that is named, and goes with it."""
        path = f"{self._directory()}/sock"
        port = self._listen(f"unix:{path}:mode=640")
        self.assertEqual(port.getHost(), UNIXAddress(path))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)
        self.assertTrue(os.path.islink(f"{path}.lock"))
        await self._talk(UNIXClientEndpoint(reactor, path))
        port.stopListening()
        self.assertFalse(os.path.lexists(path))
        self.assertFalse(os.path.lexists(f"{path}.lock"))

    async def test_unix_without_a_file(self) -> None:
        """Linux has names of Unix sockets that are no files."""
        if not sys.platform.startswith("linux"):
            raise SkipTest("this is not Linux")
        name = f"\0rtpush-test-{os.getpid()}"
        port = self._listen(f"unix:{name}:lockfile=0")
        await self._talk(UNIXClientEndpoint(reactor, name))
        port.stopListening()

    async def test_unix_of_a_crashed_process(self) -> None:
        """What a process has left that did not end well is cleared away."""
        path = f"{self._directory()}/sock"
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(path)
        # Of no process that there can be.
        os.symlink(str(2**22 + 1), f"{path}.lock")
        self._listen(f"unix:{path}")
        await self._talk(UNIXClientEndpoint(reactor, path))

    def test_unix_of_another_process(self) -> None:
        """What a process has that lives is left to it; so is a file that is no socket, and no lock is left then."""
        path = f"{self._directory()}/sock"
        os.symlink(str(os.getpid()), f"{path}.lock")
        self.assertEqual(self._refused(f"unix:{path}"), "Cannot acquire lock")
        os.unlink(f"{path}.lock")
        os.symlink(str(2**22 + 1), f"{path}.lock")
        with open(path, "w"):
            pass
        self.assertEqual(self._refused(f"unix:{path}"), "Address already in use")
        self.assertEqual(os.listdir(os.path.dirname(path)), ["sock"])

    def test_backlog(self) -> None:
        """As many connections may wait to be accepted as the address says, and many if it does not."""
        if not sys.platform.startswith("linux"):
            raise SkipTest("this is not Linux")
        with open("/proc/sys/net/core/somaxconn") as most:
            many = min(4096, int(most.read()))
        for said, backlog in ((":backlog=77", 77), ("", many)):
            port = self._listen(f"tcp:0:interface=127.0.0.1{said}")
            with socket.socket(fileno=os.dup(port.fileno())) as listening:
                # Of a listening socket, Linux tells it in tcpi_sacked.
                told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28:32]
                self.assertEqual(int.from_bytes(told, sys.byteorder), backlog)

    def test_taken(self) -> None:
        """One that another program has is told in a line."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            problem = self._refused(f"tcp:{other.getsockname()[1]}:interface=127.0.0.1")
        self.assertEqual(problem, "Address already in use")

    def test_not_there(self) -> None:
        """So is a socket that systemd has not given, what is no endpoint, and what is not here."""
        for address in ("systemd:domain=INET:index=0", "tpc:80"):
            self._refused(address)
        self.assertEqual(self._refused("tcp:0:interface=192.0.2.1"), "Cannot assign requested address")
        self.assertEqual(self._refused(f"unix:{self._directory()}/none/sock"), "No such file or directory")

    async def test_systemd(self) -> None:
        """A socket that systemd has given is accepted from; it stays open for others."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            given = os.dup(listening.fileno())
            self.patch(_SystemdParser, "_sddaemon", ListenFDs([given]))
            port = self._listen("systemd:domain=INET:index=0")
            await self._talk(TCP4ClientEndpoint(reactor, *listening.getsockname()))
            port.stopListening()
            self.assertTrue(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            with socket.create_connection(listening.getsockname()):
                listening.accept()[0].close()


class InheritedTests(_SocketsTestCase):
    """Sockets that another process has opened: here, one that this process has, of which it knows nothing else."""

    def _open(self, address: str) -> Any:
        """Return the port of the process that opens the socket and does not accept from it."""
        port: Any = listen(reactor, address, Factory())
        port.stopReading()
        self.addCleanup(port.stopListening)
        return port

    def _inherit(self, address: str, port: Any, before: Callable[[Any], Any] = lambda factory: factory) -> Any:
        factory = before(Factory.forProtocol(_Echo))
        inherited = listen_inherited(reactor, os.dup(port.fileno()), address, factory)
        self.addCleanup(inherited.stopListening)
        return inherited

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
        address = f"ssl:0:interface=127.0.0.1:privateKey={self._certificate()}"
        port = self._open(address)
        self._inherit(address, port)
        await self._talk(
            SSL4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, ssl.CertificateOptions(verify=False))
        )

    async def test_haproxy(self) -> None:
        """Before TLS too, what a trusted proxy says is read first."""
        proxies = TrustedProxies(["127.0.0.1"])
        for address, kind in (
            ("haproxy:tcp:0:interface=127.0.0.1", "tcp"),
            (f"haproxy:ssl:0:interface=127.0.0.1:privateKey={self._certificate()}", "ssl"),
        ):
            port = self._open(address)
            self._inherit(address, port, lambda factory: ProxiedFactory(factory, lambda: proxies, reactor))
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
            client = _Client(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nhi", b"hi")
            if kind == "ssl":
                endpoint = wrapClientTLS(ssl.CertificateOptions(verify=False), _Announced(endpoint))
                client = _Client()
            await self._converse(endpoint, client)

    async def test_systemd(self) -> None:
        """A socket of systemd's, which only the first process can look up, is accepted from all the same."""
        port = self._open("tcp:0:interface=127.0.0.1")
        self._inherit("systemd:domain=INET:index=0", port)
        await self._talk(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))


class SecuredTests(_SocketsTestCase):
    """Certificates that are read again."""

    def test_read_again(self) -> None:
        """It is another factory each time; nothing is listened on for it."""
        factory = Factory()
        address = f"ssl:80:interface=192.0.2.1:privateKey={self._certificate()}"
        made = [secured(reactor, address, factory) for _ in range(2)]
        self.assertIsNot(made[0], made[1])
        for each in made:
            self.assertIs(getattr(each, "wrappedFactory", None), factory)

    def test_none(self) -> None:
        """Other addresses have no certificate."""
        for address in ("tcp:80", "unix:/nowhere", "systemd:domain=INET:index=0"):
            self.assertIsNone(secured(reactor, address, Factory()))

    def test_bad(self) -> None:
        """Files that are not there, broken, or do not fit are told in one line."""
        directory = Path(self._directory())
        broken, key, certificate = (str(directory / name) for name in ("broken.pem", "key.pem", "cert.pem"))
        begin = "-----BEGIN CERTIFICATE-----"
        certificate_alone = begin + Path(self._certificate()).read_text().split(begin)[1].split("-----BEGIN")[0]
        another_key = Path(self._certificate()).read_text().replace(begin, "")
        for name, text in ((broken, begin), (key, another_key), (certificate, certificate_alone)):
            Path(name).write_text(text)
        for files in ("privateKey=/nowhere.pem", f"privateKey={broken}", f"privateKey={key}:certKey={certificate}"):
            with self.subTest(files):
                error = self.assertRaises(CannotListen, secured, reactor, f"ssl:80:{files}", Factory())
                self.assertEqual(len(str(error).splitlines()), 1)
