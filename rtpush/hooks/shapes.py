"""What is said to the application and what it answers: JSON, one shape for all events."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, TypeVar

import msgspec

from rtpush.auth.permissions import NOTHING, Action, Grant, Permissions
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication, Publish, RawField, json_payload, read_json
from rtpush.protocol.commands import publication as checked_publication
from rtpush.protocol.message import Kind, Payload
from rtpush.registry.guests import Denied, Given

__all__ = [
    "MAX_ANSWER_BYTES",
    "BadAnswer",
    "Question",
    "Reply",
    "payload_fields",
    "read_connect",
    "read_publish",
    "read_subscribe",
    "read_told",
]

#: The longest answer, and the most of it that becomes a client's presence information.
MAX_ANSWER_BYTES = 65536
_MAX_INFO_BYTES = 8192

_MAX_MESSAGE = 500
_MAX_NAME_BYTES = 255
_LAST_SECOND = 253402300799

_ACTIONS = {action.word: action for action in Action}
_KINDS = {kind.code: kind for kind in ErrorCode}


class BadAnswer(Exception):
    """An answer that is none. Its text is one line, which shows nothing of the content."""


class Question(msgspec.Struct, omit_defaults=True, kw_only=True):
    """
    What is asked or told.

    :ivar id: Another one each time; the same if it is sent again.
    :ivar time: Seconds since 1970.
    :ivar name: The event name of a message that is to be published.
    """

    event: str
    id: str
    time: float
    node: str
    transport: str
    connection: str = ""
    address: str = ""
    user: str = ""
    info: RawField = msgspec.UNSET
    headers: dict[str, str] = {}
    channel: str = ""
    data: RawField = msgspec.UNSET
    data_b64: str | None = None
    name: str | None = None
    code: int | None = None
    reason: str | None = None


class Reply(msgspec.Struct):
    """An answer as it comes."""

    status: int
    body: bytes


class _Deny(msgspec.Struct, forbid_unknown_fields=True):
    code: int | None = None
    message: str | None = None


class _Answer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is misspelt must not be taken for a permission, so unknown fields are no good."""

    deny: _Deny | None = None


class _ConnectAnswer(_Answer):
    user: str | None = None
    info: RawField = msgspec.UNSET
    channels: dict[str, list[str]] | None = None
    expires: float | None = None
    data: RawField = msgspec.UNSET


class _SubscribeAnswer(_Answer):
    data: RawField = msgspec.UNSET


class _PublishAnswer(_Answer):
    data: RawField = msgspec.UNSET
    data_b64: str | None = None


A = TypeVar("A", bound=_Answer)


def payload_fields(payload: Payload) -> dict[str, Any]:
    """Return the fields of a question that have a payload."""
    if payload.kind is Kind.BINARY:
        return {"data_b64": b64encode(payload.data).decode()}
    if payload.kind is Kind.TEXT:
        return {"data": msgspec.Raw(msgspec.json.encode(payload.data.decode()))}
    return {"data": msgspec.Raw(payload.data)}


def read_connect(reply: Reply, now: float) -> Given:
    """
    Read the answer to ``connect``.

    :param now: Seconds since 1970.
    :raises Denied: if it says no.
    :raises BadAnswer: if it is none.
    """
    answer = _read(reply, _ConnectAnswer)
    data, info = _json(answer.data, "data"), _json(answer.info, "info")
    user, expires = answer.user or "", answer.expires
    if not user.isprintable() or len(user.encode(errors="replace")) > _MAX_NAME_BYTES:
        raise BadAnswer(f"user is no string of at most {_MAX_NAME_BYTES} bytes of printable characters")
    if expires is not None and not 0 < expires <= _LAST_SECOND:
        raise BadAnswer("expires is no number of seconds since 1970")
    if len(info) > _MAX_INFO_BYTES:
        raise BadAnswer(f"info has more than {_MAX_INFO_BYTES} bytes")
    if not user and not info and answer.channels is None and expires is None:
        return Given(None, data)
    grant = Grant(user=user, expires=expires, issued=now, permissions=_permissions(answer.channels), info=info)
    return Given(grant, data)


def read_subscribe(reply: Reply) -> bytes:
    """
    Read the answer to ``subscribe``: what is said to the client as JSON, or nothing.

    :raises Denied: if it says no.
    :raises BadAnswer: if it is none.
    """
    return _json(_read(reply, _SubscribeAnswer).data, "data")


def read_publish(reply: Reply, asked: Publication) -> Publication:
    """
    Read the answer to ``publish``: what is to be published.

    :raises Denied: if it says no.
    :raises BadAnswer: if it is none.
    """
    answer = _read(reply, _PublishAnswer)
    data = _json(answer.data, "data")
    if not data and answer.data_b64 is None:
        return asked
    try:
        payload = json_payload(data) if data else None
        made = checked_publication(Publish(channel=asked.channel, data_b64=answer.data_b64), payload)
    except RtpushError as error:
        raise BadAnswer(error.message) from None
    return msgspec.structs.replace(asked, payload=made.payload)


def read_told(reply: Reply) -> None:
    """
    Read the answer to what was only told: any success will do.

    :raises BadAnswer: if it is none.
    """
    if not 200 <= reply.status < 300:
        raise BadAnswer(f"the status is {reply.status}: expected 200")


def _read(reply: Reply, shape: type[A]) -> A:
    if reply.status in (401, 403):
        raise _denied_by_status(reply, shape)
    if reply.status != 200:
        raise BadAnswer(f"the status is {reply.status}: expected 200")
    answer = _decoded(reply.body, shape)
    if answer.deny is not None:
        raise _denied(answer.deny, ErrorCode.PERMISSION_DENIED)
    return answer


def _decoded(body: bytes, shape: type[A]) -> A:
    try:
        # Through str: a field that is kept raw is not checked for UTF-8 by the decoder.
        return msgspec.json.decode(body.decode(), type=shape)
    except UnicodeDecodeError:
        raise BadAnswer("the answer is not UTF-8") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is no JSON object as expected: {error}") from None


def _denied_by_status(reply: Reply, shape: type[A]) -> Denied:
    """Return what a status says. The body may say more, if it is one of ours."""
    kind = ErrorCode.UNAUTHORIZED if reply.status == 401 else ErrorCode.PERMISSION_DENIED
    try:
        deny = _decoded(reply.body, shape).deny
    except BadAnswer:
        deny = None
    return _denied(deny or _Deny(), kind)


def _denied(deny: _Deny, kind: ErrorCode) -> Denied:
    code = kind.code if deny.code is None else deny.code
    if not 1 <= code <= 4999:
        raise BadAnswer(f"the code of deny is {code}: expected 1 to 4999")
    message = (deny.message or "the application does not permit it")[:_MAX_MESSAGE]
    return Denied(_KINDS.get(code, kind), message, code)


def _json(raw: RawField, what: str) -> bytes:
    if isinstance(raw, msgspec.UnsetType):
        return b""
    text = bytes(raw)
    try:
        return b"" if read_json(text, what) is None else text
    except RtpushError as error:
        raise BadAnswer(error.message) from None


def _permissions(channels: dict[str, list[str]] | None) -> Permissions:
    if channels is None:
        return NOTHING
    for words in channels.values():
        if not all(word in _ACTIONS for word in words):
            raise BadAnswer(f"channels has an unknown action: expected {', '.join(_ACTIONS)}")
    try:
        return Permissions.of({name: [_ACTIONS[word] for word in words] for name, words in channels.items()})
    except ValueError as error:
        raise BadAnswer(f"channels: {error}") from None
