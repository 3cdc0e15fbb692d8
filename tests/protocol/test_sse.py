"""Tests of rtpush.protocol.sse."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol import sse
from tests.protocol.parsers import SentEvent, read_events
from tests.protocol.strategies import events, positions, texts


def as_received(text: str) -> str:
    """Return what a reader makes of a text: every way to end a line becomes LF."""
    return re.sub("\r\n|\r", "\n", text)


class EventTests(SynchronousTestCase):
    """One event."""

    @given(texts, st.none() | events, st.none() | positions.map(str))
    @example("", None, None)
    @example("\n", None, None)
    @example("\r\n\r", None, None)
    @example(" leading", " leading", None)
    @example("\ufeff", "\ufeff", None)
    @example("data: x\n\nid: 7", "data: x", "k3f9:7")
    @example("a\u2028b\x85c\x0bd", None, None)
    def test_round_trip(self, text: str, name: str | None, cursor: str | None) -> None:
        """Any text arrives as it was but for its line ends, as one event, with its name and id."""
        said = read_events(sse.event(text.encode(), name=name, cursor=cursor))
        self.assertEqual(said.events, [SentEvent(name or "message", as_received(text), cursor or "")])
        self.assertEqual((said.comments, said.retries), ([], []))

    @given(st.lists(st.tuples(texts, st.none() | events, st.none() | positions.map(str))))
    def test_stream(self, sent: list[tuple[str, str | None, str | None]]) -> None:
        """Events that follow on each other do not mix; one without an id leaves the last one as it is."""
        stream = b"".join(sse.event(text.encode(), name=name, cursor=cursor) for text, name, cursor in sent)
        expected = []
        last = ""
        for text, name, cursor in sent:
            last = cursor or last
            expected.append(SentEvent(name or "message", as_received(text), last))
        self.assertEqual(read_events(stream).events, expected)

    @given(texts, st.none() | events)
    def test_cut(self, text: str, name: str | None) -> None:
        """An event of which the last byte is missing is not dispatched."""
        self.assertEqual(read_events(sse.event(text.encode(), name=name)[:-1]).events, [])

    def test_bytes(self) -> None:
        """An event looks as in the protocol's page."""
        event = sse.event(b'{"eur":41.2}', name="price", cursor="k3f9:7")
        self.assertEqual(event, b'id: k3f9:7\nevent: price\ndata: {"eur":41.2}\n\n')


class OtherLinesTests(SynchronousTestCase):
    """What is no event."""

    def test_heartbeat(self) -> None:
        """A heartbeat is a comment, and does not disturb the event after it."""
        said = read_events(sse.HEARTBEAT + sse.event(b"x"))
        self.assertEqual(said.comments, [""])
        self.assertEqual(said.events, [SentEvent("message", "x", "")])

    @given(st.floats(0, 86400))
    def test_retry(self, seconds: float) -> None:
        """The time to reconnect is told in whole milliseconds, alone or before an event."""
        said = read_events(sse.retry(seconds) + sse.event(b"x"))
        self.assertEqual(len(said.retries), 1)
        self.assertLessEqual(abs(said.retries[0] - seconds * 1000), 0.5)
        self.assertEqual(said.events, [SentEvent("message", "x", "")])
