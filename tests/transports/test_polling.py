"""Tests of rtpush.transports.polling."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rtpush.transports.polling import Polling, polling_of


@implementer(IReactorFDSet)
class _Reactor(Clock):
    """A reactor that keeps what it should watch, and watches nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        raise AssertionError(f"{writer} is to be written to")

    def removeWriter(self, writer: Any) -> None:
        raise AssertionError(f"{writer} is not to be written to")

    def removeAll(self) -> list[Any]:
        return []

    def getReaders(self) -> list[Any]:
        return self.readers

    def getWriters(self) -> list[Any]:
        return []


class _End:
    """
    One end of a connection.

    :ivar reading: What it does when it can read; it returns what the reactor is to hear.
    """

    events = 0

    def __init__(self, mine: socket.socket, log: list[Any], name: str) -> None:
        self.socket = mine
        self.name = name
        self.log = log
        self.reading: Callable[[], Any] = self._receive
        self.writing: Callable[[], Any] = lambda: None

    def _receive(self) -> None:
        self.log.append((self.name, self.socket.recv(100)))

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> Any:
        return self.reading()

    def doWrite(self) -> Any:
        self.log.append((self.name, "writable"))
        return self.writing()

    def readConnectionLost(self, reason: Failure) -> None:
        self.log.append((self.name, "read", reason.type))

    def connectionLost(self, reason: Failure) -> None:
        self.log.append((self.name, "lost", reason.type))


