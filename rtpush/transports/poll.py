"""Long and short polling: ``GET /poll``. A poll is a connection that ends with its first delivery."""

from __future__ import annotations

import re

from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from rtpush.auth.origin import Origins
from rtpush.interfaces import ISink
from rtpush.protocol.backoff import earlier
from rtpush.protocol.forms import POLL, WireForm, poll_body
from rtpush.protocol.lifecycle import State
from rtpush.protocol.pushes import Subscribed
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.following import Following, follow, following_of, refuse
from rtpush.transports.http import Request, abort, address_of, answer_with, forget, peer_of, when_over
from rtpush.transports.query import query_of
from rtpush.transports.tokens import with_credentials

__all__ = ["PollResource"]

#: Seconds by which the answer at the timeout is earlier still, since deadlines are rounded up.
_MARGIN = 0.2

# A weak tag matches as well (RFC 9110 section 13.1.2).
_TAGS = re.compile(rb'"([^"]*)"')


@implementer(ISink)
class PollSink:
    """
    The answer to one poll.

    :ivar connection: Set before anything is delivered.
    """

    __slots__ = ("_request", "connection", "form")

    connection: Connection

    straight = None

    def __init__(self, request: Request) -> None:
        self._request = request
        self.form: WireForm = POLL

    def write(self, data: bytes) -> None:
        self._answer(data)

    def heartbeat(self) -> None:
        """The timeout has come: answer with nothing but the cursor."""
        self._answer(poll_body([], self.connection.cursor()))

    def finish(self, farewell: bytes, code: int, reason: str) -> None:
        self._answer(farewell)

    def abort(self) -> None:
        abort(self._request)

    def address(self) -> str:
        return address_of(self._request.channel.transport)

    def pause_reading(self) -> None:
        """One answer is all that is written."""

    def resume_reading(self) -> None:
        """One answer is all that is written."""

    def _answer(self, body: bytes) -> None:
        request = self._request
        request.setHeader(b"content-type", b"application/json")
        if self.prepare(request):
            answer_with(request, body)
        else:
            request.finish()

    def prepare(self, request: Request) -> bool:
        """Set the headers that depend on the kind of poll; tell whether there is to be a body."""
        request.setHeader(b"cache-control", b"no-store")
        return True


class ShortPollSink(PollSink):
    """
    The answer to one short poll, which caches may keep.

    :ivar max_age: Seconds.
    :ivar is_public: Whether they may give it to others.
    """

    __slots__ = ("is_public", "max_age")

    def __init__(self, request: Request, max_age: int, *, is_public: bool) -> None:
        super().__init__(request)
        self.max_age = max_age
        self.is_public = is_public

    def prepare(self, request: Request) -> bool:
        scope = b"public" if self.is_public else b"private"
        request.setHeader(b"cache-control", b"%b, max-age=%d" % (scope, self.max_age) if self.max_age else b"no-cache")
        tag = self.connection.cursor().encode()
        request.setHeader(b"etag", b'"%s"' % tag)
        tags = request.getHeader(b"if-none-match") or b""
        if tags != b"*" and tag not in _TAGS.findall(tags):
            return True
        request.setResponseCode(304)
        return False


class PollResource(Endpoint):
    """
    Answers polls.

    :param timeout: Seconds that a poll is held if it does not say.
    :param max_timeout: The most that it may say.
    :param jitter: The fraction by which a poll is answered earlier, by chance.
    """

    def __init__(self, node: Node, origins: Origins, *, timeout: float, max_timeout: float, jitter: float) -> None:
        super().__init__(origins)
        self._node = node
        self._timeout = timeout
        self._max_timeout = max_timeout
        self._jitter = jitter

    def answer(self, request: Request) -> bytes | int:
        node = self._node
        peer = peer_of(request, node)
        if peer:
            node.limiter.ask(peer)
        query = query_of(request)
        following = following_of(request, query)
        timeout = min(query.number("timeout", self._timeout), self._max_timeout)
        return with_credentials(
            self._node, request, query, lambda credentials: self._poll(request, peer, following, timeout, credentials)
        )

    def _poll(
        self, request: Request, peer: str, following: Following, timeout: float, credentials: Credentials | None
    ) -> bytes | int:
        sink: PollSink
        if timeout == 0:
            ages = [self._node.namespaces.of(channel).poll_max_age for channel in following.channels]
            sink = ShortPollSink(request, min(ages), is_public=credentials is None)
        else:
            if not following.goes_on:
                self._node.admit(peer)
            sink = PollSink(request)
            forget(request)
            if request.method == b"HEAD":
                following.check(self._node, credentials)
                request.setHeader(b"content-type", b"application/json")
                sink.prepare(request)
                return b""
        held = max(earlier(timeout, self._jitter, self._node.chance()) - _MARGIN, 0.0)
        kind = "longpoll" if timeout else "shortpoll"
        connection = self._node.connect(sink, kind, interval=held, peer=peer, credentials=credentials)
        sink.connection = connection
        when_over(request, connection.lost)
        follow(
            connection,
            following,
            lambda subscribed: self._begin(subscribed, connection),
            lambda failure: refuse(failure, connection, request),
            credentials,
        )
        return NOT_DONE_YET

    @staticmethod
    def _begin(subscribed: list[Subscribed], connection: Connection) -> None:
        if connection.state is not State.CONNECTING:
            return
        # Its only beat is its timeout, which has chance in it already.
        connection.opened(connection.interval)
        gaps = [gap.as_dict() for each in connection.order if (gap := each.gap()) is not None]
        if gaps:
            connection.deliver(poll_body([], connection.cursor(), recovered=False, gaps=gaps))
            return
        # Ends with the first one that has something; which is first is chance, so that none has to wait for the others.
        first = int(connection.node.chance() * len(subscribed))
        for each in (*subscribed[first:], *subscribed[:first]):
            connection.go(each.channel)
        if connection.transport == "shortpoll":
            # Nothing happens if it was answered already.
            connection.deliver(poll_body([], connection.cursor()))
