"""
The calls of the server API: their bodies, their results, and what they do.

``openapi.py`` describes them from the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.api.revoking import ListRevocations, RevokeBody, list_revocations, revoke
from rtpush.errors import Disconnect, ErrorCode, RtpushError, reconnects
from rtpush.protocol.channel import Access
from rtpush.protocol.cluster import NodeStatus
from rtpush.protocol.codecs import JSON
from rtpush.protocol.commands import HistoryQuery, PresenceQuery, Publication, Publish, RawField
from rtpush.protocol.lifecycle import State
from rtpush.registry.connection import Connection
from rtpush.registry.known import is_known
from rtpush.registry.node import Node
from rtpush.transports.commands import error_reply, history_result, presence_result, publish_result

__all__ = ["CALLS", "OTHERS", "Call"]

#: What stands for the ids of other nodes where it is not known which there are.
OTHERS = "*"

_log = Logger()

#: To look it up takes longer than what is done with it.
_SERVER = Access.SERVER

_MAX_LISTED = 10_000
_MAX_BATCH = 10_000

B = TypeVar("B", bound=msgspec.Struct)


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
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
    """List the channels that have subscribers; ``*`` in the pattern stands for any characters."""

    pattern: str | None = None


class ListConnections(_Body):
    """List connections, those of the node that is asked first."""

    channel: str | None = None
    transport: str | None = None
    user: str | None = None
    limit: int = 100


class DisconnectBody(_Body):
    """
    End one connection, all that follow a channel, or all of a user.

    ``reconnect`` says whether they come back; a ``code`` of 4000 to 4499 says so too, one of 4500 to 4999 the opposite.
    """

    connection: str | None = None
    channel: str | None = None
    user: str | None = None
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
    :ivar perform: Does it on this node, and returns its result, or a Deferred if that is not known yet; fails or raises
        with :class:`RtpushError`.
    :ivar merge: Makes one result of those of all nodes, this one's first; :obj:`None` for a call that is not done on
        each node.
    :ivar changes: Whether it does more than to look: then it must not succeed if other nodes were not asked.
    """

    body: type[B]
    result: dict[str, Any]
    summary: str
    perform: Callable[[Node, B], Deferred[dict[str, Any]] | dict[str, Any]]
    merge: Callable[[B, list[dict[str, Any]]], dict[str, Any]] | None = None
    changes: bool = False


def _publish(node: Node, body: Publish) -> dict[str, Any] | Deferred[dict[str, Any]]:
    published: Deferred[Any] = node.publish(JSON.publication(body), _SERVER)
    if is_known(published):
        return publish_result(published.result)  # type: ignore[arg-type]
    result: Deferred[dict[str, Any]] = published.addCallback(publish_result)
    return result


def _response(node: Node, publication: Publication) -> dict[str, Any] | Deferred[dict[str, Any]]:
    """Publish a message of a batch; return its result or error, if that is known."""
    published: Deferred[Any] = node.publish(publication, _SERVER)
    if is_known(published):
        return {"result": publish_result(published.result)}  # type: ignore[arg-type]
    response: Deferred[dict[str, Any]] = published.addCallback(publish_result)
    return response.addCallbacks(lambda result: {"result": result}, error_reply, errbackArgs=(node,))


def _responses(
    each: list[dict[str, Any] | Deferred[dict[str, Any]]],
) -> dict[str, Any] | Deferred[dict[str, Any]]:
    """Gather results and errors of a batch, in its order."""
    # To ask what is no Deferred whether it is one takes long: it is an abstract class.
    later = [response for response in each if not isinstance(response, dict)]
    if not later:
        return {"responses": each}
    # They come in their order, and are put where they are missing.
    return gatherResults(later, consumeErrors=True).addCallback(_gathered, each)


def _gathered(came: list[dict[str, Any]], each: list[dict[str, Any] | Deferred[dict[str, Any]]]) -> dict[str, Any]:
    coming = iter(came)
    return {"responses": [response if isinstance(response, dict) else next(coming) for response in each]}


