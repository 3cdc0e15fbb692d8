"""Tests of rtpush.client.lines."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client import lines
from rtpush.client.lines import LineReader


class Readers:
    """A reactor that knows who wants to read."""

    def __init__(self) -> None:
        self.reading: set[LineReader] = set()

    def addReader(self, reader: LineReader) -> None:
        """Watch a descriptor."""
        os.fstat(reader.fileno())
        self.reading.add(reader)

    def removeReader(self, reader: LineReader) -> None:
        """Watch it no longer."""
        self.reading.discard(reader)


class LineTests(SynchronousTestCase):
    """Lines out of a pipe."""

    def setUp(self) -> None:
        self.reactor = Readers()
        self.begin()

    def begin(self) -> None:
        """Begin with a new pipe."""
        out, self.into = os.pipe()
        self.reader = LineReader(self.reactor, out)
        self.addCleanup(os.close, out)

    def write(self, data: bytes) -> None:
        """Write into the pipe, and have it read if anybody wants that."""
        os.write(self.into, data)
        if self.reader in self.reactor.reading:
            self.reader.doRead()

    def finish(self) -> None:
        """Close the pipe, as a reactor sees it: all is read, then the connection is lost."""
        os.close(self.into)
        self.reader.connectionLost(Failure(ConnectionDone()))

    def take_all(self) -> list[bytes]:
        """Take what there is to the end."""
        taken: list[bytes] = []
        while batch := self.successResultOf(self.reader.take(2)):
            self.assertLessEqual(len(batch), 2)
            taken += batch
        return taken

    def test_lines(self) -> None:
        """Lines come as soon as they are whole, without their ends; the last needs none."""
        waiting = self.reader.take(10)
        self.write(b"one\ntw")
        self.assertEqual(self.successResultOf(waiting), [b"one"])
        waiting = self.reader.take(10)
        self.write(b"o\r")
        self.assertNoResult(waiting)
        self.write(b"\n\nfour")
        self.assertEqual(self.successResultOf(waiting), [b"two", b""])
        waiting = self.reader.take(10)
        self.finish()
        self.assertEqual(self.successResultOf(waiting), [b"four"])
        self.assertEqual(self.take_all(), [])
        self.assertEqual(self.reactor.reading, set())

    def test_end_of_file(self) -> None:
        """The end of a file, which is no hang-up, is an end too."""
        waiting = self.reader.take(10)
        self.write(b"one")
        os.close(self.into)
        self.reader.doRead()
        self.assertEqual(self.successResultOf(waiting), [b"one"])
        self.assertEqual(self.take_all(), [])

    @given(st.lists(st.binary(max_size=20), max_size=10))
    def test_cut_anywhere(self, pieces: list[bytes]) -> None:
        """However the input is cut, the lines are the same."""
        self.begin()
        waiting = self.reader.take(2)
        for piece in pieces:
            if piece:
                self.write(piece)
        self.finish()
        taken = self.successResultOf(waiting) + self.take_all()
        whole = b"".join(pieces).split(b"\n")
        expected = [line.removesuffix(b"\r") for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
        self.assertEqual(taken, expected)

    def test_reads_no_further_ahead(self) -> None:
        """When enough is there nothing more is read until it is taken."""
        self.patch(lines, "_READ_AHEAD", 4)
        waiting = self.reader.take(1)
        self.write(b"1\n2\n3\n")
        self.assertEqual(self.successResultOf(waiting), [b"1"])
        self.write(b"4\n5\n")
        self.assertEqual(self.reactor.reading, set())
        self.write(b"6\n")
        self.assertEqual(self.successResultOf(self.reader.take(10)), [b"2", b"3", b"4", b"5"])
        waiting = self.reader.take(10)
        self.reader.doRead()
        self.assertEqual(self.successResultOf(waiting), [b"6"])

    def test_endless_line(self) -> None:
        """A line without end is an error, not all of the memory."""
        self.patch(lines, "_MAX_LINE", 10)
        waiting = self.reader.take(10)
        self.write(b"x" * 11)
        self.assertEqual(self.successResultOf(waiting), [])
        self.assertIn("longer than 10 bytes", str(self.reader.error))

    def test_close(self) -> None:
        """Closed it gives nothing more, and whoever waits hears that."""
        waiting = self.reader.take(1)
        self.write(b"1\n2\n")
        self.successResultOf(waiting)
        self.reader.close()
        self.assertEqual(self.take_all(), [])
        self.assertEqual(self.reactor.reading, set())
        self.begin()
        waiting = self.reader.take(1)
        self.reader.close()
        self.assertEqual(self.successResultOf(waiting), [])

    def test_bad_descriptor(self) -> None:
        """What cannot be read is an end with an error."""
        out, into = os.pipe()
        os.close(out)
        os.close(into)
        reader = LineReader(self.reactor, out)
        self.assertEqual(self.successResultOf(reader.take(1)), [])
        self.assertIn("cannot read", str(reader.error))
