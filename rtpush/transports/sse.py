"""Server-sent events: ``GET /sse`` (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import msgspec
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from rtpush.auth.origin import Origins
from rtpush.interfaces import ISink
from rtpush.protocol import sse
from rtpush.protocol.forms import SSE, SSE_ENVELOPE, WireForm
from rtpush.protocol.lifecycle import State
from rtpush.protocol.pushes import Subscribed
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.following import Following, follow, following_of, initial_data, refuse
from rtpush.transports.http import Request, abort, address_of, peer_of, when_over
from rtpush.transports.query import query_of
from rtpush.transports.tokens import with_credentials

__all__ = ["SseResource"]


@implementer(ISink)
class EventStreamSink:
    """The answer to one request, which goes on."""

    __slots__ = ("_request", "form")

    straight = None

    def __init__(self, request: Request, form: WireForm) -> None:
        self._request = request
        self.form = form

    def write(self, data: bytes) -> None:
        self._request.write(data)

    def heartbeat(self) -> None:
        self._request.write(sse.HEARTBEAT)

    def finish(self, farewell: bytes, code: int, reason: str) -> None:
        self._request.write(farewell)
        self._request.unregisterProducer()
        self._request.finish()

    def abort(self) -> None:
        abort(self._request)

    def address(self) -> str:
        return address_of(self._request.channel.transport)

    def pause_reading(self) -> None:
        """A client of this transport sends nothing."""

    def resume_reading(self) -> None:
        """A client of this transport sends nothing."""


class SseResource(Endpoint):
    """Opens streams."""

    def __init__(self, node: Node, origins: Origins) -> None:
        super().__init__(origins)
        self._node = node

    def answer(self, request: Request) -> bytes | int:
        peer = peer_of(request, self._node)
        self._node.admit(peer)
        query = query_of(request)
        following = following_of(request, query)
        form = SSE_ENVELOPE if query.one("envelope") == "1" else SSE
        return with_credentials(
            self._node,
            request,
            query,
            lambda credentials: self._begin(request, peer, following, form, credentials),
            "sse",
        )

    def _begin(
        self, request: Request, peer: str, following: Following, form: WireForm, credentials: Credentials | None
    ) -> bytes | int:
        request.setHeader(b"content-type", b"text/event-stream")
        request.setHeader(b"cache-control", b"no-store")
        # Tells nginx not to hold the stream back.
        request.setHeader(b"x-accel-buffering", b"no")
        if request.method == b"HEAD":
            following.check(self._node, credentials)
            return b""
        connection = self._node.connect(
            EventStreamSink(request, form), "sse", interval=self._node.heartbeat, peer=peer, credentials=credentials
        )
        when_over(request, connection.lost)
        follow(
            connection,
            following,
            lambda subscribed: self._open(subscribed, connection, request),
            lambda failure: refuse(failure, connection, request),
            credentials,
        )
        return NOT_DONE_YET

    def _open(self, subscribed: list[Subscribed], connection: Connection, request: Request) -> None:
        if connection.state is not State.CONNECTING:
            return
        connection.opened()
        request.registerProducer(connection, True)
        cursor = connection.cursor()
        opening = {
            "connection": connection.id,
            "cursor": cursor,
            "recovered": all(each.recovered for each in subscribed),
            **initial_data(connection, subscribed),
        }
        connection.deliver(
            sse.retry(self._node.backoff.delay(0, self._node.chance()))
            + sse.event(msgspec.json.encode(opening), name="open", cursor=cursor)
        )
        for each in subscribed:
            connection.go(each.channel)
