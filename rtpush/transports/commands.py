"""The commands that need no connection: done in a frame of a WebSocket, or by ``POST /emit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import Access
from rtpush.protocol.codecs import Codec
from rtpush.protocol.commands import HistoryQuery, Ping, PresenceQuery, Publish, Refresh, Request
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Page
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.transports.http import error_of

__all__ = ["error_reply", "history_result", "perform", "presence_result", "publish_result"]


_CLIENT = Access.ANYONE


def perform(
    node: Node, codec: Codec, request: Request, credentials: Credentials | None, road: str
) -> Deferred[dict[str, Any]]:
    """
    Do what a command of a client asks for.

    :param credentials: What the client has shown.
    :param road: How it came: ``websocket`` or ``emit``.
    :returns: The content of the reply.
    :raises RtpushError: if the command is malformed, or is not for here. The Deferred fails with the same.
    """
    match request.command:
        case Publish() as publish:
            published = node.publish(codec.publication(publish), _CLIENT, road, credentials)
            return published.addCallback(publish_result)
        case HistoryQuery() as query:
            page = node.history(query, _CLIENT, credentials).addCallback(_as_much_as, node.limits.queue_bytes)
            return page.addCallback(history_result, codec)
        case PresenceQuery() as query:
            return node.presence(query.channel, _CLIENT, credentials).addCallback(presence_result)
        case Ping():
            return succeed({})
        case Refresh():
            raise RtpushError(ErrorCode.NOT_AVAILABLE, "there is no token to refresh: a new one comes with a request")
    raise RtpushError(ErrorCode.BAD_REQUEST, f"{request.name} is not a command for this transport")


def _as_much_as(page: Page, most: int) -> Page:
    """Return the beginning of a page with so many bytes at most, or one message: a reply waits for its reader whole."""
    size = 0
    for index, message in enumerate(page.messages):
        size += len(message.payload.data)
        if size > most and index:
            return Page(page.messages[:index], page.top, page.gap)
    return page


def error_reply(failure: Failure, node: Node) -> dict[str, Any]:
    """Return what stands in the place of a result when one of several commands fails."""
    error = error_of(failure)
    if error is None:
        failure.raiseException()
    node.counts.refused(error.kind)
    return {"error": error.as_dict()}


def publish_result(position: Position | None) -> dict[str, Any]:
    """Return what a publisher is told."""
    return {} if position is None else {"epoch": position.epoch, "offset": position.offset}


def history_result(page: Page, codec: Codec) -> dict[str, Any]:
    """
    Return what a reader of history is told.

    :raises RtpushError: ``bad_cursor`` if the position that it asked from is not there any more.
    """
    if page.gap is not None:
        raise RtpushError(
            ErrorCode.BAD_CURSOR, f"history does not reach back to this position ({page.gap.value}); now is {page.top}"
        )
    return {
        "messages": [codec.envelope(message) for message in page.messages],
        "epoch": page.top.epoch,
        "offset": page.top.offset,
    }


def presence_result(entries: Sequence[PresenceEntry]) -> dict[str, Any]:
    """Return what one is told who asks who is there."""
    return {"connections": [entry.as_dict() for entry in entries]}
