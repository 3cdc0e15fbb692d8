"""Tests of rtpush.protocol.commands: what a payload may be, and what a publication needs."""

from __future__ import annotations

import base64
import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import MAX_NESTING, Frame, Ping, Publish, Request, Subscribe, json_payload, publication
from rtpush.protocol.message import Kind, Payload
from tests.protocol.strategies import json_texts, texts

_ONE = Payload(b"1", Kind.JSON)


class JsonPayloadTests(SynchronousTestCase):
    """A JSON value becomes a payload."""

    def refusal(self, raw: bytes) -> str:
        """Return the message of the error for a text."""
        error = self.assertRaises(RtpushError, json_payload, raw)
        self.assertIs(error.kind, ErrorCode.BAD_REQUEST)
        return error.message

    @given(texts, st.booleans())
    def test_string(self, text: str, ascii_only: bool) -> None:
        """A string becomes the text itself, however it was escaped."""
        payload = json_payload(json.dumps(text, ensure_ascii=ascii_only).encode())
        self.assertEqual(payload, Payload(text.encode(), Kind.TEXT))

    @given(json_texts())
    @example(b"1.0")
    @example(b"1E2")
    @example(b"-0")
    @example(b'{"a":1,"a":2}')
    @example(b'[1,\r\n "\\u00e9"]')
    @example(b"12345678901234567890123456789012345678901234567890")
    def test_byte_for_byte(self, raw: bytes) -> None:
        """Anything but a string is kept as it was written."""
        payload = json_payload(raw)
        if raw.startswith(b'"'):
            self.assertEqual(payload, Payload(json.loads(raw).encode(), Kind.TEXT))
        else:
            self.assertEqual(payload, Payload(raw, Kind.JSON))

    def test_numbers(self) -> None:
        """A number that no reader can hold is refused, and so is what is no number in JSON."""
        self.assertIn("JSON", self.refusal(b"1e999"))
        for raw in (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b"1.", b".5", b"0x10"):
            self.refusal(raw)

    def test_surrogates(self) -> None:
        """Half a surrogate pair is refused wherever it stands; a whole one is a character."""
        for raw in (b'"\\ud800"', b'"\\udc00"', b'["\\ud800x"]', b'{"\\udc00":1}', b'"\\udc00\\ud800"'):
            self.refusal(raw)
        self.assertEqual(json_payload(b'"\\ud834\\udd1e"'), Payload("𝄞".encode(), Kind.TEXT))

    def test_malformed(self) -> None:
        """What is no JSON is refused."""
        for raw in (b"", b" ", b"{", b"[1,]", b"{'a':1}", b"nul", b'"a', b"1 2", b"\xff"):
            self.refusal(raw)

    def test_nesting(self) -> None:
        """Arrays and objects may be nested so deep, and no deeper; what stands side by side is no nesting."""
        for begin, end in ((b"[", b"]"), (b'{"a":', b"}")):
            deepest = begin * MAX_NESTING + b"1" + end * MAX_NESTING
            self.assertEqual(json_payload(deepest).data, deepest)
            self.assertIn("nested deeper", self.refusal(begin * (MAX_NESTING + 1) + b"1" + end * (MAX_NESTING + 1)))
        wide = b"[" + b",".join([b'[{"a":[]}]'] * 1000) + b"]"
        self.assertEqual(json_payload(wide).data, wide)

    def test_brackets_in_strings(self) -> None:
        """Brackets in strings are text, also after escaped quotes and backslashes."""
        value = ["[" * 300, '"[' * 300, '\\"{' * 300, "\\" * 301]
        raw = json.dumps(value).encode()
        self.assertEqual(json_payload(raw).data, raw)

    @given(st.integers(1, 400), st.integers(0, 5), st.booleans())
    def test_depth_against_count(self, depth: int, siblings: int, objects: bool) -> None:
        """The depth is that of the deepest place, whatever is around it."""
        begin, end = (b'{"[":', b"}") if objects else (b"[", b"]")
        raw = b"[" + b"[],{}," * siblings * 30 + begin * (depth - 1) + b'"]"' + end * (depth - 1) + b"]"
        if depth > MAX_NESTING:
            self.refusal(raw)
        else:
            self.assertEqual(json_payload(raw).data, raw)

    def test_very_deep(self) -> None:
        """A million brackets are refused like any others, closed or not."""
        self.refusal(b"[" * 1_000_000)
        self.refusal(b"[" * 1_000_000 + b"]" * 1_000_000)


