"""Tests of rtpush.transports.tcp."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    ILoggingContext,
    IPushProducer,
    IReadWriteDescriptor,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rtpush.service.sockets import listen
from rtpush.transports import tcp
from rtpush.transports.polling import Polling
from rtpush.transports.tcp import Stream

#: What makes a close a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


class _Recorder(Protocol):
    """
    Writes down what it is told.

    :ivar on_data: What it does the next time when something comes.
    """

    transport: Any

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.received = b""
        self.on_data: Callable[[Any], object] | None = None

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        if not self.received:
            self.events.append("data")
        self.received += data
        act, self.on_data = self.on_data, None
        if act is not None:
            act(self.transport)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.events.append(type(reason.value))


@implementer(IHalfCloseableProtocol)
class _HalvesRecorder(_Recorder):
    """The same, for which the two halves of a connection end each for itself."""

    on_end: Callable[[], object] | None = None

    def readConnectionLost(self) -> None:
        self.events.append("no more to read")
        self._end()

    def writeConnectionLost(self) -> None:
        self.events.append("no more to write")
        self._end()

    def _end(self) -> None:
        if self.on_end is not None:
            self.on_end()


class _Reactor(Clock):
    """Knows who reads and who writes."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard


class _Descriptors(Clock):
    """A reactor that watches nothing: the test looks."""

    def addReader(self, reader: object) -> None:
        """Do nothing."""

    def removeReader(self, reader: object) -> None:
        """Do nothing."""


