"""
The calls of the server API: their bodies, their results, and what they do.

``openapi.py`` describes them from the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed

import rtpush
from rtpush.errors import Disconnect, ErrorCode, RtpushError, reconnects
from rtpush.protocol.channel import Access
from rtpush.protocol.codecs import JSON
from rtpush.protocol.commands import HistoryQuery, PresenceQuery, Publish, RawField
from rtpush.protocol.lifecycle import State
from rtpush.registry.connection import Connection
from rtpush.registry.node import Node
from rtpush.transports.commands import error_reply, history_result, presence_result, publish_result

__all__ = ["CALLS", "Call"]

_MAX_LISTED = 10_000
_MAX_BATCH = 10_000

B = TypeVar("B", bound=msgspec.Struct)


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What all bodies have in common: a misspelt field is an error, not a silence."""


class PublishBatch(_Body):
    """Publish several messages; each has its own result."""

    messages: list[Publish]


class Broadcast(_Body):
    """Publish one message to several channels; each has its own result."""

    channels: list[str]
    data: RawField = msgspec.UNSET
    data_b64: str | None = None
    event: str | None = None
    idempotency_key: str | None = None
    history: bool = True


class ListChannels(_Body):
    """List the channels of this node that have subscribers; ``*`` in the pattern stands for any characters."""

    pattern: str | None = None


class ListConnections(_Body):
    """List connections of this node."""

    channel: str | None = None
    transport: str | None = None
    limit: int = 100


class DisconnectBody(_Body):
    """
    End one connection, or all that follow a channel.

    ``reconnect`` says whether they come back; a ``code`` of 4000 to 4499 says so too, one of 4500 to 4999 the opposite.
    """

    connection: str | None = None
    channel: str | None = None
    code: int | None = None
    reason: str | None = None
    reconnect: bool = False


class UnsubscribeBody(_Body):
    """End the subscriptions to a channel, of one connection or of all."""

    channel: str
    connection: str | None = None
    reason: str | None = None


class InfoBody(_Body):
    """Tell about the nodes."""


@attrs.frozen
class Call(Generic[B]):
    """
    One call.

    :ivar body: The shape of its body.
    :ivar result: The shape of its result, as JSON Schema.
    :ivar summary: One line for the API's description.
    :ivar perform: Does it; fails or raises with :class:`RtpushError`.
    """

    body: type[B]
    result: dict[str, Any]
    summary: str
    perform: Callable[[Node, B], Deferred[dict[str, Any]]]


def _publish(node: Node, body: Publish) -> Deferred[dict[str, Any]]:
    return node.publish(JSON.publication(body), Access.SERVER).addCallback(publish_result)


def _responses(each: list[Deferred[dict[str, Any]]]) -> Deferred[dict[str, Any]]:
    """Gather results and errors of a batch, in its order."""

    for one in each:
        one.addCallbacks(lambda result: {"result": result}, error_reply)
    return gatherResults(each, consumeErrors=True).addCallback(lambda responses: {"responses": responses})


def _publish_batch(node: Node, body: PublishBatch) -> Deferred[dict[str, Any]]:
    _check_batch("messages", len(body.messages))
    return _responses([maybeDeferred(_publish, node, message) for message in body.messages])


def _broadcast(node: Node, body: Broadcast) -> Deferred[dict[str, Any]]:
    _check_batch("channels", len(body.channels))
    publication = JSON.publication(
        Publish(
            channel="",
            data=body.data,
            data_b64=body.data_b64,
            event=body.event,
            idempotency_key=body.idempotency_key,
            history=body.history,
        )
    )
    return _responses(
        [
            node.publish(attrs.evolve(publication, channel=channel), Access.SERVER).addCallback(publish_result)
            for channel in body.channels
        ]
    )


def _check_batch(field: str, size: int) -> None:
    if not 1 <= size <= _MAX_BATCH:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"{field} has {size} items, expected 1 to {_MAX_BATCH}")


def _history(node: Node, body: HistoryQuery) -> Deferred[dict[str, Any]]:
    return node.history(body, Access.SERVER).addCallback(history_result, JSON)


def _presence(node: Node, body: PresenceQuery) -> Deferred[dict[str, Any]]:
    return node.presence(body.channel, Access.SERVER).addCallback(presence_result)


