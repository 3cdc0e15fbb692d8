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

    :ivar reading: What it does when it can read; it returns what came, or why nothing more will.
    :ivar taking: What it does with what came.
    """

    events = 0

    def __init__(self, mine: socket.socket, log: list[Any], name: str) -> None:
        self.socket = mine
        self.name = name
        self.log = log
        self.reading: Callable[[], Any] = lambda: self.socket.recv(100)
        self.taking: Callable[[bytes], Any] = lambda data: self.log.append((self.name, data))
        self.writing: Callable[[], Any] = lambda: None

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> Any:
        return self.reading()

    def take(self, data: bytes) -> None:
        self.taking(data)

    def flush(self) -> None:
        self.log.append((self.name, "flushed"))

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

    def test_says_something_and_goes(self) -> None:
        """What a client has said counts, even if what waits for it meets that it is gone."""
        end, other = self.end()
        self.polling.addWriter(end)
        end.writing = lambda: CONNECTION_LOST
        other.send(b"1")
        self.turn()
        self.assertEqual(self.log, [("a", b"1"), ("a", "writable"), ("a", "lost", ConnectionLost)])

    def test_writes_no_more(self) -> None:
        """Who ended by what it has read is not told that it can write."""
        end, other = self.end()
        self.polling.addWriter(end)

        def stop(data: bytes) -> None:
            self.polling.removeReader(end)
            self.polling.removeWriter(end)

        end.taking = stop
        other.send(b"1")
        self.turn()
        self.assertEqual(self.log, [])

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

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        bad.taking = fail
        a.send(b"1")
        b.send(b"2")
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(sorted(self.log), [("bad", "lost", ZeroDivisionError), ("good", b"2")])

    def test_gone_meanwhile(self) -> None:
        """Who ended because of another one's event, in the part of the turn before, is not asked any more."""
        ends = [self.end(str(number)) for number in range(100)]

        def all_end(data: bytes) -> None:
            for end, _ in ends:
                self.polling.removeReader(end)

        for end, other in ends:
            end.taking = all_end
            end.reading = lambda end=end: self.log.append(end.name) or end.socket.recv(100)
            other.send(b"x")
        self.polling.doRead()
        self.turn()
        self.assertEqual(len(self.log), 64)

    def test_read_before_worked_on(self) -> None:
        """All that a part of a turn can read is read before any of it is worked on."""
        ends = [self.end(str(number)) for number in range(3)]
        for end, other in ends:
            end.reading = lambda end=end: self.log.append("read") or end.socket.recv(100)
            other.send(b"x")
        self.turn()
        self.assertEqual(self.log[:3], ["read"] * 3)
        self.assertEqual(sorted(self.log[3:]), [("0", b"x"), ("1", b"x"), ("2", b"x")])

    def test_look(self) -> None:
        """What is there is read at once; what ends a connection ends it."""
        end, other = self.end()
        other.send(b"1")
        self.polling.look([end])
        self.assertEqual(self.log, [("a", b"1")])
        end.reading = lambda: CONNECTION_DONE
        self.polling.look([end])
        self.assertEqual(self.log[1:], [("a", "read", ConnectionDone)])

    def test_soon(self) -> None:
        """What is to be done soon is done once, after all that can be read was read; outside of that, in a turn."""
        (first, a), (_, b) = self.end("1"), self.end("2")

        def flush() -> None:
            self.log.append("flush")

        first.taking = lambda data: self.polling.soon(flush)
        a.send(b"x")
        b.send(b"y")
        self.turn()
        self.assertEqual(self.log, [("2", b"y"), "flush"])
        self.polling.soon(flush)
        self.assertEqual(len(self.log), 2)
        self.reactor.advance(0)
        self.assertEqual(self.log[2:], ["flush"])

    def test_soon_from_there(self) -> None:
        """What is done at the end of a turn may ask for more, which another turn does."""
        end, other = self.end()
        end.taking = lambda data: self.polling.soon(lambda: self.polling.soon(lambda: self.log.append("later")))
        other.send(b"x")
        self.turn()
        self.assertEqual(self.log, [])
        self.reactor.advance(0)
        self.assertEqual(self.log, ["later"])

    def test_soon_after_looking(self) -> None:
        """It is done too if the turn is that of the connections that have just come."""
        end, other = self.end()
        end.taking = lambda data: self.polling.soon(lambda: self.log.append("done"))
        other.send(b"x")
        self.polling.look([end])
        self.assertEqual(self.log, ["done"])

    def test_gathers(self) -> None:
        """What is written in a turn waits for its end, behind all that is done there; else for nothing."""
        (first, a), (second, _) = self.end("1"), self.end("2")
        self.assertFalse(self.polling.gather(first))

        def take(data: bytes) -> None:
            self.assertTrue(self.polling.gather(first))
            self.polling.soon(lambda: self.log.append(self.polling.gather(second)))

        first.taking = take
        a.send(b"x")
        self.turn()
        self.assertEqual(self.log, [True, ("1", "flushed"), ("2", "flushed")])
        self.assertFalse(self.polling.gather(first))

    def test_gathers_some(self) -> None:
        """What waits is bounded: when very many have something, it goes out before the turn ends."""
        end, other = self.end()

        def take(data: bytes) -> None:
            for _ in range(300):
                self.polling.gather(end)
            self.log.append("still in the turn")

        end.taking = take
        other.send(b"x")
        self.turn()
        before = self.log.index("still in the turn")
        self.assertEqual((before, len(self.log)), (256, 301))

    def test_flush_fails(self) -> None:
        """A fault there ends the connection that has it; the others are flushed."""
        (bad, a), (good, _) = self.end("bad"), self.end("good")
        bad.flush = lambda: 1 // 0  # type: ignore[method-assign]
        bad.taking = lambda data: [self.polling.gather(bad), self.polling.gather(good)]
        a.send(b"x")
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.log, [("bad", "lost", ZeroDivisionError), ("good", "flushed")])

    def test_soon_fails(self) -> None:
        """A fault there is logged, and the next one called."""
        end, other = self.end()
        calls = [lambda: 1 // 0, lambda: self.log.append("next")]

        def take(data: bytes) -> None:
            for call in calls:
                self.polling.soon(call)

        end.taking = take
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
