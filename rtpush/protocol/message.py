"""Messages: what they carry, and their envelope."""

from __future__ import annotations

import base64
import enum
import re
from typing import Any

import msgspec

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.position import Position

__all__ = ["RESERVED_EVENTS", "Kind", "Message", "Payload", "check_event", "envelope_json", "envelope_object"]

#: Event names that the transports use for themselves.
RESERVED_EVENTS = frozenset({"open", "gap", "unsubscribed", "token_expiring", "disconnect"})

_EVENT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,128}")

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


class Kind(enum.IntEnum):
    """What the bytes of a payload are."""

    JSON = 0
    TEXT = 1
    BINARY = 2


class Payload(msgspec.Struct, frozen=True, gc=False):
    """
    What a message carries.

    :ivar data: JSON text, UTF-8 text, or any bytes.
    """

    data: bytes
    kind: Kind

    def as_object(self) -> Any:
        """Return the payload as Python has it: parsed JSON, :class:`str` or :class:`bytes`."""
        if self.kind is Kind.JSON:
            return _decode_json(self.data)
        return self.data.decode() if self.kind is Kind.TEXT else self.data

    def json_field(self) -> bytes:
        """Return the payload as a field of a JSON envelope: ``"data":…`` or ``"data_b64":…``."""
        if self.kind is Kind.JSON:
            return b'"data":' + self.data
        if self.kind is Kind.TEXT:
            return b'"data":' + _encode_json(self.data.decode())
        return b'"data_b64":"' + base64.b64encode(self.data) + b'"'


class Message(msgspec.Struct, frozen=True, eq=False, gc=False):
    """
    A message of a channel.

    :ivar event: The event name, if it was given one.
    :ivar position: Its place in the channel; :obj:`None` for one that was published without history, which is delivered
        at most once.
    """

    channel: str
    payload: Payload
    event: str | None = None
    position: Position | None = None

    @property
    def data(self) -> Any:
        """The payload as Python has it: parsed JSON, :class:`str` or :class:`bytes`."""
        return self.payload.as_object()

    @property
    def offset(self) -> int:
        """The offset; 0 for a message that has no position."""
        return 0 if self.position is None else self.position.offset


def check_event(event: str | None) -> None:
    """
    Check an event name.

    :raises RtpushError: if it is longer than 128 characters, has a control character or is one of ours.
    """
    if event is None:
        return
    if event in RESERVED_EVENTS:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"the event name {event!r} is reserved for the server")
    if _EVENT.fullmatch(event) is None:
        raise RtpushError(
            ErrorCode.BAD_REQUEST, "bad event name: expected 1 to 128 characters, none of them a control character"
        )


def envelope_json(message: Message) -> bytes:
    """Return the envelope of a message as JSON."""
    # A channel name needs no escaping (see channel.py), nor does an epoch.
    head = f'{{"channel":"{message.channel}",'
    if message.position is not None:
        head += f'"offset":{message.position.offset},"epoch":"{message.position.epoch}",'
    event = b"" if message.event is None else b'"event":' + _encode_json(message.event) + b","
    return head.encode() + event + message.payload.json_field() + b"}"


def envelope_object(message: Message) -> dict[str, Any]:
    """Return the envelope of a message as an object, with a binary payload as bytes: what msgpack carries."""
    envelope: dict[str, Any] = {"channel": message.channel}
    if message.position is not None:
        envelope["offset"] = message.position.offset
        envelope["epoch"] = message.position.epoch
    if message.event is not None:
        envelope["event"] = message.event
    envelope["data"] = message.payload.as_object()
    return envelope