class _Producer:
    """
    Writes down what it is told.

    :ivar on_resume: What it does when it is to go on.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.on_resume: Callable[[], object] | None = None

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")
        if self.on_resume is not None:
            self.on_resume()

    def stopProducing(self) -> None:
        self.events.append("stop")


class _StreamTestCase(SynchronousTestCase):
    """A stream on one end of a pair of sockets, whose reactor turns when the test says so."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.protocol = _Recorder()
        self.stream, self.peer = self._pair(self.protocol)

    def _pair(self, protocol: _Recorder, *, buffer: int = 0) -> tuple[Stream, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        for each in (ours, theirs):
            each.setblocking(False)
        if buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        stream = Stream(self.reactor, ours.detach(), socket.AF_UNIX, protocol)
        self.addCleanup(stream.connectionLost, Failure(ConnectionDone()))
        stream.resumeProducing()
        protocol.makeConnection(stream)
        return stream, theirs

    def _fill(self) -> bytes:
        """Write until something waits, and return what was written."""
        written = b""
        while self.stream not in self.reactor.writers:
            piece = os.urandom(50_000)
            self.stream.write(piece)
            written += piece
        return written

    def _drain(self, stream: Stream | None = None, peer: socket.socket | None = None) -> bytes:
        """Read all that comes, while the stream is told each time that it can write."""
        stream, peer = stream or self.stream, peer or self.peer
        read = b""
        while True:
            try:
                data = peer.recv(1 << 20)
            except BlockingIOError:
                if stream not in self.reactor.writers:
                    return read
                self._turn(stream)
            else:
                read += data
                if not data:
                    return read

    def _turn(self, stream: Stream | None = None) -> None:
        """Let the stream write, as the reactor does."""
        stream = stream or self.stream
        self.assertIn(stream, self.reactor.writers)
        problem = stream.doWrite()
        if problem is not None:
            self.reactor.readers.discard(stream)
            self.reactor.writers.discard(stream)
            stream.connectionLost(Failure(problem))


class StreamTests(_StreamTestCase):
    """What it does."""

    def test_interfaces(self) -> None:
        """It is what protocols and reactors expect, and is small."""
        for interface in (
            ITCPTransport,
            IConsumer,
            IPushProducer,
            IReadWriteDescriptor,
            IHalfCloseableDescriptor,
            ILoggingContext,
        ):
            self.assertTrue(verifyObject(interface, self.stream))
        self.assertFalse(hasattr(self.stream, "__dict__"))
        self.assertLess(sys.getsizeof(self.stream), 200)
        self.assertEqual(self.stream.logPrefix(), "_Recorder")
        self.assertIn("_Recorder", repr(self.stream))

    def test_at_once(self) -> None:
        """What is written is there at once, and the reactor has nothing to do with it."""
        self.stream.write(b"ab")
        self.stream.writeSequence([b"c", b"", b"d"])
        self.stream.write(b"")
        self.assertEqual(self.peer.recv(9), b"abcd")
        self.assertEqual(self.reactor.writers, set())

    def test_not_bytes(self) -> None:
        """Text is a mistake of the caller, whether something waits or not."""
        text: Any = "text"
        self.assertRaises(TypeError, self.stream.write, text)
        self.assertRaises(TypeError, self.stream.writeSequence, [text])
        written = self._fill()
        self.assertRaises(TypeError, self.stream.write, text)
        self.assertEqual(self._drain(), written)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30_000)), max_size=40))
    def test_order(self, steps: list[tuple[int, int]]) -> None:
        """Whatever the kernel takes of each write, all arrives in order; and then nothing is kept."""
        stream, peer = self._pair(_Recorder(), buffer=4096)
        written, read = b"", b""
        for kind, size in steps:
            if kind < 5:
                data = random.randbytes(size)
                written += data
                stream.write(data)
            elif kind < 7:
                pieces = [random.randbytes(size // 50) for _ in range(60)]
                written += b"".join(pieces)
                stream.writeSequence(pieces)
            elif kind == 7:
                for number in range(size // 10):
                    stream.write(b"%d" % number)
                    written += b"%d" % number
            elif kind == 8 and stream in self.reactor.writers:
                stream.doWrite()
            else:
                try:
                    read += peer.recv(size + 1)
                except BlockingIOError:
                    pass
        read += self._drain(stream, peer)
        self.assertEqual(read, written)
        self.assertEqual(self.reactor.writers - {self.stream}, set())
        stream.connectionLost(Failure(ConnectionDone()))
        peer.close()

    def test_many_pieces(self) -> None:
        """More pieces may wait than one system call takes."""
        written = self._fill()
        for number in range(10_000):
            self.stream.write(b"%d," % number)
            written += b"%d," % number
        self.assertEqual(self._drain(), written)

    def test_shared_pieces(self) -> None:
        """What waits is not copied: one message that waits on many connections is there once."""
        self._fill()
        piece = os.urandom(1000)
        before = sys.getrefcount(piece)
        self.stream.write(piece)
        self.assertEqual(sys.getrefcount(piece), before + 1)

    def test_read(self) -> None:
        """What comes is told, unless it is to pause."""
        self.peer.send(b"abc")
        self.stream.doRead()
        self.stream.doRead()
        self.stream.pauseProducing()
        self.assertEqual(self.reactor.readers, set())
        self.stream.resumeProducing()
        self.assertEqual(self.reactor.readers, {self.stream})
        self.assertEqual(self.protocol.received, b"abc")

    def test_protocol_may_change(self) -> None:
        """Another protocol takes over."""
        other = _Recorder()
        self.stream.protocol = other
        self.peer.send(b"abc")
        self.stream.doRead()
        self.stream.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((other.events, self.protocol.events), (["data", ConnectionDone], ["made"]))

    def test_lose(self) -> None:
        """It ends when all is written, not before, and not while it is told to."""
        written = self._fill()
        self.stream.loseConnection()
        self.stream.loseConnection()
        self.stream.resumeProducing()
        self.assertEqual((self.stream.disconnecting, self.reactor.readers), (True, set()))
        self._turn()
        self.assertEqual(self.protocol.events, ["made"])
        # As for Twisted: what is written until then is written.
        self.stream.write(b"late")
        self.assertEqual(self._drain(), written + b"late")
        self.assertEqual(self.protocol.events, ["made", ConnectionDone])
        self.assertEqual(self.peer.recv(1), b"")

    def test_stop_producing(self) -> None:
        """To stop producing is to lose the connection."""
        self.stream.stopProducing()
        self._turn()
        self.assertEqual(self.protocol.events, ["made", ConnectionDone])

    def test_abort(self) -> None:
        """What waits is dropped; the protocol is told in the next turn, once, and nothing is read or written until."""
        self._fill()
        self.peer.send(b"unread")
        for _ in range(2):
            self.stream.abortConnection()
        self.stream.loseConnection()
        self.stream.loseWriteConnection()
        self.stream.write(b"abc")
        self.stream.resumeProducing()
        self.stream.unregisterProducer()
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))
        # One reactor may have seen both before.
        self.assertIs(self.stream.doRead(), None)
        self.assertIs(self.stream.doWrite(), None)
        self.assertEqual(self.protocol.events, ["made"])
        self.reactor.advance(0)
        self.assertEqual(self.protocol.events, ["made", ConnectionAborted])
        self.assertEqual(self.protocol.received, b"")

    def test_abort_while_it_ends(self) -> None:
        """So it can while it waits for the rest to be written."""
        self._fill()
        self.stream.loseConnection()
        self.stream.abortConnection()
        self.reactor.advance(0)
        self.assertEqual(self.protocol.events, ["made", ConnectionAborted])

    def test_lost(self) -> None:
        """Afterwards nothing is kept, and nothing does anything."""
        self._fill()
        self.stream.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((self.stream.connected, self.stream.fileno(), self.stream.protocol), (False, -1, None))
        self.stream.write(b"abc")
        self.stream.loseConnection()
        self.stream.loseWriteConnection()
        self.stream.abortConnection()
        self.stream.pauseProducing()
        self.stream.resumeProducing()
        self.stream.unregisterProducer()
        self.stream.setTcpKeepAlive(True)
        self.stream.writeConnectionLost(Failure(ConnectionLost()))
        self.assertFalse(self.stream.getTcpKeepAlive())
        self.assertEqual((self.reactor.readers, self.reactor.writers, self.reactor.calls), (set(), set(), []))
        self.assertEqual(self.protocol.events, ["made", ConnectionLost])

    def test_error_of_a_write(self) -> None:
        """It is told by the next event of the reactor, and as what it is, even if the system tells it but once."""
        real = os.write

        def reset(fd: int, data: bytes) -> int:
            # The others of this process are left alone.
            if fd != self.stream.fileno():
                return real(fd, data)
            self.patch(tcp, "_write", real)
            raise ConnectionResetError(errno.ECONNRESET, "")

        self.patch(tcp, "_write", reset)
        self.stream.write(b"abc")
        self.stream.write(b"def")
        self.peer.close()
        self.assertEqual(self.protocol.events, ["made"])
        self.assertEqual(self.reactor.writers, {self.stream})
        self.assertIsInstance(self.stream.doRead(), ConnectionLost)
        self.assertIsInstance(self.stream.doWrite(), ConnectionLost)

    def test_write_to_who_has_closed(self) -> None:
        """Who has closed has closed, whatever is written before that is read."""
        self.peer.close()
        self.stream.write(b"abc")
        self.assertEqual(self.protocol.events, ["made"])
        self.assertIsInstance(self.stream.doRead(), ConnectionDone)

    def test_no_memory(self) -> None:
        """When the system has no memory for more, that waits like the rest."""
        for name in ("write", "writev"):
            real = getattr(os, name)

            def none(fd: int, data: Any, name: str = name, real: Any = real) -> int:
                if fd != self.stream.fileno():
                    return int(real(fd, data))
                self.patch(os, name, real)
                raise OSError(errno.ENOBUFS, "")

            self.patch(os, name, none)
        self.stream.write(b"abc")
        self.stream.write(b"def")
        self.assertIs(self.stream.doWrite(), None)
        self.assertEqual(self._drain(), b"abcdef")
        self.peer.close()
        self.assertIsInstance(self.stream.doRead(), ConnectionDone)

    def test_mistakes_of_producers(self) -> None:
        """One that cannot be stopped does not keep the connection from ending."""
        producer: Any = _Producer()
        producer.stopProducing = lambda: 1 / 0
        self.stream.registerProducer(producer, True)
        self.assertRaises(ZeroDivisionError, self.stream.connectionLost, Failure(ConnectionDone()))
        self.assertEqual(self.protocol.events, ["made", ConnectionDone])
        self.assertEqual(self.peer.recv(1), b"")


class _Gathering(Polling):
    """A set whose turn goes on until the test ends it."""

    def begin(self) -> None:
        self._is_gathering = True

    end = Polling._finish


class GatheringTests(SynchronousTestCase):
    """What is written with others, at the end of a turn."""

    def setUp(self) -> None:
        self.polling = _Gathering(_Descriptors())
        self.protocol = _Recorder()
        self.stream, self.peer = self._pair()
        self.polling.begin()

    def _pair(self, buffer: int = 0) -> tuple[Stream, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        theirs.setblocking(False)
        if buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        stream = Stream(self.polling, ours.detach(), socket.AF_UNIX, self.protocol)
        self.addCleanup(stream.connectionLost, Failure(ConnectionDone()))
        self.protocol.makeConnection(stream)
        return stream, theirs

    def _came(self, peer: socket.socket | None = None, most: int = 1 << 20) -> bytes:
        """Read what has come, if there is something."""
        try:
            return (peer or self.peer).recv(most)
        except BlockingIOError:
            return b""

    def test_at_the_end(self) -> None:
        """It goes out at the end of the turn, with what was written after it, in one piece and in order."""
        self.stream.write_soon(b"a")
        self.stream.write(b"b")
        self.stream.write_soon(b"c")
        self.assertEqual(self._came(), b"")
        self.polling.end()
        self.assertEqual(self._came(), b"abc")
        self.stream.write_soon(b"outside of a turn")
        self.assertEqual(self._came(), b"outside of a turn")

    def test_large(self) -> None:
        """What is large is not kept, but goes out at once, behind what is."""
        large = os.urandom(20_000)
        self.stream.write_soon(large)
        self.assertEqual(self._came(), large)
        self.stream.write_soon(b"small")
        self.stream.write_soon(large)
        self.assertEqual(self._came(), b"")
        self.polling.end()
        self.assertEqual(self._came(), b"small" + large)

    def test_without_a_set(self) -> None:
        """Where the reactor watches connections itself, it is an ordinary write."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        stream = Stream(_Reactor(), ours.detach(), socket.AF_UNIX, _Recorder())
        self.addCleanup(stream.connectionLost, Failure(ConnectionDone()))
        stream.write_soon(b"a")
        self.assertEqual(theirs.recv(9), b"a")

    def test_ends(self) -> None:
        """A connection that is to end does so when that is written; one that is aborted drops it."""
        self.stream.write_soon(b"bye")
        self.stream.loseConnection()
        self.polling.end()
        self.polling.doRead()
        self.assertEqual((self._came(), self.protocol.events), (b"bye", ["made", ConnectionDone]))
        stream, peer = self._pair()
        self.polling.begin()
        stream.write_soon(b"bye")
        stream.abortConnection()
        self.polling.end()
        self.assertEqual(self._came(peer), b"")

    def test_much(self) -> None:
        """What has become too much to be kept goes out at once: a producer pauses only if the kernel takes no more."""
        producer = _Producer()
        self.stream.registerProducer(producer, True)
        self.stream.write_soon(b"a")
        self.stream.write(bytes(65535))
        self.assertEqual(self._came(), b"")
        self.stream.write(b"b")
        self.assertEqual((len(self._came()), producer.events), (65537, []))
        self.stream.write_soon(b"c")
        self.assertEqual(self._came(), b"")
        self.polling.end()
        self.assertEqual(self._came(), b"c")

    def test_producer(self) -> None:
        """A producer that was told to pause, since the kernel did not take what was kept, goes on when it has."""
        stream, peer = self._pair(4096)
        producer = _Producer()
        stream.registerProducer(producer, True)
        self.polling.begin()
        stream.write_soon(b"a")
        stream.write(bytes(100_000))
        self.assertEqual(producer.events, ["pause"])
        stream.write_soon(b"b")
        self.polling.end()
        self.polling.doRead()
        read = b""
        while len(read) < 100_002:
            read += self._came(peer)
            self.polling.doRead()
        self.assertEqual(read, b"a" + bytes(100_000) + b"b")
        self.assertEqual((producer.events.count("resume"), producer.events[-1]), (1, "resume"))

    def test_ended_by_another(self) -> None:
        """What was read before another connection's turn is dropped if that has ended the one that it came on."""
        for end in (
            Stream.loseConnection,
            Stream.abortConnection,
            lambda stream: stream.connectionLost(Failure(ConnectionDone())),
        ):
            pairs = [self._pair() for _ in range(2)]
            recorders = [_Recorder(), _Recorder()]
            for (stream, peer), recorder in zip(pairs, recorders, strict=True):
                stream.protocol = recorder
                stream.resumeProducing()
                peer.send(b"x")
            for number in (0, 1):
                other = pairs[1 - number][0]
                recorders[number].on_data = lambda _, other=other, end=end: (other.write_soon(b"y"), end(other))
            self.polling.doRead()
            self.assertEqual(sorted(recorder.received for recorder in recorders), [b"", b"x"])
            self.polling.doRead()
            dropped = recorders[0].received == b"x"
            self.assertEqual(self._came(pairs[dropped][1]), b"y" if end is Stream.loseConnection else b"")
            for stream, peer in pairs:
                stream.connectionLost(Failure(ConnectionDone()))
                peer.close()

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30_000)), max_size=40))
    def test_order(self, steps: list[tuple[int, int]]) -> None:
        """However it is written, and whatever the kernel takes each time, all arrives in order."""
        stream, peer = self._pair(4096)
        written, read = b"", b""
        for kind, size in steps:
            if kind < 7:
                data = random.randbytes(size)
                written += data
                (stream.write_soon if kind < 4 else stream.write)(data)
            elif kind == 7:
                self.polling.begin()
            elif kind == 8:
                self.polling.end()
                self.polling.doRead()
            else:
                read += self._came(peer, size + 1)
        self.polling.end()
        while len(read) < len(written):
            read += self._came(peer)
            self.polling.doRead()
        self.assertEqual(read, written)
        stream.connectionLost(Failure(ConnectionDone()))
        peer.close()


