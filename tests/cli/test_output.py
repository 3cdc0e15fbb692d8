"""Tests of rtpush.cli.output."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.cli.output import amount, one_line, plain, quantity, seconds, table
from rtpush.protocol.message import Kind, Payload


class LineTests(SynchronousTestCase):
    """How messages are printed."""

    def test_lines(self) -> None:
        """Each kind is printed as one line, as near to what it was as that can be."""
        for payload, line in (
            (Payload(b'{"a": [1.50,\n 2]}', Kind.JSON), b'{"a":[1.50,2]}'),
            (Payload("snow ☃\tand tab".encode(), Kind.TEXT), "snow ☃\tand tab".encode()),
            (Payload(b"two\nlines", Kind.TEXT), b'"two\\nlines"'),
            (Payload(b"\x1b[2J", Kind.TEXT), b'"\\u001b[2J"'),
            (Payload(b"\0\xff", Kind.BINARY), b"AP8="),
        ):
            self.assertEqual(one_line(payload), line)

    @given(st.text(st.characters(codec="utf-8")))
    def test_any_text(self, text: str) -> None:
        """Any text is one line without control characters, and can be read back."""
        line = one_line(Payload(text.encode(), Kind.TEXT)).decode()
        self.assertEqual(len(line.splitlines() or [""]), 1)
        self.assertTrue(all(character >= " " or character == "\t" for character in line))
        self.assertTrue(line == text or json.loads(line) == text)


class NumberTests(SynchronousTestCase):
    """How numbers are printed."""

    def test_amount(self) -> None:
        """There are separators, and no digits that say nothing."""
        for value, text in (
            (0, "0"),
            (200_000, "200,000"),
            (1234.5678, "1,235"),
            (9.174, "9.17"),
            (2.0, "2"),
            (0.012345, "0.0123"),
        ):
            self.assertEqual(amount(value), text)

    def test_quantity(self) -> None:
        """The prefix is the largest that fits: of 1024 for bytes, of 1000 for bits."""
        self.assertEqual(quantity(512), "512 B")
        self.assertEqual(quantity(160_000_000, "B/s"), "152.6 MiB/s")
        self.assertEqual(quantity(1.5e9, "bit/s", base=1000), "1.5 Gbit/s")

    def test_seconds(self) -> None:
        """The unit fits the time."""
        for value, text in (
            (12.3e-6, "12.3 µs"),
            (0.0123, "12.3 ms"),
            (1.5, "1.5 s"),
            (600, "10 min"),
            (36000, "10 h"),
        ):
            self.assertEqual(seconds(value), text)

    def test_table(self) -> None:
        """Columns are as wide as they must be; what others wrote cannot steer the terminal."""
        text = table(("NAME", "N"), [("a", 1), ("b\x1b[2J\n", 200)], ("N",))
        self.assertEqual(text, "NAME      N\na         1\nb\ufffd[2J\ufffd  200")

    def test_plain(self) -> None:
        """Control characters are replaced."""
        self.assertEqual(plain("a\tb\x07"), "a b\N{REPLACEMENT CHARACTER}")