class PublicationTests(SynchronousTestCase):
    """What is to be published is checked and completed."""

    def refusal(self, publish: Publish, payload: Payload | None = None) -> str:
        """Return the message of the error for a publish."""
        error = self.assertRaises(RtpushError, publication, publish, payload)
        self.assertIs(error.kind, ErrorCode.BAD_REQUEST)
        return error.message

    def test_complete(self) -> None:
        """All fields get where they belong."""
        made = publication(Publish(channel="a", event="price", idempotency_key="k", history=False), _ONE)
        self.assertEqual(
            (made.channel, made.payload, made.event, made.idempotency_key, made.history),
            ("a", _ONE, "price", "k", False),
        )
        message = made.message()
        self.assertEqual(
            (message.channel, message.payload, message.event, message.position), ("a", _ONE, "price", None)
        )

    @given(st.binary())
    def test_binary(self, data: bytes) -> None:
        """Base64 becomes a binary payload."""
        made = publication(Publish(channel="a", data_b64=base64.b64encode(data).decode()), None)
        self.assertEqual(made.payload, Payload(data, Kind.BINARY))

    def test_not_base64(self) -> None:
        """What is not base64 is refused: other characters, missing padding, spaces."""
        for text in ("a", "aGk", "aG k=", "é===", "aGk=\n", "-_-_"):
            self.assertIn("data_b64", self.refusal(Publish(channel="a", data_b64=text)))

    def test_exactly_one_payload(self) -> None:
        """There must be one payload, not two and not none."""
        self.assertIn("nothing to publish", self.refusal(Publish(channel="a")))
        self.assertIn("both", self.refusal(Publish(channel="a", data_b64="aGk="), _ONE))

    def test_bad_event(self) -> None:
        """A bad event name is refused."""
        self.assertIn("'gap'", self.refusal(Publish(channel="a", event="gap"), _ONE))

    def test_key(self) -> None:
        """A key has 1 to 128 characters."""
        for key in ("", "k" * 129):
            self.assertIn("1 to 128", self.refusal(Publish(channel="a", idempotency_key=key), _ONE))
        for key in ("k", "k" * 128):
            self.assertEqual(publication(Publish(channel="a", idempotency_key=key), _ONE).idempotency_key, key)


class RequestTests(SynchronousTestCase):
    """The one command of a frame."""

    def test_one(self) -> None:
        """The command is taken out, with its name."""
        request = Request.of(Frame(id=7, ping=Ping()))
        self.assertEqual((request.id, request.name, request.command), (7, "ping", Ping()))

    def test_none_or_two(self) -> None:
        """Any other number of commands is refused, and those that were there are named."""
        for frame, got in ((Frame(id=1), "none"), (Frame(ping=Ping(), subscribe=Subscribe(channel="a")), "ping")):
            error = self.assertRaises(RtpushError, Request.of, frame)
            self.assertIs(error.kind, ErrorCode.BAD_REQUEST)
            self.assertIn(got, error.message)

    def test_id(self) -> None:
        """An id is a positive integer, or is not there."""
        self.assertIsNone(Request.of(Frame(ping=Ping())).id)
        for id_ in (0, -1):
            error = self.assertRaises(RtpushError, Request.of, Frame(id=id_, ping=Ping()))
            self.assertIn(f"id is {id_}", error.message)
