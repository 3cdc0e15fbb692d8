"""Tests of rtpush.client.wire."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.errors import BadAnswer
from rtpush.client.wire import (
    BatchReply,
    Frame,
    command_json,
    error_in,
    fields_json,
    payload_of,
    publish_fields,
    read,
    read_event,
    read_replies,
    result_of,
    with_key,
)
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.codecs import JSON
from rtpush.protocol.commands import Publication, Request
from rtpush.protocol.message import Kind, Message, Payload, envelope_json
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, PresenceEntry
from rtpush.protocol.recovery import Gap

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
payloads = st.one_of(
    st.text(st.characters(codec="utf-8")).map(lambda text: Payload(text.encode(), Kind.TEXT)),
    st.binary().map(lambda data: Payload(data, Kind.BINARY)),
    json_values.filter(lambda value: not isinstance(value, str)).map(
        lambda value: Payload(json.dumps(value).encode(), Kind.JSON)
    ),
)


class EnvelopeTests(SynchronousTestCase):
    """Messages as they come."""

    @given(payloads, st.none() | st.just("price"), st.none() | st.integers(1, 2**53 - 1))
    def test_what_the_server_writes(self, payload: Payload, event: str | None, offset: int | None) -> None:
        """An envelope of the server is read as the message that it was made of."""
        position = None if offset is None else Position("k3f9", offset)
        envelope = envelope_json(Message("demo:a", payload, event, position))
        frame = read(b'{"message":' + envelope + b"}", Frame)
        assert frame.message is not None
        message = frame.message.message()
        self.assertEqual(
            (message.channel, message.payload, message.event, message.position), ("demo:a", payload, event, position)
        )

    def test_kept_as_written(self) -> None:
        """JSON is kept as it was written, even where Python cannot express it."""
        frame = read(b'{"message":{"channel":"a","data":{"n": 1.50, "big": 1e400}}}', Frame)
        assert frame.message is not None
        self.assertEqual(frame.message.message().payload.data, b'{"n": 1.50, "big": 1e400}')

    def test_bad(self) -> None:
        """What is no envelope is a bad answer."""
        for data in (b'{"channel":"a"}', b'{"channel":"a","data_b64":"?"}', b'{"channel":"a","data_b64":"YQ"}'):
            frame = read(b'{"message":' + data + b"}", Frame)
            assert frame.message is not None
            self.assertRaises(BadAnswer, frame.message.message)
        for body in (b"", b"{", b"[]", b'{"message": 1}', b'{"message": {"channel": "\xff", "data": 1}}'):
            self.assertRaises(BadAnswer, read, body, Frame)


class FrameTests(SynchronousTestCase):
    """Replies and pushes."""

    def test_event(self) -> None:
        """An event of a stream is what the same push is; one of an unknown name is nothing."""
        frame = read_event("gap", '{"channel": "a", "epoch": "k3f9", "offset": 7, "reason": "history_lost"}')
        assert frame.gap is not None
        self.assertEqual(frame.gap.gap(), GapPush("a", Position("k3f9", 7), Gap.HISTORY_LOST))
        self.assertEqual(read_event('news"\\', "1"), Frame())
        self.assertRaises(BadAnswer, read_event, "gap", "1")
        self.assertRaises(BadAnswer, read_event, "gap", "{")

    def test_unknown_reason(self) -> None:
        """A gap whose reason is not known yet is a gap."""
        frame = read_event("gap", '{"channel": "a", "epoch": "k3f9", "offset": 7, "reason": "flood"}')
        assert frame.gap is not None
        self.assertEqual(frame.gap.gap().reason, Gap.HISTORY_LOST)

    def test_results(self) -> None:
        """Each reply gives what its command asks for."""
        for text, expected in (
            (b'{"publish": {"epoch": "k3f9", "offset": 7}}', Position("k3f9", 7)),
            (b'{"publish": {}}', None),
            (b'{"ping": {}}', None),
            (
                b'{"presence": {"connections": [{"connection": "c", "transport": "sse", "info": {"a":1}}]}}',
                [PresenceEntry("c", "sse", b'{"a":1}')],
            ),
        ):
            self.assertEqual(result_of(read(text, Frame)), expected)
        page = result_of(
            read(b'{"history": {"messages": [{"channel": "a", "data": 1}], "epoch": "k3f9", "offset": 7}}', Frame)
        )
        self.assertEqual(page.top, Position("k3f9", 7))
        self.assertEqual(page.messages[0].payload, Payload(b"1", Kind.JSON))

    def test_errors(self) -> None:
        """An error is raised; one of an unknown code becomes the nearest known one."""
        known = error_in(b'{"error": {"code": 104, "name": "unknown_channel", "message": "no", "temporary": false}}')
        assert known is not None
        self.assertEqual((known.kind, known.message), (ErrorCode.UNKNOWN_CHANNEL, "no"))
        for temporary, kind in (("true", ErrorCode.INTERNAL), ("false", ErrorCode.BAD_REQUEST)):
            body = f'{{"error": {{"code": 999, "name": "odd", "message": "x", "temporary": {temporary}}}}}'
            unknown = error_in(body.encode())
            assert unknown is not None
            self.assertEqual((unknown.kind, unknown.message), (kind, "odd (999): x"))
        for body in (b"", b"<html>", b"{}", b'{"error": "no"}'):
            self.assertIsNone(error_in(body))

    def test_replies(self) -> None:
        """There are as many replies as commands, or the answer is a bad one."""
        self.assertEqual(len(read_replies(b'[{"ping":{}},{"error":{"code":103}}]', 2)), 2)
        for body in (b"[]", b'{"ping":{}}', b'[{"ping":{}}]'):
            self.assertRaises(BadAnswer, read_replies, body, 2)

    def test_batch(self) -> None:
        """A batch has a result or an error for each message."""
        body = b'{"responses": [{"result": {"epoch": "k3f9", "offset": 1}}, {"error": {"code": 110}}, {"result": {}}]}'
        position, error, nothing = read(body, BatchReply).results()
        self.assertEqual(position, Position("k3f9", 1))
        self.assertIsInstance(error, RtpushError)
        self.assertIsNone(nothing)


class CommandTests(SynchronousTestCase):
    """What is sent is what the server reads."""

    @given(payloads, st.none() | st.just("price"), st.booleans())
    def test_publish(self, payload: Payload, event: str | None, history: bool) -> None:
        """The server reads the publication that the client wrote."""
        publication = with_key(Publication("demo:a", payload, event, history=history), Random(1))
        [request] = JSON.requests(command_json(5, "publish", fields_json(publish_fields(publication))))
        assert isinstance(request, Request)
        command: Any = request.command
        self.assertEqual((request.id, request.name), (5, "publish"))
        read_back = JSON.publication(command)
        # Python's JSON and the server's may write the same number in two ways; both are kept as written.
        self.assertEqual(read_back, publication)
        self.assertEqual(read_back.idempotency_key is not None, history)

    def test_own_key(self) -> None:
        """A key that is given is kept; others are random, each its own."""
        random = Random(1)
        publication = Publication("a", payload_of(1))
        keys = {with_key(publication, random).idempotency_key for _ in range(100)}
        self.assertEqual(len(keys), 100)
        mine = Publication("a", payload_of(1), idempotency_key="mine")
        self.assertEqual(with_key(mine, random).idempotency_key, "mine")

    def test_payload_of(self) -> None:
        """The type says the kind; what JSON cannot express is a TypeError."""
        for data, kind in ((b"\0", Kind.BINARY), (bytearray(b"a"), Kind.BINARY), ("a", Kind.TEXT), (None, Kind.JSON)):
            self.assertEqual(payload_of(data).kind, kind)
        payload = Payload(b"[1]", Kind.JSON)
        self.assertIs(payload_of(payload), payload)
        self.assertRaises(TypeError, payload_of, object())

    def test_without_id(self) -> None:
        """A command needs no id, and no fields."""
        self.assertEqual(json.loads(command_json(None, "ping")), {"ping": {}})

    def test_nothing_is_left_out(self) -> None:
        """Only fields that are None are left out."""
        self.assertEqual(
            msgspec.json.decode(fields_json({"a": None, "b": False, "c": 0, "d": ""})), {"b": False, "c": 0, "d": ""}
        )
