"""What a client asks for: the commands of a WebSocket frame and of ``/emit``, and the bodies of the server API."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.message import Kind, Message, Payload, check_event

__all__ = [
    "MAX_NESTING",
    "Command",
    "Connect",
    "Frame",
    "HistoryQuery",
    "Ping",
    "PresenceQuery",
    "Publication",
    "Publish",
    "RawField",
    "Refresh",
    "Request",
    "Subscribe",
    "Unsubscribe",
    "json_payload",
    "publication",
    "read_json",
]

#: How deep arrays and objects of a payload may be nested; deeper ones overflow the stack of many a JSON reader.
MAX_NESTING = 200

_decode_json = msgspec.json.Decoder().decode
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|[\]}]', re.DOTALL)

# To look up a member of an enumeration takes long.
_TEXT, _JSON = Kind.TEXT, Kind.JSON

#: A field that is kept as it was written.
RawField = msgspec.Raw | msgspec.UnsetType


class _Fields(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What all commands have in common: a misspelt field is an error, not a silence."""


class Connect(msgspec.Struct, kw_only=True):
    """
    Say who one is, and what the application is to hear of it.

    Unknown fields are let through: clients of later versions may say more.
    """

    token: str | None = None
    info: RawField = msgspec.UNSET
    data: RawField = msgspec.UNSET


class Subscribe(_Fields):
    """Follow a channel, from a position, from the oldest message kept, or from now."""

    channel: str
    cursor: str | None = None
    since: str | None = None
    token: str | None = None


class Unsubscribe(_Fields):
    """Follow a channel no longer."""

    channel: str


class Publish(_Fields):
    """Publish a message."""

    channel: str
    data: RawField = msgspec.UNSET
    data_b64: str | None = None
    event: str | None = None
    idempotency_key: str | None = None
    history: bool = True


class HistoryQuery(_Fields):
    """Read the messages that a channel keeps."""

    channel: str
    since: str | None = None
    limit: int = 100
    reverse: bool = False


class PresenceQuery(_Fields):
    """Ask who is in a channel."""

    channel: str


class Ping(_Fields):
    """See that the other side is there."""


class Refresh(_Fields):
    """Give a new token."""

    token: str


Command = Connect | Subscribe | Unsubscribe | Publish | HistoryQuery | PresenceQuery | Ping | Refresh


class Frame(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command as it comes: an id, and one of these."""

    id: int | None = None
    connect: Connect | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    publish: Publish | None = None
    history: HistoryQuery | None = None
    presence: PresenceQuery | None = None
    ping: Ping | None = None
    refresh: Refresh | None = None


_COMMANDS = tuple(name for name in Frame.__struct_fields__ if name != "id")


class Request(msgspec.Struct, frozen=True):
    """
    One command of a client.

    :ivar id: What comes back in the reply; :obj:`None` if no reply is wanted.
    :ivar name: The command's name, which is the key of its reply.
    """

    id: int | None
    name: str
    command: Command

    @classmethod
    def of(cls, frame: Frame) -> Request:
        """
        Take the one command out of a frame.

        :raises RtpushError: ``bad_request`` if there is not exactly one, or the id is not a positive integer.
        """
        if frame.id is not None and frame.id < 1:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"id is {frame.id}, expected a positive integer")
        given = [name for name in _COMMANDS if getattr(frame, name) is not None]
        if len(given) != 1:
            raise RtpushError(
                ErrorCode.BAD_REQUEST,
                f"expected exactly one of {', '.join(_COMMANDS)} in a command, got {', '.join(given) or 'none'}",
            )
        return cls(frame.id, given[0], getattr(frame, given[0]))


class Publication(msgspec.Struct, frozen=True, gc=False):
    """
    A message on its way in: it has no position yet.

    :ivar history: Whether the message gets a position and is kept.
    :ivar idempotency_key: A repetition with the same key, within the broker's window, gives the first result again.
    """

    channel: str
    payload: Payload
    event: str | None = None
    idempotency_key: str | None = None
    history: bool = True

    def message(self) -> Message:
        """Return the message without a position."""
        return Message(self.channel, self.payload, self.event)


def read_json(raw: bytes, what: str) -> Any:
    """
    Read a JSON text that others will have to read too.

    :param raw: One JSON value, in UTF-8.
    :param what: What the error calls it.
    :raises RtpushError: ``bad_request`` if it cannot be read (numbers out of range, lone surrogates, nested too deep).
    """
    if len(raw) > MAX_NESTING and raw.count(b"[") + raw.count(b"{") > MAX_NESTING:
        depth = 0
        for match in _NESTING.finditer(raw):
            if match[1]:
                depth += 1
                if depth > MAX_NESTING:
                    raise RtpushError(ErrorCode.BAD_REQUEST, f"{what} is nested deeper than {MAX_NESTING}")
            elif match[0][:1] != b'"':
                depth -= 1
    try:
        return _decode_json(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"{what} is not JSON that can be carried: {error}") from None


def json_payload(raw: bytes) -> Payload:
    """
    Make a payload of a JSON text: a string becomes text, anything else is kept as it was written.

    :param raw: One JSON value, known to be well-formed UTF-8.
    :raises RtpushError: ``bad_request`` if it cannot be read; see :func:`read_json`.
    """
    value = read_json(raw, "data")
    if isinstance(value, str):
        return Payload(value.encode(), _TEXT)
    return Payload(bytes(raw), _JSON)


def publication(publish: Publish, payload: Payload | None) -> Publication:
    """
    Check what a client or backend wants to publish.

    :param payload: What ``data`` holds, if it was given.
    :raises RtpushError: ``bad_request`` if there is not exactly one payload, or the event name or key is bad.
    """
    if publish.data_b64 is not None:
        if payload is not None:
            raise RtpushError(ErrorCode.BAD_REQUEST, "both data and data_b64 are given, expected one of them")
        try:
            payload = Payload(base64.b64decode(publish.data_b64, validate=True), Kind.BINARY)
        except (binascii.Error, ValueError) as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"data_b64 is not base64: {error}") from None
    if payload is None:
        raise RtpushError(ErrorCode.BAD_REQUEST, "there is nothing to publish: expected data or data_b64")
    check_event(publish.event)
    key = publish.idempotency_key
    if key is not None and not 1 <= len(key) <= 128:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"idempotency_key has {len(key)} characters, expected 1 to 128")
    return Publication(publish.channel, payload, publish.event, key, publish.history)
