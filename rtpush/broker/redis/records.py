"""What is published in Redis and kept there: records, as ``lua/common.lua`` describes them."""

from __future__ import annotations

from urllib.parse import quote, unquote

import attrs

from rtpush.errors import RtpushError
from rtpush.protocol.commands import json_payload
from rtpush.protocol.message import Kind, Message, Payload, check_event
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry

__all__ = ["KIND_LETTERS", "Record", "entry_of", "said_of"]

#: How the kinds of payload are written that a node has checked. What others publish is ``a``, or ``s`` for a string.
KIND_LETTERS = {Kind.JSON: b"j", Kind.TEXT: b"t", Kind.BINARY: b"b"}

_KINDS = {letter: kind for kind, letter in KIND_LETTERS.items()}


@attrs.frozen(slots=True)
class Record:
    """
    A message as Redis keeps it.

    :ivar time: When it was published, in microseconds; no other message of its channel has the same.
    :ivar before: The time of the message before it.
    """

    message: Message
    time: int
    before: int

    @classmethod
    def parse(cls, channel: str, raw: bytes) -> Record:
        """
        Read a record of a message, with or without a position.

        :raises ValueError: if it is none.
        """
        tag, epoch, offset, time, before, kind, size, rest = raw.split(b" ", 7)
        length = int(size)
        event = rest[:length].decode(errors="replace") if length else None
        position = Position(epoch.decode("ascii"), int(offset)) if tag == b"m" else None
        data = rest[length:]
        known = _KINDS.get(kind)
        if known is None:
            return cls(Message(channel, _given(data, kind), _valid(event), position), int(time), int(before))
        payload = Payload(data, known)
        return cls(Message(channel, payload, event, position), int(time), int(before))


def said_of(entry: PresenceEntry) -> bytes:
    """Return what is kept of a connection in a channel."""
    user = b":" + quote(entry.user, safe="").encode() if entry.user else b""
    return entry.transport.encode() + user + b" " + entry.info


def entry_of(connection: bytes, said: bytes) -> PresenceEntry:
    """Read what :func:`said_of` has written."""
    head, _, info = said.partition(b" ")
    transport, _, user = head.decode().partition(":")
    return PresenceEntry(connection.decode(), transport, info, unquote(user))


def _given(data: bytes, kind: bytes) -> Payload:
    """Return what others have published, as what it is: JSON, unless it is called text, else text, else binary."""
    if kind == b"a":
        try:
            return json_payload(data)
        except RtpushError:
            pass
    try:
        data.decode()
    except UnicodeDecodeError:
        return Payload(data, Kind.BINARY)
    return Payload(data, Kind.TEXT)


def _valid(event: str | None) -> str | None:
    """Return an event name that others have given, if it can be one."""
    try:
        check_event(event)
    except RtpushError:
        return None
    return event