class ProducerTests(_StreamTestCase):
    """Who writes much."""

    def setUp(self) -> None:
        super().setUp()
        self.producer: Any = _Producer()

    def test_push(self) -> None:
        """It is told to pause while more than 64 KiB wait, and to go on when nothing does."""
        self.stream.registerProducer(self.producer, True)
        self._fill()
        self.peer.recv(1 << 20)
        while self.stream in self.reactor.writers:
            self._turn()
            self.peer.recv(1 << 20)
        self.assertEqual(self.producer.events, [])
        self._fill()
        self.stream.write(bytes(65_000))
        paused = self.producer.events
        self.assertEqual(set(paused), {"pause"})
        self._turn()
        self.assertEqual(set(paused), {"pause"})
        self._drain()
        self.assertEqual(paused[-1], "resume")
        self.assertEqual(paused.count("resume"), 1)
        # That was once: it is not asked for a rest that it does not have.
        self.stream.loseConnection()
        self._turn()
        self.assertEqual(self.protocol.events, ["made", ConnectionDone])

    def test_exactly_full(self) -> None:
        """64 KiB that wait are not too much; a byte more is."""
        self.patch(tcp, "_write", self._take_nothing)
        self.stream.registerProducer(self.producer, True)
        self.stream.write(bytes(65_535))
        self.stream.write(b"x")
        self.assertEqual(self.producer.events, [])
        self.stream.write(b"x")
        self.assertEqual(self.producer.events, ["pause"])

    def _take_nothing(self, fd: int, data: bytes) -> int:
        raise BlockingIOError(errno.EAGAIN, "")

    def test_lose_with_a_paused_producer(self) -> None:
        """One that was told to pause writes the rest before the connection ends."""
        self.stream.registerProducer(self.producer, True)
        written = self._fill() + bytes(70_000)
        self.stream.write(bytes(70_000))
        self.stream.loseConnection()

        def rest() -> None:
            self.stream.write(b"the rest")
            self.stream.unregisterProducer()

        self.producer.on_resume = rest
        self.assertEqual(self._drain(), written + b"the rest")
        self.assertEqual(self.protocol.events, ["made", ConnectionDone])

    def test_pull(self) -> None:
        """It is asked again when what it wrote is written, in another turn, until it is done."""
        pieces = [b"%d," % number for number in range(2000)]
        expected = b"".join(pieces)
        depth = [0]

        def write() -> None:
            depth[0] += 1
            self.assertEqual(depth, [1])
            if pieces:
                self.stream.write(pieces.pop(0))
            else:
                self.stream.unregisterProducer()
            depth[0] -= 1

        self.producer.on_resume = write
        self.stream.registerProducer(self.producer, False)
        self.assertEqual(self._drain(), expected)
        self.assertEqual(set(self.producer.events), {"resume"})
        self.stream.write(b"by somebody else")
        self.assertEqual(self.reactor.writers, set())

    def test_two(self) -> None:
        """There is one producer at a time."""
        self.stream.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.stream.registerProducer, _Producer(), True)
        self.stream.unregisterProducer()
        self.stream.registerProducer(self.producer, True)

    def test_lost(self) -> None:
        """Each is stopped when the connection is lost, and one that comes later at once."""
        self.stream.registerProducer(self.producer, True)
        self.stream.connectionLost(Failure(ConnectionLost()))
        late: Any = _Producer()
        self.stream.registerProducer(late, False)
        self.assertEqual((self.producer.events, late.events), (["stop"], ["stop"]))


