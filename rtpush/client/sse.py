"""The client's side of server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from rtpush.client.errors import BadAnswer, LinkLost, lost_by
from rtpush.client.http_link import HttpLink
from rtpush.client.sse_parser import Event, EventTooLarge, SseParser
from rtpush.client.wants import Want
from rtpush.client.web import discard
from rtpush.client.wire import Opened, read, read_event

__all__ = ["SseLink"]

#: The largest event that is taken, in characters.
_MAX_EVENT = 64 * 1024 * 1024


class SseLink(HttpLink):
    """Follows channels over an event stream."""

    name: ClassVar[str] = "sse"
    _stream: _Stream | None = None

    def _follow(self, wants: Sequence[Want]) -> None:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        self._ask(self._get(self._address(wants, envelope="1"), headers), self._answered)

    def _answered(self, response: IResponse) -> None:
        kind = response.headers.getRawHeaders(b"content-type", [b""])[0]
        if not kind.startswith(b"text/event-stream"):
            discard(response)
            raise BadAnswer(f"the answer is {kind.decode('ascii', 'replace') or 'of no type'}, not an event stream")
        self._stream = _Stream(self._heard, self.lose)
        response.deliverBody(self._stream)

    def _stop_asking(self) -> None:
        super()._stop_asking()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.drop()

    def _heard(self, events: Sequence[Event]) -> None:
        if not self._is_opening:
            self._silence.within(self._context.negotiation.heartbeat + self._context.negotiation.grace)
        stream = self._stream
        for event in events:
            # What hears of an event may close this link, or have it ask for other channels.
            if self._stream is not stream:
                return
            if event.name == "open":
                self._silence.within(self._context.negotiation.heartbeat + self._context.negotiation.grace)
                opened = read(event.data, Opened)
                self._opened()
                self._greeted(opened)
                if self._stream is stream:
                    self._begins(opened.cursor)
            else:
                self._hear(read_event(event.name, event.data))


class _Stream(Protocol):
    """The body of an event stream."""

    def __init__(self, heard: Callable[[Sequence[Event]], None], lost: Callable[[LinkLost], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._parser = SseParser(_MAX_EVENT)
        self._dropped = False

    def dataReceived(self, data: bytes) -> None:
        if self._dropped:
            return
        try:
            # A comment completes no event, but it is heard too.
            self._heard(self._parser.feed(data))
        except (BadAnswer, EventTooLarge) as error:
            self._lost(LinkLost(str(error)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._dropped:
            ended = reason.check(ResponseDone, PotentialDataLoss)
            self._lost(LinkLost("the event stream ended") if ended else lost_by(reason))

    def drop(self) -> None:
        """Close it, and tell nothing more."""
        self._dropped = True
        if self.transport is not None:
            self.transport.loseConnection()
