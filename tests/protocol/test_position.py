"""Tests of rtpush.protocol.position."""

from __future__ import annotations

import string

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.position import MAX_OFFSET, BadCursor, Position, format_cursor, parse_cursor
from tests.protocol.strategies import positions

_LETTERS = string.ascii_letters + string.digits + "_"

#: Texts that look like positions, and may be.
_nearly = st.builds(
    "".join,
    st.tuples(
        st.text(_LETTERS + "-é ", max_size=34),
        st.sampled_from([":", "", "::", ";", ": "]),
        st.text(string.digits + "-+_x٣ ", max_size=18),
        st.sampled_from(["", "\n", " ", ",", ":"]),
    ),
)


def is_position(text: str) -> bool:
    """Tell by the words of the protocol whether a text is a position."""
    epoch, colon, offset = text.partition(":")
    return (
        colon == ":"
        and 1 <= len(epoch) <= 32
        and all(letter in _LETTERS for letter in epoch)
        and 1 <= len(offset) <= 16
        and all(digit in "0123456789" for digit in offset)
        and (offset == "0" or offset[0] != "0")
        and int(offset) <= 9007199254740991
    )


class PositionTests(SynchronousTestCase):
    """Positions as text."""

    @given(positions)
    def test_round_trip(self, position: Position) -> None:
        """What is written is read back."""
        self.assertEqual(Position.parse(str(position)), position)

    @given(st.text() | _nearly)
    @example("k3f9:7")
    @example("k3f9:0")
    @example("k3f9:007")
    @example("k3f9:-1")
    @example("k3f9:7\n")
    @example(f"k3f9:{MAX_OFFSET}")
    @example(f"k3f9:{MAX_OFFSET + 1}")
    @example(":7")
    @example("k3f9:")
    @example("-")
    @example("")
    def test_malformed(self, text: str) -> None:
        """A text that is not a position is refused, and any other is read."""
        if is_position(text):
            self.assertEqual(str(Position.parse(text)), text)
        else:
            self.assertRaises(BadCursor, Position.parse, text)

    def test_long_text(self) -> None:
        """The error of a very long text is short."""
        error = self.assertRaises(BadCursor, Position.parse, "x" * 100_000)
        self.assertLess(len(str(error)), 200)

    def test_of_javascript(self) -> None:
        """The largest offset is the largest integer that a JavaScript number holds, and no larger."""
        self.assertEqual(int(float(MAX_OFFSET)), MAX_OFFSET)
        self.assertEqual(float(MAX_OFFSET + 1), float(MAX_OFFSET + 2))


class CursorTests(SynchronousTestCase):
    """Cursors as text."""

    @given(st.lists(st.none() | positions, min_size=1, max_size=20))
    def test_round_trip(self, places: list[Position | None]) -> None:
        """What is written is read back, with "from now" among it."""
        self.assertEqual(parse_cursor(format_cursor(places), len(places)), places)

    @given(st.lists(st.none() | positions, min_size=1, max_size=20), st.integers(1, 25))
    def test_wrong_number(self, places: list[Position | None], channels: int) -> None:
        """A cursor for another number of channels is refused, and both numbers are told."""
        if channels == len(places):
            return
        error = self.assertRaises(BadCursor, parse_cursor, format_cursor(places), channels)
        self.assertIn(f"{len(places)} positions for {channels} channels", str(error))

    @given(st.lists(st.sampled_from(["-", "k3f9:7"]) | _nearly, min_size=1, max_size=5))
    def test_malformed(self, parts: list[str]) -> None:
        """A cursor of which any part is not a position is refused."""
        text = ",".join(parts)
        parts = text.split(",")
        if all(part == "-" or is_position(part) for part in parts):
            self.assertEqual(format_cursor(parse_cursor(text, len(parts))), text)
        else:
            self.assertRaises(BadCursor, parse_cursor, text, len(parts))

    def test_many_commas(self) -> None:
        """A cursor of a hundred thousand commas is refused for its number of positions."""
        error = self.assertRaises(BadCursor, parse_cursor, "," * 100_000, 3)
        self.assertEqual(str(error), "the cursor has 100001 positions for 3 channels")