def _channels(node: Node, body: ListChannels) -> Deferred[dict[str, Any]]:
    matches = _matcher("*" if body.pattern is None else body.pattern)
    listed = {name: {"subscribers": len(channel)} for name, channel in node.channels.items() if matches(name)}
    return succeed({"channels": listed})


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a name matches a pattern, in a time that does not depend on how many stars it has."""
    first, *rest = pattern.split("*")
    if not rest:
        return first.__eq__
    last = rest.pop()
    between = [part for part in rest if part]

    def matches(name: str) -> bool:
        place = len(first) if name.startswith(first) else -1
        for part in between:
            # The first place where a part is found leaves the most for those after it.
            if place < 0 or (found := name.find(part, place)) < 0:
                return False
            place = found + len(part)
        return 0 <= place <= len(name) - len(last) and name.endswith(last)

    return matches


def _connections(node: Node, body: ListConnections) -> Deferred[dict[str, Any]]:
    if not 0 <= body.limit <= _MAX_LISTED:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"limit is {body.limit}, expected 0 to {_MAX_LISTED}")
    found = [
        connection
        for connection in _of_channel(node, body.channel)
        if body.transport is None or connection.transport == body.transport
    ]
    now = node.clock.seconds()
    listed = [
        {
            "connection": connection.id,
            "transport": connection.transport,
            "state": connection.state.value,
            "channels": list(connection.subscriptions),
            "since": round(now - connection.since, 3),
            "peer": connection.peer,
            "queued": connection.queued,
        }
        for connection in found[: body.limit]
    ]
    return succeed({"connections": listed, "total": len(found)})


def _of_channel(node: Node, channel: str | None) -> list[Connection]:
    """Return the connections that follow a channel, or all."""
    if channel is None:
        return list(node.connections.values())
    node.namespaces.of(channel)
    local = node.channels.get(channel)
    return [] if local is None else [subscription.connection for subscription in local.subscriptions()]


def _disconnect(node: Node, body: DisconnectBody) -> Deferred[dict[str, Any]]:
    if (body.connection is None) == (body.channel is None):
        raise RtpushError(ErrorCode.BAD_REQUEST, "expected either connection or channel")
    if body.code is not None and not 4000 <= body.code <= 4999:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"code is {body.code}, expected 4000 to 4999")
    if body.reason is not None and len(body.reason.encode()) > 120:
        raise RtpushError(ErrorCode.BAD_REQUEST, "reason is longer than 120 bytes")
    comes_back = body.reconnect if body.code is None else reconnects(body.code)
    why = Disconnect.RECONNECT if comes_back else Disconnect.DISCONNECTED
    if body.connection is None:
        found = _of_channel(node, body.channel)
    else:
        one = node.connections.get(body.connection)
        found = [] if one is None else [one]
    # One that is closing already is not ended again.
    found = [connection for connection in found if connection.state in (State.CONNECTING, State.OPEN)]
    for connection in found:
        connection.disconnect(why, code=body.code, reason=body.reason)
    return succeed({"disconnected": len(found)})


def _unsubscribe(node: Node, body: UnsubscribeBody) -> Deferred[dict[str, Any]]:
    found = [
        connection
        for connection in _of_channel(node, body.channel)
        if body.connection is None or connection.id == body.connection
    ]
    ended = [connection.end_subscription(body.channel, body.reason or "unsubscribed") for connection in found]
    return succeed({"unsubscribed": sum(ended)})


def _info(node: Node, body: InfoBody) -> Deferred[dict[str, Any]]:
    transports: dict[str, int] = {}
    for connection in node.connections.values():
        transports[connection.transport] = transports.get(connection.transport, 0) + 1
    return succeed(
        {
            "nodes": [
                {
                    "node": node.name,
                    "version": rtpush.__version__,
                    "uptime": round(node.clock.seconds() - node.started, 3),
                    "connections": len(node.connections),
                    "transports": transports,
                    "channels": len(node.channels),
                }
            ]
        }
    )


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_STRING: dict[str, Any] = {"type": "string"}
_INTEGER: dict[str, Any] = {"type": "integer", "minimum": 0}
_NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}
_POSITION = {"type": "object", "properties": {"epoch": _STRING, "offset": _INTEGER}}
_RESPONSES = _object(
    {
        "responses": _array(
            {
                "oneOf": [
                    _object({"result": _POSITION}),
                    _object({"error": {"$ref": "#/components/schemas/Error"}}),
                ]
            }
        )
    }
)
_COUNTS = {"type": "object", "additionalProperties": _INTEGER}

#: All calls, by the last part of their path.
CALLS: dict[str, Call[Any]] = {
    "publish": Call(Publish, _POSITION, "Publish a message to a channel", _publish),
    "publish_batch": Call(PublishBatch, _RESPONSES, "Publish several messages", _publish_batch),
    "broadcast": Call(Broadcast, _RESPONSES, "Publish one message to several channels", _broadcast),
    "history": Call(
        HistoryQuery,
        _object(
            {"messages": _array({"$ref": "#/components/schemas/Envelope"}), "epoch": _STRING, "offset": _INTEGER}
        ),
        "Read the messages that a channel keeps",
        _history,
    ),
    "presence": Call(
        PresenceQuery,
        _object({"connections": _array(_object({"connection": _STRING, "transport": _STRING}, {"info": {}}))}),
        "List who is in a channel",
        _presence,
    ),
    "channels": Call(
        ListChannels,
        _object({"channels": {"type": "object", "additionalProperties": _object({"subscribers": _INTEGER})}}),
        "List the channels that have subscribers",
        _channels,
    ),
    "connections": Call(
        ListConnections,
        _object(
            {
                "connections": _array(
                    _object(
                        {
                            "connection": _STRING,
                            "transport": _STRING,
                            "state": _STRING,
                            "channels": _array(_STRING),
                            "since": _NUMBER,
                            "peer": _STRING,
                            "queued": _INTEGER,
                        }
                    )
                ),
                "total": _INTEGER,
            }
        ),
        "List connections",
        _connections,
    ),
    "disconnect": Call(
        DisconnectBody, _object({"disconnected": _INTEGER}), "End a connection, or all in a channel", _disconnect
    ),
    "unsubscribe": Call(
        UnsubscribeBody, _object({"unsubscribed": _INTEGER}), "End subscriptions to a channel", _unsubscribe
    ),
    "info": Call(
        InfoBody,
        _object(
            {
                "nodes": _array(
                    _object(
                        {
                            "node": _STRING,
                            "version": _STRING,
                            "uptime": _NUMBER,
                            "connections": _INTEGER,
                            "transports": _COUNTS,
                            "channels": _INTEGER,
                        }
                    )
                )
            }
        ),
        "Tell about the nodes",
        _info,
    ),
}
