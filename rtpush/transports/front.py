"""
The front door: HTTP/1.1 connections, read by llhttp, with lean requests for the resources that clients use all the
time.

All else (static files, the demo, whatever llhttp does not take for HTTP) is twisted.web's: a connection whose next
request is none of ours is handed over to it, for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.request import Fields, LeanRequest

if TYPE_CHECKING:
    from rtpush.transports.http import PushSite

__all__ = ["DISCARD_FACTOR", "HttpConnection", "RequestParser"]

#: The most bytes that the head of a request may have, and its fields.
_MAX_HEAD = 16384
_MAX_FIELDS = 500

#: The most bytes that may come before a chunk of a body.
_MAX_CHUNK_LINE = 4096

#: How many bytes that nobody has asked for yet are kept before reading stops.
_MAX_WAITING = 16384

#: A body that is too large is read on to its end, so that the client can read why it was refused, up to so many times
#: the limit.
DISCARD_FACTOR = 16

#: The methods that llhttp is asked to read. It refuses those that it does not know, which are to be told otherwise.
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"DELETE", b"PATCH"})

_WITHOUT_BODY = frozenset({b"GET", b"HEAD"})

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#: The versions that are taken, as llhttp and HTTP call them.
_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _TooLarge(Exception):
    """The head of a request is too large, or its body does not end."""


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
            if self._later > _MAX_HEAD:
                raise httptools.HttpParserError("the head is too large")
        return None

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
        self._fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
        self._count += 1
        self._size += len(name) + len(value) + 4
        if self._size > _MAX_HEAD or self._count > _MAX_FIELDS:
            raise _TooLarge

    def on_headers_complete(self) -> None:
        connection = self.connection
        assert connection is not None
        if len(self._url) + self._size > _MAX_HEAD:
            raise _TooLarge
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


@implementer(IProtocol, IPushProducer)
class HttpConnection:
    """
    A connection.

    :ivar persists: Whether there may be another request after this one.
    """

    __slots__ = (
        "_is_paused",
        "_is_running",
        "_parser",
        "_queue",
        "_request",
        "_upgraded",
        "_waiting",
        "persists",
        "site",
        "transport",
    )

    _log = Logger()

    def __init__(self, site: PushSite) -> None:
        self.site = site
        self.transport: Any = None
        self.persists = True
        self._parser: RequestParser | None = None
        #: Requests that are complete and wait for those before them.
        self._queue: list[tuple[LeanRequest, bool, RtpushError | None]] | None = None
        self._request: LeanRequest | None = None
        #: What came and was not looked at.
        self._waiting = b""
        self._is_running = False
        #: Whether the client has not taken what it was answered.
        self._is_paused = False
        self._upgraded: IProtocol | None = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.site.expect(self)

    def dataReceived(self, data: bytes) -> None:
        self._waiting = self._waiting + data if self._waiting else data
        if self._request is None and not self._is_paused:
            self._run()
        elif len(self._waiting) > _MAX_WAITING:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Any) -> None:
        self.site.expect_nothing(self)
        self.persists = False
        self._waiting, self._queue = b"", None
        self._drop_parser()
        request, self._request = self._request, None
        if request is not None:
            request.gone()

    def upgrade(self, protocol: IProtocol, head: bytes) -> None:
        """
        Hand this connection over to another protocol, for good.

        To be called while a request of it is rendered, which is then never finished.

        :param head: The answer that announces it, unless the protocol writes it.
        """
        self._upgraded = protocol
        self._request = None
        self._give_to(protocol)
        # Reading may have been stopped while an answer before this one was not taken.
        self.transport.resumeProducing()
        self.transport.write(head)
        protocol.makeConnection(self.transport)

    def finished(self) -> None:
        """The answer to the request is finished."""
        self._request = None
        if not self.persists:
            self._close()
        elif self._is_paused:
            self.site.expect(self)
        elif not self._is_running:
            self._go_on()

    # IPushProducer: the transport's back-pressure

    def pauseProducing(self) -> None:
        """The client does not take its answers."""
        self._is_paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It has taken them."""
        self._is_paused = False
        if self._request is None and not self._is_running:
            self._go_on()

    def stopProducing(self) -> None:
        """The transport takes nothing more; that it is lost is said elsewhere."""

    def _go_on(self) -> None:
        self.transport.resumeProducing()
        self._run()

    def tick(self) -> None:
        """What was expected has not come in its time."""
        if self.persists:
            self.persists = False
            self._close()
        else:
            self.transport.abortConnection()

    def failed(self, doing: str) -> None:
        """Something of ours went wrong: log it, and end this connection alone."""
        self._log.failure("{doing} failed on a connection", doing=doing)
        self.transport.abortConnection()

    def _run(self) -> None:
        """Answer what there is to answer."""
        self._is_running = True
        try:
            while self._request is None and self._upgraded is None and self.persists and not self._is_paused:
                if self._queue:
                    self._answer(*self._queue.pop(0))
                elif not self._waiting or not self._read():
                    break
        finally:
            self._is_running = False
        if self._upgraded is not None:
            # What came in the same segment as the request's head.
            data, self._waiting = self._waiting, b""
            if data:
                self._upgraded.dataReceived(data)
        elif self._request is not None:
            if len(self._waiting) > _MAX_WAITING:
                self.transport.pauseProducing()
        elif self.persists:
            # A head has its time as a whole: a byte now and then does not buy more.
            self.site.expect(self, anew=self._parser is not None and self._parser.in_body)

    def _read(self) -> bool:
        """Take what waits; tell whether there is a request now."""
        if self._parser is None and not self._is_ours():
            return False
        parser = self._parser
        if parser is None:
            parser = self._parser = self.site.parser()
            parser.connection = self
        data, self._waiting = self._waiting, b""
        try:
            rest = parser.feed(data)
        except httptools.HttpParserError:
            self._parser = None
            parser.end()
            self._refuse()
            return False
        self._queue, parser.done = parser.done, []
        if rest is not None:
            # This llhttp reads no more.
            self._waiting = rest
            self._parser = None
            parser.end()
        elif not parser.inside:
            self._drop_parser()
        return bool(self._queue)

    def _is_ours(self) -> bool:
        """Look at the next request; hand the connection over if it is none of ours."""
        data = self._waiting.lstrip(b"\r\n")
        line, end, _ = data.partition(b"\n")
        if not end:
            if len(self._waiting) > _MAX_HEAD:
                self._refuse()
            return False
        if self._is_for_llhttp(line, data):
            self._waiting = data
            return True
        other = self.site.build_other(self.transport.getPeer())
        self._upgraded = other
        self.site.expect_nothing(self)
        self._give_to(other)
        other.makeConnection(self.transport)
        return False

    def _is_for_llhttp(self, line: bytes, data: bytes) -> bool:
        method, _, rest = line.partition(b" ")
        uri, _, version = rest.partition(b" ")
        if method not in _METHODS or uri[:1] != b"/" or b" " in version or not line.isascii():
            return False
        if self.site.is_other(uri):
            return False
        # Some clients offer HTTP/2 so, and have their request answered as it is.
        return method in _WITHOUT_BODY or b"\nupgrade:" not in data[:_MAX_HEAD].lower()

    def _answer(self, request: LeanRequest, persists: bool, error: RtpushError | None) -> None:
        self.site.expect_nothing(self)
        if self.site.is_other(request.uri):
            # It came in one segment with one of ours. Who gets no answer asks again (RFC 9112 section 9.3.2).
            self.persists = False
            self._close()
            return
        self.persists = persists
        self._request = request
        self.site.answer(request, error)

    def _refuse(self) -> None:
        self._waiting = b""
        self.persists = False
        self.transport.write(_BAD_REQUEST)
        self._close()

    def _close(self) -> None:
        self.site.expect_end(self)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _drop_parser(self) -> None:
        parser, self._parser = self._parser, None
        if parser is not None:
            parser.connection = None
            if parser.inside or parser.is_spent:
                parser.end()
            else:
                self.site.take_back(parser)

    def _give_to(self, protocol: IProtocol) -> None:
        transport = self.transport
        transport.unregisterProducer()
        # The transport forgets this connection, which is then garbage, with its request.
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
