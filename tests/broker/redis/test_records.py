"""Tests of rtpush.broker.redis.records and scripts: the pure parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.broker.redis.records import Record, entry_of, said_of
from rtpush.broker.redis.scripts import Scripts, milliseconds, quoted
from rtpush.protocol.channel import Namespace
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry


class RecordTests(SynchronousTestCase):
    """Records of messages."""

    def parse(self, raw: bytes) -> Record:
        """Read a record."""
        return Record.parse("h:x", raw)

    def test_message(self) -> None:
        """Everything is where it belongs, though event and data have blanks in them."""
        record = self.parse(b"m k3f9 7 1700 1600 t 9 a b\xc3\xa9 c d one two\n")
        self.assertEqual((record.time, record.before), (1700, 1600))
        message = record.message
        self.assertEqual((message.channel, message.position), ("h:x", Position("k3f9", 7)))
        self.assertEqual((message.event, message.payload), ("a bé c d", Payload(b" one two\n", Kind.TEXT)))

    def test_volatile(self) -> None:
        """A message without history has no position."""
        message = self.parse(b"v - 0 0 0 j 0 {}").message
        self.assertEqual((message.position, message.event, message.payload), (None, None, Payload(b"{}", Kind.JSON)))

    def test_foreign(self) -> None:
        """What others have published is what it can be: JSON, text or binary; a string of JSON is text."""
        for kind, data, payload in (
            (b"a", b'{"a": 1}', Payload(b'{"a": 1}', Kind.JSON)),
            (b"a", b"42", Payload(b"42", Kind.JSON)),
            (b"a", b'"text"', Payload(b"text", Kind.TEXT)),
            (b"a", b"text", Payload(b"text", Kind.TEXT)),
            (b"a", b"", Payload(b"", Kind.TEXT)),
            (b"a", b"[" * 1000, Payload(b"[" * 1000, Kind.TEXT)),
            (b"a", b"\xff", Payload(b"\xff", Kind.BINARY)),
            (b"s", b"42", Payload(b"42", Kind.TEXT)),
            (b"s", b"\xff", Payload(b"\xff", Kind.BINARY)),
            (b"b", b"42", Payload(b"42", Kind.BINARY)),
        ):
            with self.subTest(kind=kind, data=data):
                self.assertEqual(self.parse(b"m k 1 2 1 %s 0 %s" % (kind, data)).message.payload, payload)

    def test_foreign_event(self) -> None:
        """An event name of others that cannot be one is left out; the message is not."""
        for event, kept in ((b"a\xc2\x85b", None), (b"open", None), (b"\xff\xfe", "\ufffd\ufffd"), (b"price", "price")):
            message = self.parse(b"m k 1 2 1 a %d %s42" % (len(event), event)).message
            self.assertEqual((message.event, message.payload.data), (kept, b"42"))

    def test_not_a_record(self) -> None:
        """Anything else is refused."""
        for raw in (b"", b"m", b"m k 1 2", b"m k x 2 1 a 0 d", b"m k 1 2 1 a x d", b"\xff" * 50):
            with self.subTest(raw=raw):
                self.assertRaises(ValueError, self.parse, raw)

    @given(
        st.sampled_from(["websocket", "sse", "longpoll", "shortpoll"]),
        st.binary(max_size=50),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    )
    def test_any(self, transport: str, info: bytes, user: str) -> None:
        """Presence comes back as it was written."""
        entry = PresenceEntry("c1", transport, info, user)
        self.assertEqual(entry_of(b"c1", said_of(entry)), entry)


class ScriptTests(SynchronousTestCase):
    """What the scripts are made of."""

    def scripts(self, prefix: str = "rt") -> Scripts:
        """Return scripts."""
        return Scripts(
            prefix, [Namespace(name="h")], message_bytes=10, position_ttl=1.5, idempotency_window=0
        )

    def test_same_everywhere(self) -> None:
        """All nodes with the same configuration have the same, so that they do not replace each other's."""
        one, other = self.scripts(), self.scripts()
        self.assertEqual([script.sha for script in one], [script.sha for script in other])
        self.assertEqual(one.library, other.library)

    def test_prefix(self) -> None:
        """Another prefix is in all of them."""
        for script in self.scripts("mine"):
            self.assertNotIn(b"@P@", script.text)
            self.assertIn(b"mine:", script.text)
        self.assertTrue(self.scripts("mine").library.startswith(b"#!lua name=mine\n"))

    def test_reconfigured(self) -> None:
        """Other namespaces and limits make what others publish by the one that a start with them would have made."""
        scripts = self.scripts()
        before = scripts.library
        new = [Namespace(name="h", history_size=7)]
        scripts.reconfigure(new, 20)
        other = Scripts("rt", new, message_bytes=20, position_ttl=1.5, idempotency_window=0)
        self.assertEqual((scripts.library, scripts.foreign), (other.library, other.foreign))
        self.assertNotEqual(scripts.library, before)

    def test_milliseconds(self) -> None:
        """A time is never 0, which would be no time for Redis."""
        self.assertEqual([milliseconds(seconds) for seconds in (0.0001, 1.5, 60)], [1, 1500, 60000])

    def test_quoted(self) -> None:
        """A literal of Lua holds anything."""
        self.assertEqual(quoted("a'\\"), "'\\097\\039\\092'")
