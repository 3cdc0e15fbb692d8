"""
A request and its answer, as lean as they can be: what resources of rtpush use of a request of twisted.web, and no more.

Reading the request is llhttp's work; see ``front.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.web.http import datetimeToString

from rtpush.transports.tcp import Stream

if TYPE_CHECKING:
    from twisted.web.resource import Resource

    from rtpush.transports.front import HttpConnection

__all__ = ["AnswerFields", "Fields", "LeanRequest", "SharedFields"]

_BODILESS = frozenset({204, 304})

#: What is left of a path that was followed to its end.
_NO_PARTS: list[bytes] = []


class Fields:
    """
    The header fields of a request.

    :param fields: Names in lower case, and the values of each.
    :ivar is_shared: Whether other requests have the same ones, and no client has them for itself.
    """

    __slots__ = ("_fields", "is_shared")

    def __init__(self, fields: dict[bytes, list[bytes]]) -> None:
        self._fields = fields
        self.is_shared = False

    def getRawHeaders(self, name: bytes) -> list[bytes] | None:
        """Return all values of a field; nothing if it is not there."""
        return self._fields.get(name)

    def hasHeader(self, name: bytes) -> bool:
        """Tell whether a field is there."""
        return name in self._fields

    def items(self) -> Iterable[tuple[bytes, list[bytes]]]:
        """Return all names and values."""
        return self._fields.items()


class AnswerFields:
    """The header fields of an answer, with their names in lower case."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[bytes, bytes] = {}

    def hasHeader(self, name: bytes) -> bool:
        """Tell whether a field is there."""
        return name in self._fields

    def addRawHeader(self, name: bytes, value: bytes) -> None:
        """Add a field, or to a field."""
        before = self._fields.get(name)
        self._fields[name] = value if before is None else before + b", " + value

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Have this field in the place of another with its name."""
        self._fields[name] = value

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """Return all names and values."""
        return self._fields.items()

    def copy(self) -> AnswerFields:
        """Return the same ones, which can be changed."""
        copied = AnswerFields()
        copied._fields.update(self._fields)
        return copied

    def lines(self) -> bytes:
        """Return them as they go over the wire."""
        return _lines(tuple(self._fields.items()))


class SharedFields(AnswerFields):
    """The header fields of many answers, which nobody changes: who has others takes a copy first."""

    __slots__ = ("_lines",)

    def __init__(self, fields: AnswerFields) -> None:
        super().__init__()
        self._fields.update(fields.items())
        self._lines = fields.lines()

    def lines(self) -> bytes:
        return self._lines


class LeanRequest:
    """
    One request.

    Attributes and methods are those of :class:`twisted.web.server.Request`, as far as they are here.

    :ivar over: Called once when the answer is finished, or the client is gone.
    """

    __slots__ = (
        "body",
        "channel",
        "clientproto",
        "code",
        "isChunked",
        "isOver",
        "method",
        "over",
        "path",
        "postpath",
        "requestHeaders",
        "responseHeaders",
        "startedWriting",
        "uri",
    )

    def __init__(
        self, channel: HttpConnection, method: bytes, uri: bytes, version: bytes, fields: Fields, body: bytes
    ) -> None:
        self.channel = channel
        self.method = method
        self.uri = uri
        self.path = uri.partition(b"?")[0]
        self.clientproto = version
        self.requestHeaders = fields
        self.responseHeaders = AnswerFields()
        self.body = body
        self.code = 200
        self.postpath: list[bytes] = _NO_PARTS
        self.startedWriting = False
        self.isChunked = False
        self.isOver = False
        self.over: Callable[[], object] | None = None

    @property
    def site(self) -> Any:
        """What the connection belongs to."""
        return self.channel.site

    def find(self, root: Resource) -> Any:
        """Follow the path, and return the resource that is to answer."""
        parts = self.path.split(b"/")[1:]
        self.postpath = [unquote_to_bytes(part) for part in parts] if b"%" in self.path else parts
        resource: Any = root
        while self.postpath and not resource.isLeaf:
            resource = resource.getChildWithDefault(self.postpath.pop(0), self)
        self.postpath = self.postpath or _NO_PARTS
        return resource

    def answer(self, body: bytes) -> None:
        """Answer with a body that is all there, or with the head alone."""
        if self.isOver:
            return
        transport = self.channel.transport
        write = transport.write_soon if isinstance(transport, Stream) else transport.write
        if self.code in _BODILESS:
            write(self._head(b""))
        elif self.method == b"HEAD":
            write(self._head(b"Content-Length: %d\r\n" % len(body) if body else b""))
        else:
            write(self._head(b"Content-Length: %d\r\n" % len(body)) + body)
        self._end()
        self.channel.finished()

    def forget(self) -> None:
        """Drop what came, which may be large, while the answer waits."""
        self.requestHeaders = _NONE
        self.body = b""

    def getHeader(self, name: bytes) -> bytes | None:
        """Return the last value of a header field of the request."""
        values = self.requestHeaders.getRawHeaders(name)
        return values[-1] if values else None

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Set a header field of the answer."""
        fields = self.responseHeaders
        if isinstance(fields, SharedFields):
            fields = self.responseHeaders = fields.copy()
        fields._fields[name] = value

    def setResponseCode(self, code: int) -> None:
        """Set the status of the answer."""
        self.code = code

    def write(self, data: bytes) -> None:
        """
        Write a part of the answer, after its head.

        Without a ``content-length`` the parts are chunks (RFC 9112 section 7.1), or the end of the connection is the
        end of the answer where the client does not know chunks.
        """
        if self.isOver:
            return
        if self.method == b"HEAD" or self.code in _BODILESS:
            data = b""
        if not self.startedWriting:
            head = self._head_of_parts()
            data = head + (_chunk(data) if self.isChunked and data else data)
        elif self.isChunked and data:
            data = _chunk(data)
        if data:
            self.channel.transport.write(data)

    def finish(self) -> None:
        """End the answer."""
        if self.isOver:
            return
        if not self.startedWriting:
            if self.code not in _BODILESS:
                self.setHeader(b"content-length", b"0")
            self.write(b"")
        if self.isChunked:
            self.channel.transport.write(b"0\r\n\r\n")
        self._end()
        self.channel.finished()

    def gone(self) -> None:
        """The client is gone."""
        self._end()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have a producer told how the client keeps up."""
        transport = self.channel.transport
        transport.unregisterProducer()
        transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        transport = self.channel.transport
        transport.unregisterProducer()
        transport.registerProducer(self.channel, True)

    def _end(self) -> None:
        self.isOver = True
        over, self.over = self.over, None
        if over is not None:
            over()

    def _head_of_parts(self) -> bytes:
        fields = self.responseHeaders
        if self.method != b"HEAD" and self.code not in _BODILESS and not fields.hasHeader(b"content-length"):
            if self.clientproto == b"HTTP/1.1":
                self.isChunked = True
                self.setHeader(b"transfer-encoding", b"chunked")
            else:
                self.channel.persists = False
        return self._head(b"")

    def _head(self, length: bytes) -> bytes:
        self.startedWriting = True
        channel = self.channel
        if not channel.persists or channel.site.leaving:
            channel.persists = False
            self.setHeader(b"connection", b"close")
        head = b"%b %b%b%b%b\r\n" % (
            self.clientproto,
            _status(self.code),
            _moment(int(time.time())),
            self.responseHeaders.lines(),
            length,
        )
        # What waits for its end needs them no more.
        self.requestHeaders = _NONE
        self.responseHeaders = _NOT_ANY_MORE
        return head


_NONE = Fields({})
_NOT_ANY_MORE = AnswerFields()


@lru_cache(1)
def _chunk(data: bytes) -> bytes:
    """Return a chunk. What goes to many at once is made once."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(256)
def _lines(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return fields as they go over the wire. Most answers have the same."""
    return b"".join([_capitalized(name) + value + b"\r\n" for name, value in fields])


@lru_cache(256)
def _capitalized(name: bytes) -> bytes:
    """Return a field's name as people like to read it."""
    return b"-".join(part.capitalize() for part in name.split(b"-")).replace(b"Etag", b"ETag") + b": "


@lru_cache(64)
def _status(code: int) -> bytes:
    return b"%d %b\r\n" % (code, HTTPStatus(code).phrase.encode())


@lru_cache(1)
def _moment(second: int) -> bytes:
    """Return the fields that every answer has, which are the same for a second."""
    return b"Server: rtpush\r\nDate: %b\r\n" % datetimeToString(second)
