"""One light client on each of the transports."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import httptools
import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from rtpush.cli.load.dialling import Target
from rtpush.client.errors import lost_by

__all__ = ["LINKS", "Audience", "Link", "LongPollLink", "ShortPollLink", "SocketLink", "StreamLink", "Wire"]


class Audience(Protocol):
    """Whom a link tells what comes of it."""

    def opened(self, link: Link) -> None:
        """The server's first event has come through."""

    def received(self, link: Link, payload: str) -> None:
        """A text message has come."""

    def lost(self, link: Link, reason: str) -> None:
        """It is over, and was not closed by us."""


class Wire(TwistedProtocol):
    """
    HTTP/1.1 responses on one connection, as they come.

    :ivar status: Of the response that comes, or came last.
    :ivar headers: Of the same, with names in lower case.
    :ivar closing: Whether we are closing it.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.closing = False
        self._parser: Any = None
        self._upgraded = False

    # What a subclass makes of it.

    def begun(self) -> None:
        """The connection is there."""

    def head_came(self) -> None:
        """The head of a response has come."""

    def body_came(self, data: bytes) -> None:
        """A piece of a body has come."""

    def response_ended(self) -> None:
        """A response has come to its end."""

    def raw_came(self, data: bytes) -> None:
        """Something has come after a change of the protocol."""

    def over(self, reason: str) -> None:
        """The connection is gone, and it was not us."""

    # What Twisted tells.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self.begun()

    def dataReceived(self, data: bytes) -> None:
        if self._upgraded:
            self.raw_came(data)
            return
        if self._parser is None:
            self.headers = {}
            self._parser = httptools.HttpResponseParser(self)
        parser = self._parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded = True
            self._parser = None
            if rest := data[upgrade.args[0] :]:
                self.raw_came(rest)
        except httptools.HttpParserError as error:
            self.fail(f"this is no HTTP: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._parser = None
        if not self.closing:
            self.closing = True
            self.over(str(lost_by(reason)))

    def send(self, data: bytes) -> None:
        """Write."""
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """Close the connection at once."""
        self.closing = True
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def fail(self, reason: str) -> None:
        """Close the connection because of what came."""
        if not self.closing:
            self.close()
            self.over(reason)

    # What httptools tells.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.head_came()

    def on_body(self, data: bytes) -> None:
        self.body_came(data)

    def on_message_complete(self) -> None:
        if self.status != 101:
            self.response_ended()
            self.headers = {}


class Link(Wire):
    """
    A connection that follows one channel.

    :ivar begun_at: When the connection was there; like the next, by :func:`time.perf_counter`, and 0 before that.
    :ivar head_at: When the head of the first response had come.
    :ivar opened_at: When the server's first event had come through.
    :ivar via: The headers of that response.
    """

    transport_name = ""

    def __init__(
        self, target: Target, channel: str, audience: Audience, clock: IReactorTime, headers: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.channel = channel
        self.begun_at = self.head_at = self.opened_at = 0.0
        self.via: dict[bytes, bytes] = {}
        self.target = target
        self.audience = audience
        self.clock = clock
        self.request_headers = dict(headers)

    def begun(self) -> None:
        self.begun_at = time.perf_counter()
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        raise NotImplementedError

    def get(self, route: str, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Send a GET request."""
        self.send(self.target.request("GET", f"{route}?{urlencode(query)}", {**self.request_headers, **headers}))

    def head_came(self) -> None:
        if not self.head_at:
            self.head_at = time.perf_counter()
            self.via = dict(self.headers)
        if self.status not in (101, 200, 304):
            retry = self.headers.get(b"retry-after")
            more = "" if retry is None else f", come again after {retry.decode('latin-1')} s"
            self.fail(f"the server answered {self.status}{more}")

    def is_open(self) -> None:
        """Take note that the server's first event has come."""
        if not self.opened_at:
            self.opened_at = time.perf_counter()
            self.audience.opened(self)

    def over(self, reason: str) -> None:
        self.audience.lost(self, reason)


