"""Requests as llhttp reads them, with bounds on what a stranger can send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.request import Fields, LeanRequest

if TYPE_CHECKING:
    from rtpush.transports.front import HttpConnection

__all__ = ["DISCARD_FACTOR", "HeadTooLarge", "RequestParser"]

#: The most fields that the head of a request may have.
_MAX_FIELDS = 500

#: The most bytes that may come before a chunk of a body.
_MAX_CHUNK_LINE = 4096

#: A body that is too large is read on to its end, so that the client can read why it was refused, up to so many times
#: the limit.
DISCARD_FACTOR = 16

#: The versions that are taken, as llhttp and HTTP call them.
_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _TooLarge(Exception):
    """The body of a request does not end."""


class HeadTooLarge(Exception):
    """The head of a request is too large."""


class RequestParser:
    """
    llhttp, and what it has told. It belongs to a connection while a request is read, and to nobody between two.

    :ivar done: The requests that are complete; with each, whether the connection persists after it, and why it is
        refused, if it is.
    :ivar inside: Whether a request has begun that is not complete.
    :ivar in_body: Whether its head is complete.
    :ivar is_spent: Whether it reads no more, since the last request was to be the last one.
    """

    def __init__(self) -> None:
        self.done: list[tuple[LeanRequest, bool, RtpushError | None]] = []
        self.connection: HttpConnection | None = None
        self.is_spent = False
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self.inside = self.in_body = False
        self._url = b""
        self._fields: dict[bytes, list[bytes]] = {}
        self._count = self._size = self._received = 0
        #: Bytes that came without being anything yet.
        self._later = 0
        self._body: list[bytes] | None = []

    def feed(self, data: bytes) -> bytes | None:
        """
        Read on.

        :returns: What came after a request that asks for another protocol; :obj:`None` if none did.
        :raises httptools.HttpParserError: if it is no HTTP, or too large.
        :raises HeadTooLarge: which may also be the context of the other one.
        """
        was_inside, received = self.inside, self._received
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return data[upgrade.args[0] :]
        if self.in_body:
            # What is in the body of a chunked request, and is none of it.
            self._later = 0 if self._received > received else self._later + len(data)
            if self._later > _MAX_CHUNK_LINE:
                raise httptools.HttpParserError("the head of a chunk is too large")
        elif was_inside and self.inside:
            # llhttp itself keeps what it has of a field.
            self._later += len(data)
            if self._later > self._max_head:
                raise HeadTooLarge
        return None

    @property
    def _max_head(self) -> int:
        assert self.connection is not None
        return self.connection.site.header_bytes

    @property
    def held(self) -> int:
        """How many bytes are here of the body of a request that is not complete."""
        return 0 if self._body is None else self._received

    def end(self) -> None:
        """Read no more."""
        self.connection = None
        # It knows this object too: without this, both were left to the garbage collector.
        self._llhttp = None

    # What llhttp calls

    def on_message_begin(self) -> None:
        self.inside = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:
            # What comes after a body is nothing that was said before it (RFC 9110 section 6.5.1): no token, no address.
            self._fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
        self._count += 1
        self._size += len(name) + len(value) + 4
        if self._size > self._max_head or self._count > _MAX_FIELDS:
            raise HeadTooLarge

    def on_headers_complete(self) -> None:
        connection = self.connection
        assert connection is not None
        if len(self._url) + self._size > self._max_head:
            raise HeadTooLarge
        hosts = len(self._fields.get(b"host", ()))
        if hosts > 1 or (hosts == 0 and self._llhttp.get_http_version() != "1.0"):
            # RFC 9112 section 3.2.
            raise httptools.HttpParserError("expected one Host header")
        self.in_body = True
        self._later = 0
        length = self._fields.get(b"content-length")
        if length is not None and int(length[0]) > connection.site.request_bytes:
            self._body = None
        if b"expect" in self._fields and self._fields[b"expect"][-1].lower() == b"100-continue":
            connection.transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        assert self.connection is not None
        limit = self.connection.site.request_bytes
        self._received += len(data)
        if self._received > limit:
            self._body = None
            if self._received > limit * DISCARD_FACTOR:
                raise _TooLarge
        if self._body is not None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        connection = self.connection
        assert connection is not None
        version = self._llhttp.get_http_version()
        if version not in _VERSIONS:
            raise _TooLarge
        wishes = b",".join(self._fields.get(b"connection", ())).lower()
        persists = version == "1.1" and b"close" not in [wish.strip() for wish in wishes.split(b",")]
        body, error = b"", None
        if self._llhttp.should_upgrade() and self._has_body():
            # llhttp takes it for the other protocol.
            persists = False
            error = RtpushError(ErrorCode.BAD_REQUEST, "a request that asks for another protocol has no body")
        elif self._body is not None:
            body = b"".join(self._body)
        else:
            limit = connection.site.request_bytes
            error = RtpushError(ErrorCode.MESSAGE_TOO_LARGE, f"the body is too large: expected {limit} bytes at most")
        self.is_spent = not self._llhttp.should_keep_alive()
        method = self._llhttp.get_method()
        request = LeanRequest(connection, method, self._url, _VERSIONS[version], Fields(self._fields), body)
        self.done.append((request, persists, error))
        self._begin()

    def _has_body(self) -> bool:
        return b"transfer-encoding" in self._fields or int(self._fields.get(b"content-length", [b"0"])[0]) > 0
