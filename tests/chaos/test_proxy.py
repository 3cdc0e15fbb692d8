"""Tests of tests.chaos.proxy: that it does the harm that it is told to do, and no other."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.chaos.proxy import HarmfulProxy
from tests.support.waiting import pause, until


class _Peer(Protocol):
    """Keeps what it gets, and echoes it if it is the server's."""

    transport: Any

    def __init__(self, peers: list[_Peer] | None = None) -> None:
        self.peers = peers
        self.data = b""
        self.is_over = False

    def connectionMade(self) -> None:
        if self.peers is not None:
            self.peers.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self.peers is not None:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.is_over = True


class ProxyTests(TestCase):
    """A proxy before a server that echoes."""

    timeout = 20

    async def setUp(self) -> None:
        """Start both."""
        self.peers: list[_Peer] = []
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        listening = await endpoint.listen(Factory.forProtocol(lambda: _Peer(self.peers)))
        self.addCleanup(listening.stopListening)
        self.proxy = HarmfulProxy(listening.getHost().port, Random(1))
        await self.proxy.start(self)

    async def _connect(self) -> Any:
        peer = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port), _Peer())
        self.addCleanup(lambda: peer.transport.abortConnection())
        return peer

    async def _gets(self, peer: Any, data: bytes) -> None:
        await until(lambda: peer.data == data, f"{data!r}", seen=lambda: peer.data)

    async def test_passes_on(self) -> None:
        """Without harm all is passed on, and so is the end."""
        peer = await self._connect()
        peer.transport.write(b"x" * 300_000)
        await self._gets(peer, b"x" * 300_000)
        peer.transport.loseConnection()
        await until(lambda: self.peers[0].is_over, "the end")
        await until(lambda: not self.proxy.pairs, "the pair to be gone")

    async def test_delay(self) -> None:
        """What is late stays in order."""
        peer = await self._connect()
        self.proxy.delay = 0.05
        for number in range(20):
            peer.transport.write(b"%02d" % number)
            await pause(0)
        await self._gets(peer, b"".join(b"%02d" % number for number in range(20)))

    async def test_holds(self) -> None:
        """What is held back comes when that ends, also from one who has gone meanwhile."""
        peer = await self._connect()
        await until(lambda: self.peers, "the connection")
        self.proxy.holds = True
        peer.transport.write(b"abc")
        await until(lambda: any(pair.outer.said for pair in self.proxy.pairs), "the proxy to have it")
        peer.transport.loseConnection()
        await until(lambda: peer.is_over, "the end")
        self.assertEqual((self.peers[0].data, self.peers[0].is_over), (b"", False))
        self.proxy.holds = False
        await until(lambda: self.peers[0].is_over, "the end at the other side")
        self.assertEqual(self.peers[0].data, b"abc")

    async def test_cut(self) -> None:
        """Both sides of what is cut hear of it."""
        peer = await self._connect()
        await until(lambda: self.peers, "the connection")
        self.assertEqual(self.proxy.cut(), 1)
        await until(lambda: peer.is_over and self.peers[0].is_over, "both to hear of it")

    async def test_truncates(self) -> None:
        """Of a longer piece only the first bytes come, then the end."""
        peer = await self._connect()
        self.proxy.truncates = 3
        peer.transport.write(b"abcdef")
        await until(lambda: peer.is_over and self.peers[0].is_over, "both to hear of it")
        self.assertEqual(self.peers[0].data, b"abc")

    async def test_silence(self) -> None:
        """In what is silent nothing comes, nor is the end heard of; a new connection is a good one."""
        peer = await self._connect()
        await until(lambda: self.peers, "the connection")
        self.assertEqual(self.proxy.silence(), 1)
        peer.transport.write(b"abc")
        other = await self._connect()
        other.transport.write(b"def")
        await self._gets(other, b"def")
        peer.transport.loseConnection()
        await until(lambda: peer.is_over, "its own end")
        self.assertEqual((self.peers[0].data, self.peers[0].is_over), (b"", False))

    async def test_swallows(self) -> None:
        """A connection that is taken and leads nowhere stays so."""
        self.proxy.swallows = True
        peer = await self._connect()
        peer.transport.write(b"abc")
        await until(lambda: self.proxy.pairs, "the proxy to have it")
        self.proxy.heal()
        other = await self._connect()
        other.transport.write(b"def")
        await self._gets(other, b"def")
        self.assertEqual((len(self.peers), peer.data, peer.is_over), (1, b"", False))

    async def test_late(self) -> None:
        """Connections come in another order than they were made; who has gone before is heard all the same."""
        self.proxy.late = 0.2
        peers = [await self._connect() for _ in range(12)]
        for number, peer in enumerate(peers):
            peer.transport.write(b"%02d" % number)
        peers[0].transport.loseConnection()
        await until(lambda: sum(bool(peer.data) for peer in self.peers) == 12, "all to be heard")
        order = [peer.data for peer in self.peers]
        self.assertNotEqual(order, sorted(order))
        self.assertEqual(len(set(order)), 12)

    async def test_chokes(self) -> None:
        """Who sends finds that nothing is read, and all comes when that ends."""
        peer = await self._connect()
        await until(lambda: self.peers, "the connection")
        self.proxy.chokes = True
        data = b"x" * 8_000_000
        self.peers[0].transport.write(data)
        await until(lambda: self.peers[0].transport.dataBuffer or self.peers[0].transport._tempDataLen, "it to wait")
        self.assertLess(len(peer.data), len(data))
        self.proxy.chokes = False
        await until(lambda: len(peer.data) == len(data), "all of it")
