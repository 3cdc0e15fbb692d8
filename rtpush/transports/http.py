"""
The HTTP front: twisted.web with bounds on what a stranger can send, errors as JSON, CORS, and a way out to WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.internet.defer import Deferred, FirstError
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import Resource

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.wheel import TimerWheel
from rtpush.transports.front import DISCARD_FACTOR, HttpConnection, RequestParser
from rtpush.transports.request import LeanRequest

__all__ = [
    "Endpoint",
    "HttpChannel",
    "NotFound",
    "PushRequest",
    "PushSite",
    "Query",
    "Request",
    "abort",
    "address_of",
    "answer_error",
    "answer_json",
    "error_of",
    "finish_with",
    "forget",
    "is_known",
    "read_body",
    "when_over",
]

_ALLOWED_HEADERS = b"Authorization, Content-Type, X-API-Key, Last-Event-ID, If-None-Match, Cache-Control"


class HttpChannel(http.HTTPChannel):
    """An HTTP/1.1 connection, which may become a WebSocket."""

    site: PushSite
    _upgraded: IProtocol | None = None

    def upgrade(self, protocol: IProtocol, head: bytes) -> None:
        """
        Hand this connection over to another protocol, for good.

        To be called while a request of it is rendered, which is then never finished.

        :param head: The answer that announces it, unless the protocol writes it.
        """
        transport: Any = self.transport
        transport.unregisterProducer()
        # Reading may have been stopped while an answer before this one was not taken.
        transport.resumeProducing()
        self._upgraded = protocol
        # The transport forgets this channel, which is then garbage, with its request.
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        transport.write(head)
        protocol.makeConnection(transport)

    def resetTimeout(self) -> None:
        # A head has its time as a whole: a byte now and then does not buy more.
        if not self.line_mode:
            super().resetTimeout()  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        if self._upgraded is not None:
            # What came in the same segment as the request's head.
            self._upgraded.dataReceived(data)
        else:
            super().rawDataReceived(data)


class PushRequest(server.Request):
    """A request whose body is bounded, kept in memory, and whose failures are told as JSON."""

    channel: HttpChannel
    _log = Logger()

    if TYPE_CHECKING:
        # Twisted has no types for these.
        def write(self, data: bytes) -> None: ...
        def finish(self) -> None: ...

    _received = 0
    _too_large = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        self._too_large = length is not None and length > self.channel.site.request_bytes

    def handleContentChunk(self, data: bytes) -> None:
        limit = self.channel.site.request_bytes
        self._received += len(data)
        if self._received > limit:
            self._too_large = True
            if self._received > limit * DISCARD_FACTOR:
                abort(self)
        if not self._too_large:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        if self._too_large:
            limit = self.channel.site.request_bytes
            self._refuse(
                RtpushError(ErrorCode.MESSAGE_TOO_LARGE, f"the body is too large: expected {limit} bytes at most")
            )
        elif b"%" in self.path and not _is_text(unquote_to_bytes(self.path)):
            # Files have no such names, but those who look for them there would stumble.
            self._refuse(_nothing_at(self))
        else:
            super().process()  # type: ignore[no-untyped-call]

    def _refuse(self, error: RtpushError) -> None:
        self.write(answer_error(self, error))
        self.finish()

    def processingFailed(self, reason: Failure) -> Failure:
        self._log.failure("{method} {path} failed", failure=reason, method=self.method, path=self.path)
        if self.startedWriting:
            abort(self)
        else:
            self._refuse(_internal_error())
        return reason


#: What a resource may be given.
Request = server.Request | LeanRequest

#: The most parameters of a query.
_MAX_PARAMETERS = 1000

#: How many parsers are kept for connections to come.
_SPARE_PARSERS = 100

#: Seconds that a client has to go when it was told to.
_CLOSE_TIMEOUT = 15.0


class PushSite(server.Site):
    """
    The site of all routes.

    :param wheel: Has the deadlines of connections; its owner turns it.
    :param others: The first parts of paths that are twisted.web's.
    :ivar request_bytes: The largest body.
    :ivar retry_after: Returns the whole seconds after which one who is refused for a while is to come back.
    """

    displayTracebacks = False
    # Without HTTP/2, which a WebSocket cannot be reached over.
    protocol = HttpChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: Resource,
        clock: IReactorTime,
        *,
        wheel: TimerWheel[Any],
        request_bytes: int,
        timeout: float,
        retry_after: Callable[[], int],
        others: Iterable[bytes] = (),
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, requestFactory=PushRequest, parsePOSTFormSubmission=False, timeout=timeout, reactor=clock
        )
        self.request_bytes = request_bytes
        self.retry_after = retry_after
        self._clock = clock
        self._wheel = wheel
        self._timeout = timeout
        self._others = frozenset(others)
        self._parsers: list[RequestParser] = []

    def buildProtocol(self, addr: Any) -> Any:
        """Return what reads a new connection."""
        return HttpConnection(self)

    def build_other(self, addr: Any) -> Any:
        """Return what twisted.web reads a connection with."""
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def is_other(self, uri: bytes) -> bool:
        """Tell whether a request is twisted.web's."""
        return uri[1:].partition(b"?")[0].partition(b"/")[0] in self._others

    def answer(self, request: LeanRequest, error: RtpushError | None) -> None:
        """Have the resources answer a request, or refuse it."""
        try:
            if error is not None:
                request.answer(answer_error(request, error))
            else:
                request.process(self.resource)
        except Exception:
            PushRequest._log.failure("{method} {path} failed", method=request.method, path=request.path)
            if request.startedWriting:
                abort(request)
            else:
                request.answer(answer_error(request, _internal_error()))

    def expect(self, connection: HttpConnection, *, anew: bool = False) -> None:
        """Something must come from a client in time, whose time begins now if it has not begun."""
        if anew or connection not in self._wheel:
            self._wheel.set(connection, self._clock.seconds() + self._timeout)

    def expect_end(self, connection: HttpConnection) -> None:
        """A client must go now."""
        self._wheel.set(connection, self._clock.seconds() + _CLOSE_TIMEOUT)

    def expect_nothing(self, connection: HttpConnection) -> None:
        """A client has its time."""
        self._wheel.cancel(connection)

    def parser(self) -> RequestParser:
        """Return a parser between two requests."""
        return self._parsers.pop() if self._parsers else RequestParser()

    def take_back(self, parser: RequestParser) -> None:
        """Keep a parser for another connection."""
        if len(self._parsers) < _SPARE_PARSERS:
            self._parsers.append(parser)
        else:
            parser.end()

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 alone in the TLS handshake (RFC 7301), whatever Twisted could do."""
        return [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Write no access log: a line per poll is no use to anyone, and queries may hold tokens."""


