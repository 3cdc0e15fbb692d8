"""The site: all routes, and what its connections share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web import http, server
from twisted.web.resource import Resource

from rtpush.errors import RtpushError
from rtpush.protocol.deadlines import Deadlines
from rtpush.protocol.wheel import TimerWheel
from rtpush.registry.counts import Counts
from rtpush.registry.incoming import Incoming
from rtpush.transports.front import HttpConnection, ProxiedConnection
from rtpush.transports.heads import PlainFields, read_line, read_plain
from rtpush.transports.http import abort, answer_error, internal_error, log_failed
from rtpush.transports.http2 import Http2Connection
from rtpush.transports.parser import RequestParser
from rtpush.transports.proxied import Proxied
from rtpush.transports.request import Fields, LeanRequest
from rtpush.transports.web import HttpChannel, PushRequest

__all__ = ["PushSite"]

#: Of how many requests the fields are remembered, and how large they may be.
_MAX_KNOWN = 1000
_MAX_KNOWN_SIZE = 2048
_MAX_KNOWN_LINE = 100

#: How many parsers are kept for connections to come.
_SPARE_PARSERS = 100

#: Seconds that a client has to go when it was told to.
_CLOSE_TIMEOUT = 15.0

#: Seconds for a request to arrive when no more connections are accepted.
_LAST_TIMEOUT = 1.0


#: What something may be expected of.
_Connection = HttpConnection | Http2Connection


class PushSite(server.Site):
    """
    The site of all routes.

    :param wheel: Says when a deadline has passed; its owner turns it.
    :param max_waiting: How many connections may wait for a request; beyond it, the one goes that waits longest.
    :param others: The first parts of paths that are twisted.web's.
    :param http2: Whether HTTP/2 is offered where TLS is spoken.
    :ivar counts: What the node counts.
    :ivar incoming: What has come of requests that are not complete.
    :ivar request_bytes: The largest body.
    :ivar header_bytes: The largest head of a request.
    :ivar url_bytes: The longest path and query of a request.
    :ivar heed: Counts a request of a client, and raises :class:`RtpushError` if it is one too many; :obj:`None` if
        there is no such limit.
    :ivar timeout: Seconds for the head of a request to arrive, and between two pieces of its body.
    :ivar leaving: Whether each answer is to be the last one on its connection.
    :ivar open: How many connections there are that may bring a request of ours, or have one that is not answered.
    :ivar known_requests: The methods, targets and fields of requests that came before and may come again.
    :ivar retry_after: Returns the whole seconds after which one who is refused for a while is to come back.
    """

    _log = Logger()

    displayTracebacks = False
    # It says nothing when it starts and stops.
    noisy = False
    # Without HTTP/2 of its own.
    protocol = HttpChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: Resource,
        clock: IReactorTime,
        *,
        wheel: TimerWheel[Any],
        counts: Counts,
        incoming: Incoming | None = None,
        request_bytes: int,
        timeout: float,
        header_bytes: int = 16384,
        url_bytes: int = 8192,
        max_waiting: int = 20_000,
        http2: bool = True,
        heed: Callable[[Any], None] | None = None,
        retry_after: Callable[[], int],
        others: Iterable[bytes] = (),
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, requestFactory=PushRequest, parsePOSTFormSubmission=False, timeout=timeout, reactor=clock
        )
        self.counts = counts
        self.incoming = incoming or Incoming(64 * request_bytes, counts)
        self.request_bytes = request_bytes
        self.header_bytes = header_bytes
        self.url_bytes = url_bytes
        self._max_waiting = max_waiting
        self._http2 = http2
        self.heed = heed
        self.retry_after = retry_after
        self._clock = clock
        self._wheel = wheel
        self._deadlines: Deadlines[_Connection] = Deadlines()
        self.timeout = timeout
        self.leaving = False
        self.open = 0
        self._others = frozenset(others)
        self._parsers: list[RequestParser] = []
        self._known: dict[bytes, PlainFields] = {}
        self.known_requests: dict[bytes, tuple[bytes, bytes, Fields]] = {}
        self._known_lines: dict[bytes, tuple[bytes, bytes]] = {}
        self._leaves: dict[bytes, Any] = {}

    def reconfigure(
        self,
        resource: Resource,
        *,
        request_bytes: int,
        timeout: float,
        header_bytes: int,
        url_bytes: int = 8192,
        max_waiting: int,
        http2: bool = True,
        heed: Callable[[Any], None] | None = None,
    ) -> None:
        """Have another root, and other bounds, for the requests to come."""
        self.resource = resource
        self._leaves.clear()
        self.known_requests.clear()
        self.request_bytes = request_bytes
        self.header_bytes = header_bytes
        self.url_bytes = url_bytes
        self._max_waiting = max_waiting
        self._http2 = http2
        self.heed = heed
        self.timeout = timeout

    def buildProtocol(self, addr: Any) -> Any:
        """Return what reads a new connection."""
        self.counts.sockets += 1
        return ProxiedConnection(self, addr.host) if isinstance(addr, Proxied) else HttpConnection(self)

    def build_http2(self, peer: str) -> Http2Connection:
        """
        Return what reads a connection whose client has chosen HTTP/2.

        :param peer: The address of the client, if a proxy has told it.
        """
        return Http2Connection(self, peer)

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
                leaf = self._leaves.get(request.path)
                if leaf is None:
                    leaf = request.find(self.resource)
                    if leaf.isLeaf and not request.postpath:
                        # There are as many as there are routes.
                        self._leaves[request.path] = leaf
                body = leaf.render(request)
                if body is not server.NOT_DONE_YET:
                    request.answer(body)
        except Exception:
            log_failed(request, None)
            if request.startedWriting:
                abort(request)
            else:
                request.answer(answer_error(request, internal_error()))

    def expect(self, connection: _Connection, *, anew: bool = False) -> None:
        """Something must come from a client in time, whose time begins now if it has not begun."""
        if anew or connection not in self._deadlines:
            due = self._clock.seconds() + self.timeout
            self._deadlines.set(connection, due)
            if self not in self._wheel:
                self._wheel.set(self, due)
            if len(self._deadlines) > self._max_waiting:
                # The one that has waited longest has the best reason to go.
                self.counts.limited["max_waiting"] += 1
                self._end_of(self._deadlines.first())

    def expect_end(self, connection: _Connection) -> None:
        """A client must go now."""
        self._deadlines.pop(connection, None)
        self._wheel.set(connection, self._clock.seconds() + _CLOSE_TIMEOUT)

    def expect_nothing(self, connection: _Connection) -> None:
        """A client has its time."""
        self._deadlines.pop(connection, None)

    def forget(self, connection: _Connection) -> None:
        """A client is gone."""
        self._deadlines.pop(connection, None)
        self.incoming.drop(connection)
        self._wheel.cancel(connection)

    def close_idle(self) -> None:
        """Have those connections end soon that wait for a request: this server takes no more of them."""
        self.timeout = min(self.timeout, _LAST_TIMEOUT)
        due = self._clock.seconds() + self.timeout
        self._deadlines.hasten(due)
        self._wheel.set(self, due)

    def tick(self) -> None:
        """The time of a client is over."""
        for connection in self._deadlines.expire(self._clock.seconds()):
            self._end_of(connection)
        due = self._deadlines.next()
        if due is not None:
            self._wheel.set(self, due)

    @staticmethod
    def _end_of(connection: _Connection) -> None:
        try:
            connection.tick()
        except Exception:
            connection.failed("the end of its time")

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._clock.seconds()

    def soon(self, call: Callable[[], object]) -> None:
        """Have something called in the reactor's next turn."""
        self._clock.callLater(0, call)

    def failed(self, doing: str) -> None:
        """Something of ours went wrong."""
        self._log.failure("{doing} failed", doing=doing)

    def read_line(self, line: bytes) -> tuple[bytes, bytes] | None:
        """Read the first line of a request: return its method and target if it is plain, and none of twisted.web's."""
        known = self._known_lines.get(line)
        if known is None:
            known = read_line(line)
            if known is None or self.is_other(known[1]):
                return None
            if b"?" not in line and len(line) <= _MAX_KNOWN_LINE:
                if len(self._known_lines) >= _MAX_KNOWN:
                    self._known_lines.clear()
                self._known_lines[line] = known
        return known

    def read_fields(self, block: bytes) -> PlainFields | None:
        """
        Read the header fields of a request; return nothing if they are not plain.

        A client sends the same ones with each of its requests, and many clients send the same: those are read once.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        plain = read_plain(block)
        # A handshake has a key that does not come again.
        if plain is not None and not plain.upgrades and len(block) <= _MAX_KNOWN_SIZE and not _has_token(plain):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            plain.fields.is_shared = True
            self._known[block] = plain
        return plain

    def remember(self, data: bytes, method: bytes, uri: bytes, plain: PlainFields) -> None:
        """Keep what was read of a request if it may come again: many polls do, and what watches this server asks."""
        if plain.fields.is_shared and plain.persists and method == b"GET" and len(data) <= _MAX_KNOWN_SIZE:
            if len(self.known_requests) >= _MAX_KNOWN:
                self.known_requests.clear()
            if b"token=" not in uri:
                self.known_requests[data] = (method, uri, plain.fields)

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
        """
        Return what is offered in the TLS handshake (RFC 7301).

        Who wants a WebSocket asks for HTTP/1.1 alone, as browsers do: over HTTP/2 there is none here.
        """
        return [b"h2", b"http/1.1"] if self._http2 else [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Write no access log: a line per poll is no use to anyone, and queries may hold tokens."""


def _has_token(plain: PlainFields) -> bool:
    """Tell whether fields are a client's own, and not to be kept."""
    return any(map(plain.fields.hasHeader, (b"authorization", b"cookie", b"x-api-key")))
