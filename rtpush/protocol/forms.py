"""
Wire forms: how a batch of messages of one channel looks on each transport.

What arrives for a channel within one turn is one batch; it is encoded once per wire form, however many connections get
it.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec

from rtpush.protocol import sse
from rtpush.protocol.codecs import JSON, Codec
from rtpush.protocol.frames import BINARY, TEXT, deflated_frame
from rtpush.protocol.message import Kind, Message, envelope_json
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import Disconnected, GapPush, Joined, Left, Push, TokenExpiring, Unsubscribed

__all__ = [
    "POLL",
    "SSE",
    "SSE_ENVELOPE",
    "Batch",
    "CursorOf",
    "EventStream",
    "PollAnswer",
    "PollAnswerWith",
    "RawForm",
    "WebSocketForm",
    "WireForm",
    "poll_body",
]

#: Makes the cursor of a whole connection from the position of one message; :class:`str` for a single channel.
CursorOf = Callable[[Position], str]


#: A day: as near to never as an ``EventSource`` can be told.
_NEVER = sse.retry(86400)


class Batch:
    """
    Messages of one channel, in order, with their JSON envelopes made at most once.

    :ivar position: The channel's position after them.
    """

    __slots__ = ("_envelopes", "messages", "position")

    def __init__(self, messages: Sequence[Message], position: Position) -> None:
        self.messages = messages
        self.position = position
        self._envelopes: list[bytes] | None = None

    @property
    def envelopes(self) -> list[bytes]:
        """The JSON envelopes of the messages."""
        if self._envelopes is None:
            self._envelopes = [envelope_json(message) for message in self.messages]
        return self._envelopes


class WireForm(ABC):
    """How messages and pushes look for a kind of connection."""

    @abstractmethod
    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        """Encode a batch."""

    @abstractmethod
    def push(self, push: Push, cursor: str) -> bytes:
        """Encode a push; empty if this form has no room for it. ``cursor`` is the connection's, after the push."""


@attrs.frozen
class WebSocketForm(WireForm):
    """
    ``rtpush.v1`` and ``rtpush.v1.msgpack``: an object a frame.

    :ivar window_bits: The window of permessage-deflate; 0 without.
    """

    codec: Codec
    window_bits: int = 0

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        if self.codec is JSON:
            return b"".join([self._frame(b'{"message":' + envelope + b"}") for envelope in batch.envelopes])
        return b"".join([self.object({"message": self.codec.envelope(message)}) for message in batch.messages])

    def push(self, push: Push, cursor: str) -> bytes:
        return self.object({push.name: push.as_dict()})

    def object(self, value: dict[str, Any]) -> bytes:
        """Encode a reply."""
        return self._frame(self.codec.encode(value))

    def _frame(self, payload: bytes) -> bytes:
        return deflated_frame(BINARY if self.codec.binary else TEXT, payload, self.window_bits)


@attrs.frozen
class RawForm(WireForm):
    """``rtpush.raw``: the payload alone."""

    window_bits: int = 0

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        return b"".join(
            [
                deflated_frame(
                    BINARY if message.payload.kind is Kind.BINARY else TEXT, message.payload.data, self.window_bits
                )
                for message in batch.messages
            ]
        )

    def push(self, push: Push, cursor: str) -> bytes:
        return b""


@attrs.frozen(eq=False)
class EventStream(WireForm):
    """
    Server-sent events.

    :ivar envelope: Whether ``data`` is the envelope, not the payload alone.
    """

    envelope: bool

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        events = []
        for index, message in enumerate(batch.messages):
            cursor = None if message.position is None else cursor_of(message.position)
            if self.envelope:
                events.append(sse.event(batch.envelopes[index], cursor=cursor))
            else:
                payload = message.payload
                data = base64.b64encode(payload.data) if payload.kind is Kind.BINARY else payload.data
                events.append(sse.event(data, name=message.event, cursor=cursor))
        return b"".join(events)

    def push(self, push: Push, cursor: str) -> bytes:
        if isinstance(push, Joined | Left):
            # Without the envelope these would be taken for messages of the application.
            return sse.event(msgspec.json.encode(push.as_dict()), name=push.name) if self.envelope else b""
        if isinstance(push, TokenExpiring):
            return sse.event(msgspec.json.encode(push.as_dict()), name=push.name)
        told = sse.event(msgspec.json.encode(push.as_dict()), name=push.name, cursor=cursor)
        if isinstance(push, Disconnected):
            # An EventSource comes back whatever it is told, so one that should not is made to wait.
            return (b"" if push.after is None else sse.retry(push.after)) + told if push.reconnect else _NEVER + told
        return told


@attrs.frozen(eq=False)
class PollAnswer(WireForm):
    """The body of the answer to a poll."""

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        return poll_body(batch.envelopes, cursor_of(batch.position))

    def push(self, push: Push, cursor: str) -> bytes:
        if isinstance(push, GapPush):
            return poll_body([], cursor, recovered=False, gaps=[push.as_dict()])
        if isinstance(push, Disconnected | Unsubscribed):
            return poll_body([], cursor, **{push.name: push.as_dict()})
        return b""


@attrs.frozen(eq=False)
class PollAnswerWith(PollAnswer):
    """
    The same, with more in it: for one answer.

    :ivar more: What.
    """

    more: dict[str, Any]

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        return poll_body(batch.envelopes, cursor_of(batch.position), **self.more)


def poll_body(envelopes: Sequence[bytes], cursor: str, **more: Any) -> bytes:
    """Return the body of an answer to a poll."""
    # A cursor needs no escaping.
    head = b'{"messages":[%b],"cursor":"%b",' % (b",".join(envelopes), cursor.encode())
    return head + msgspec.json.encode({"recovered": True} | more)[1:] if more else head + b'"recovered":true}'


SSE = EventStream(envelope=False)
SSE_ENVELOPE = EventStream(envelope=True)
POLL = PollAnswer()
