"""A stream of an HTTP/2 connection: one request and its answer, which may go on for long (RFC 9113 section 5)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, datetimeToString

from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.parser import DISCARD_FACTOR
from rtpush.transports.request import AnswerFields, Fields, LeanRequest
from rtpush.transports.web import PushRequest

if TYPE_CHECKING:
    from rtpush.transports.http2 import Http2Connection

__all__ = ["Http2Stream", "StreamRequest"]

#: How many bytes of an answer may wait before its producer is to pause, as for a connection.
_BUFFER_SIZE = 65536

#: Fields that are about a connection, which a stream is not (RFC 9113 section 8.2.2).
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

_LOST = Failure(ConnectionLost())


class StreamRequest(LeanRequest):
    """A request that came on a stream: its answer has a head of fields, and no chunks."""

    __slots__ = ()

    def answer(self, body: bytes) -> None:
        """Answer with a body that is all there, or with the head alone."""
        if self.isOver:
            return
        if self.code not in NO_BODY_CODES and (body or self.method != b"HEAD"):
            self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def write(self, data: bytes) -> None:
        """Write a part of the answer, after its head."""
        if self.isOver:
            return
        if not self.startedWriting:
            self._begin()
        if self.method != b"HEAD" and self.code not in NO_BODY_CODES:
            self._stream.write(data)

    def finish(self) -> None:
        """End the answer."""
        if self.isOver:
            return
        if not self.startedWriting:
            if self.code not in NO_BODY_CODES:
                self.setHeader(b"content-length", b"0")
            self._begin()
        self._end()
        self._stream.end()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have a producer told how the client keeps up."""
        self._stream.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self._stream.unregisterProducer()

    @property
    def _stream(self) -> Http2Stream:
        stream: Any = self.channel
        return stream  # type: ignore[no-any-return]

    def _begin(self) -> None:
        self.startedWriting = True
        self._stream.head(b"%d" % self.code, self.responseHeaders.items())
        # What waits for its end needs them no more.
        self.forget()
        self.responseHeaders = AnswerFields()


