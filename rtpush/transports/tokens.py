"""
Who asks: the tokens that come with a request, in a header, the query or a cookie.

They are never logged: of a request, the log has method and path.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from rtpush.errors import ErrorCode, RtpushError
from rtpush.registry.credentials import Credentials, shown
from rtpush.registry.known import is_known
from rtpush.registry.node import Node
from rtpush.transports.http import (
    Request,
    answer_error,
    answer_with,
    error_of,
    internal_error,
    log_failed,
    when_over,
)
from rtpush.transports.query import Query

__all__ = ["with_credentials"]


def with_credentials(
    node: Node, request: Request, query: Query, then: Callable[[Credentials | None], bytes | int]
) -> bytes | int:
    """
    Check the tokens that come with a request, and go on with what they show: at once if that is known.

    :param then: Answers the request, as a resource does; what is given to it is nothing for a client without a token.
    :raises RtpushError: ``bad_request`` if it is not clear which token is meant; and whatever ``then`` raises.
    """
    tokens = node.tokens
    if tokens is None or not tokens.in_use:
        return then(None)
    token, for_channels = _token(request, query, tokens.cookie), query.several("channel_token")
    if token is None and not for_channels:
        return then(None)
    if len(for_channels) > node.limits.channels_per_connection:
        raise RtpushError(ErrorCode.LIMIT_EXCEEDED, "there are more tokens for channels than a connection may follow")
    checked = shown(node, token, for_channels)
    if is_known(checked):
        known: Credentials = checked.result  # type: ignore[assignment]
        return then(known)
    return _later(request, checked, then)


def _later(
    request: Request, checked: Deferred[Credentials], then: Callable[[Credentials | None], bytes | int]
) -> bytes | int:
    gone: list[None] = []
    when_over(request, lambda: gone.append(None))

    def go_on(credentials: Credentials) -> None:
        # The client may have gone while the keys were read.
        if not gone:
            body = then(credentials)
            if not isinstance(body, int):
                answer_with(request, body)

    def failed(failure: Failure) -> None:
        if gone:
            return
        error = error_of(failure)
        if error is None:
            log_failed(request, failure)
            error = internal_error()
        answer_with(request, answer_error(request, error))

    checked.addCallback(go_on).addErrback(failed)
    return NOT_DONE_YET


def _token(request: Request, query: Query, cookie: str) -> str | None:
    """
    Return the token of a request, if it has one.

    What the header and the query say must be the same. A cookie, which comes along unasked, counts if neither says
    anything.
    """
    given = {token for token in (_in_header(request), query.one("token")) if token is not None}
    if not given and cookie:
        # That the page may use this server was checked before anything else: see Endpoint.
        given = _in_cookies(request, cookie)
    if len(given) > 1:
        raise RtpushError(ErrorCode.BAD_REQUEST, "there are several tokens, and they differ: expected one")
    return given.pop() if given else None


def _in_header(request: Request) -> str | None:
    for line in request.requestHeaders.getRawHeaders(b"authorization") or ():
        scheme, _, token = line.partition(b" ")
        if scheme.lower() == b"bearer":
            return token.strip().decode("latin-1")
    return None


def _in_cookies(request: Request, name: str) -> set[str]:
    """Return the values of a cookie (RFC 6265 section 4.2.1)."""
    found = set()
    for line in request.requestHeaders.getRawHeaders(b"cookie") or ():
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if equals and key == name.encode():
                found.add(value.strip(b'"').decode("latin-1"))
    return found
