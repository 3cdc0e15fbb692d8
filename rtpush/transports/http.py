"""What resources do with a request, whichever way it was read: read its body, answer it, be told of its end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, FirstError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.addresses import UNIX
from rtpush.registry.known import is_known
from rtpush.registry.node import Node
from rtpush.transports.request import LeanRequest

__all__ = [
    "Request",
    "abort",
    "address_of",
    "answer_error",
    "answer_json",
    "answer_with",
    "check_request",
    "count_request",
    "error_of",
    "finish_with",
    "forget",
    "host_of",
    "internal_error",
    "log_failed",
    "name_request",
    "nothing_at",
    "peer_of",
    "read_body",
    "when_over",
]

#: The ids of requests that are taken from clients; they are written to the log.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,64}")

_log = Logger()

#: What a resource may be given.
Request = server.Request | LeanRequest


def log_failed(request: Request, failure: Failure | None) -> None:
    """Log what went wrong with a request, under the id that its answer has."""
    id_ = name_request(request)
    # The path alone: a query may hold tokens.
    method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
    _log.failure("{method} {path} failed", failure=failure, method=method, path=path[:200], request=id_)


def internal_error() -> RtpushError:
    """Return what is told of a fault of ours."""
    return RtpushError(ErrorCode.INTERNAL, "something went wrong here; it was logged")


def nothing_at(request: Request) -> RtpushError:
    """Return what is told of a path that has nothing."""
    path = request.path.decode("latin-1")[:200]
    return RtpushError(ErrorCode.NOT_FOUND, f"there is nothing at {path!r}")


def answer_json(request: Request, value: Any) -> bytes:
    """Set the headers for a JSON answer, and return its body."""
    request.setHeader(b"content-type", b"application/json")
    if not request.responseHeaders.hasHeader(b"cache-control"):
        request.setHeader(b"cache-control", b"no-store")
    return msgspec.json.encode(value)


def name_request(request: Request) -> str:
    """
    Return what a request is called, and have its answer say it: the client's ``X-Request-ID``, if that is one, or one
    made here. Only requests that fail need a name.
    """
    given = request.getHeader(b"x-request-id") or b""
    id_ = given if _REQUEST_ID.fullmatch(given) else secrets.token_urlsafe(9).encode()
    if not request.startedWriting:
        request.setHeader(b"x-request-id", id_)
    return id_.decode()


def answer_error(request: Request, error: RtpushError) -> bytes:
    """Set the status and headers for an error, and return its body."""
    site: Any = request.site
    site.counts.refused(error.kind)
    if error.kind.status >= 500 and not request.responseHeaders.hasHeader(b"x-request-id"):
        name_request(request)
    request.setResponseCode(error.kind.status)
    if error.kind is ErrorCode.UNAUTHORIZED:
        request.setHeader(b"www-authenticate", b"Bearer")
    elif error.kind.status == 401:
        request.setHeader(b"www-authenticate", b'Bearer error="invalid_token"')
    if error.kind.status in (429, 503):
        request.setHeader(b"retry-after", b"%d" % site.retry_after())
    request.setHeader(b"cache-control", b"no-store")
    return answer_json(request, {"error": error.as_dict()})


def count_request(node: Node, request: Request) -> None:
    """
    Count a request of a client.

    :raises RtpushError: ``limit_exceeded`` if its address makes too many.
    """
    peer = peer_of(request, node)
    if peer:
        node.limiter.ask(peer)


def check_request(request: Request, *, counts: bool = True) -> None:
    """
    Check what has nothing to do with what a request asks for. To be called once for each, by the resource.

    :param counts: Whether it is one of those that have a limit.
    :raises RtpushError: ``url_too_long`` or ``limit_exceeded``.
    """
    site: Any = request.site
    if len(request.uri) > site.url_bytes:
        site.counts.limited["url_bytes"] += 1
        raise RtpushError(
            ErrorCode.URL_TOO_LONG, f"the URL has {len(request.uri)} bytes, expected {site.url_bytes} at most"
        )
    if counts and site.heed is not None:
        site.heed(request)


def error_of(failure: Failure) -> RtpushError | None:
    """Return the error that is to be told, alone or the first of several; nothing if the fault is ours."""
    problem = failure.value
    if isinstance(problem, FirstError):
        problem = problem.subFailure.value
    return problem if isinstance(problem, RtpushError) else None


def abort(request: Request) -> None:
    """Close the connection of a request at once."""
    transport: Any = request.channel.transport
    transport.abortConnection()


def read_body(request: Request) -> bytes:
    """Return the body of a request."""
    if isinstance(request, LeanRequest):
        return request.body
    content: Any = request.content
    body: bytes = content.read()
    return body


def finish_with(request: Request, body: Deferred[bytes]) -> bytes | int:
    """
    Finish a request with a body that comes later, or with the error that comes instead.

    :returns: The body, or :data:`twisted.web.server.NOT_DONE_YET`, for the resource to return.
    """
    if is_known(body):
        known: Any = body.result
        return bytes(known)
    gone: list[None] = []
    when_over(request, lambda: gone.append(None))

    def failed(failure: Failure) -> bytes:
        error = error_of(failure)
        if error is not None:
            return answer_error(request, error)
        log_failed(request, failure)
        return answer_error(request, internal_error())

    def finish(data: bytes) -> None:
        # The client may have gone while the broker was asked.
        if not gone:
            answer_with(request, data)

    body.addErrback(failed).addCallback(finish)
    return server.NOT_DONE_YET


def answer_with(request: Request, body: bytes) -> None:
    """Answer a request that was not answered at once."""
    if isinstance(request, LeanRequest):
        request.answer(body)
    else:
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()


def forget(request: Request) -> None:
    """Drop what came with a request that will wait for long, where that takes memory."""
    if isinstance(request, LeanRequest):
        request.forget()


def when_over(request: Request, over: Callable[[], object]) -> None:
    """Have something called when a request is answered in full, or its client is gone. Once for each request."""
    if isinstance(request, LeanRequest):
        request.over = over
    else:
        request.notifyFinish().addBoth(lambda _: over() and None)


def peer_of(request: Request, node: Node) -> str:
    """
    Return the address of the client, as far as it is known and asked for.

    :returns: Nothing if it is that of the transport, and no limit depends on it.
    """
    peer: str = getattr(request.channel, "peer", "")
    proxies = node.proxies
    if not (peer or proxies or node.limiter.by_address):
        return ""
    if not peer:
        peer = host_of(request)
    if proxies.trusts(peer):
        lines = request.requestHeaders.getRawHeaders(b"x-forwarded-for")
        if lines:
            return proxies.client(peer, [line.decode("latin-1") for line in lines])
    return peer


def host_of(request: Request) -> str:
    """Return the address that a request comes from, without its port."""
    channel: Any = request.channel
    host: str = getattr(channel.transport.getPeer(), "host", UNIX)
    return host


def address_of(transport: Any) -> str:
    """Return the address of the peer, for logs and the list of connections."""
    address = transport.getPeer()
    host = getattr(address, "host", None)
    return f"{host}:{address.port}" if host is not None else "unix"
