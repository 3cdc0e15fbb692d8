"""Tests of rtpush.protocol.message."""

from __future__ import annotations

import base64
import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.message import (
    RESERVED_EVENTS,
    Kind,
    Message,
    Payload,
    check_event,
    envelope_json,
    envelope_object,
)
from tests.protocol.strategies import events, json_payloads, messages, payloads


class PayloadTests(SynchronousTestCase):
    """Payloads of the three kinds."""

    @given(payloads)
    def test_field(self, payload: Payload) -> None:
        """In JSON a payload is a field of which any reader gets it back."""
        read = json.loads(b"{" + payload.json_field() + b"}")
        self.assertEqual(len(read), 1)
        if payload.kind is Kind.BINARY:
            self.assertEqual(base64.b64decode(read["data_b64"], validate=True), payload.data)
        elif payload.kind is Kind.TEXT:
            self.assertEqual(read["data"], payload.data.decode())
        else:
            self.assertEqual(read["data"], json.loads(payload.data))

    @given(json_payloads)
    def test_as_written(self, payload: Payload) -> None:
        """JSON is passed on byte for byte."""
        self.assertEqual(payload.json_field(), b'"data":' + payload.data)

    @given(payloads)
    def test_as_object(self, payload: Payload) -> None:
        """As an object it is what a reader of it has."""
        value = payload.as_object()
        if payload.kind is Kind.JSON:
            self.assertEqual(value, json.loads(payload.data))
        else:
            self.assertEqual(value, payload.data.decode() if payload.kind is Kind.TEXT else payload.data)
        self.assertEqual(Message("a", payload).data, value)


class EventNameTests(SynchronousTestCase):
    """Event names."""

    @given(events)
    @example("price")
    @example("é ✓ 𝄞")
    @example("x" * 128)
    def test_good(self, event: str) -> None:
        """A name without control characters passes."""
        self.assertIsNone(check_event(event))

    def test_none(self) -> None:
        """A message needs no event name."""
        self.assertIsNone(check_event(None))

    @given(st.text())
    @example("a\rb")
    @example("a\nb")
    @example("a\0b")
    @example("a\x85b")
    @example("a\u2028b")
    @example("\ud800")
    @example("")
    @example("x" * 129)
    def test_any(self, event: str) -> None:
        """A name that could break a line, or no encoding can carry, does not pass."""
        bad = any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" or "\ud800" <= c <= "\udfff" for c in event)
        bad = bad or not 1 <= len(event) <= 128 or event in RESERVED_EVENTS
        try:
            check_event(event)
        except RtpushError as error:
            self.assertIs(error.kind, ErrorCode.BAD_REQUEST)
            self.assertTrue(bad)
        else:
            self.assertFalse(bad)

    def test_reserved(self) -> None:
        """The names of the server's own events are not for messages; the error says which it was."""
        self.assertEqual(RESERVED_EVENTS, {"open", "gap", "unsubscribed", "token_expiring", "disconnect"})
        for event in RESERVED_EVENTS:
            error = self.assertRaises(RtpushError, check_event, event)
            self.assertIn(repr(event), error.message)


class EnvelopeTests(SynchronousTestCase):
    """The envelope of a message."""

    @given(messages)
    def test_json(self, message: Message) -> None:
        """The envelope has the fields of the protocol, and no other."""
        envelope = json.loads(envelope_json(message))
        expected: dict[str, object] = {"channel": message.channel}
        if message.position is not None:
            expected |= {"offset": message.position.offset, "epoch": message.position.epoch}
        if message.event is not None:
            expected["event"] = message.event
        data = message.payload.data
        if message.payload.kind is Kind.BINARY:
            expected["data_b64"] = base64.b64encode(data).decode()
        else:
            expected["data"] = json.loads(data) if message.payload.kind is Kind.JSON else data.decode()
        self.assertEqual(envelope, expected)
        self.assertEqual(message.offset, expected.get("offset", 0))

    @given(messages)
    def test_object(self, message: Message) -> None:
        """As an object it is the same, but that binary is bytes."""
        envelope = envelope_object(message)
        if message.payload.kind is Kind.BINARY:
            envelope["data_b64"] = base64.b64encode(envelope.pop("data")).decode()
        self.assertEqual(envelope, json.loads(envelope_json(message)))
