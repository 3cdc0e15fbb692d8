"""
WebSocket: Autobahn's protocol, entered already open, after the handshake that twisted.web has parsed.

Autobahn reads frames; what is written is framed by the wire forms, once for all connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.util import encode_truncate
from autobahn.websocket.protocol import TrafficStats
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.defer import Deferred
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

import rtpush
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.interfaces import ISink
from rtpush.protocol.channel import Access
from rtpush.protocol.codecs import BadCommand, Codec
from rtpush.protocol.commands import Connect, Publication, Request, Subscribe, Unsubscribe
from rtpush.protocol.forms import WebSocketForm, WireForm
from rtpush.protocol.frames import BINARY, PING_FRAME, TEXT, deflated_frame
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.position import BadCursor, Position
from rtpush.protocol.pushes import Subscribed
from rtpush.registry.connection import Connection
from rtpush.registry.subscription import Since
from rtpush.transports.commands import perform
from rtpush.transports.following import Following, checked_info, follow, read_since
from rtpush.transports.handshake import Deflate
from rtpush.transports.http import address_of, error_of

__all__ = ["CommandWebSocket", "EchoWebSocket", "PushWebSocket", "RawWebSocket", "configured"]

#: How an empty pong of a client begins; its mask follows (RFC 6455 section 5.5.3).
_PONG_HEAD = b"\x8a\x80"

P = TypeVar("P", bound="PushWebSocket")


@implementer(ISink)
class PushWebSocket(WebSocketServerProtocol):
    """
    A WebSocket that is a connection of the registry.

    What Autobahn sets on each instance and never changes is on the class.

    :ivar form: The wire form of what is sent.
    """

    state = WebSocketServerProtocol.STATE_OPEN
    send_state = WebSocketServerProtocol.SEND_STATE_GROUND
    websocket_version = 13
    inside_message = False
    current_frame: Any = None
    data = b""
    send_queue: deque[Any] = deque()
    triggered = False
    trackedTimings: Any = None
    trafficStats = TrafficStats()
    wasMaxFramePayloadSizeExceeded = False
    wasMaxMessagePayloadSizeExceeded = False
    closedByMe = False
    failedByMe = False
    droppedByMe = False
    wasClean = False
    wasNotCleanReason: Any = None
    wasServingFlashSocketPolicyFile = False
    localCloseCode = None
    localCloseReason = None
    remoteCloseCode = None
    remoteCloseReason = None
    openHandshakeTimeoutCall = None
    closeHandshakeTimeoutCall = None
    autoPingTimeoutCall = None
    autoPingPending = None
    autoPingPendingCall = None

    connection: Connection
    transport: Any

    #: Whether nothing is to be taken, not even of what has been read.
    _is_held = False
    #: What has been read and waits for that to end: of each message, the commands that are still to be done.
    _waiting: list[Iterator[None]] | None = None

    _head = b""
    _perMessageCompress: Any = None
    window_bits = 0
    _utf8validator: Any = None

    def __init__(self, form: WireForm, deflate: Deflate) -> None:
        # Autobahn's own makes Deferreds for those who wait for its handshake, which is none here.
        self.form = form
        if deflate.window_bits:
            self.window_bits = deflate.window_bits
            self._perMessageCompress = deflate.inflater()

    @property
    def utf8validator(self) -> Any:  # type: ignore[override]
        """What Autobahn checks text with: made for the first text, since many clients send none."""
        if self._utf8validator is None:
            self._utf8validator = Utf8Validator()
        return self._utf8validator

    def begin(self, connection: Connection, following: Following | None, head: bytes) -> None:
        """
        The handshake is through: messages may come and go.

        :param head: What ends it: it is written together with what is to be written now, if there is anything.
        """
        self.connection = connection
        self._head = head
        connection.opened()
        self.transport.registerProducer(connection, True)
        if following is not None:
            follow(connection, following, self._followed, self._not_followed)
        if self._head:
            self._write_head(b"")

    def _write_head(self, data: bytes) -> None:
        head = self._head
        del self._head
        self.transport.write(head + data)

    def _followed(self, subscribed: list[Subscribed]) -> None:
        for each in subscribed:
            self.connection.push(each)
            self.connection.go(each.channel)

    def _not_followed(self, failure: Failure) -> None:
        error = error_of(failure)
        if error is not None:
            self.close_for(error)
        else:
            self.connection.failed("following", failure)

    def close_for(self, error: RtpushError) -> None:
        """
        Close for an error that cannot be told otherwise.

        That blames the client (RFC 6455 section 7.4.1: policy violation), unless it is the broker that is away.
        """
        away = error.kind is ErrorCode.UNAVAILABLE
        code = Disconnect.TRY_AGAIN_LATER.code if away else self.CLOSE_STATUS_CODE_POLICY_VIOLATION
        self.sendCloseFrame(code, error.kind.name.lower().encode())

    # What Twisted and Autobahn call

    def connectionMade(self) -> None:
        """All that Autobahn does here belongs to the handshake, which is over."""

    def dataReceived(self, data: bytes) -> None:
        self.connection.heard()
        if len(data) == 6 and data[:2] == _PONG_HEAD and self.current_frame is None and not self.data:
            # The answer to a heartbeat: with many idle clients it is nearly all that comes, and says no more.
            return
        # After a failure nothing is looked at or kept, not even a close (RFC 6455 section 7.1.7).
        if not self.failedByMe:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.state = self.STATE_CLOSED
        self.connection.lost()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._waiting is None:
            self._work([self.message(payload, isBinary)])
        else:
            self._waiting.append(self.message(payload, isBinary))

    def _work(self, waiting: list[Iterator[None]]) -> None:
        """Do commands in their order, and keep those that must wait."""
        try:
            while waiting and self.connection.state is State.OPEN:
                if self._is_held:
                    self._waiting = waiting
                    return
                if next(waiting[0], self) is self:
                    del waiting[0]
        except Exception:
            self.connection.failed("a message")

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        if self._head:
            self._write_head(b"")
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if self.failedByMe:
            self._end_writing()
        self.connection.closing()

    def _end_writing(self) -> None:
        """Say that nothing more comes, and read on: who still sends could not read the close frame otherwise."""
        if isinstance(self.transport, ProtocolWrapper):
            # TLS has no half of a connection, but a farewell that waits for its answer.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def dropConnection(self, abort: bool = False) -> None:
        self.transport.unregisterProducer()
        if self.state != self.STATE_CLOSED:
            self.droppedByMe = True
            self.state = self.STATE_CLOSED
            # After a clean closing handshake what was written is still to arrive; the wheel aborts if it does not.
            self._closeConnection(abort and not self.wasClean)

    def message(self, payload: bytes, is_binary: bool) -> Iterator[None]:
        """Take one whole message of the client; each step does one of its commands."""
        raise NotImplementedError

    # ISink

    def write(self, data: bytes) -> None:
        if self._head:
            self._write_head(data)
        elif self.state == self.STATE_OPEN:
            self.transport.write(data)

    def heartbeat(self) -> None:
        self.write(PING_FRAME)

    def finish(self, farewell: bytes, code: int, reason: str) -> None:
        self.write(farewell)
        self.sendCloseFrame(code, encode_truncate(reason, 123))

    def abort(self) -> None:
        self.transport.abortConnection()

    def address(self) -> str:
        return address_of(self.transport)

    def pause_reading(self) -> None:
        self._is_held = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        self._is_held = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._work(waiting)
        if not self._is_held:
            self.transport.resumeProducing()


class CommandWebSocket(PushWebSocket):
    """``rtpush.v1`` and ``rtpush.v1.msgpack``: commands, replies and pushes."""

    form: WebSocketForm

    @property
    def codec(self) -> Codec:
        """The encoding of commands and replies."""
        return self.form.codec

    def message(self, payload: bytes, is_binary: bool) -> Iterator[None]:
        if is_binary is not self.codec.binary:
            expected = "binary" if self.codec.binary else "text"
            self._error(None, RtpushError(ErrorCode.BAD_REQUEST, f"expected a {expected} frame"))
            return
        for request in self.codec.requests(payload):
            if isinstance(request, BadCommand):
                self._error(request.id, request.error)
            else:
                try:
                    self._do(request)
                except RtpushError as error:
                    self._error(request.id, error)
            yield

    def _do(self, request: Request) -> None:
        match request.command:
            case Connect() as connect:
                self._connect(request, connect)
            case Subscribe() as subscribe:
                self._subscribe(request, subscribe)
            case Unsubscribe() as unsubscribe:
                self.connection.unsubscribe(unsubscribe.channel)
                self._reply(request, {"channel": unsubscribe.channel})
            case _:
                result = perform(self.connection.node, self.codec, request, Access.ANYONE)
                result.addCallback(lambda content: self._reply(request, content))
                result.addErrback(self._failed, request)
                self.connection.doing(result)

    def _connect(self, request: Request, connect: Connect) -> None:
        if connect.token is not None:
            raise RtpushError(ErrorCode.UNAUTHORIZED, "this server takes no tokens: connect without one")
        connection = self.connection
        connection.info = checked_info(self.codec.json(connect.info))
        content = {
            "connection": connection.id,
            "node": connection.node.name,
            "heartbeat": connection.node.heartbeat,
            "version": rtpush.__version__,
        }
        connection.deliver(self.form.object(_with_id(request.id, "connect", content)))

    def _subscribe(self, request: Request, subscribe: Subscribe) -> None:
        since: Position | Since = read_since(subscribe.since)
        if subscribe.cursor is not None and subscribe.cursor != "-":
            try:
                since = Position.parse(subscribe.cursor)
            except BadCursor as error:
                raise RtpushError(ErrorCode.BAD_CURSOR, str(error)) from None
        begun = self.connection.subscribe(subscribe.channel, since)
        if isinstance(begun, Subscribed):
            self._subscribed(begun, request)
            return
        begun.addCallback(self._subscribed, request).addErrback(self._failed, request)
        self.connection.doing(begun)

    def _subscribed(self, subscribed: Subscribed, request: Request) -> None:
        self._reply(request, subscribed.as_dict())
        self.connection.go(subscribed.channel)

    def _failed(self, failure: Failure, request: Request) -> None:
        error = error_of(failure)
        if error is not None:
            self._error(request.id, error)
        else:
            self.connection.failed(request.name, failure)

    def _reply(self, request: Request, content: dict[str, Any]) -> None:
        if request.id is not None:
            self._send_reply(_with_id(request.id, request.name, content))

    def _error(self, id_: int | None, error: RtpushError) -> None:
        self._send_reply(_with_id(id_, "error", error.as_dict()))

    def _send_reply(self, reply: dict[str, Any]) -> None:
        if not self.connection.deliver(self.form.object(reply)):
            self.connection.disconnect(Disconnect.SLOW_READER)


class RawWebSocket(PushWebSocket):
    """``rtpush.raw``: one channel, payloads alone."""

    channel: str

    def begin(self, connection: Connection, following: Following | None, head: bytes) -> None:
        assert following is not None
        self.channel = following.channels[0]
        super().begin(connection, following, head)

    def message(self, payload: bytes, is_binary: bool) -> Iterator[None]:
        publication = Publication(self.channel, Payload(payload, Kind.BINARY if is_binary else Kind.TEXT))
        published: Deferred[Any] = self.connection.node.publish(publication, Access.ANYONE)
        published.addErrback(self._not_followed)
        self.connection.doing(published)
        yield


class EchoWebSocket(PushWebSocket):
    """``/echo``: each message comes back."""

    def message(self, payload: bytes, is_binary: bool) -> Iterator[None]:
        data = deflated_frame(BINARY if is_binary else TEXT, payload, self.window_bits)
        if not self.connection.deliver(data):
            self.connection.disconnect(Disconnect.SLOW_READER)
        yield


def configured(protocol: type[P], max_message_bytes: int) -> type[P]:
    """
    Return a WebSocket class with Autobahn's options on it, where all its instances share them.

    :param max_message_bytes: The largest message, and frame, that is read.
    """
    factory = WebSocketServerFactory()
    factory.setProtocolOptions(
        # The close code that RFC 6455 asks for is sent before the connection is dropped.
        failByDrop=False,
        maxFramePayloadSize=max_message_bytes,
        maxMessagePayloadSize=max_message_bytes,
        # Heartbeats and closing have their deadlines on the node's timer wheel.
        autoPingInterval=0,
        closeHandshakeTimeout=0,
        openHandshakeTimeout=0,
    )
    options = {option: getattr(factory, option) for option in protocol.CONFIG_ATTRS}
    return type(protocol.__name__, (protocol,), {"factory": factory, **options})


def _with_id(id_: int | None, name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {name: content} if id_ is None else {"id": id_, name: content}
