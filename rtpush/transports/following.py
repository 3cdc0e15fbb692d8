"""What a request over SSE or polling wants to follow, and from where."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import gatherResults, succeed
from twisted.python.failure import Failure

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import Access, Namespaces
from rtpush.protocol.commands import read_json
from rtpush.protocol.lifecycle import State
from rtpush.protocol.position import BadCursor, Position, parse_cursor
from rtpush.protocol.pushes import Subscribed
from rtpush.registry.connection import Connection
from rtpush.registry.subscription import Since
from rtpush.transports.http import Query, Request, answer_error, error_of

__all__ = ["Following", "checked_info", "follow", "read_since", "refuse"]

#: The most that a client may say of itself.
MAX_INFO_BYTES = 4096


@attrs.frozen(slots=True)
class Following:
    """
    Channels in the order of the cursor, and where each begins.

    :ivar info: What the client says of itself, as JSON.
    """

    channels: list[str]
    starts: list[Position | Since]
    info: bytes

    @classmethod
    def of(cls, request: Request, query: Query) -> Following:
        """
        Read the query and ``Last-Event-ID``, which wins: it is newer when a browser reconnects by itself.

        :raises RtpushError: if there is no channel, one is there twice, or the cursor does not fit.
        """
        channels = query.several("channel")
        if not channels or "" in channels:
            raise RtpushError(ErrorCode.BAD_REQUEST, "there is no channel: expected ?channel=NAME")
        if len(set(channels)) < len(channels):
            raise RtpushError(ErrorCode.BAD_REQUEST, "a channel is named twice")
        starts: list[Position | Since] = [read_since(query.one("since"))] * len(channels)
        cursor = (request.getHeader(b"last-event-id") or b"").decode("latin-1") or query.one(
            "cursor", "last_event_id", "lastEventID"
        )
        if cursor:
            try:
                positions = parse_cursor(cursor, len(channels))
            except BadCursor as error:
                raise RtpushError(ErrorCode.BAD_CURSOR, str(error)) from None
            starts = [Since.NOW if position is None else position for position in positions]
        return cls(channels, starts, checked_info((query.one("info") or "").encode()))

    def check(self, namespaces: Namespaces) -> None:
        """
        Check that there are these channels, for clients.

        :raises RtpushError: ``bad_channel``, ``unknown_channel`` or ``permission_denied``.
        """
        for channel in self.channels:
            if namespaces.of(channel).subscribe is not Access.ANYONE:
                raise RtpushError(ErrorCode.PERMISSION_DENIED, f"clients may not subscribe to {channel!r}")


def read_since(text: str | None) -> Since:
    """
    Read where a subscription without a position begins: at now, if nothing is said.

    :raises RtpushError: ``bad_request`` if it is neither ``earliest`` nor ``now``.
    """
    if text is None:
        return Since.NOW
    try:
        return Since(text)
    except ValueError:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"since is {text[:40]!r}, expected earliest or now") from None


def checked_info(info: bytes) -> bytes:
    """
    Check what a client says of itself.

    :raises RtpushError: ``bad_request`` if it is not JSON, or too long.
    """
    if len(info) > MAX_INFO_BYTES:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"info has {len(info)} bytes, expected {MAX_INFO_BYTES} at most")
    if info:
        read_json(info, "info")
    return info


def follow(
    connection: Connection,
    following: Following,
    followed: Callable[[list[Subscribed]], object],
    refused: Callable[[Failure], object],
) -> None:
    """
    Subscribe a connection to everything; nothing is delivered yet.

    :param followed: Called with where delivery begins, for each channel: at once if that is known.
    :param refused: Called if one cannot be followed, with a failure whose value is mostly :class:`RtpushError`; also if
        ``followed`` fails.
    """
    connection.info = following.info
    try:
        begun = [
            connection.subscribe(channel, start)
            for channel, start in zip(following.channels, following.starts, strict=True)
        ]
        known = [each for each in begun if isinstance(each, Subscribed)]
        if len(known) == len(begun):
            followed(known)
            return
    except Exception:
        refused(Failure())
        return
    all_begun = gatherResults(
        [succeed(each) if isinstance(each, Subscribed) else each for each in begun], consumeErrors=True
    )
    all_begun.addCallback(followed).addErrback(refused)


def refuse(failure: Failure, connection: Connection, request: Request) -> None:
    """Answer a request whose channels cannot be followed, if it can still be answered."""
    error = error_of(failure)
    if connection.state is State.CONNECTING and error is not None:
        connection.closing()
        body = answer_error(request, error)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()
    elif connection.state is not State.CLOSED:
        connection.failed("opening", failure)