class _Told(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class _Envelope(msgspec.Struct):
    data: Any = None


class _Push(msgspec.Struct):
    message: _Envelope | None = None
    subscribed: dict[str, Any] | None = None
    disconnect: _Told | None = None
    unsubscribed: _Told | None = None
    error: _Told | None = None


_push = msgspec.json.Decoder(_Push)


class SocketLink(Link):
    """A WebSocket (RFC 6455) with ``rtpush.v1``."""

    transport_name = "websocket"

    def ask(self) -> None:
        self._rest = b""
        self.get(
            "ws",
            {"channel": self.channel},
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Protocol": "rtpush.v1",
            },
        )

    def head_came(self) -> None:
        super().head_came()
        if self.status != 101:
            self.fail(f"the server answered {self.status}, not 101")

    def raw_came(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2 and not self.closing:
            length, begin = data[at + 1] & 0x7F, at + 2
            if length >= 126:
                size = 2 if length == 126 else 8
                length, begin = int.from_bytes(data[begin : begin + size]), begin + size
            if begin + length > end:
                break
            self._frame(data[at] & 0x0F, data[begin : begin + length])
            at = begin + length
        self._rest = data[at:]

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            # A pong, whose mask is zero.
            self.send(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        elif opcode == 8:
            self.fail(f"closed by the server with {int.from_bytes(payload[:2])} {payload[2:].decode(errors='replace')}")
        elif opcode == 1:
            self._object(payload)

    def _object(self, payload: bytes) -> None:
        try:
            push = _push.decode(payload)
        except msgspec.MsgspecError as error:
            self.fail(f"a frame that is not of rtpush: {error}")
            return
        if push.message is not None:
            self.audience.received(self, str(push.message.data))
        elif push.subscribed is not None:
            self.is_open()
        elif (told := push.disconnect or push.unsubscribed or push.error) is not None:
            self.fail(f"the server says: {told.reason or told.message} ({told.code})")


class StreamLink(Link):
    """Server-sent events."""

    transport_name = "sse"

    def ask(self) -> None:
        self._rest = b""
        self.get("sse", {"channel": self.channel}, {"Accept": "text/event-stream"})

    def body_came(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            name = text = b""
            for line in event.split(b"\n"):
                if line.startswith(b"event: "):
                    name = line[7:]
                elif line.startswith(b"data: "):
                    text = line[6:]
            if name == b"open":
                self.is_open()
            elif name in (b"disconnect", b"unsubscribed"):
                self.fail(f"the server says: {text.decode(errors='replace')}")
            elif not name and text:
                self.audience.received(self, text.decode(errors="replace"))

    def response_ended(self) -> None:
        self.fail("the stream has ended")


class _Answer(msgspec.Struct):
    cursor: str
    messages: list[_Envelope] = []
    disconnect: _Told | None = None


_answer = msgspec.json.Decoder(_Answer)


class LongPollLink(Link):
    """
    Long polls, one after the other on one connection.

    :ivar answers: How many have come.
    """

    transport_name = "longpoll"
    answers = 0

    def ask(self) -> None:
        self._cursor = ""
        self._body: list[bytes] = []
        # Answered at once: it tells from where to go on.
        self.poll(0.0)

    def poll(self, timeout: float) -> None:
        """Poll."""
        query = {"channel": self.channel, "timeout": f"{timeout:g}"}
        if self._cursor:
            query["cursor"] = self._cursor
        self.get("poll", query, {})

    def body_came(self, data: bytes) -> None:
        self._body.append(data)

    def response_ended(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        self.answers += 1
        if self.closing:
            return
        if self.status == 200:
            try:
                answer = _answer.decode(body)
            except msgspec.MsgspecError as error:
                self.fail(f"an answer that is not of rtpush: {error}")
                return
            self._cursor = answer.cursor
            self.is_open()
            for message in answer.messages:
                self.audience.received(self, str(message.data))
            if answer.disconnect is not None:
                self.fail(f"the server says: {answer.disconnect.reason} ({answer.disconnect.code})")
        if not self.closing:
            self.again()

    def again(self) -> None:
        """Poll once more."""
        self.poll(25.0)


class ShortPollLink(LongPollLink):
    """Short polls, with a pause after each."""

    transport_name = "shortpoll"
    #: Seconds.
    pause: Callable[[], float] = staticmethod(lambda: 5.0)

    def again(self) -> None:
        self.clock.callLater(self.pause(), self._once_more)

    def _once_more(self) -> None:
        if not self.closing:
            self.get(
                "poll",
                {"channel": self.channel, "timeout": "0", "cursor": self._cursor},
                {"If-None-Match": f'"{self._cursor}"'},
            )


LINKS: dict[str, type[Link]] = {
    link.transport_name: link for link in (SocketLink, StreamLink, LongPollLink, ShortPollLink)
}
