"""The wire as a client sees it: reading what the server says, writing commands. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from random import Random
from typing import Any, TypeVar

import msgspec

from rtpush.client.errors import BadAnswer
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import Disconnected, GapPush, Joined, Left, PresenceEntry, Subscribed, Unsubscribed
from rtpush.protocol.recovery import Gap, Page

__all__ = [
    "BatchReply",
    "Frame",
    "Greeting",
    "HistoryReply",
    "Opened",
    "PollAnswer",
    "PresenceReply",
    "PublishReply",
    "command_json",
    "error_in",
    "fields_json",
    "payload_of",
    "publish_fields",
    "read",
    "read_event",
    "read_replies",
    "result_of",
    "with_key",
]

T = TypeVar("T")

_NO_DATA = msgspec.Raw(b"")
_ERRORS_BY_CODE = {kind.code: kind for kind in ErrorCode}
_ERRORS_BY_NAME = {kind.name.lower(): kind for kind in ErrorCode}


class _Envelope(msgspec.Struct):
    channel: str
    epoch: str | None = None
    offset: int = 0
    event: str | None = None
    data: msgspec.Raw = _NO_DATA
    data_b64: str | None = None

    def message(self) -> Message:
        """Return the message. A JSON string is a text payload; any other JSON is kept as it was written."""
        raw = bytes(self.data)
        if self.data_b64 is not None:
            try:
                payload = Payload(base64.b64decode(self.data_b64, validate=True), Kind.BINARY)
            except binascii.Error as error:
                raise BadAnswer(f"data_b64 is not base64: {error}") from None
        elif raw.startswith(b'"'):
            payload = Payload(read(raw, str).encode(), Kind.TEXT)
        elif raw:
            payload = Payload(raw, Kind.JSON)
        else:
            raise BadAnswer("an envelope without data")
        position = None if self.epoch is None else Position(self.epoch, self.offset)
        return Message(self.channel, payload, self.event, position)


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    name: str = ""
    temporary: bool = False
    channel: str = ""

    def exception(self) -> RtpushError:
        """
        Return the error.

        One of a code that we do not know is what its name says, with a code that the application has chosen, or becomes
        the nearest that we know.
        """
        kind = _ERRORS_BY_CODE.get(self.code) or _ERRORS_BY_NAME.get(self.name)
        if kind is None:
            unknown = ErrorCode.INTERNAL if self.temporary else ErrorCode.BAD_REQUEST
            return RtpushError(unknown, f"{self.name} ({self.code}): {self.message}")
        return RtpushError(kind, self.message or self.name, channel=self.channel, code=self.code)


class _Place(msgspec.Struct):
    """What ``subscribed`` and ``gap`` tell."""

    channel: str
    epoch: str
    offset: int
    recovered: bool = True
    reason: str = ""
    data: Any = None

    def subscribed(self) -> Subscribed:
        return Subscribed(self.channel, Position(self.epoch, self.offset), self.recovered)

    def gap(self) -> GapPush:
        try:
            reason = Gap(self.reason)
        except ValueError:
            # A reason of a later version of the server; that the history is lost is what all of them have in common.
            reason = Gap.HISTORY_LOST
        return GapPush(self.channel, Position(self.epoch, self.offset), reason)


class _Ended(msgspec.Struct):
    channel: str
    code: int
    reason: str = ""

    def unsubscribed(self) -> Unsubscribed:
        return Unsubscribed(self.channel, self.code, self.reason)


class _Member(msgspec.Struct):
    connection: str
    transport: str
    channel: str = ""
    info: msgspec.Raw = _NO_DATA
    user: str = ""

    def entry(self) -> PresenceEntry:
        return PresenceEntry(self.connection, self.transport, bytes(self.info), self.user)

    def joined(self) -> Joined:
        return Joined(self.channel, self.entry())

    def left(self) -> Left:
        return Left(self.channel, self.entry())


class _Disconnect(msgspec.Struct):
    code: int
    reason: str = ""
    reconnect: bool = True
    after: float | None = None

    def disconnected(self) -> Disconnected:
        return Disconnected(self.code, self.reason, self.reconnect, self.after)


class _Expiring(msgspec.Struct):
    channel: str | None = None


class _Connected(msgspec.Struct):
    heartbeat: float | None = None
    data: Any = None


class PublishReply(msgspec.Struct):
    """What a publisher is told."""

    epoch: str | None = None
    offset: int = 0

    def position(self) -> Position | None:
        """Return where the message is; nothing if it was published without history."""
        return None if self.epoch is None else Position(self.epoch, self.offset)


class HistoryReply(msgspec.Struct):
    """A part of a channel's history."""

    messages: list[_Envelope]
    epoch: str
    offset: int

    def page(self) -> Page:
        """Return the messages."""
        return Page([envelope.message() for envelope in self.messages], Position(self.epoch, self.offset))


class PresenceReply(msgspec.Struct):
    """Who is in a channel."""

    connections: list[_Member]

    def entries(self) -> list[PresenceEntry]:
        """Return each of them."""
        return [member.entry() for member in self.connections]


