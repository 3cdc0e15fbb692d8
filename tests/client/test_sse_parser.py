"""Tests of rtpush.client.sse_parser."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.sse_parser import Event, EventTooLarge, SseParser
from rtpush.protocol import sse

STREAM = (
    "\ufeffretry: 1423\nevent: open\nid: k3f9:6\ndata: {}\n\n"
    ":\r\n\r\n"
    "id: k3f9:7\revent: price\rdata: one\rdata:two\rdata\r\r"
    "data: snow ☃ and 🎉\n\n"
    "id: k3f9:8\n\n"
    "data:  two spaces\nunknown: field\ndata_: no\n\n"
    "data: incomplete"
).encode()

EVENTS = [
    Event("open", "{}", "k3f9:6"),
    Event("price", "one\ntwo\n", "k3f9:7"),
    Event("message", "snow ☃ and 🎉", "k3f9:7"),
    Event("message", " two spaces", "k3f9:8"),
]


def parse(data: bytes, cuts: list[int]) -> list[Event]:
    """Parse bytes that arrive in pieces."""
    parser = SseParser(1000)
    events = []
    begin = 0
    for cut in [*sorted(cuts), len(data)]:
        events += parser.feed(data[begin:cut])
        begin = max(begin, cut)
    return events


class ParserTests(SynchronousTestCase):
    """Reading streams."""

    def test_stream(self) -> None:
        """Fields, comments, names, ids and all three line ends are read as the standard says."""
        self.assertEqual(parse(STREAM, []), EVENTS)

    def test_byte_by_byte(self) -> None:
        """A stream that comes byte by byte gives the same events."""
        self.assertEqual(parse(STREAM, list(range(len(STREAM)))), EVENTS)

    @given(st.lists(st.integers(0, len(STREAM)), max_size=8))
    @example([STREAM.index(b"\r\n") + 1])
    def test_cut_anywhere(self, cuts: list[int]) -> None:
        """A stream that is cut anywhere gives the same events."""
        self.assertEqual(parse(STREAM, cuts), EVENTS)

    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
                st.sampled_from([None, "price", "gap"]),
                st.sampled_from([None, "k3f9:1", "k3f9:2,-"]),
            ),
            max_size=5,
        ),
        st.lists(st.integers(0, 400), max_size=6),
    )
    def test_what_the_server_writes(self, events: list[tuple[str, str | None, str | None]], cuts: list[int]) -> None:
        """What the server writes is read as it was, but for line ends, which all become LF."""
        data = b"".join(sse.event(text.encode(), name=name, cursor=cursor) for text, name, cursor in events)
        expected = []
        last = ""
        for text, name, cursor in events:
            last = cursor or last
            lines = text.replace("\r\n", "\n").replace("\r", "\n")
            expected.append(Event(name or "message", lines, last))
        self.assertEqual(parse(data, [cut for cut in cuts if cut <= len(data)]), expected)

    @given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
    def test_any_bytes(self, data: bytes, cuts: list[int]) -> None:
        """Any bytes at all are read alike, whole or cut, and raise nothing."""
        self.assertEqual(parse(data, [cut for cut in cuts if cut <= len(data)]), parse(data, []))

    def test_cr_then_nothing(self) -> None:
        """A CR ends its line at once; an LF that follows later belongs to it, and one more LF is a line end again."""
        parser = SseParser(100)
        self.assertEqual(parser.feed(b"data: 1\r\r"), [Event("message", "1", "")])
        self.assertEqual(parser.feed(b"\n"), [])
        self.assertEqual(parser.feed(b"data: 2\n\n"), [Event("message", "2", "")])
        self.assertEqual(parser.feed(b"data: 3\r"), [])
        self.assertEqual(parser.feed(b"\n"), [])
        self.assertEqual(parser.feed(b"\n"), [Event("message", "3", "")])

    def test_id_with_nul(self) -> None:
        """An id with a NUL is passed over, and an empty one clears the last."""
        self.assertEqual(parse(b"id: a\ndata: 1\n\nid: b\0\ndata: 2\n\n", [])[1].id, "a")
        self.assertEqual(parse(b"id: a\ndata: 1\n\nid:\ndata: 2\n\n", [])[1].id, "")

    def test_too_large(self) -> None:
        """An event that grows without end is refused, in one line, in many, or in pieces of one."""
        for data in (b"data: " + b"x" * 1001 + b"\n", b"data: 1234\n" * 101, b"data: " + b"x" * 1001):
            self.assertRaises(EventTooLarge, parse, data, [])
            self.assertRaises(EventTooLarge, parse, data, list(range(0, len(data), 7)))

    def test_size_is_per_event(self) -> None:
        """The size is that of one event, however many there are."""
        data = (b"data: " + b"x" * 900 + b"\n\n") * 5
        self.assertEqual(len(parse(data, list(range(0, len(data), 100)))), 5)