class Query:
    """The query of a request: every parameter at most once, but those that may be several."""

    def __init__(self, request: Request) -> None:
        _, _, query = request.uri.partition(b"?")
        self._values: dict[str, list[str]] = {}
        parts = query.split(b"&", _MAX_PARAMETERS)
        if len(parts) > _MAX_PARAMETERS:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"the query has more than {_MAX_PARAMETERS} parameters")
        try:
            for part in parts:
                name, _, value = part.partition(b"=")
                if part:
                    self._values.setdefault(_plain(name), []).append(_plain(value))
        except UnicodeDecodeError:
            raise RtpushError(ErrorCode.BAD_REQUEST, "the query is not URL-encoded UTF-8") from None

    def one(self, *names: str) -> str | None:
        """
        Return a parameter that may be given once, under any of some names.

        :raises RtpushError: ``bad_request`` if it is there more than once.
        """
        values = [value for name in names for value in self._values.get(name, ())]
        if len(values) > 1:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"{names[0]} is given {len(values)} times, expected once")
        return values[0] if values else None

    def several(self, name: str) -> list[str]:
        """Return a parameter that may be repeated or joined by commas."""
        return [part for value in self._values.get(name, ()) for part in value.split(",")]

    def number(self, name: str, default: float) -> float:
        """
        Return a parameter that is a number of seconds.

        :raises RtpushError: ``bad_request`` if it is not a number of at least 0.
        """
        text = self.one(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise RtpushError(ErrorCode.BAD_REQUEST, f"{name} is {text[:40]!r}, expected a number of seconds")
        return value


def _plain(text: bytes) -> str:
    """Decode a name or value of a query (WHATWG URL, application/x-www-form-urlencoded)."""
    if b"%" in text or b"+" in text:
        text = unquote_to_bytes(text.replace(b"+", b" "))
    return text.decode()


class Endpoint(Resource):
    """
    A route: checks method and origin, answers CORS preflights, and turns errors into answers.

    Subclasses define :meth:`answer`.
    """

    isLeaf = True

    #: The methods that are answered; HEAD goes with GET.
    methods: ClassVar[tuple[bytes, ...]] = (b"GET", b"HEAD")

    def __init__(self, origins: Origins) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._origins = origins

    def answer(self, request: Request) -> bytes | int:
        """
        Answer a request: return the body or :data:`NOT_DONE_YET`.

        :raises RtpushError: which is answered with its status.
        """
        raise NotImplementedError

    def render(self, request: Request) -> bytes | int:
        try:
            self._check_origin(request)
            if request.postpath:
                raise _nothing_at(request)
            if request.method == b"OPTIONS":
                return self._preflight(request)
            if request.method not in self.methods:
                request.setHeader(b"allow", b", ".join((*self.methods, b"OPTIONS")))
                raise RtpushError(
                    ErrorCode.METHOD_NOT_ALLOWED,
                    f"{request.method.decode('ascii', 'replace')[:20]} is not allowed here, "
                    f"expected {b' or '.join(self.methods).decode()}",
                )
            return self.answer(request)
        except RtpushError as error:
            return answer_error(request, error)

    def _check_origin(self, request: Request) -> None:
        # Even without one: a cache must not give this answer to a page that has one.
        request.responseHeaders.addRawHeader(b"vary", b"Origin")
        given = request.requestHeaders.getRawHeaders(b"origin")
        if given is None:
            return
        # More than one is none that could be let in.
        origin = b", ".join(given)
        host = request.getHeader(b"host") or b""
        if not self._origins.allows(origin.decode("latin-1"), host.decode("latin-1")):
            raise RtpushError(
                ErrorCode.ORIGIN_NOT_ALLOWED,
                f"pages of {origin.decode('latin-1')[:200]!r} may not use this server: see [server] allowed_origins",
            )
        request.setHeader(b"access-control-allow-origin", origin)
        request.setHeader(b"access-control-expose-headers", b"ETag, Retry-After")

    def _preflight(self, request: Request) -> int:
        request.setResponseCode(204)
        request.setHeader(b"allow", b", ".join((*self.methods, b"OPTIONS")))
        if request.getHeader(b"access-control-request-method") is not None:
            request.setHeader(b"access-control-allow-methods", b", ".join(self.methods))
            request.setHeader(b"access-control-allow-headers", _ALLOWED_HEADERS)
            request.setHeader(b"access-control-max-age", b"7200")
        # Not by an empty body, which would get the length that this status must not have (RFC 9110 section 8.6).
        request.finish()
        return server.NOT_DONE_YET


class NotFound(Endpoint):
    """A path that has nothing itself, though others below it may."""

    isLeaf = False

    def getChild(self, path: bytes, request: Request) -> Resource:
        return self

    def render(self, request: Request) -> bytes | int:
        return answer_error(request, _nothing_at(request))


def _is_text(path: bytes) -> bool:
    """Tell whether a path is UTF-8 without NUL."""
    try:
        return "\0" not in path.decode()
    except UnicodeDecodeError:
        return False


def _internal_error() -> RtpushError:
    return RtpushError(ErrorCode.INTERNAL, "something went wrong here; it was logged")


def _nothing_at(request: Request) -> RtpushError:
    path = request.path.decode("latin-1")[:200]
    return RtpushError(ErrorCode.NOT_FOUND, f"there is nothing at {path!r}")


def answer_json(request: Request, value: Any) -> bytes:
    """Set the headers for a JSON answer, and return its body."""
    request.setHeader(b"content-type", b"application/json")
    if not request.responseHeaders.hasHeader(b"cache-control"):
        request.setHeader(b"cache-control", b"no-store")
    return msgspec.json.encode(value)


def answer_error(request: Request, error: RtpushError) -> bytes:
    """Set the status and headers for an error, and return its body."""
    request.setResponseCode(error.kind.status)
    if error.kind is ErrorCode.UNAUTHORIZED:
        request.setHeader(b"www-authenticate", b"Bearer")
    if error.kind.status == 503:
        site: Any = request.site
        request.setHeader(b"retry-after", b"%d" % site.retry_after())
    request.setHeader(b"cache-control", b"no-store")
    return answer_json(request, {"error": error.as_dict()})


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


def is_known(result: Deferred[Any]) -> bool:
    """Tell whether a Deferred has its value: to take that from ``result`` costs less than a callback."""
    return bool(result.called) and not result.paused and not isinstance(result.result, (Failure, Deferred))


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
        PushRequest._log.failure("{method} {path} failed", failure=failure, method=request.method, path=request.path)
        return answer_error(request, _internal_error())

    def finish(data: bytes) -> None:
        # The client may have gone while the broker was asked.
        if not gone:
            request.setHeader(b"content-length", b"%d" % len(data))
            request.write(data)
            request.finish()

    body.addErrback(failed).addCallback(finish)
    return server.NOT_DONE_YET


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


def address_of(transport: Any) -> str:
    """Return the address of the peer, for logs and the list of connections."""
    address = transport.getPeer()
    host = getattr(address, "host", None)
    return f"{host}:{address.port}" if host is not None else "unix"
