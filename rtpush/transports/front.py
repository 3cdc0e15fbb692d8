"""
The front door: HTTP/1.1 connections, with lean requests for the resources that clients use all the time. Plain ones are
read at once, all others by llhttp.

All else (static files, the demo, whatever llhttp does not take for HTTP) is twisted.web's: a connection whose next
request is none of ours is handed over to it, for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from twisted.internet.interfaces import IHandshakeListener, IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.http import address_of, answer_error
from rtpush.transports.parser import HeadTooLarge, RequestParser
from rtpush.transports.request import Fields, LeanRequest
from rtpush.transports.tcp import Stream

if TYPE_CHECKING:
    from rtpush.transports.site import PushSite

__all__ = ["HttpConnection", "ProxiedConnection"]

#: How many bytes that nobody has asked for yet are kept before reading stops.
_MAX_WAITING = 16384

#: How many bytes llhttp reads at once.
_PIECE = 4096

#: The methods that llhttp is asked to read. It refuses those that it does not know, which are to be told otherwise.
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"DELETE", b"PATCH"})

_WITHOUT_BODY = frozenset({b"GET", b"HEAD"})


@implementer(IHandshakeListener, IPushProducer)
class HttpConnection:
    """
    A connection.

    :ivar peer: The address of the client, if a proxy has told it at the beginning; else empty.
    :ivar persists: Whether there may be another request after this one.
    """

    __slots__ = (
        "_is_paused",
        "_is_running",
        "_is_stopped",
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

    peer = ""

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
        #: Whether nothing is read for now.
        self._is_stopped = False
        #: Whether the client has not taken what it was answered.
        self._is_paused = False
        self._upgraded: IProtocol | None = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.site.open += 1
        self.site.expect(self)

    def handshakeCompleted(self) -> None:
        """TLS is spoken, and the client may have chosen HTTP/2 by it (RFC 9113 section 3.2)."""
        if self.transport.negotiatedProtocol == b"h2":
            other = self._upgraded = self.site.build_http2(getattr(self, "peer", ""))
            self.site.forget(self)
            self._give_to(other)
            other.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._waiting = self._waiting + data if self._waiting else data
        if self._request is None and not self._is_paused:
            self._run()
        elif len(self._waiting) > _MAX_WAITING:
            self._stop()

    def connectionLost(self, reason: Any) -> None:
        self.site.open -= 1
        self.site.forget(self)
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
        if isinstance(self.transport, Stream):
            self.transport.write_soon(head)
        else:
            self.transport.write(head)
        protocol.makeConnection(self.transport)

    def pass_on(self) -> None:
        """Give what came meanwhile to the protocol that a request was upgraded to after a while."""
        if not self._is_running and self._upgraded is not None and self._waiting:
            data, self._waiting = self._waiting, b""
            self._upgraded.dataReceived(data)

    def finished(self) -> None:
        """The answer to the request is finished."""
        self._request = None
        if not self.persists or self.site.leaving:
            self.persists = False
            self._close()
        elif self._is_paused:
            self.site.expect(self)
        elif not self._is_running:
            if self._waiting or self._queue or self._is_stopped:
                self._go_on()
            else:
                self.site.expect(self)

    # IPushProducer: the transport's back-pressure

    def pauseProducing(self) -> None:
        """The client does not take its answers."""
        self._is_paused = True
        self._stop()

    def resumeProducing(self) -> None:
        """It has taken them."""
        self._is_paused = False
        if self._request is None and not self._is_running:
            self._go_on()

    def stopProducing(self) -> None:
        """The transport takes nothing more; that it is lost is said elsewhere."""

    def _stop(self) -> None:
        self._is_stopped = True
        self.transport.pauseProducing()

    def _go_on(self) -> None:
        self._is_stopped = False
        self.transport.resumeProducing()
        self._run()

    def tick(self) -> None:
        """What was expected has not come in its time."""
        if self.persists:
            if self._waiting or self._parser is not None:
                self.site.counts.limited["header_timeout"] += 1
            self.persists = False
            self._close()
        else:
            self.transport.abortConnection()

    def failed(self, doing: str) -> None:
        """Something of ours went wrong: log it, and end this connection alone."""
        self._log.failure("{doing} failed on a connection of {peer}", doing=doing, peer=address_of(self.transport))
        self.transport.abortConnection()

    def _run(self) -> None:
        """Answer what there is to answer."""
        self._is_running = True
        try:
            while self._request is None and self._upgraded is None and self.persists and not self._is_paused:
                if self._queue:
                    self._answer_read(*self._queue.pop(0))
                elif not self._waiting or not (self._read_plain() or self._read()):
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
                self._stop()
        elif self.persists:
            # A head has its time as a whole: a byte now and then does not buy more.
            self.site.expect(self, anew=self._parser is not None and self._parser.in_body)
            if self._parser is not None:
                self.site.incoming.hold(self, self._parser.held)

    def _read_plain(self) -> bool:
        """Take what waits if it begins with a plain request that is there as a whole; tell whether it does."""
        data = self._waiting
        if self._parser is not None:
            return False
        known = self.site.known_requests.get(data)
        if known is not None:
            self._waiting = b""
            method, uri, fields = known
            self._answer(LeanRequest(self, method, uri, b"HTTP/1.1", fields, b""), True, None)
            return True
        end = data.find(b"\r\n\r\n")
        if not 0 < end <= self.site.header_bytes:
            return False
        line_end = data.find(b"\r\n")
        line = self.site.read_line(data[:line_end])
        plain = None if line is None else self.site.read_fields(data[line_end:end])
        if line is None or plain is None:
            return False
        method, uri = line
        body = end + 4
        after = body + plain.length
        if len(data) < after or plain.length > self.site.request_bytes:
            return False
        if plain.upgrades and (plain.length or method not in _WITHOUT_BODY):
            return False
        if len(data) == body:
            self.site.remember(data, method, uri, plain)
        self._waiting = data[after:]
        request = LeanRequest(self, method, uri, b"HTTP/1.1", plain.fields, data[body:after])
        self._answer(request, plain.persists, None)
        return True

    def _read(self) -> bool:
        """Take what waits; tell whether there is a request now."""
        if self._parser is None and not self._is_ours():
            return False
        parser = self._parser
        if parser is None:
            parser = self._parser = self.site.parser()
            parser.connection = self
        data, self._waiting = self._waiting, b""
        start, rest = 0, None
        try:
            # A request that was read takes many times its bytes: those behind it are not, before it is their turn.
            while start < len(data) and rest is None and not parser.done:
                rest = parser.feed(data[start : start + _PIECE])
                start += _PIECE
        except (httptools.HttpParserError, HeadTooLarge) as error:
            self._parser = None
            parser.end()
            is_large = isinstance(error, HeadTooLarge) or isinstance(error.__context__, HeadTooLarge)
            self._refuse(self._head_too_large() if is_large else _bad_request())
            return False
        self._queue, parser.done = parser.done, []
        if rest is not None:
            # This llhttp reads no more.
            self._waiting = rest + data[start:]
            self._parser = None
            parser.end()
        else:
            self._waiting = data[start:]
            if not parser.inside:
                self._drop_parser()
        return bool(self._queue)

    def _is_ours(self) -> bool:
        """Look at the next request; hand the connection over if it is none of ours."""
        data = self._waiting.lstrip(b"\r\n")
        line, end, _ = data.partition(b"\n")
        if not end:
            if len(self._waiting) > self.site.header_bytes:
                self._refuse(self._head_too_large())
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
        return method in _WITHOUT_BODY or b"\nupgrade:" not in data[: self.site.header_bytes].lower()

    def _answer_read(self, request: LeanRequest, persists: bool, error: RtpushError | None) -> None:
        """Answer a request that llhttp has read."""
        self.site.incoming.drop(self)
        if self.site.is_other(request.uri):
            # It came in one segment with one of ours. Who gets no answer asks again (RFC 9112 section 9.3.2).
            self.persists = False
            self._close()
        else:
            self._answer(request, persists, error)

    def _answer(self, request: LeanRequest, persists: bool, error: RtpushError | None) -> None:
        self.site.expect_nothing(self)
        self.persists = persists
        self._request = request
        self.site.answer(request, error)

    def _head_too_large(self) -> RtpushError:
        site = self.site
        site.counts.limited["header_bytes"] += 1
        return RtpushError(ErrorCode.HEAD_TOO_LARGE, f"expected a head of {site.header_bytes} bytes at most")

    def _refuse(self, error: RtpushError) -> None:
        """Answer what could not be read, and close."""
        self._waiting = b""
        self.persists = False
        self._request = request = LeanRequest(self, b"", b"", b"HTTP/1.1", Fields({}), b"")
        request.answer(answer_error(request, error))

    def _close(self) -> None:
        self.site.expect_end(self)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def give_up(self) -> None:
        """Drop what has come of a request, since that of all connections is too much."""
        self._drop_parser()
        self._refuse(RtpushError(ErrorCode.UNAVAILABLE, "too much comes at once: come back later"))

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
        self.site.open -= 1
        transport.unregisterProducer()
        # The transport forgets this connection, which is then garbage, with its request.
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol


def _bad_request() -> RtpushError:
    return RtpushError(ErrorCode.BAD_REQUEST, "this is no HTTP request, or not a sound one")


class ProxiedConnection(HttpConnection):
    """A connection that a proxy has announced, with the address of the client."""

    __slots__ = ("peer",)

    def __init__(self, site: PushSite, peer: str) -> None:
        super().__init__(site)
        self.peer = peer