class Http2Stream:
    """
    A stream.

    It is to its request what a connection is, of either kind of request; and to resources, the transport.

    :ivar site: What the connection belongs to.
    :ivar peer: The address of the client, if a proxy has told it.
    :ivar is_complete: Whether the request is there as a whole.
    :ivar has_ended: Whether all of the answer is here; what waits of it may not be sent yet.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_fields",
        "_is_paused",
        "_is_pulled",
        "_method",
        "_producer",
        "_received",
        "_request",
        "_size",
        "_uri",
        "_waiting",
        "has_ended",
        "id",
        "is_complete",
        "site",
    )

    #: twisted.web asks it to write an access log.
    factory = None

    def __init__(
        self, connection: Http2Connection, id_: int, method: bytes, uri: bytes, fields: dict[bytes, list[bytes]]
    ) -> None:
        self.id = id_
        self.is_complete = False
        self.has_ended = False
        self.site = connection.site
        self._connection: Http2Connection | None = connection
        self._method = method
        self._uri = uri
        self._fields = fields
        self._body: list[bytes] | None = []
        self._received = 0
        self._request: StreamRequest | PushRequest | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._producer: Any = None
        self._is_pulled = False
        self._is_paused = False

    # What the connection tells

    def receive(self, data: bytes) -> bool:
        """Take a part of the body; tell whether there may be more."""
        site = self.site
        self._received += len(data)
        if self._received > site.request_bytes:
            self._body = None
        elif self._body is not None:
            self._body.append(data)
        return self._received <= site.request_bytes * DISCARD_FACTOR

    @property
    def held(self) -> int:
        """How many bytes of an incomplete body are here."""
        return 0 if self.is_complete or self._body is None else self._received

    def complete(self) -> None:
        """The request is there: answer it."""
        self.is_complete = True
        site = self.site
        body, fields = self._body, Fields(self._fields)
        self._body, self._fields = None, {}
        error = None
        if body is None:
            limit = site.request_bytes
            error = RtpushError(ErrorCode.MESSAGE_TOO_LARGE, f"the body is too large: expected {limit} bytes at most")
        if error is None and site.is_other(self._uri):
            self._give_to_other(fields, b"".join(body or ()))
            return
        channel: Any = self
        request = StreamRequest(channel, self._method, self._uri, b"HTTP/2", fields, b"".join(body or ()))
        self._request = request
        site.answer(request, error)

    def _give_to_other(self, fields: Fields, body: bytes) -> None:
        """Have twisted.web answer."""
        channel: Any = self
        request: Any = PushRequest(channel, False)  # type: ignore[no-untyped-call]
        self._request = request
        for name, values in fields.items():
            request.requestHeaders.setRawHeaders(name, values)
        request.parseCookies()
        request.content = BytesIO()
        request.content.write(body)
        request.requestReceived(self._method, self._uri, b"HTTP/2")

    def gone(self) -> None:
        """The client has cancelled it, or is gone."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._waiting.clear()
        self._size = 0
        producer, self._producer = self._producer, None
        request, self._request = self._request, None
        if producer is not None:
            producer.stopProducing()
        if isinstance(request, StreamRequest):
            request.gone()
        elif request is not None and not self.has_ended:
            request.connectionLost(_LOST)  # type: ignore[no-untyped-call]

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send: a part of the answer, or its end."""
        return bool(self._waiting) or self.has_ended

    @property
    def waits(self) -> bool:
        """Whether there is a part of the answer to send."""
        return bool(self._waiting)

    def take(self, most: int) -> bytes:
        """Return what is to be sent next, of so many bytes at most, which may be 0."""
        taken: list[bytes] = []
        while self._waiting and most > 0:
            piece = self._waiting.popleft()
            if len(piece) > most:
                self._waiting.appendleft(piece[most:])
                piece = piece[:most]
            most -= len(piece)
            taken.append(piece)
        data = b"".join(taken)
        self._size -= len(data)
        return data

    def taken(self) -> None:
        """Something was sent: perhaps there is room for more now."""
        if self._producer is not None and not self._size and (self._is_pulled or self._is_paused):
            self._is_paused = False
            self._producer.resumeProducing()

    # What the request uses

    @property
    def peer(self) -> str:
        """The address of the client, if a proxy has told it."""
        return "" if self._connection is None else self._connection.peer

    @property
    def transport(self) -> Http2Stream:
        """What bytes of the answer go to."""
        return self

    def head(self, status: bytes, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the head of the answer."""
        if self._connection is not None:
            own = [(b":status", status), (b"server", b"rtpush"), (b"date", datetimeToString(time.time()))]
            others = [(name, value) for name, value in fields if name not in _OF_CONNECTIONS]
            self._connection.send_head(self, own + others)

    def write(self, data: bytes) -> None:
        """Send a part of the answer when there is room for it."""
        if self._connection is None or not data:
            return
        self._waiting.append(data)
        self._size += len(data)
        self._connection.wake(self)
        if self._size > _BUFFER_SIZE and self._producer is not None and not (self._is_pulled or self._is_paused):
            self._is_paused = True
            self._producer.pauseProducing()

    def end(self) -> None:
        """The answer is complete."""
        self.has_ended = True
        if self._connection is not None:
            self._connection.wake(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have a producer told how the client keeps up."""
        if self._connection is None:
            producer.stopProducing()
            return
        self._producer = producer
        self._is_pulled = not streaming
        self._is_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self._producer = None
        self._is_pulled = False

    def abortConnection(self) -> None:
        """Cancel this stream; the connection stays."""
        if self._connection is not None:
            self._connection.cancel(self)

    loseConnection = abortConnection

    def getPeer(self) -> Any:
        """Return the address of the client."""
        return None if self._connection is None else self._connection.transport.getPeer()

    def getHost(self) -> Any:
        """Return the address of this side."""
        return None if self._connection is None else self._connection.transport.getHost()

    # What else a request of twisted.web uses

    def isSecure(self) -> bool:
        """HTTP/2 is spoken over TLS alone."""
        return True

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        """Send the head of the answer."""
        own = (b"server", b"date")
        fields = [(name.lower(), value) for name, values in headers.getAllRawHeaders() for value in values]
        self.head(code, [field for field in fields if field[0] not in own])

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Send some parts of the answer."""
        self.write(b"".join(pieces))

    def requestDone(self, request: Any) -> None:
        """The answer is complete."""
        self.end()
