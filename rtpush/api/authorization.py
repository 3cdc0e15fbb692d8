"""Who may make which calls of the server API: by a key all of them, by a signed token those that it names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rtpush.auth.permissions import Action, ApiGrant, Grant
from rtpush.auth.tokens import looks_like_token
from rtpush.errors import ErrorCode, RtpushError
from rtpush.registry.node import Node
from rtpush.transports.http import Request, check_request

__all__ = ["check_call", "granted", "token_of"]

#: What a token that is for some channels alone must permit there. By such a token nothing else can be done.
_ACTIONS = {
    "publish": Action.PUBLISH,
    "publish_batch": Action.PUBLISH,
    "broadcast": Action.PUBLISH,
    "history": Action.HISTORY,
    "presence": Action.PRESENCE,
    "unsubscribe": Action.SUBSCRIBE,
}


def token_of(request: Request) -> str | None:
    """Return what a request has in the place of an API key, if it has the form of a token."""
    scheme, _, token = (request.getHeader(b"authorization") or b"").partition(b" ")
    given = token.strip().decode("latin-1")
    return given if scheme.lower() == b"bearer" and looks_like_token(given) else None


def granted(node: Node, request: Request, token: str) -> Deferred[Grant]:
    """
    Check a token that came in the place of a key. Requests with bad ones count among those of clients.

    :returns: What it grants. Fails with :exc:`RtpushError`, as for tokens of clients.
    """

    def refused(failure: Failure) -> Failure:
        check_request(request)
        return failure

    return node.checked(token).addErrback(refused)


def check_call(grant: Grant, name: str, body: msgspec.Struct) -> None:
    """
    Check that a token opens a call.

    :raises RtpushError: ``permission_denied``.
    """
    if not isinstance(grant, ApiGrant):
        raise RtpushError(ErrorCode.PERMISSION_DENIED, "this token opens no calls: it has no claim api")
    if not grant.opens(name):
        raise RtpushError(ErrorCode.PERMISSION_DENIED, f"this token does not open the call {name} (api)")
    if grant.everywhere:
        return
    action = _ACTIONS.get(name)
    if action is None:
        raise RtpushError(
            ErrorCode.PERMISSION_DENIED, f"this token is for some channels alone (channels), and {name} is for all"
        )
    for channel in _channels_of(body):
        if not grant.allows(action, channel):
            raise RtpushError(
                ErrorCode.PERMISSION_DENIED, f"{action.word} in {channel!r}: the token does not permit it"
            )


def _channels_of(body: Any) -> Iterable[str]:
    """Return the channels that a call is about, for each call of :data:`_ACTIONS`."""
    if hasattr(body, "messages"):
        return [message.channel for message in body.messages]
    return body.channels if hasattr(body, "channels") else [body.channel]