def _publish_batch(node: Node, body: PublishBatch) -> dict[str, Any] | Deferred[dict[str, Any]]:
    _check_batch("messages", len(body.messages))
    responses: list[dict[str, Any] | Deferred[dict[str, Any]]] = []
    for message in body.messages:
        try:
            responses.append(_response(node, JSON.publication(message)))
        except RtpushError as error:
            node.counts.refused(error.kind)
            responses.append({"error": error.as_dict()})
    return _responses(responses)


def _broadcast(node: Node, body: Broadcast) -> dict[str, Any] | Deferred[dict[str, Any]]:
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
        [_response(node, msgspec.structs.replace(publication, channel=channel)) for channel in body.channels]
    )


def _check_batch(field: str, size: int) -> None:
    if not 1 <= size <= _MAX_BATCH:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"{field} has {size} items, expected 1 to {_MAX_BATCH}")


def _history(node: Node, body: HistoryQuery) -> Deferred[dict[str, Any]]:
    return node.history(body, _SERVER).addCallback(history_result, JSON)


def _presence(node: Node, body: PresenceQuery) -> Deferred[dict[str, Any]]:
    return node.presence(body.channel, _SERVER).addCallback(presence_result)


def _channels(node: Node, body: ListChannels) -> Deferred[dict[str, Any]]:
    matches = _matcher("*" if body.pattern is None else body.pattern)
    listed = {
        name: {"subscribers": len(channel)}
        for name, channel in node.channels.items()
        if len(channel) and matches(name)
    }
    return succeed({"channels": listed})


def _merge_channels(body: ListChannels, results: list[dict[str, Any]]) -> dict[str, Any]:
    subscribers: dict[str, int] = {}
    for result in results:
        for name, channel in result["channels"].items():
            subscribers[name] = subscribers.get(name, 0) + channel["subscribers"]
    return {"channels": {name: {"subscribers": count} for name, count in subscribers.items()}}


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
        if (body.transport is None or connection.transport == body.transport)
        and (body.user is None or connection.user == body.user)
    ]
    now = node.clock.seconds()
    listed = [
        {
            "connection": connection.id,
            "node": node.name,
            "transport": connection.transport,
            "state": connection.state.value,
            "channels": list(connection.subscriptions),
            "since": round(now - connection.since, 3),
            "peer": connection.peer or connection.sink.address(),
            "queued": connection.queued,
            **({"user": connection.user} if connection.user else {}),
        }
        for connection in found[: body.limit]
    ]
    return succeed({"connections": listed, "total": len(found)})


def _merge_connections(body: ListConnections, results: list[dict[str, Any]]) -> dict[str, Any]:
    listed = [connection for result in results for connection in result["connections"]]
    return {"connections": listed[: body.limit], "total": sum(result["total"] for result in results)}


def _of_channel(node: Node, channel: str | None) -> list[Connection]:
    """Return the connections that follow a channel, or all."""
    if channel is None:
        return list(node.connections.values())
    node.namespaces.of(channel)
    local = node.channels.get(channel)
    return [] if local is None else [subscription.connection for subscription in local.subscriptions()]


def _disconnect(node: Node, body: DisconnectBody) -> Deferred[dict[str, Any]]:
    if (body.connection, body.channel, body.user).count(None) != 2 or body.user == "":
        raise RtpushError(ErrorCode.BAD_REQUEST, "expected one of connection, channel and user")
    if body.code is not None and not 4000 <= body.code <= 4999:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"code is {body.code}, expected 4000 to 4999")
    if body.reason is not None and len(body.reason.encode()) > 120:
        raise RtpushError(ErrorCode.BAD_REQUEST, "reason is longer than 120 bytes")
    comes_back = body.reconnect if body.code is None else reconnects(body.code)
    why = Disconnect.RECONNECT if comes_back else Disconnect.DISCONNECTED
    if body.user is not None:
        found = [connection for connection in node.connections.values() if connection.user == body.user]
    elif body.connection is None:
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


