"""The client's side of WebSocket: ``rtpush.v1``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from rtpush.client.errors import BadAnswer, LinkLost, kept_out_by, lost_by, refused_by
from rtpush.client.link import Audience, Link, LinkContext
from rtpush.client.negotiation import websocket_url
from rtpush.client.outbox import Command
from rtpush.client.wants import Want, subscribe_body
from rtpush.client.wire import Frame, command_json, fields_json, read

__all__ = ["WebSocketLink"]

#: The subprotocol that this client speaks.
_SUBPROTOCOL = "rtpush.v1"

#: How long the other side has to answer a closing handshake, in seconds.
_CLOSE_TIMEOUT = 1.0

#: How many commands go into one frame when many channels are followed at once.
_BATCH = 50

#: Close codes of RFC 6455 (section 7.4.1) that mean: do not come back.
_FINAL_CLOSES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


class WebSocketLink(Link):
    """Follows channels by commands; replies and pushes come as frames."""

    name: ClassVar[str] = "websocket"

    def __init__(self, context: LinkContext, audience: Audience, lost: Callable[[Link, LinkLost], Any]) -> None:
        super().__init__(context, audience, lost)
        self._connecting: Deferred[Any] | None = None
        self._socket: _Socket | None = None
        self._last_id = 0
        self._connect_id = 0
        self._refresh_id = 0
        self._commands: dict[int, Command] = {}
        #: The channels that this link follows, each with the id of the command that asked for it.
        self._followed: dict[str, int] = {}
        #: The tokens that were shown for some of them.
        self._shown: dict[str, str] = {}
        #: What waits until a channel's token is taken.
        self._held: list[Command] = []
        #: Those of them that the server has said yes to.
        self._live: set[str] = set()
        self._ping_timer: IDelayedCall | None = None
        self._heartbeat = context.negotiation.heartbeat

    def channels_changed(self) -> None:
        if self._is_opening:
            # What is wanted when it is open counts.
            return
        wants = {want.channel: want for want in self._audience.wants()}
        commands = []
        for channel in [channel for channel in self._followed if channel not in wants]:
            self._forget(channel)
            commands.append(command_json(None, "unsubscribe", subscribe_body(Want(channel))))
        for channel, want in wants.items():
            if channel not in self._followed:
                self._followed[channel] = self._new_id()
                commands.append(command_json(self._last_id, "subscribe", subscribe_body(want)))
            elif want.token != self._shown.get(channel):
                # If it is refused, the one before ends: then another one is asked for.
                commands.append(command_json(self._new_id(), "refresh", fields_json({"token": want.token})))
            if want.token is not None:
                self._shown[channel] = want.token
        for begin in range(0, len(commands), _BATCH):
            self._write(b"[" + b",".join(commands[begin : begin + _BATCH]) + b"]")
        self.send([])

    def send(self, commands: Sequence[Command]) -> None:
        waiting, self._held = [*self._held, *commands], []
        for command in waiting:
            if self._waits(command.channel):
                self._held.append(command)
            elif not command.result.called:
                id_ = self._new_id()
                self._commands[id_] = command
                self._write(command_json(id_, command.name, command.body))

    def _waits(self, channel: str) -> bool:
        """Tell whether what is done in a channel must wait until its own token is taken, which is by following it."""
        token = self._audience.token_for(channel)
        return token is not None and token.is_given and channel not in self._live

    def token_changed(self) -> None:
        token = self._context.web.token.now
        if token is not None and not self._is_opening:
            self._refresh_id = self._new_id()
            self._write(command_json(self._refresh_id, "refresh", fields_json({"token": token})))

    def gone(self) -> Deferred[None]:
        return succeed(None) if self._socket is None else self._socket.gone

    def _begin(self) -> None:
        url = self._context.negotiation.urls[self.name]
        factory = WebSocketClientFactory(
            websocket_url(url),
            protocols=[_SUBPROTOCOL],
            headers=dict(self._context.web.headers),
            reactor=self._context.clock,
        )
        # Autobahn's own timers run on the global reactor; ours do what they do.
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0)
        factory.protocol = partial(_Socket, self)  # type: ignore[assignment]
        self._connecting = self._context.web.endpoint(url).connect(factory)
        self._connecting.addCallbacks(self._connected, self._not_connected)

    def _end(self) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None
        if self._connecting is not None:
            connecting, self._connecting = self._connecting, None
            connecting.cancel()
        if self._socket is not None:
            self._socket.end()

    def _connected(self, socket: _Socket) -> None:
        self._connecting = None

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not failure.check(CancelledError):
            self.lose(lost_by(failure))

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _write(self, text: bytes) -> None:
        if self._socket is not None:
            self._socket.sendMessage(text)  # type: ignore[no-untyped-call]

    # What the socket calls.

    def socket_made(self, socket: _Socket) -> None:
        """Hear that there is a connection."""
        self._socket = socket

    def socket_opened(self) -> None:
        """Hear that the handshake is done: say who we are."""
        self._connect_id = self._new_id()
        context = self._context
        said = {"info": context.info, "data": context.data}
        fields: dict[str, Any] = {name: msgspec.Raw(value) for name, value in said.items() if value}
        body = fields_json({**fields, "token": context.web.token.now})
        self._write(command_json(self._connect_id, "connect", body))

    def socket_heard(self) -> None:
        """Hear that something came, be it a part of a frame or a ping."""
        if not self._is_opening and not self._ended:
            self._silence.within(self._heartbeat + self._context.negotiation.grace)

    def socket_frame(self, payload: bytes) -> None:
        """Take a frame."""
        if self._ended:
            return
        try:
            frame = read(payload, Frame)
            if frame.id is not None:
                self._replied(frame.id, frame)
            elif self._concerns_us(frame):
                self._hear(frame)
        except BadAnswer as error:
            self.lose(LinkLost(str(error)))

    def socket_closed(self, code: int | None, reason: str, retry_after: float | None) -> None:
        """Hear that the connection is gone."""
        said = f"the WebSocket was closed: {reason}" if reason else "the WebSocket was closed"
        # Before it was open, a code of the RFC says more of what stands between than of the server.
        final = code is not None and (4500 <= code <= 4999 or (code in _FINAL_CLOSES and not self._is_opening))
        self.lose(LinkLost(said if code is None else f"{said} ({code})", code, not final, retry_after))

    def _replied(self, id_: int, frame: Frame) -> None:
        command = self._commands.pop(id_, None)
        if command is not None:
            self._context.outbox.answered(command, frame)
        elif id_ == self._connect_id:
            self._greeted(frame)
        elif id_ == self._refresh_id:
            if frame.error is not None:
                # A new connection can have the new token.
                self.lose(refused_by(frame.error.exception()))
        else:
            for channel, asked in self._followed.items():
                if asked == id_:
                    self._subscribed(channel, frame)
                    break

    def _greeted(self, frame: Frame) -> None:
        if frame.error is not None:
            self.lose(kept_out_by(frame.error.exception()))
            return
        if frame.connect is not None and frame.connect.heartbeat is not None:
            self._heartbeat = max(1.0, frame.connect.heartbeat)
        self._silence.within(self._heartbeat + self._context.negotiation.grace)
        self._ping_timer = self._context.clock.callLater(self._heartbeat, self._ping)
        self._opened()
        if frame.connect is not None and frame.connect.data is not None and not self._ended:
            self._context.told(frame.connect.data)

    def _subscribed(self, channel: str, frame: Frame) -> None:
        if frame.error is not None:
            self._forget(channel)
            self._audience.refused(channel, frame.error.exception())
        elif frame.subscribe is not None:
            self._live.add(channel)
            if frame.subscribe.data is not None:
                self._audience.told(channel, frame.subscribe.data)
            self._audience.begins(channel, frame.subscribe.subscribed().position)
            self.send([])

    def _concerns_us(self, frame: Frame) -> bool:
        """Tell whether a push is one for us: what is still on its way for a channel that was left is not."""
        if frame.unsubscribed is not None:
            return self._forget(frame.unsubscribed.channel)
        about = frame.message or frame.gap or frame.join or frame.leave
        return about is None or about.channel in self._live

    def _forget(self, channel: str) -> bool:
        known = self._followed.pop(channel, None) is not None
        self._shown.pop(channel, None)
        self._live.discard(channel)
        return known

    def _ping(self) -> None:
        self._ping_timer = self._context.clock.callLater(self._heartbeat, self._ping)
        self._write(command_json(self._new_id(), "ping"))


class _Socket(WebSocketClientProtocol):
    """
    The connection of a link.

    :ivar gone: Fires when the connection is gone.
    """

    def __init__(self, link: WebSocketLink) -> None:
        super().__init__()
        self.gone: Deferred[None] = Deferred()
        self._link = link
        self._goodbye: IDelayedCall | None = None

    def end(self) -> None:
        """Close in good order, or else soon."""
        if self.state == self.STATE_OPEN:
            self.sendClose(1000)
            self._abort_soon()
        elif self.state != self.STATE_CLOSING:
            self._abort()

    def connectionMade(self) -> None:
        self._link.socket_made(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self._link.socket_heard()
        super().dataReceived(data)

    def onConnecting(self, transport_details: Any) -> ConnectingRequest:
        # As Autobahn does by itself, but with the brackets of an IPv6 address (RFC 3986, section 3.2.2).
        factory = self.factory
        return ConnectingRequest(
            host=f"[{factory.host}]" if ":" in factory.host else factory.host,
            port=factory.port,
            resource=factory.resource,
            headers=factory.headers,
            protocols=factory.protocols,
        )

    def onOpen(self) -> None:
        self._link.socket_opened()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._link.socket_frame(payload)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> None:
        super().onCloseFrame(code, reasonRaw)
        # The server is to drop the connection now; one that does not must not hold us up.
        self._abort_soon()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._goodbye is not None:
            self._goodbye.cancel()
            self._goodbye = None
        super().connectionLost(reason)
        self._link.socket_closed(
            self.remoteCloseCode, self.remoteCloseReason or self.wasNotCleanReason or "", self._retry_after()
        )
        self.gone.callback(None)

    def _abort_soon(self) -> None:
        if self._goodbye is None:
            self._goodbye = self.factory.reactor.callLater(_CLOSE_TIMEOUT, self._abort)

    def _abort(self) -> None:
        self._goodbye = None
        transport: Any = self.transport
        transport.abortConnection()

    def _retry_after(self) -> float | None:
        """The seconds of ``Retry-After`` in a handshake that was refused (RFC 9110, section 10.2.3)."""
        value = getattr(self, "http_headers", {}).get("retry-after", "").strip()
        return float(value[:9]) if value.isascii() and value.isdigit() else None
