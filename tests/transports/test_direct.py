"""Tests of rtpush.transports.direct."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.transports.direct import write_now


class _Socket:
    """A socket that takes as much of each write as it was told: nothing, a part, or more than all."""

    def __init__(self, takes: list[int | None]) -> None:
        self.taken = b""
        self._takes = takes

    def send(self, data: bytes) -> int:
        """Take a part."""
        takes = self._takes.pop(0) if self._takes else len(data)
        if takes is None:
            raise BlockingIOError
        part = data[:takes]
        self.taken += part
        return len(part)


class _Transport(Server):
    """A transport with such a socket, whose own buffer is never sent."""

    def __init__(self, takes: list[int | None]) -> None:
        self.socket: Any = _Socket(takes)
        self.connected = 1
        self.buffered = b""
        self._tempDataBuffer: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep bytes as the real one does."""
        if data:
            self._tempDataBuffer.append(data)
            self.buffered += data

    def logPrefix(self) -> str:
        """Not logged."""
        return ""


class WriteTests(SynchronousTestCase):
    """Writes at once, and the ordinary ones."""

    @given(
        st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=20),
        st.lists(st.none() | st.integers(0, 25), max_size=20),
    )
    def test_order(self, writes: list[tuple[bool, bytes]], takes: list[int | None]) -> None:
        """Whatever the kernel takes of each, and however both ways are mixed, the bytes are those written, in order."""
        transport = _Transport(takes)
        for direct, data in writes:
            if direct:
                write_now(transport, data)
            else:
                transport.write(data)
        self.assertEqual(transport.socket.taken + transport.buffered, b"".join(data for _, data in writes))

    def test_at_once(self) -> None:
        """Where nothing waits, nothing is kept; where something does, it goes behind it."""
        transport = _Transport([3, 2])
        write_now(transport, b"abc")
        self.assertEqual((transport.socket.taken, transport.buffered), (b"abc", b""))
        write_now(transport, b"defg")
        write_now(transport, b"h")
        self.assertEqual((transport.socket.taken, transport.buffered), (b"abcde", b"fgh"))

    def test_not_open(self) -> None:
        """The socket of a connection that closes, or is lost, is left alone."""
        for state in ({"disconnecting": 1}, {"connected": 0}):
            transport = _Transport([])
            vars(transport).update(state)
            write_now(transport, b"abc")
            self.assertEqual((transport.socket.taken, transport.buffered), (b"", b"abc"))

    def test_other_transports(self) -> None:
        """Any other transport is written to as ever."""
        transport = StringTransport()
        write_now(transport, b"abc")
        self.assertEqual(transport.value(), b"abc")


class RealTests(TestCase):
    """A real connection."""

    def test_reader_that_pauses(self) -> None:
        """More than the kernel holds, written in both ways to a reader that pauses now and then, arrives as it was."""
        pieces = [bytes([number % 251]) * (1 + number * 37 % 9000) for number in range(2000)]
        done: Deferred[bytes] = Deferred()

        class Sender(Protocol):
            def connectionMade(self) -> None:
                for number, piece in enumerate(pieces):
                    if number % 3:
                        write_now(self.transport, piece)
                    else:
                        assert self.transport is not None
                        self.transport.write(piece)
                assert self.transport is not None
                self.transport.loseConnection()

        class Reader(Protocol):
            data = b""

            def dataReceived(self, data: bytes) -> None:
                self.data += data
                transport: Any = self.transport
                transport.pauseProducing()
                clock: Any = reactor
                clock.callLater(0, transport.resumeProducing)

            def connectionLost(self, reason: Any = None) -> None:
                done.callback(self.data)

        net: Any = reactor
        port = net.listenTCP(0, Factory.forProtocol(Sender), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        factory = Factory.forProtocol(Reader)
        factory.noisy = False

        def connect() -> None:
            from twisted.internet.endpoints import TCP4ClientEndpoint

            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(factory)

        connect()
        return done.addCallback(lambda data: self.assertEqual(data, b"".join(pieces)))  # type: ignore[return-value]
