"""Routes: method and origin are checked, CORS preflights answered, and errors told, all in one place."""

from __future__ import annotations

from typing import ClassVar

from twisted.web import server
from twisted.web.resource import Resource

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.http import Request, answer_error, check_request, nothing_at

__all__ = ["Endpoint", "NotFound"]

_ALLOWED_HEADERS = b"Authorization, Content-Type, X-API-Key, X-Request-ID, Last-Event-ID, If-None-Match, Cache-Control"


class Endpoint(Resource):
    """
    A route: checks method and origin, answers CORS preflights, and turns errors into answers.

    Subclasses define :meth:`answer`.
    """

    isLeaf = True

    #: The methods that are answered; HEAD goes with GET.
    methods: ClassVar[tuple[bytes, ...]] = (b"GET", b"HEAD")

    #: Whether requests count among those of clients, of which an address may make so many.
    counts: ClassVar[bool] = True

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
            try:
                self._check_origin(request)
            finally:
                # Those of strange pages count too.
                check_request(request, counts=self.counts)
            if request.postpath:
                raise nothing_at(request)
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
        if self._origins.credentials:
            request.setHeader(b"access-control-allow-credentials", b"true")
        request.setHeader(b"access-control-expose-headers", b"ETag, Retry-After, X-Request-ID")

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
        nothing = NotFound(self._origins)
        nothing.isLeaf = True
        return nothing

    def render(self, request: Request) -> bytes | int:
        try:
            check_request(request)
            raise nothing_at(request)
        except RtpushError as error:
            return answer_error(request, error)