class _Response(msgspec.Struct):
    result: PublishReply | None = None
    error: _Error | None = None

    def outcome(self) -> Position | RtpushError | None:
        if self.error is not None:
            return self.error.exception()
        return None if self.result is None else self.result.position()


class BatchReply(msgspec.Struct):
    """What the server API answers to several publications."""

    responses: list[_Response]

    def results(self) -> list[Position | RtpushError | None]:
        """Return the position of each message, or what is wrong with it."""
        return [response.outcome() for response in self.responses]


class Frame(msgspec.Struct):
    """What the server sends: a reply (which has an id), a push, or an event of a stream. One other field is set."""

    id: int | None = None
    error: _Error | None = None
    message: _Envelope | None = None
    subscribed: _Place | None = None
    unsubscribed: _Ended | None = None
    gap: _Place | None = None
    join: _Member | None = None
    leave: _Member | None = None
    disconnect: _Disconnect | None = None
    token_expiring: _Expiring | None = None
    connect: _Connected | None = None
    subscribe: _Place | None = None
    publish: PublishReply | None = None
    history: HistoryReply | None = None
    presence: PresenceReply | None = None


class Greeting(msgspec.Struct, kw_only=True):
    """What the application says to the client, and to it about its channels."""

    data: Any = None
    channel_data: dict[str, Any] = {}


class Opened(Greeting):
    """The data of the first event of an event stream."""

    cursor: str


class PollAnswer(Greeting):
    """The answer of a poll."""

    cursor: str
    messages: list[_Envelope] = []
    gaps: list[_Place] = []
    unsubscribed: _Ended | None = None
    disconnect: _Disconnect | None = None


def read(data: bytes | str, shape: type[T]) -> T:
    """
    Read JSON of a shape.

    :raises BadAnswer: if it is anything else.
    """
    try:
        # Through str: a field that is kept raw is not checked for UTF-8 by the decoder.
        return msgspec.json.decode(data.decode() if isinstance(data, bytes) else data, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(f"unexpected answer: {error}") from None


def read_event(name: str, data: str) -> Frame:
    """
    Read an event of an event stream. One that we do not know is an empty frame.

    :raises BadAnswer: if its data is not what its name says.
    """
    return read(f"{{{msgspec.json.encode(name).decode()}:{data}}}", Frame)


def read_replies(data: bytes, count: int) -> list[Frame]:
    """
    Read what ``/emit`` answers to an array of commands.

    :raises BadAnswer: if it is not that many replies.
    """
    replies = read(data, list[Frame])
    if len(replies) != count:
        raise BadAnswer(f"unexpected answer: {len(replies)} replies to {count} commands")
    return replies


def error_in(body: bytes) -> RtpushError | None:
    """Return the error that a body holds; :obj:`None` if it is of another shape, as that of a proxy."""
    try:
        frame = read(body, Frame)
    except BadAnswer:
        return None
    return None if frame.error is None else frame.error.exception()


def result_of(reply: Frame) -> Any:
    """
    Return what a reply says: a position, a page of history, presence entries, or nothing.

    :raises RtpushError: if it says what is wrong.
    """
    if reply.error is not None:
        raise reply.error.exception()
    if reply.publish is not None:
        return reply.publish.position()
    if reply.history is not None:
        return reply.history.page()
    if reply.presence is not None:
        return reply.presence.entries()
    return None


def payload_of(data: Any) -> Payload:
    """
    Make a payload: of bytes a binary one, of a string a text, of anything else JSON. A payload is taken as it is.

    :raises TypeError: if JSON cannot express it.
    """
    if isinstance(data, Payload):
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return Payload(bytes(data), Kind.BINARY)
    if isinstance(data, str):
        return Payload(data.encode(), Kind.TEXT)
    return Payload(msgspec.json.encode(data), Kind.JSON)


def with_key(publication: Publication, random: Random) -> Publication:
    """Give a publication an idempotency key, unless it has one; one without history is not remembered anyway."""
    if publication.idempotency_key is not None or not publication.history:
        return publication
    return msgspec.structs.replace(publication, idempotency_key=f"{random.getrandbits(96):024x}")


def publish_fields(publication: Publication) -> dict[str, Any]:
    """Return the fields of ``publish``: those of the command and of the server API are the same."""
    payload = publication.payload
    fields: dict[str, Any] = {
        "channel": publication.channel,
        "event": publication.event,
        "idempotency_key": publication.idempotency_key,
    }
    if not publication.history:
        fields["history"] = False
    if payload.kind is Kind.BINARY:
        fields["data_b64"] = base64.b64encode(payload.data).decode()
    else:
        fields["data"] = msgspec.Raw(payload.data) if payload.kind is Kind.JSON else payload.data.decode()
    return fields


def fields_json(fields: Mapping[str, Any]) -> bytes:
    """Write the fields of a command or call; those that are :obj:`None` are left out."""
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


def command_json(id_: int | None, name: str, body: bytes = b"{}") -> bytes:
    """Write a command, whose fields are JSON already."""
    head = "{" if id_ is None else f'{{"id":{id_},'
    return f'{head}"{name}":'.encode() + body + b"}"