class HalvesTests(_StreamTestCase):
    """Connections of which one half ends before the other."""

    def test_end_writing(self) -> None:
        """The other side reads the end when all is written; what it says is still read; nothing more is written."""
        written = self._fill()
        self.stream.loseWriteConnection()
        self.stream.write(b"more")
        self.assertEqual(self._drain(), written + b"more")
        self.stream.write(b"dropped")
        self.peer.send(b"abc")
        self.stream.doRead()
        self.assertEqual(self.peer.recv(1), b"")
        self.assertEqual(self.protocol.received, b"abc")
        self.assertEqual(self.protocol.events, ["made", "data"])
        # There is nothing to wait for.
        self.stream.loseConnection()
        self.assertEqual(self.protocol.events, ["made", "data", ConnectionDone])

    def test_both(self) -> None:
        """A protocol that knows of halves is told of each; it may end the connection when it is."""
        protocol = _HalvesRecorder()
        stream, peer = self._pair(protocol)
        peer.shutdown(socket.SHUT_WR)
        self.assertIsInstance(stream.doRead(), ConnectionDone)
        stream.readConnectionLost(Failure(ConnectionDone()))
        protocol.on_end = stream.loseConnection
        stream.loseWriteConnection()
        self._turn(stream)
        self.assertEqual(protocol.events, ["made", "no more to read", "no more to write", ConnectionDone])
        self.assertEqual(peer.recv(1), b"")

    def test_not_told(self) -> None:
        """For one that does not, the end of reading is the end."""
        self.stream.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.protocol.events, ["made", ConnectionDone])

    def test_mistakes(self) -> None:
        """What a protocol raises then is logged, and ends its connection."""
        for act in (
            lambda stream: stream.readConnectionLost(Failure(ConnectionDone())),
            lambda stream: stream.loseWriteConnection(),
        ):
            protocol = _HalvesRecorder()
            stream, _peer = self._pair(protocol)
            protocol.on_end = lambda: 1 / 0
            act(stream)
            if stream in self.reactor.writers:
                self._turn(stream)
            self.assertEqual(protocol.events[-1], ZeroDivisionError)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_gone(self) -> None:
        """Who is gone altogether need not be told of the end."""
        protocol = _HalvesRecorder()
        stream, peer = self._pair(protocol)
        peer.close()
        stream.loseWriteConnection()
        self._turn(stream)
        self.assertIsInstance(stream.doRead(), ConnectionDone)