class PollingTests(SynchronousTestCase):
    """Connections within one descriptor of the reactor."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.polling = Polling(self.reactor)
        self.log: list[Any] = []

    def end(self, name: str = "a") -> tuple[_End, socket.socket]:
        """Return an end that is watched for reading, and the other side of it."""
        mine, other = socket.socketpair()
        mine.setblocking(False)
        self.addCleanup(mine.close)
        self.addCleanup(other.close)
        end = _End(mine, self.log, name)
        self.polling.addReader(end)
        return end, other

    def turn(self) -> None:
        """Do what the reactor does when the set has something, and only then."""
        if select.select([self.polling], [], [], 0)[0]:
            self.polling.doRead()

    def test_reads(self) -> None:
        """Those that have something are told, and no others."""
        (_, a), (_, b), (_, c) = self.end("a"), self.end("b"), self.end("c")
        a.send(b"1")
        c.send(b"2")
        self.turn()
        self.assertEqual(sorted(self.log), [("a", b"1"), ("c", b"2")])
        self.turn()
        b.send(b"3")
        self.turn()
        self.assertEqual(self.log[2:], [("b", b"3")])

    def test_stops(self) -> None:
        """Who reads no more is not told, until it reads again."""
        end, other = self.end()
        self.polling.removeReader(end)
        self.polling.removeReader(end)
        other.send(b"1")
        self.turn()
        self.assertEqual((self.log, end.events), ([], 0))
        self.polling.addReader(end)
        self.polling.addReader(end)
        self.turn()
        self.assertEqual(self.log, [("a", b"1")])

    def test_writes(self) -> None:
        """Who waits to write is told when it can, beside what it reads."""
        end, other = self.end()
        self.polling.addWriter(end)
        other.send(b"1")
        self.turn()
        self.assertEqual(self.log, [("a", b"1"), ("a", "writable")])
        self.polling.removeWriter(end)
        self.turn()
        self.assertEqual(len(self.log), 2)

    def test_in_the_reactor_while_there_is_something(self) -> None:
        """The reactor watches the set as long as it has a connection."""
        self.assertEqual(self.reactor.readers, [])
        (a, _), (b, _) = self.end(), self.end()
        self.assertEqual(self.reactor.readers, [self.polling])
        self.polling.removeReader(a)
        self.assertEqual(self.reactor.readers, [self.polling])
        self.polling.addWriter(b)
        self.polling.removeReader(b)
        self.assertEqual(self.reactor.readers, [self.polling])
        self.polling.removeWriter(b)
        self.assertEqual(self.reactor.readers, [])

    def test_removed_by_others(self) -> None:
        """When others have removed all that the reactor watches, the set is there again with the next connection."""
        self.end()
        self.reactor.readers.clear()
        self.end()
        self.assertEqual(self.reactor.readers, [self.polling])

    def test_ends(self) -> None:
        """What reading and writing return ends a connection, as the reactor would end it."""
        cases: list[tuple[Any, Any, Any]] = [
            (CONNECTION_DONE, None, ("a", "read", ConnectionDone)),
            (CONNECTION_LOST, None, ("a", "lost", ConnectionLost)),
            (None, CONNECTION_DONE, ("a", "lost", ConnectionDone)),
        ]
        for read, write, told in cases:
            self.log.clear()
            end, other = self.end()
            end.reading, end.writing = (lambda read=read: read), (lambda write=write: write)
            self.polling.addWriter(end)
            other.send(b"1")
            self.turn()
            self.assertEqual(self.log[-1], told)
            self.assertFalse(end.events & select.EPOLLIN)
            self.polling.removeWriter(end)

    def test_broken(self) -> None:
        """A connection that neither reads nor writes hears when it is broken."""
        end, other = self.end()
        other.close()
        self.polling.removeReader(end)
        self.polling.addWriter(end)
        end.writing = lambda: CONNECTION_LOST
        self.turn()
        self.assertEqual(self.log[-1], ("a", "lost", ConnectionLost))

    def test_one_fails(self) -> None:
        """A fault ends the connection that has it: it is logged, and the others are served."""
        (bad, a), (_, b) = self.end("bad"), self.end("good")

        def fail() -> None:
            raise ZeroDivisionError

        bad.reading = fail
        a.send(b"1")
        b.send(b"2")
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(sorted(self.log), [("bad", "lost", ZeroDivisionError), ("good", b"2")])

    def test_gone_meanwhile(self) -> None:
        """Who is no longer watched because of another one's event is not told."""
        (first, a), (second, b) = self.end("1"), self.end("2")

        def both_end() -> None:
            self.polling.removeReader(first)
            self.polling.removeReader(second)

        first.reading = second.reading = both_end
        a.send(b"x")
        b.send(b"x")
        self.polling.doRead()
        self.turn()
        self.assertEqual(self.log, [])

    def test_look(self) -> None:
        """What is there is read at once; what ends a connection ends it."""
        end, other = self.end()
        other.send(b"1")
        self.polling.look(end)
        self.assertEqual(self.log, [("a", b"1")])
        end.reading = lambda: CONNECTION_DONE
        self.polling.look(end)
        self.assertEqual(self.log[1:], [("a", "read", ConnectionDone)])

    def test_soon(self) -> None:
        """What is to be done soon is done once, after all that can be read was read; outside of that, in a turn."""
        (first, a), (_, b) = self.end("1"), self.end("2")

        def flush() -> None:
            self.log.append("flush")

        def read() -> None:
            first.socket.recv(100)
            self.polling.soon(flush)

        first.reading = read
        a.send(b"x")
        b.send(b"y")
        self.turn()
        self.assertEqual(self.log, [("2", b"y"), "flush"])
        self.polling.soon(flush)
        self.assertEqual(len(self.log), 2)
        self.reactor.advance(0)
        self.assertEqual(self.log[2:], ["flush"])

    def test_soon_fails(self) -> None:
        """A fault there is logged, and the next one called."""
        end, other = self.end()
        calls = [lambda: 1 // 0, lambda: self.log.append("next")]

        def read() -> None:
            end.socket.recv(100)
            for call in calls:
                self.polling.soon(call)

        end.reading = read
        other.send(b"x")
        self.turn()
        self.assertEqual(self.log, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_reactor_ends(self) -> None:
        """Then all connections do."""
        self.end("a")
        self.end("b")
        self.polling.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.log, [("a", "lost", ConnectionLost), ("b", "lost", ConnectionLost)])

    def test_one_for_a_reactor(self) -> None:
        """Whoever asks for the same reactor gets the same; what watches no descriptors gets none."""
        polling = polling_of(self.reactor)
        self.assertIs(polling_of(self.reactor), polling)
        self.assertIsNot(polling_of(_Reactor()), polling)
        clock = Clock()
        self.assertIs(polling_of(clock), clock)