def _count(field: str) -> Callable[[msgspec.Struct, list[dict[str, Any]]], dict[str, Any]]:
    """Return what adds up the numbers in a field."""
    return lambda body, results: {field: sum(result[field] for result in results)}


def _info(node: Node, body: InfoBody) -> Deferred[dict[str, Any]]:
    own = {**msgspec.json.decode(node.status()), "seen": 0.0}
    if node.cluster is None:
        return succeed({"nodes": [own]})
    others: Deferred[Any] = node.cluster.nodes()
    return others.addCallbacks(_with_others, _alone, callbackArgs=(own,), errbackArgs=(own,))


def _with_others(found: Sequence[NodeStatus], own: dict[str, Any]) -> dict[str, Any]:
    nodes, missing = [own], []
    for each in found:
        try:
            told = msgspec.json.decode(each.status, type=dict[str, Any])
        except msgspec.DecodeError as error:
            _log.error("what node {id} says of itself cannot be read: {error}", id=each.id, error=error)
            missing.append(each.id)
        else:
            nodes.append({**told, "id": each.id, "seen": round(each.age, 3)})
    return {"nodes": nodes, "missing": missing} if missing else {"nodes": nodes}


def _alone(failure: Failure, own: dict[str, Any]) -> dict[str, Any]:
    error = failure.value
    if not isinstance(error, RtpushError) or error.kind is not ErrorCode.UNAVAILABLE:
        failure.raiseException()
    return {"nodes": [own], "missing": [OTHERS]}


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
_MISSING = {
    "missing": {
        **_array(_STRING),
        "description": "Only there if other nodes are not in the result: their ids, or * for all that there may be.",
    }
}
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
        _object(
            {
                "connections": _array(
                    _object({"connection": _STRING, "transport": _STRING}, {"user": _STRING, "info": {}})
                )
            }
        ),
        "List who is in a channel",
        _presence,
    ),
    "channels": Call(
        ListChannels,
        _object(
            {"channels": {"type": "object", "additionalProperties": _object({"subscribers": _INTEGER})}}, _MISSING
        ),
        "List the channels that have subscribers",
        _channels,
        _merge_channels,
    ),
    "connections": Call(
        ListConnections,
        _object(
            {
                "connections": _array(
                    _object(
                        {
                            "connection": _STRING,
                            "node": _STRING,
                            "transport": _STRING,
                            "state": _STRING,
                            "channels": _array(_STRING),
                            "since": _NUMBER,
                            "peer": _STRING,
                            "queued": _INTEGER,
                        },
                        {"user": _STRING},
                    )
                ),
                "total": _INTEGER,
            },
            _MISSING,
        ),
        "List connections",
        _connections,
        _merge_connections,
    ),
    "disconnect": Call(
        DisconnectBody,
        _object({"disconnected": _INTEGER}, _MISSING),
        "End a connection, all in a channel, or all of a user",
        _disconnect,
        _count("disconnected"),
        changes=True,
    ),
    "unsubscribe": Call(
        UnsubscribeBody,
        _object({"unsubscribed": _INTEGER}, _MISSING),
        "End subscriptions to a channel",
        _unsubscribe,
        _count("unsubscribed"),
        changes=True,
    ),
    "revoke": Call(RevokeBody, _object({"until": _NUMBER}), "Take tokens back, on all nodes", revoke),
    "revocations": Call(
        ListRevocations,
        _object(
            {
                "revocations": _array(
                    _object(
                        {"before": _NUMBER, "until": _NUMBER}, {"user": _STRING, "jti": _STRING, "channel": _STRING}
                    )
                ),
                "total": _INTEGER,
            }
        ),
        "List what is taken back",
        list_revocations,
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
                            "pid": _INTEGER,
                            "uptime": _NUMBER,
                            "leaving": {"type": "boolean"},
                            "connections": _INTEGER,
                            "transports": _COUNTS,
                            "channels": _INTEGER,
                            "seen": {**_NUMBER, "description": "Seconds since this was true."},
                        },
                        {"id": _STRING},
                    )
                )
            },
            _MISSING,
        ),
        "Tell about the nodes",
        _info,
    ),
}