class SocketTests(SynchronousTestCase):
    """What is asked of the socket itself."""

    def _connected(self, address: tuple[str, int], family: socket.AddressFamily) -> tuple[Stream, socket.socket]:
        with socket.create_server(address, family=family) as listening:
            client = socket.create_connection(listening.getsockname()[:2])
            accepted = listening.accept()[0]
        self.addCleanup(client.close)
        stream = Stream(_Reactor(), accepted.detach(), family, _Recorder())
        self.addCleanup(stream.connectionLost, Failure(ConnectionDone()))
        return stream, client

    def test_addresses(self) -> None:
        """They are those of the socket."""
        stream, client = self._connected(("127.0.0.1", 0), socket.AF_INET)
        self.assertEqual(stream.getPeer(), IPv4Address("TCP", *client.getsockname()))
        self.assertEqual(stream.getHost(), IPv4Address("TCP", *client.getpeername()))

    def test_addresses_6(self) -> None:
        """The same for IPv6."""
        try:
            stream, client = self._connected(("::1", 0), socket.AF_INET6)
        except OSError as error:
            raise self.skipTest("there is no IPv6") from error
        self.assertEqual(stream.getPeer(), IPv6Address("TCP", *client.getsockname()))
        self.assertEqual(stream.getHost(), IPv6Address("TCP", *client.getpeername()))

    def test_addresses_of_a_unix_socket(self) -> None:
        """The same for Unix sockets: clients have none."""
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as client:
            path = f"{directory}/sock"
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path)
                listening.listen()
                client.connect(path)
                accepted = listening.accept()[0]
            stream = Stream(_Reactor(), accepted.detach(), socket.AF_UNIX, _Recorder())
            self.assertEqual((stream.getPeer(), stream.getHost()), (UNIXAddress(None), UNIXAddress(path)))
            stream.setTcpNoDelay(True)
            self.assertFalse(stream.getTcpNoDelay())
            stream.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(stream.getPeer(), UNIXAddress(None))

    def test_address_after_a_reset(self) -> None:
        """When the system has forgotten it, there is still an answer."""
        stream, client = self._connected(("127.0.0.1", 0), socket.AF_INET)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        client.close()
        self.assertEqual(stream.getPeer(), IPv4Address("TCP", "0.0.0.0", 0))
        self.assertEqual(stream.getHost().host, "127.0.0.1")
        stream.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(stream.getHost(), IPv4Address("TCP", "0.0.0.0", 0))

    def test_options(self) -> None:
        """They can be set and read."""
        stream, _client = self._connected(("127.0.0.1", 0), socket.AF_INET)
        for value in (True, False):
            stream.setTcpNoDelay(value)
            stream.setTcpKeepAlive(value)
            self.assertEqual((stream.getTcpNoDelay(), stream.getTcpKeepAlive()), (value, value))

    def test_resets(self) -> None:
        """Who is cut off gets a reset; who is left in order reads an end, even if it has sent what nobody read."""
        stream, client = self._connected(("127.0.0.1", 0), socket.AF_INET)
        client.send(b"unread")
        stream.write(b"bye")
        stream.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((client.recv(9), client.recv(9)), (b"bye", b""))
        stream, client = self._connected(("127.0.0.1", 0), socket.AF_INET)
        stream.connectionLost(Failure(ConnectionAborted()))
        self.assertRaises(ConnectionResetError, client.recv, 9)


