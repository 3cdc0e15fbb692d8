"""Tests of rtpush.protocol.forms."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.codecs import JSON, MSGPACK
from rtpush.protocol.forms import POLL, SSE, SSE_ENVELOPE, Batch, RawForm, WebSocketForm, poll_body
from rtpush.protocol.message import Kind, Message, Payload, envelope_json
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import (
    Disconnected,
    GapPush,
    Joined,
    Left,
    PresenceEntry,
    Push,
    Subscribed,
    TokenExpiring,
    Unsubscribed,
)
from rtpush.protocol.recovery import Gap
from tests.protocol.parsers import read_events, read_frames
from tests.protocol.strategies import epochs, events, payloads

_windows = st.sampled_from([0, 9, 12, 15])


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draw messages of one channel in order, with volatile ones between."""
    epoch = draw(epochs)
    offset = draw(st.integers(0, 1000))
    messages = []
    for payload in draw(st.lists(payloads, min_size=1, max_size=5)):
        position = None
        if draw(st.booleans()):
            offset += 1
            position = Position(epoch, offset)
        messages.append(Message("demo:a", payload, draw(st.none() | events), position))
    return Batch(messages, Position(epoch, offset))


def envelope(message: Message) -> Any:
    """Return the envelope of a message as any reader has it."""
    return json.loads(envelope_json(message))


def as_received(text: str) -> str:
    """Return what a reader of an event stream makes of a text."""
    return re.sub("\r\n|\r", "\n", text)


def two_channels(position: Position) -> str:
    """Make the cursor of a connection that follows another channel too."""
    return f"{position},other:3"


_ENTRY = PresenceEntry("c1", "sse", b"7")
_POSITION = Position("k3f9", 7)

PUSHES: list[Push] = [
    Subscribed("demo:a", _POSITION, False),
    GapPush("demo:a", _POSITION, Gap.EPOCH_CHANGED),
    Unsubscribed("demo:a", 4501, "unsubscribed"),
    Joined("demo:a", _ENTRY),
    Left("demo:a", _ENTRY),
    TokenExpiring("", 41.5),
    Disconnected(4000, "slow_reader", True),
    Disconnected(1012, "service_restart", True, 1.5),
    Disconnected(4500, "disconnected", False),
]


class BatchTests(SynchronousTestCase):
    """What all forms encode from."""

    def test_once(self) -> None:
        """The envelopes of a batch are made once."""
        batch = Batch([Message("a", Payload(b"1", Kind.JSON), None, _POSITION)], _POSITION)
        self.assertIs(batch.envelopes, batch.envelopes)
        self.assertEqual(batch.envelopes, [b'{"channel":"a","offset":7,"epoch":"k3f9","data":1}'])


class WebSocketFormTests(SynchronousTestCase):
    """``rtpush.v1`` and ``rtpush.v1.msgpack``."""

    @settings(max_examples=50)
    @given(batches(), _windows)
    def test_json(self, batch: Batch, window_bits: int) -> None:
        """Each message is a text frame with its envelope in JSON."""
        frames = read_frames(WebSocketForm(JSON, window_bits).messages(batch, str), window_bits or 15)
        self.assertEqual({frame.opcode for frame in frames}, {1})
        self.assertEqual(
            [json.loads(frame.payload) for frame in frames],
            [{"message": envelope(message)} for message in batch.messages],
        )

    @settings(max_examples=50)
    @given(batches(), _windows)
    def test_msgpack(self, batch: Batch, window_bits: int) -> None:
        """Each message is a binary frame with its envelope in msgpack: binary is bytes there."""
        frames = read_frames(WebSocketForm(MSGPACK, window_bits).messages(batch, str), window_bits or 15)
        self.assertEqual({frame.opcode for frame in frames}, {2})
        for frame, message in zip(frames, batch.messages, strict=True):
            read = msgspec.msgpack.decode(frame.payload)["message"]
            expected = envelope(message)
            if message.payload.kind is Kind.BINARY:
                self.assertEqual(read.pop("data"), message.payload.data)
                del expected["data_b64"]
            elif message.payload.kind is Kind.JSON:
                # msgpack has no integers of any size.
                self.assertEqual(read.pop("data"), fitted(expected.pop("data")))
            self.assertEqual(read, expected)

    def test_pushes(self) -> None:
        """Each push is a frame with one key, the same in both encodings."""
        for push in PUSHES:
            (text,) = read_frames(WebSocketForm(JSON).push(push, "ignored"))
            (binary,) = read_frames(WebSocketForm(MSGPACK).push(push, "ignored"))
            expected = {push.name: push.as_dict()}
            self.assertEqual((text.opcode, json.loads(text.payload)), (1, expected))
            self.assertEqual((binary.opcode, msgspec.msgpack.decode(binary.payload)), (2, expected))

    def test_same_form(self) -> None:
        """Forms with the same options are the same key of the fan-out; others are not."""
        self.assertEqual(len({WebSocketForm(JSON), WebSocketForm(JSON, 0), WebSocketForm(JSON)}), 1)
        others = {WebSocketForm(JSON), WebSocketForm(JSON, 9), WebSocketForm(MSGPACK), RawForm(), RawForm(9), SSE, POLL}
        self.assertEqual(len(others), 7)


