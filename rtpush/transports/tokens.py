"""
Who asks: the tokens that come with a request, in a header, the query or a cookie.

They are never logged: of a request, the log has method and path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from rtpush.errors import ErrorCode, RtpushError
from rtpush.registry.credentials import Credentials, grants_shown, shown
from rtpush.registry.guests import Guest, let_in
from rtpush.registry.known import is_known
from rtpush.registry.node import Node
from rtpush.transports.following import checked_info
from rtpush.transports.http import (
    Request,
    answer_error,
    answer_with,
    error_of,
    host_of,
    internal_error,
    log_failed,
    peer_of,
    when_over,
)
from rtpush.transports.query import Query

__all__ = ["guest_of", "with_credentials", "with_tokens"]


def with_credentials(
    node: Node, request: Request, query: Query, then: Callable[[Credentials | None], bytes | int], transport: str
) -> bytes | int:
    """
    Check the tokens that come with a request, ask the application if it is to be asked, and go on with what they say.

    :param then: As with :func:`with_tokens`.
    :param transport: What it is that the client comes by.
    """
    if node.hooks is None:
        return with_tokens(node, request, query, then)
    token, for_channels = _tokens(node, request, query)
    guest = guest_of(node, request, query, transport, token)
    entered = grants_shown(node, token, for_channels).addCallback(lambda grants: let_in(node, guest, *grants))
    return _later(request, entered, then)


def with_tokens(
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
    token, for_channels = _tokens(node, request, query)
    if token is None and not for_channels:
        return then(None)
    return _later(request, shown(node, token, for_channels), then)


def _later(
    request: Request, checked: Deferred[Credentials], then: Callable[[Credentials | None], bytes | int]
) -> bytes | int:
    """Go on when it is known what a client has: at once if it is known."""
    if is_known(checked):
        known: Credentials = checked.result  # type: ignore[assignment]
        return _go_on(known, then)
    gone: list[None] = []
    when_over(request, lambda: gone.append(None))

    def go_on(credentials: Credentials) -> None:
        # The client may have gone while the keys were read, or the application asked.
        if gone:
            credentials.detach()
            return
        body = _go_on(credentials, then)
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


def _go_on(credentials: Credentials, then: Callable[[Credentials | None], bytes | int]) -> bytes | int:
    try:
        body = then(credentials)
    except RtpushError:
        # Nothing has become of it: who has let the client in, is to know.
        credentials.detach()
        raise
    if not isinstance(body, int) and credentials.guest is not None:
        # So it is where the answer is all there was to it.
        credentials.detach()
    return body


def guest_of(node: Node, request: Request, query: Query, transport: str, token: str | None = None) -> Guest:
    """
    Return who sends a request, as the application is told of it.

    :raises RtpushError: ``bad_request`` if what it says of itself is malformed.
    """
    return Guest(
        transport,
        address=peer_of(request, node) or host_of(request),
        connection="" if transport == "emit" else node.new_id(),
        headers=_passed_on(node, request),
        token="" if token is None else hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest(),
        info=checked_info((query.one("info") or "").encode()),
    )


def _passed_on(node: Node, request: Request) -> tuple[tuple[str, str], ...]:
    """Return the headers that the application is to see."""
    hooks = node.hooks
    passed_on = []
    for name in () if hooks is None else hooks.headers:
        lines = request.requestHeaders.getRawHeaders(name.encode())
        if not lines:
            continue
        value = ("; " if name == "cookie" else ", ").join(line.decode("latin-1") for line in lines)
        if name == "cookie" and hooks is not None:
            # Where the pages of all may connect, a strange one comes with the cookies of its visitors.
            origin, host = (request.getHeader(each) or b"" for each in (b"origin", b"host"))
            if origin and not hooks.origins.allows(origin.decode("latin-1"), host.decode("latin-1")):
                continue
        passed_on.append((name, value))
    return tuple(passed_on)


def _tokens(node: Node, request: Request, query: Query) -> tuple[str | None, list[str]]:
    """Return the tokens of a request: that of the connection, and those for single channels."""
    tokens = node.tokens
    if tokens is None or not tokens.in_use:
        return None, []
    for_channels = query.several("channel_token")
    if len(for_channels) > node.limits.channels_per_connection:
        raise RtpushError(ErrorCode.LIMIT_EXCEEDED, "there are more tokens for channels than a connection may follow")
    return _token(request, query, tokens.cookie), for_channels


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