class _Feeder:
    """A producer of some pieces, which unregisters itself at the end."""

    def __init__(self, transport: Any, pieces: list[bytes], *, streaming: bool) -> None:
        self._transport = transport
        self._pieces = pieces
        self._streaming = streaming
        self._is_paused = streaming
        transport.registerProducer(self, streaming)
        if streaming:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        self._is_paused = not self._streaming
        self._next()
        while not self._is_paused:
            self._next()

    def pauseProducing(self) -> None:
        self._is_paused = True

    def stopProducing(self) -> None:
        self._pieces.clear()

    def _next(self) -> None:
        if self._pieces:
            self._transport.write(self._pieces.pop(0))
        else:
            self._is_paused = True
            self._transport.unregisterProducer()


Step = tuple[str, Any]


def _script(chance: random.Random, *, halves: bool) -> Iterator[Step]:
    """Yield what the two sides of a connection do, by chance; the last step ends it."""
    reads, writes, sends, is_read = True, True, True, True
    for _ in range(chance.randrange(12)):
        size = chance.choice([1, 100, 5_000, 70_000, 400_000])
        step = chance.choice(
            ["write", "write", "pieces", "push", "pull", "pause", "resume", "send", "send", "tell", "stop", "go"]
            + ["half", "their half"] * halves
        )
        if step in {"write", "pieces", "push", "pull"} and writes:
            yield (
                step,
                [chance.randbytes(size)]
                if step == "write"
                else [chance.randbytes(chance.choice([0, 7, size // 9])) for _ in range(9)],
            )
            if step in {"push", "pull"} and not is_read:
                # What others write meanwhile goes between, and where is a matter of what the kernel takes.
                is_read = True
                yield "go", None
        elif step in {"pause", "resume"} and sends:
            reads = step == "resume"
            yield step, None
        elif step == "send" and sends and reads:
            yield step, chance.randbytes(size)
        elif step == "tell" and sends and reads and writes:
            yield step, chance.randbytes(chance.choice([10, 90_000]))
        elif step in {"stop", "go"}:
            is_read = step == "go"
            yield step, None
        elif step == "half" and writes and is_read:
            writes = False
            yield step, None
        elif step == "their half" and sends and reads:
            sends = False
            yield step, None
    if not reads:
        yield "resume", None
    if not is_read:
        yield "go", None
    ends = ["lose", "abort", "their close", "their reset"]
    if sends:
        ends += ["told to lose", "told to abort"] + ["their half"] * (not halves)
    else:
        # Nobody reads, so nobody would see it.
        ends = ["lose", "abort"]
    end = chance.choice(ends)
    yield end, None
    if halves and end in {"their close", "their reset"}:
        # A Unix socket has no resets.
        yield "abort", None


class _Play:
    """
    A script that is played on a real connection.

    :param protocol: The side that has the transport in question.
    :param peer: The other side's socket.
    """

    def __init__(self, protocol: _Recorder, peer: socket.socket) -> None:
        self.protocol = protocol
        self.read = b""
        self.written = b""
        self._peer = peer
        self._to_send = b""
        self._sent = 0
        self._is_reading = True
        self._peer_ended = False
        self._is_peer_open = True
        self._feeders: list[_Feeder] = []

    async def play(self, steps: list[Step]) -> None:
        """Do each step when all that the one before it leads to is done."""
        for step, argument in steps:
            self._do(step, argument)
            await self._settle()
        while not self._is_over():
            await self._turn()

    def _is_over(self) -> bool:
        return isinstance(self.protocol.events[-1], type) and (self._peer_ended or not self._is_peer_open)

    def _do(self, step: str, argument: Any) -> None:
        transport = self.protocol.transport
        match step:
            case "write":
                self.written += argument[0]
                transport.write(argument[0])
            case "pieces":
                self.written += b"".join(argument)
                transport.writeSequence(argument)
            case "push" | "pull":
                self.written += b"".join(argument)
                # One that writes nothing when it is asked for something is not asked again.
                pieces = [piece for piece in argument if piece]
                self._feeders.append(_Feeder(transport, pieces, streaming=step == "push"))
            case "pause":
                transport.pauseProducing()
            case "resume":
                transport.resumeProducing()
            case "send":
                self._to_send += argument
            case "tell":
                self.written += argument
                self._tell(lambda transport: transport.write(argument))
            case "stop":
                self._is_reading = False
            case "go":
                self._is_reading = True
            case "half":
                transport.loseWriteConnection()
            case "their half":
                self._peer.shutdown(socket.SHUT_WR)
            case "lose":
                transport.loseConnection()
            case "abort":
                transport.abortConnection()
            case "told to lose":
                self._tell(lambda transport: transport.loseConnection())
            case "told to abort":
                self._tell(lambda transport: transport.abortConnection())
            case "their close" | "their reset":
                if step == "their reset":
                    self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                self._peer.close()
                self._is_peer_open = False

    def _tell(self, act: Callable[[Any], object]) -> None:
        self.protocol.on_data = act
        self._to_send += b"!"

    async def _settle(self) -> None:
        quiet = 0
        while quiet < 3:
            before = self._state()
            await self._turn()
            arrived = self._is_over() or (
                self._sent == len(self._to_send)
                and (len(self.protocol.received) == self._sent or not self._is_peer_open)
                and (len(self.read) == len(self.written) or not self._is_reading or not self._is_peer_open)
            )
            quiet = quiet + 1 if arrived and before == self._state() else 0

    def _state(self) -> Any:
        return len(self.read), len(self.written), len(self.protocol.received), self._sent, list(self.protocol.events)

    async def _turn(self) -> None:
        if self._is_peer_open:
            self._peer_turn()
        await deferLater(reactor, 0)

    def _peer_turn(self) -> None:
        try:
            if self._sent < len(self._to_send):
                self._sent += self._peer.send(self._to_send[self._sent :])
            while self._is_reading and not self._peer_ended:
                data = self._peer.recv(1 << 20)
                self.read += data
                self._peer_ended = not data
        except BlockingIOError:
            pass
        except OSError as error:
            self._peer_ended = True
            # How it ended for the other side is a part of what is compared.
            self.protocol.events.append(error.errno)
            self.protocol.events.sort(key=lambda event: isinstance(event, type))


class SameTests(TestCase):
    """The same scripts on a connection of Twisted's and on one of ours."""

    timeout = 100

    async def _played(self, address: str, steps: list[Step], protocol: _Recorder, *, ours: bool, small: bool) -> _Play:
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        if ours:
            port: Any = listen(reactor, address, factory)
        else:
            port = await serverFromString(reactor, address).listen(factory)
        try:
            host = port.getHost()
            is_unix = isinstance(host, UNIXAddress)
            with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as peer:
                peer.connect(host.name if is_unix else (host.host, host.port))
                peer.setblocking(False)
                if not is_unix:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                while not protocol.events:
                    await deferLater(reactor, 0)
                self.assertIs(isinstance(protocol.transport, Stream), ours)
                protocol.transport.setTcpNoDelay(True)
                if small:
                    with socket.socket(fileno=os.dup(protocol.transport.fileno())) as socket_:
                        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
                play = _Play(protocol, peer)
                await play.play(steps)
        finally:
            await port.stopListening()
        return play

    async def _compare(self, address: str, seeds: range) -> None:
        for seed in seeds:
            chance = random.Random(seed)
            halves, small = chance.random() < 0.5, chance.random() < 0.5
            steps = list(_script(chance, halves=halves))
            recorder = _HalvesRecorder if halves else _Recorder
            theirs, ours = [
                await self._played(address, steps, recorder(), ours=which, small=small) for which in (False, True)
            ]
            about = f"seed {seed}: {[step for step, _ in steps]}, halves {halves}, small {small}"
            self.assertEqual(theirs.protocol.events, ours.protocol.events, about)
            self.assertEqual(theirs.protocol.received, ours.protocol.received, about)
            self.assertEqual(theirs.read, ours.read, about)
            self.assertEqual(ours.read, ours.written, about)

    async def test_tcp(self) -> None:
        """Over TCP, protocols are told the same, and the same bytes arrive."""
        await self._compare("tcp:0:interface=127.0.0.1", range(120))

    async def test_unix(self) -> None:
        """So over Unix sockets."""
        with tempfile.TemporaryDirectory() as directory:
            await self._compare(f"unix:{directory}/sock", range(1000, 1120))
