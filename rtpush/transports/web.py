"""
twisted.web's way to read requests, for files and for whatever llhttp does not take for HTTP: with bounds on what a
stranger can send, errors as JSON, and a way out to WebSocket.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IProtocol
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web import http, server

from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.http import abort, answer_error, check_request, internal_error, log_failed, nothing_at
from rtpush.transports.parser import DISCARD_FACTOR

if TYPE_CHECKING:
    from rtpush.transports.site import PushSite

__all__ = ["HttpChannel", "PushRequest"]

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


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

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        if name.lower() == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            # There is no other (RFC 9112 section 7); twisted.web ignores "identity", and who does not is led astray.
            line = b""
        valid: bool = super().headerReceived(line)  # type: ignore[no-untyped-call]
        return valid

    def lineLengthExceeded(self, line: bytes) -> None:
        # twisted.web would close without a word.
        transport: Any = self.transport
        self.site.counts.limited["header_bytes"] += 1
        transport.write(_HEAD_TOO_LARGE)
        transport.loseConnection()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        # Without the version of Twisted.
        headers.setRawHeaders(b"server", [b"rtpush"])
        super().writeHeaders(version, code, reason, headers)  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        if self._upgraded is not None:
            # What came in the same segment as the request's head.
            self._upgraded.dataReceived(data)
        else:
            super().rawDataReceived(data)


class PushRequest(server.Request):
    """A request whose body is bounded, kept in memory, and whose failures are told as JSON."""

    channel: HttpChannel

    if TYPE_CHECKING:
        # Twisted has no types for these.
        def write(self, data: bytes) -> None: ...
        def finish(self) -> None: ...
        def setHeader(self, name: bytes, value: bytes) -> None: ...

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
        self.site = self.channel.site
        if (absolute := _ABSOLUTE.match(self.uri)) is not None:
            # As if to a proxy (RFC 9112 section 3.2.2).
            self.uri = b"/" + self.uri[absolute.end() :].lstrip(b"/")
            self.path = self.uri.partition(b"?")[0]
        if self._too_large:
            limit = self.channel.site.request_bytes
            self._refuse(
                RtpushError(ErrorCode.MESSAGE_TOO_LARGE, f"the body is too large: expected {limit} bytes at most")
            )
        elif len(self.requestHeaders.getRawHeaders(b"host", ())) != 1 and self.clientproto != b"HTTP/1.0":
            self.setHeader(b"connection", b"close")
            self.channel.persistent = False
            self._refuse(RtpushError(ErrorCode.BAD_REQUEST, "expected one Host header"))
        elif b"%" in self.path and not _is_text(unquote_to_bytes(self.path)):
            # Files have no such names, but those who look for them there would stumble.
            try:
                check_request(self)
                raise nothing_at(self)
            except RtpushError as error:
                self._refuse(error)
        else:
            super().process()  # type: ignore[no-untyped-call]

    def setLastModified(self, when: float) -> object:
        try:
            return super().setLastModified(when)  # type: ignore[no-untyped-call]
        except (ArithmeticError, LookupError):
            # What is no date counts for nothing (RFC 9110 section 13.1.3); twisted.web stumbles over some of them.
            return None

    def render(self, resrc: Any) -> None:
        body = resrc.render(self) if self.method == b"HEAD" else None
        if body is None:
            super().render(resrc)  # type: ignore[no-untyped-call]
        elif body is not server.NOT_DONE_YET:
            # twisted.web would log each one that has a body, with its query.
            if body:
                self.setHeader(b"content-length", b"%d" % len(body))
            self.write(b"")
            self.finish()

    def _refuse(self, error: RtpushError) -> None:
        self.write(answer_error(self, error))
        self.finish()

    def processingFailed(self, reason: Failure) -> Failure:
        log_failed(self, reason)
        if self.startedWriting:
            abort(self)
        else:
            self._refuse(internal_error())
        return reason


def _is_text(path: bytes) -> bool:
    """Tell whether a path is UTF-8 without NUL."""
    try:
        return "\0" not in path.decode()
    except UnicodeDecodeError:
        return False
