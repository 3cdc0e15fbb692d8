"""Long and short polling: ``GET /poll``. A poll is a connection that ends with its first delivery."""

from __future__ import annotations

import re

import attrs
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from rtpush.auth.origin import Origins
from rtpush.errors import RtpushError
from rtpush.interfaces import ISink
from rtpush.protocol.backoff import earlier
from rtpush.protocol.forms import POLL, PollAnswerWith, WireForm, poll_body
from rtpush.protocol.lifecycle import State
from rtpush.protocol.pushes import Subscribed
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.following import Following, follow, following_of, initial_data, refuse
from rtpush.transports.http import Request, abort, address_of, answer_error, answer_with, forget, peer_of, when_over
from rtpush.transports.query import query_of
from rtpush.transports.request import Fields, LeanRequest, SharedFields
from rtpush.transports.tokens import with_credentials

__all__ = ["PollResource"]

#: Seconds by which the answer at the timeout is earlier still, since deadlines are rounded up.
_MARGIN = 0.2

#: How many requests are known, and the longest of their targets, in bytes.
_MAX_KNOWN = 1000
_MAX_KNOWN_SIZE = 512

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
        answer_with(self._request, data)

    def heartbeat(self) -> None:
        """The timeout has come: answer with nothing but the cursor."""
        self.write(poll_body([], self.connection.cursor()))

    def finish(self, farewell: bytes, code: int, reason: str) -> None:
        self.write(farewell)

    def abort(self) -> None:
        abort(self._request)

    def address(self) -> str:
        return address_of(self._request.channel.transport)

    def pause_reading(self) -> None:
        """One answer is all that is written."""

    def resume_reading(self) -> None:
        """One answer is all that is written."""


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

    def write(self, data: bytes) -> None:
        request = self._request
        scope = b"public" if self.is_public else b"private"
        request.setHeader(b"cache-control", b"%b, max-age=%d" % (scope, self.max_age) if self.max_age else b"no-cache")
        tag = self.connection.cursor().encode()
        request.setHeader(b"etag", b'"%s"' % tag)
        tags = request.getHeader(b"if-none-match") or b""
        if tags != b"*" and tag not in _TAGS.findall(tags):
            answer_with(request, data)
        else:
            request.setResponseCode(304)
            request.finish()


@attrs.frozen(slots=True)
class _Again:
    """
    What is known of a request that has come before.

    :ivar fields: What its answer begins with.
    """

    fields: SharedFields
    following: Following
    timeout: float


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
        self._known: dict[tuple[bytes, Fields], _Again] = {}

    def render(self, request: Request) -> bytes | int:
        node = self._node
        again = None
        if isinstance(request, LeanRequest) and request.method == b"GET" and request.site.heed is None:
            again = self._known.get((request.uri, request.requestHeaders))
        if again is None or node.hooks is not None:
            return super().render(request)
        # It is in order as it was then, and asks for the same.
        request.responseHeaders = again.fields
        try:
            peer = peer_of(request, node)
            self._admit(peer, again.following, again.timeout)
            return self._wait(request, peer, again.following, again.timeout, None)
        except RtpushError as error:
            return answer_error(request, error)

    def answer(self, request: Request) -> bytes | int:
        peer = peer_of(request, self._node)
        query = query_of(request)
        following = following_of(request, query)
        timeout = min(query.number("timeout", self._timeout), self._max_timeout)
        self._admit(peer, following, timeout)
        return with_credentials(
            self._node,
            request,
            query,
            lambda credentials: self._poll(request, peer, following, timeout, credentials),
            "longpoll" if timeout else "shortpoll",
        )

    def _admit(self, peer: str, following: Following, timeout: float) -> None:
        # One that goes on was let in before, and a short one does not stay.
        if timeout and not following.goes_on:
            self._node.admit(peer)

    def _poll(
        self, request: Request, peer: str, following: Following, timeout: float, credentials: Credentials | None
    ) -> bytes | int:
        request.setHeader(b"content-type", b"application/json")
        if timeout:
            request.setHeader(b"cache-control", b"no-store")
            if request.method == b"HEAD":
                following.check(self._node, credentials)
                return b""
        if credentials is None and isinstance(request, LeanRequest) and _is_common(request):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            again = _Again(SharedFields(request.responseHeaders), following, timeout)
            self._known[request.uri, request.requestHeaders] = again
        return self._wait(request, peer, following, timeout, credentials)

    def _wait(
        self, request: Request, peer: str, following: Following, timeout: float, credentials: Credentials | None
    ) -> int:
        sink: PollSink
        if timeout:
            sink = PollSink(request)
            forget(request)
        else:
            ages = [self._node.namespaces.of(channel).poll_max_age for channel in following.channels]
            sink = ShortPollSink(request, min(ages), is_public=credentials is None)
        held = max(earlier(timeout, self._jitter, self._node.chance()) - _MARGIN, 0.0)
        kind = "longpoll" if timeout else "shortpoll"
        connection = self._node.connect(sink, kind, interval=held, peer=peer, credentials=credentials)
        sink.connection = connection
        when_over(request, connection.lost)
        follow(
            connection,
            following,
            lambda subscribed: self._begin(subscribed, connection, following),
            lambda failure: refuse(failure, connection, request),
            credentials,
        )
        return NOT_DONE_YET

    @staticmethod
    def _begin(subscribed: list[Subscribed], connection: Connection, following: Following) -> None:
        if connection.state is not State.CONNECTING:
            return
        # Its only beat is its timeout, which has chance in it already.
        connection.opened(connection.interval)
        recovered = True
        for each in subscribed:
            recovered = recovered and each.recovered
        data = initial_data(connection, subscribed) if following.begins else {}
        if not recovered:
            gaps = [gap.as_dict() for each in connection.order if (gap := each.gap()) is not None]
            connection.deliver(poll_body([], connection.cursor(), recovered=False, gaps=gaps, **data))
            return
        if data:
            connection.sink.form = PollAnswerWith(data)
        if len(subscribed) > 1:
            # Ends with the first one that has something; which is first is chance, so that none has to wait for others.
            first = int(connection.node.chance() * len(subscribed))
            subscribed = [*subscribed[first:], *subscribed[:first]]
        for each in subscribed:
            connection.go(each.channel)
        if data or connection.transport == "shortpoll":
            # Nothing happens if it was answered already.
            connection.deliver(poll_body([], connection.cursor(), **data))


def _is_common(request: LeanRequest) -> bool:
    """Tell whether many clients may send a request, and nothing in it is one's own."""
    uri = request.uri
    return (
        request.requestHeaders.is_shared
        and request.method == b"GET"
        and len(uri) <= _MAX_KNOWN_SIZE
        and b"token=" not in uri
    )