class RawFormTests(SynchronousTestCase):
    """``rtpush.raw``."""

    @settings(max_examples=50)
    @given(batches(), _windows)
    def test_messages(self, batch: Batch, window_bits: int) -> None:
        """Each message is a frame with the payload alone, binary if it is."""
        frames = read_frames(RawForm(window_bits).messages(batch, str), window_bits or 15)
        self.assertEqual(
            [(frame.opcode, frame.payload) for frame in frames],
            [
                (2 if message.payload.kind is Kind.BINARY else 1, message.payload.data)
                for message in batch.messages
            ],
        )

    def test_pushes(self) -> None:
        """There is no room for pushes."""
        self.assertEqual([RawForm().push(push, "") for push in PUSHES], [b""] * len(PUSHES))


class EventStreamTests(SynchronousTestCase):
    """Server-sent events."""

    @settings(max_examples=50)
    @given(batches())
    def test_payloads(self, batch: Batch) -> None:
        """``data`` is the payload, ``event`` its name, ``id`` the cursor of the whole connection."""
        sent = read_events(SSE.messages(batch, two_channels)).events
        last = ""
        for event, message in zip(sent, batch.messages, strict=True):
            last = last if message.position is None else f"{message.position},other:3"
            self.assertEqual((event.name, event.last_id), (message.event or "message", last))
            if message.payload.kind is Kind.BINARY:
                self.assertEqual(base64.b64decode(event.data, validate=True), message.payload.data)
            else:
                self.assertEqual(event.data, as_received(message.payload.data.decode()))

    @settings(max_examples=50)
    @given(batches())
    def test_envelopes(self, batch: Batch) -> None:
        """With the envelope, ``data`` is that, and there is no ``event``."""
        sent = read_events(SSE_ENVELOPE.messages(batch, two_channels)).events
        self.assertEqual([event.name for event in sent], ["message"] * len(batch.messages))
        self.assertEqual([json.loads(event.data) for event in sent], [envelope(message) for message in batch.messages])

    def test_pushes(self) -> None:
        """Each push is an event of its name with the cursor; joins and leaves come with the envelope alone, without."""
        for push in PUSHES:
            (event,) = read_events(SSE_ENVELOPE.push(push, "k3f9:7")).events
            membership = isinstance(push, Joined | Left)
            self.assertEqual((event.name, json.loads(event.data)), (push.name, push.as_dict()))
            is_place = not isinstance(push, Joined | Left | TokenExpiring)
            self.assertEqual(event.last_id, "k3f9:7" if is_place else "")
            self.assertEqual(SSE.push(push, "k3f9:7"), b"" if membership else SSE_ENVELOPE.push(push, "k3f9:7"))

    def test_retry_of_disconnect(self) -> None:
        """An ``EventSource`` is told when to come back; one that should not, in a day."""
        self.assertEqual(read_events(SSE.push(Disconnected(4000, "slow_reader", True), "")).retries, [])
        self.assertEqual(read_events(SSE.push(Disconnected(1012, "x", True, 1.5), "")).retries, [1500])
        self.assertEqual(read_events(SSE.push(Disconnected(4500, "x", False), "")).retries, [86_400_000])


class PollTests(SynchronousTestCase):
    """The body of the answer to a poll."""

    @settings(max_examples=50)
    @given(batches())
    def test_messages(self, batch: Batch) -> None:
        """The answer has the envelopes and the cursor after them."""
        self.assertEqual(
            json.loads(POLL.messages(batch, two_channels)),
            {
                "messages": [envelope(message) for message in batch.messages],
                "cursor": f"{batch.position},other:3",
                "recovered": True,
            },
        )

    def test_gap(self) -> None:
        """A gap is told in the answer, which is not recovered."""
        push = GapPush("demo:a", _POSITION, Gap.HISTORY_LOST)
        self.assertEqual(
            json.loads(POLL.push(push, "k3f9:7")),
            {"messages": [], "cursor": "k3f9:7", "recovered": False, "gaps": [push.as_dict()]},
        )

    def test_endings(self) -> None:
        """The end of the subscription or connection is told in the answer."""
        for push in (Disconnected(1012, "x", True, 1.5), Unsubscribed("demo:a", 4501, "unsubscribed")):
            answer = json.loads(POLL.push(push, "k3f9:7"))
            self.assertEqual(answer[push.name], push.as_dict())
            self.assertEqual((answer["messages"], answer["cursor"]), ([], "k3f9:7"))

    def test_no_room(self) -> None:
        """Who joins or leaves is not told in polls, nor that a subscription begins."""
        for push in (Joined("demo:a", _ENTRY), Left("demo:a", _ENTRY), Subscribed("demo:a", _POSITION, True)):
            self.assertEqual(POLL.push(push, "k3f9:7"), b"")

    def test_body(self) -> None:
        """An empty answer has nothing but the cursor."""
        self.assertEqual(poll_body([], "-"), b'{"messages":[],"cursor":"-","recovered":true}')


def fitted(value: Any) -> Any:
    """Return a value as a reader of msgpack has it: integers that do not fit are floats."""
    if isinstance(value, dict):
        return {key: fitted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fitted(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return None
    return value


class AnyMessageTests(SynchronousTestCase):
    """All forms at once."""

    @settings(max_examples=100)
    @given(batches())
    def test_encodable(self, batch: Batch) -> None:
        """What can be published can be encoded in every form."""
        for form in (WebSocketForm(JSON), WebSocketForm(MSGPACK, 9), RawForm(15), SSE, SSE_ENVELOPE, POLL):
            self.assertTrue(form.messages(batch, str))
