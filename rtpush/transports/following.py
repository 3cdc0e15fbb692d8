"""What a request over SSE or polling wants to follow, and from where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import gatherResults, succeed
from twisted.python.failure import Failure

from rtpush.auth.permissions import Action
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import read_json
from rtpush.protocol.lifecycle import State
from rtpush.protocol.position import BadCursor, Position, parse_cursor
from rtpush.protocol.pushes import Subscribed, SubscribedWithData
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.registry.subscription import Since
from rtpush.transports.http import Request, answer_error, answer_with, error_of
from rtpush.transports.query import Query

__all__ = ["Following", "checked_info", "follow", "following_of", "initial_data", "read_since", "refuse"]

#: How many of these are remembered, and the longest of what says them, in bytes.
_MAX_KNOWN = 1000
_MAX_KNOWN_SIZE = 512

#: The most that a client may say of itself.
MAX_INFO_BYTES = 4096


@attrs.frozen(slots=True)
class Following:
    """
    Channels in the order of the cursor, and where each begins.

    :ivar info: What the client says of itself, as JSON.
    :ivar goes_on: Whether the client has been here before, and goes on from where it was.
    :ivar begins: Whether there is a channel that it begins to follow.
    """

    channels: Sequence[str]
    starts: Sequence[Position | Since]
    info: bytes
    goes_on: bool
    begins: bool

    def check(self, node: Node, credentials: Credentials | None) -> None:
        """
        Check that there are these channels, for a client.

        :raises RtpushError: ``bad_channel``, ``unknown_channel``, ``permission_denied`` or ``unauthorized``.
        """
        for channel in self.channels:
            error = node.refusal(credentials, Action.SUBSCRIBE, channel, node.namespaces.of(channel))
            if error is not None:
                raise error

    def check_tokens(self, credentials: Credentials | None) -> None:
        """
        Check that each token for a channel is for one of these.

        :raises RtpushError: ``permission_denied`` if one is not.
        """
        if credentials is not None:
            for grant in credentials.grants():
                if grant.channel and grant.channel not in self.channels:
                    raise RtpushError(
                        ErrorCode.PERMISSION_DENIED, f"there is a token for {grant.channel!r}, which is not followed"
                    )


def following_of(request: Request, query: Query) -> Following:
    """
    Read the query and ``Last-Event-ID``, which wins: it is newer when a browser reconnects by itself.

    :raises RtpushError: if there is no channel, one is there twice, or the cursor does not fit.
    """
    last_event_id = request.getHeader(b"last-event-id") or b""
    # What many clients send is read once, and shared.
    is_short = len(request.uri) + len(last_event_id) <= _MAX_KNOWN_SIZE and b"token=" not in request.uri
    return (_known if is_short else _read)(query, last_event_id)


def _read(query: Query, last_event_id: bytes) -> Following:
    channels = query.several("channel")
    if not channels or "" in channels:
        raise RtpushError(ErrorCode.BAD_REQUEST, "there is no channel: expected ?channel=NAME")
    if len(set(channels)) < len(channels):
        raise RtpushError(ErrorCode.BAD_REQUEST, "a channel is named twice")
    starts: list[Position | Since] = [read_since(query.one("since"))] * len(channels)
    cursor = last_event_id.decode("latin-1") or query.one("cursor", "last_event_id", "lastEventID")
    if cursor:
        try:
            positions = parse_cursor(cursor, len(channels))
        except BadCursor as error:
            raise RtpushError(ErrorCode.BAD_CURSOR, str(error)) from None
        starts = [Since.NOW if position is None else position for position in positions]
    info = checked_info((query.one("info") or "").encode())
    known = [isinstance(start, Position) for start in starts]
    return Following(channels, starts, info, goes_on=any(known), begins=not all(known))


_known = lru_cache(_MAX_KNOWN)(_read)


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
    credentials: Credentials | None = None,
) -> None:
    """
    Subscribe a connection to everything; nothing is delivered yet.

    :param credentials: What its client has shown.

    :param followed: Called with where delivery begins, for each channel: at once if that is known.
    :param refused: Called if one cannot be followed, with a failure whose value is mostly :class:`RtpushError`; also if
        ``followed`` fails.
    """
    connection.introduce(credentials, following.info)
    try:
        following.check_tokens(credentials)
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


def initial_data(connection: Connection, subscribed: Sequence[Subscribed]) -> dict[str, Any]:
    """Return what the application says to a client that comes, and to it about its channels."""
    guest = None if connection.credentials is None else connection.credentials.guest
    if guest is None:
        return {}
    data: dict[str, Any] = {"data": msgspec.Raw(guest.data)} if guest.data else {}
    # It is said once, and then not kept.
    guest.data = b""
    of_channels = {each.channel: msgspec.Raw(each.data) for each in subscribed if isinstance(each, SubscribedWithData)}
    return {**data, "channel_data": of_channels} if of_channels else data


def refuse(failure: Failure, connection: Connection, request: Request) -> None:
    """Answer a request whose channels cannot be followed, if it can still be answered."""
    error = error_of(failure)
    if connection.state is State.CONNECTING and error is not None:
        connection.closing()
        body = answer_error(request, error)
        answer_with(request, body)
    elif connection.state is not State.CLOSED:
        connection.failed("opening", failure)
