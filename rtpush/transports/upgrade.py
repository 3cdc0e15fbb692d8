"""The routes that become WebSockets: ``GET /ws`` and ``GET /echo``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from twisted.web.server import NOT_DONE_YET

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.codecs import JSON, MSGPACK
from rtpush.protocol.forms import RawForm, WebSocketForm
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.following import Following, following_of
from rtpush.transports.front import HttpConnection
from rtpush.transports.handshake import Deflate, check_upgrade, choose_deflate, header_items, response_head
from rtpush.transports.hooked import HookedWebSocket
from rtpush.transports.http import Request, peer_of
from rtpush.transports.query import Query, query_of
from rtpush.transports.tokens import guest_of, with_credentials, with_tokens
from rtpush.transports.web import HttpChannel
from rtpush.transports.websocket import CommandWebSocket, EchoWebSocket, PushWebSocket, RawWebSocket, configured

__all__ = ["SUBPROTOCOLS", "EchoResource", "WebSocketResource"]

#: In the server's order of preference.
SUBPROTOCOLS = ("rtpush.v1", "rtpush.v1.msgpack", "rtpush.raw")


class _Upgrade(Endpoint):
    """
    What both routes have in common.

    :param compression: Whether permessage-deflate is accepted.
    """

    methods = (b"GET",)

    def __init__(self, node: Node, origins: Origins, *, compression: bool) -> None:
        super().__init__(origins)
        self._node = node
        self._compression = compression

    def answer(self, request: Request) -> bytes | int:
        key = check_upgrade(request)
        peer = peer_of(request, self._node)
        self._node.admit(peer)
        deflate = Deflate()
        if self._compression:
            deflate = choose_deflate(header_items(request, b"sec-websocket-extensions"))
        offered = header_items(request, b"sec-websocket-protocol")
        subprotocol = next((name for name in SUBPROTOCOLS if name in offered), None)
        head = response_head(key, subprotocol, deflate)
        return self.identify(
            request,
            query_of(request),
            lambda credentials: self._open(
                request, peer, head, *self.build(request, subprotocol, deflate, credentials)
            ),
        )

    def _open(
        self,
        request: Request,
        peer: str,
        head: bytes,
        websocket: PushWebSocket,
        following: Following | None,
        credentials: Credentials | None,
    ) -> int:
        channel = request.channel
        if not isinstance(channel, HttpChannel | HttpConnection):
            raise RtpushError(ErrorCode.UPGRADE_REQUIRED, "expected a WebSocket handshake over HTTP/1.1")
        connection = self._node.connect(
            websocket, "websocket", interval=self._node.heartbeat, duplex=True, peer=peer, credentials=credentials
        )
        websocket.connection = connection
        channel.upgrade(websocket, b"")
        if credentials is not None:
            credentials.attach(connection)
        websocket.begin(connection, following, head)
        if isinstance(channel, HttpConnection):
            channel.pass_on()
        return NOT_DONE_YET

    def identify(
        self, request: Request, query: Query, then: Callable[[Credentials | None], bytes | int]
    ) -> bytes | int:
        """Find out who asks, and go on with that."""
        return with_tokens(self._node, request, query, then)

    def build(
        self, request: Request, subprotocol: str | None, deflate: Deflate, credentials: Credentials | None
    ) -> tuple[PushWebSocket, Following | None, Credentials | None]:
        """
        Return the protocol for a request, what it follows from the start, and what its client has shown.

        :raises RtpushError: if the request asks for what cannot be.
        """
        raise NotImplementedError


class WebSocketResource(_Upgrade):
    """``GET /ws``."""

    def __init__(self, node: Node, origins: Origins, *, compression: bool) -> None:
        super().__init__(node, origins, compression=compression)
        # A command holds more than the message that it publishes: names, and escapes or base64 of the payload.
        self._commands = configured(CommandWebSocket, node.limits.request_bytes)
        self._hooked = configured(HookedWebSocket, node.limits.request_bytes)
        self._raw = configured(RawWebSocket, node.limits.message_bytes)

    def identify(
        self, request: Request, query: Query, then: Callable[[Credentials | None], bytes | int]
    ) -> bytes | int:
        # Without channels the application is asked when the client says who it is, by its first command.
        if query.several("channel"):
            return with_credentials(self._node, request, query, then, "websocket")
        return super().identify(request, query, then)

    def build(
        self, request: Request, subprotocol: str | None, deflate: Deflate, credentials: Credentials | None
    ) -> tuple[PushWebSocket, Following | None, Credentials | None]:
        query = query_of(request)
        following = following_of(request, query) if query.several("channel") else None
        if following is not None:
            # While this is still an HTTP request, it can be refused in words that every client shows.
            following.check_tokens(credentials)
            following.check(self._node, credentials)
        if subprotocol == "rtpush.raw":
            if following is None or len(following.channels) != 1:
                raise RtpushError(ErrorCode.BAD_REQUEST, "rtpush.raw carries one channel: expected ?channel=NAME")
            return self._raw(_raw_form(deflate.window_bits), deflate), following, credentials
        codec = MSGPACK if subprotocol == "rtpush.v1.msgpack" else JSON
        if self._node.hooks is not None:
            hooked = self._hooked(_form(codec, deflate.window_bits), deflate)
            known = None if credentials is None else credentials.guest
            hooked.guest = known or guest_of(self._node, request, query, "websocket")
            return hooked, following, credentials
        return self._commands(_form(codec, deflate.window_bits), deflate), following, credentials


class EchoResource(_Upgrade):
    """``GET /echo``."""

    def __init__(self, node: Node, origins: Origins, *, compression: bool) -> None:
        super().__init__(node, origins, compression=compression)
        self._echo = configured(EchoWebSocket, node.limits.message_bytes)

    def build(
        self, request: Request, subprotocol: str | None, deflate: Deflate, credentials: Credentials | None
    ) -> tuple[PushWebSocket, Following | None, Credentials | None]:
        return self._echo(_raw_form(deflate.window_bits), deflate), None, credentials


# Connections with the same form share it.
_form = lru_cache(WebSocketForm)
_raw_form = lru_cache(RawForm)
