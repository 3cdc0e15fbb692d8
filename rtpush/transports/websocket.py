"""
WebSocket: Autobahn's protocol, entered already open, after the handshake that twisted.web has parsed.

Autobahn reads frames; what is written is framed by the wire forms, once for all connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.util import encode_truncate
from autobahn.websocket.protocol import TrafficStats
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

import rtpush
from rtpush.auth.permissions import Grant
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.interfaces import ISink
from rtpush.protocol.channel import Access
from rtpush.protocol.codecs import BadCommand, Codec
from rtpush.protocol.commands import Connect, Publication, Publish, Refresh, Request, Subscribe, Unsubscribe
from rtpush.protocol.forms import WebSocketForm, WireForm
from rtpush.protocol.frames import BINARY, PING_FRAME, TEXT, deflated_frame
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.position import BadCursor, Position
from rtpush.protocol.pushes import Subscribed
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.subscription import Since
from rtpush.transports.commands import perform
from rtpush.transports.following import Following, checked_info, follow, read_since
from rtpush.transports.handshake import Deflate
from rtpush.transports.http import address_of, error_of

__all__ = ["CommandWebSocket", "EchoWebSocket", "PushWebSocket", "RawWebSocket", "configured"]

#: How an empty pong of a client begins; its mask follows (RFC 6455 section 5.5.3).
_PONG_HEAD = b"\x8a\x80"

#: How many commands of a client are done in one turn of the reactor; and how much must come at once for its messages to
#: be looked at together.
_AT_ONCE = 250
_MUCH = 8192

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
    _log = Logger()

    #: Whether nothing is to be taken, not even of what has been read.
    _is_held = False
    #: What has been read and waits for that to end: of each message, the commands that are still to be done.
    _waiting: list[Iterator[None]] | None = None
    #: How many commands may still be done in this turn, while much that came at once is looked at.
    _left: int | None = None

    #: How many bytes have come of a message that is not complete.
    _held = 0

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
            follow(connection, following, self._followed, self._not_followed, connection.credentials)
        if self._head:
            self._write_head(b"")

    def _write_head(self, data: bytes) -> None:
        head = self._head
        del self._head
        self.transport.write(head + data)

    def _followed(self, subscribed: list[Subscribed]) -> None:
        for each in subscribed:
            self.connection.push(each)
            if self._head:
                # This wire form has no room for that push.
                self._write_head(b"")
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
        self.connection.node.counts.refused(error.kind)
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
        if self.failedByMe:
            return
        if len(data) <= _MUCH:
            super().dataReceived(data)
        else:
            self._left = _AT_ONCE
            super().dataReceived(data)
            self._left = None
        if self.inside_message or self.current_frame is not None:
            self._held += len(data)
            self.connection.node.incoming.hold(self, self._held)
        elif self._held:
            del self._held
            self.connection.node.incoming.drop(self)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.state = self.STATE_CLOSED
        self.connection.node.incoming.drop(self)
        self.connection.lost()

    def give_up(self) -> None:
        """Drop what has come of a message, since that of all connections is too much."""
        self._fail_connection(Disconnect.TRY_AGAIN_LATER.code, Disconnect.TRY_AGAIN_LATER.reason)
        # After a failure nothing is added to it.
        self.message_data, self.frame_data = [], []

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._waiting is None:
            self._work([self.message(payload, isBinary)])
        else:
            self._waiting.append(self.message(payload, isBinary))

    def onPing(self, payload: bytes) -> None:
        # The answer to it is work, too.
        if not self.connection.node.limiter.of_talk or self.may(None, publishes=False):
            super().onPing(payload)

    def _work(self, waiting: list[Iterator[None]]) -> None:
        """Do commands in their order, and keep those that must wait: also when they are so many that others would."""
        left = _AT_ONCE if self._left is None else self._left
        try:
            while waiting and self.connection.state is State.OPEN:
                if self._is_held:
                    self._waiting = waiting
                    return
                if not left:
                    self._put_off(waiting)
                    return
                left -= 1
                if next(waiting[0], self) is self:
                    del waiting[0]
            if self._left is not None:
                self._left = left
        except Exception:
            self.connection.failed("a message")

    def _put_off(self, waiting: list[Iterator[None]]) -> None:
        self._waiting = waiting
        self.transport.pauseProducing()
        self.connection.node.clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        if self._waiting is not None and not self._is_held and self.connection.state is not State.CLOSED:
            # What else it says is not heard meanwhile.
            self.connection.heard()
            self.resume_reading()

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        if self._head:
            self._write_head(b"")
        if self.connection.credentials is not None:
            of_client: Any = self
            reason = of_client.remoteCloseReason if isReply else (reasonUtf8 or b"").decode("utf-8", "replace")
            # Without a code it is 1005 (RFC 6455 section 7.4.1).
            self.connection.credentials.ends_by((of_client.remoteCloseCode if isReply else code) or 1005, reason or "")
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if self.failedByMe:
            self._end_writing()
        self.connection.closing()

    def _fail_connection(self, code: int = 1001, reason: str = "going away") -> None:
        # Autobahn warns of each client that breaks the protocol. Here it is the client's affair, and has its id.
        if self.state == self.STATE_CLOSED:
            return
        self._log.debug("the WebSocket fails: {code} {reason}", code=code, reason=reason, connection=self.connection.id)
        self.failedByMe = True
        if self.state == self.STATE_CLOSING:
            self.dropConnection(abort=False)
        else:
            self.sendCloseFrame(code=code, reasonUtf8=encode_truncate(reason, 123))

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

    def may(self, id_: int | None, *, publishes: bool) -> bool:
        """Tell whether the client may do one more command now. If not, it is told, or closed if that did not help."""
        try:
            if self.connection.node.limiter.hear(self.connection, publishes=publishes):
                return True
        except RtpushError as error:
            self.told_too_much(id_, error)
        else:
            self._close_for_too_much()
        return False

    def give_way(self) -> None:
        """Take no more of the client until it has its answers, if others wait for the application."""
        hooks, credentials = self.connection.node.hooks, self.connection.credentials
        if hooks is not None and hooks.is_busy and credentials is not None and credentials.guest is not None:
            line = credentials.guest.line
            if line.is_busy:
                self.connection.doing(line.put(succeed(None)), alone=True)

    def told_too_much(self, id_: int | None, error: RtpushError) -> None:
        """Tell the client that a command was not done, since there are too many."""
        self.connection.node.counts.refused(error.kind)
        self._close_for_too_much()

    def _close_for_too_much(self) -> None:
        backoff = self.connection.node.backoff
        self.connection.disconnect(
            Disconnect.LIMIT_EXCEEDED, after=backoff.maximum + self.connection.node.chance() * backoff.jitter
        )

    # ISink

    @property
    def straight(self) -> Any:
        """The transport: but what TLS has above it may call back whenever it is written to."""
        return None if self._head or isinstance(self.transport, ProtocolWrapper) else self.transport

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
        if not self._is_held and self._waiting is None:
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
            if self.may(None, publishes=False):
                self._error(None, RtpushError(ErrorCode.BAD_REQUEST, f"expected a {expected} frame"))
            return
        limiter = self.connection.node.limiter
        for request in self.codec.requests(payload):
            if limiter.of_talk and not self.may(
                request.id, publishes=isinstance(request, Request) and isinstance(request.command, Publish)
            ):
                pass
            elif isinstance(request, BadCommand):
                self._error(request.id, request.error)
            else:
                try:
                    self._do(request)
                except RtpushError as error:
                    self._error(request.id, error)
            yield

    def told_too_much(self, id_: int | None, error: RtpushError) -> None:
        self._error(id_, error)

    def _do(self, request: Request) -> None:
        match request.command:
            case Connect() as connect:
                info = checked_info(self.codec.json(connect.info))
                if connect.token is None:
                    self._connect(request, info)
                else:
                    self._show(request, connect.token, lambda grant: self._connect(request, info, grant))
            case Refresh(token=token) if self._takes_tokens:
                self._show(request, token, lambda grant: self._refresh(request, grant))
            case Subscribe(token=None) as subscribe:
                self._subscribe(request, subscribe)
            case Subscribe(token=str(token)) as subscribe:
                self._show(request, token, lambda grant: self._subscribe_with(request, subscribe, grant))
            case Unsubscribe() as unsubscribe:
                self.connection.unsubscribe(unsubscribe.channel)
                self._reply(request, {"channel": unsubscribe.channel})
            case _:
                result = perform(self.connection.node, self.codec, request, self.connection.credentials, "websocket")
                result.addCallback(lambda content: self._reply(request, content))
                result.addErrback(self._failed, request)
                self.connection.doing(result)

    @property
    def _takes_tokens(self) -> bool:
        tokens = self.connection.node.tokens
        return tokens is not None and tokens.in_use

    def _show(self, request: Request, token: str, then: Callable[[Grant], None]) -> None:
        """Check a token, and go on with what it grants. The commands that come after it wait."""
        checked = self.connection.node.checked(token).addCallback(then).addErrback(self._failed, request)
        if not checked.called:
            self.connection.doing(checked, alone=True)

    def _connect(self, request: Request, info: bytes, grant: Grant | None = None) -> None:
        self._identify(info, grant)
        self._welcome(request)

    def _identify(self, info: bytes, grant: Grant | None) -> None:
        """Take what the client shows and says of itself."""
        connection = self.connection
        if grant is not None and grant.channel:
            raise RtpushError(ErrorCode.INVALID_TOKEN, "this token is for one channel: it opens no connection")
        if grant is not None:
            connection.node.limiter.own(connection, grant.user)
        connection.info = info
        if grant is not None:
            if connection.credentials is None:
                Credentials(connection.node, grant).attach(connection)
            else:
                connection.credentials.replace(grant)
        elif connection.credentials is not None:
            connection.credentials.attach(connection)

    def _welcome(self, request: Request, **more: Any) -> None:
        connection = self.connection
        content = {
            "connection": connection.id,
            "node": connection.node.name,
            "heartbeat": connection.node.heartbeat,
            "version": rtpush.__version__,
            **more,
        }
        connection.deliver(self.form.object(_with_id(request.id, "connect", content)))

    def _refresh(self, request: Request, grant: Grant) -> None:
        connection = self.connection
        if grant.channel:
            if grant.channel not in connection.subscriptions:
                raise RtpushError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to {grant.channel!r}")
            self._add(grant, grant.channel)
        elif connection.credentials is None or connection.credentials.grant is None:
            raise RtpushError(ErrorCode.NOT_AVAILABLE, "there is no token to refresh: give it with connect")
        else:
            connection.credentials.replace(grant)
        self._reply(request, {})

    def _add(self, grant: Grant, channel: str) -> None:
        connection = self.connection
        if not grant.channel:
            raise RtpushError(ErrorCode.INVALID_TOKEN, "this token is not for one channel: it has no claim channel")
        if connection.credentials is None:
            Credentials(connection.node, None).attach(connection)
        assert connection.credentials is not None
        connection.credentials.add(grant, channel)

    def _subscribe_with(self, request: Request, subscribe: Subscribe, grant: Grant) -> None:
        """Subscribe with a token for the channel."""
        channel = subscribe.channel
        if channel in self.connection.subscriptions:
            raise RtpushError(ErrorCode.ALREADY_SUBSCRIBED, f"already subscribed to {channel!r}")
        self._add(grant, channel)
        try:
            self._subscribe(request, subscribe)
        finally:
            if channel not in self.connection.subscriptions and self.connection.credentials is not None:
                self.connection.credentials.drop(channel)

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
        self.connection.node.counts.refused(error.kind)
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
        if self.connection.node.limiter.of_talk and not self.may(None, publishes=True):
            return
        publication = Publication(self.channel, Payload(payload, Kind.BINARY if is_binary else Kind.TEXT))
        published: Deferred[Any] = self.connection.node.publish(
            publication, Access.ANYONE, "websocket", self.connection.credentials
        )
        published.addErrback(self._not_followed)
        self.connection.doing(published)
        if self.connection.node.hooks is not None:
            self.give_way()
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
