"""The Python client: follows channels and publishes, over whatever transport works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random, SystemRandom
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory

from rtpush.client.connector import Connector, Plan, Reports
from rtpush.client.errors import ClientClosed, LinkLost, OutboxFull, ServerEnded
from rtpush.client.following import Following
from rtpush.client.link import Link
from rtpush.client.negotiation import TRANSPORTS, Negotiation, base_url
from rtpush.client.outbox import Outbox
from rtpush.client.poll import LongPollLink, ShortPollLink
from rtpush.client.sse import SseLink
from rtpush.client.subscription import Callbacks, Subscription, ignore
from rtpush.client.token import GivesToken, Token
from rtpush.client.web import DirectEndpoints, Web
from rtpush.client.websocket import WebSocketLink
from rtpush.client.wire import fields_json, payload_of, publish_fields, with_key
from rtpush.errors import RtpushError
from rtpush.protocol.channel import check_name
from rtpush.protocol.commands import Publication
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position, format_cursor
from rtpush.protocol.pushes import GapPush, Joined, Left, PresenceEntry
from rtpush.protocol.recovery import Page

__all__ = ["Client", "Status"]

_log = Logger()

_LINKS = {link.name: link for link in (WebSocketLink, SseLink, LongPollLink, ShortPollLink)}


@attrs.frozen
class Status:
    """
    How a client stands.

    :ivar state: CONNECTING also while it waits until the next attempt.
    :ivar transport: The one that carries, if one does.
    :ivar reason: Why it is so, in one line.
    :ivar delay: The seconds until the next attempt, while it waits for that.
    """

    state: State
    transport: str | None = None
    reason: str = ""
    delay: float | None = None


class Client:
    """
    One client of a server.

    It connects when it is first asked for something, and stays connected until it is closed: over the best transport
    that works, with every subscription going on from its position. All times are seconds.

    :param reactor: Gives the time, and the connections unless ``endpoints`` does.
    :param url: Where the server is: ``http://host:port/`` and the prefix of a proxy, if there is one.
    :param transports: Which may be used, of ``websocket``, ``sse``, ``longpoll``, ``shortpoll``; the server ranks them.
        All but the last by default; it too with direction ``rare``.
    :param direction: ``duplex``, ``push`` or ``rare``: what the server ranks the transports by.
    :param info: What others may know of this client, for presence; anything that JSON can express.
    :param data: What this client says to the application (``[hooks]``) when it connects over WebSocket; anything that
        JSON can express. The other transports have no room for it: there ``info`` and ``headers`` say something.
    :param headers: Sent with every request.
    :param token: What this client shows of who it is; or what is called for it, whenever another one is needed: before
        it ends, and when the server says that it has ended. It returns a token, or a Deferred or coroutine of one.
    :param endpoints: What connections are made with, as for :meth:`twisted.web.client.Agent.usingEndpointFactory`; gets
        the URLs of WebSockets too.
    :param random: Where chance comes from.
    :param open_timeout: How long a transport may take until the server's first event has come through it.
    :param climb_after: After how long a better transport is tried.
    :param answer_timeout: How long a publish or question waits for its answer, over all reconnections. Keep it shorter
        than the server's ``idempotency_window``.
    :param max_waiting: How many of them may wait.
    :raises ValueError: if the URL or a transport is not one.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        url: str,
        *,
        transports: Sequence[str] | None = None,
        direction: str = "duplex",
        info: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | GivesToken | None = None,
        endpoints: IAgentEndpointFactory | None = None,
        random: Random | None = None,
        open_timeout: float = 5.0,
        climb_after: float = 60.0,
        answer_timeout: float = 60.0,
        max_waiting: int = 1000,
    ) -> None:
        names = transports or (TRANSPORTS if direction == "rare" else TRANSPORTS[:-1])
        for name in names:
            if name not in TRANSPORTS:
                raise ValueError(f"no such transport: {name!r}; expected one of {', '.join(TRANSPORTS)}")
        self._clock = reactor
        self._random = random or SystemRandom()
        self._status = Status(State.CLOSED, reason="not started")
        self._listeners: list[Callable[[Status], Any]] = []
        self._data: Any = None
        self._data_listeners: list[Callable[[Any], Any]] = []
        self._started = False
        #: Makes the exception that says why this client can no longer be used.
        self._over: Callable[[], Exception] | None = None
        self._web = Web(reactor, endpoints or DirectEndpoints(reactor, open_timeout), headers or {}, Token(token))
        self._outbox = Outbox(reactor, answer_timeout, max_waiting)
        self._following = Following(reactor, self._random.random, self._channels_changed, self._hole)
        plan = Plan(
            base=base_url(url),
            transports=names,
            direction=direction,
            links=_LINKS,
            open_timeout=open_timeout,
            climb_after=climb_after,
            info=_json(info),
            data=_json(data),
            chance=self._random.random,
        )
        reports = Reports(self._negotiated, self._carried, self._waiting, self._given_up, self._told)
        self._connector = Connector(plan, self._web, reactor, self._following, self._outbox, reports)

    @property
    def status(self) -> Status:
        """How the client stands now."""
        return self._status

    @property
    def state(self) -> State:
        """The state alone: CLOSED also before anything was asked of the client."""
        return self._status.state

    @property
    def transport(self) -> str | None:
        """The name of the transport that carries now."""
        return self._status.transport

    def on_status(self, callback: Callable[[Status], Any]) -> Callable[[], None]:
        """Call back with the :class:`Status` each time it changes; the result stops that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    @property
    def data(self) -> Any:
        """What the application has said to this client last, as JSON says; :obj:`None` if it has said nothing."""
        return self._data

    def on_data(self, callback: Callable[[Any], Any]) -> Callable[[], None]:
        """
        Call back with what the application says to this client (``[hooks]``); the result stops that.

        It comes each time when the client connects over WebSocket, or opens an event stream, as it does to follow other
        channels; over polls when it begins to follow a channel.
        """
        self._data_listeners.append(callback)
        return lambda: self._data_listeners.remove(callback)

    def cursor(self, channels: Sequence[str]) -> str:
        """Return where these channels are: any client can go on from there."""
        return format_cursor(self._following.position(channel) for channel in channels)

    def connect(self) -> None:
        """
        Connect. Everything that needs a connection does it too.

        :raises ClientClosed: if the client was closed.
        """
        if self._over is not None:
            raise self._over()
        if not self._started:
            self._started = True
            self._set_status(Status(State.CONNECTING, reason="connect"))
            self._connector.start()

    def subscribe(
        self,
        channel: str,
        on_message: Callable[[Message], Any],
        *,
        position: Position | str | None = None,
        since: str | None = None,
        token: str | GivesToken | None = None,
        on_gap: Callable[[GapPush], Any] = ignore,
        on_member: Callable[[Joined | Left], Any] = ignore,
        on_end: Callable[[Exception], Any] = ignore,
        on_data: Callable[[Any], Any] = ignore,
    ) -> Subscription:
        """
        Follow a channel: after a position, from the oldest message kept (``since="earliest"``), or from now.

        What a callback raises is logged, and stops nothing.

        :param on_message: Gets each message, once and in order.
        :param token: A token for this channel alone, shown besides that of the client, also for what is done there
            while it is followed; or what is called for it, as for that of the client. Until there is one the channel
            waits, and so do the commands for it.
        :param on_gap: Told when messages were lost: the stream goes on after its position.
        :param on_member: Told who joined or left, where the namespace tells it.
        :param on_end: Told why the other side ended the subscription: :class:`RtpushError` if it was refused.
        :param on_data: Told what the application says about this channel (``[hooks]``), before the messages: when the
            client begins to follow it, and as with :meth:`on_data` of the client when it comes back.
        :raises ValueError: if the channel is followed already, or it or the position cannot be one.
        :raises ClientClosed: if the client was closed.
        """
        if since not in (None, "earliest", "now"):
            raise ValueError(f"since is {since!r}, expected earliest or now")
        try:
            check_name(channel)
        except RtpushError as error:
            raise ValueError(error.message) from None
        begin = Position.parse(position) if isinstance(position, str) else position
        callbacks = Callbacks(on_message, on_gap, on_member, on_end, on_data)
        self.connect()
        earliest = since == "earliest"
        subscription = Subscription(channel, begin, earliest, callbacks, self._following.drop, Token(token))
        self._following.add(subscription)
        return subscription

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        history: bool = True,
        idempotency_key: str | None = None,
    ) -> Deferred[Position | None]:
        """
        Publish a message: bytes as binary, a string as text, anything else as JSON.

        Messages go out in the order of the calls. While there is no connection they wait. One that had no answer when
        the connection breaks goes out again with its idempotency key, so that it is there once; but one without history
        does not.

        :param history: False for what is worthless a second later: it gets no position, and is delivered at most once.
        :returns: Its position. Fails with :class:`RtpushError` if the server refuses it, :class:`NotDelivered`,
            :class:`OutboxFull` or :class:`ClientClosed`.
        :raises TypeError: if the data is nothing that JSON can express.
        """
        publication = Publication(channel, payload_of(data), event, idempotency_key, history)
        return self._command("publish", publish_fields(with_key(publication, self._random)), again=history)

    def history(
        self, channel: str, *, since: Position | str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Deferred[Page]:
        """
        Read messages that a channel keeps.

        :param since: Only those after this position; with ``reverse``, only those before it.
        :param limit: At most so many; the server has a limit of its own.
        :param reverse: Newest first.
        """
        fields = {"channel": channel, "since": since and str(since), "limit": limit, "reverse": reverse}
        return self._command("history", fields, again=True)

    def presence(self, channel: str) -> Deferred[list[PresenceEntry]]:
        """Ask who is in a channel."""
        return self._command("presence", {"channel": channel}, again=True)

    def close(self) -> Deferred[None]:
        """
        End everything: subscriptions, what waits for an answer, the connection.

        :returns: Fires when the connections are closed.
        """
        return self._finish("closed", lambda: ClientClosed("the client was closed"))

    def _command(self, name: str, fields: dict[str, Any], *, again: bool) -> Deferred[Any]:
        try:
            self.connect()
            command = self._outbox.add(name, fields_json(fields), channel=fields["channel"], again=again)
        except (ClientClosed, ServerEnded, OutboxFull) as error:
            return fail(error)
        if self._connector.link is not None:
            self._connector.link.send(self._outbox.unsent())
        return command.result

    def _finish(self, reason: str, over: Callable[[], Exception]) -> Deferred[None]:
        if self._over is not None:
            return succeed(None)
        self._over = over
        link = self._connector.link
        self._connector.stop()
        self._outbox.close(over)
        self._following.end(over)
        self._set_status(Status(State.CLOSED, reason=reason))
        closed = [self._web.close()] if link is None else [self._web.close(), link.gone()]
        # One more turn: an aborted connection is gone in the next one, and one whose answer came last is kept by then.
        return gatherResults(closed).addCallback(lambda _: deferLater(self._clock, 0, self._web.close))

    # What the connector reports.

    def _negotiated(self, terms: Negotiation) -> None:
        self._following.backoff = terms.backoff
        self._following.limit(terms.channels)

    def _carried(self, link: Link, reason: str) -> None:
        # What the link before it left without an answer goes again.
        self._outbox.cut()
        self._set_status(Status(State.OPEN, link.name, reason))
        if self._connector.link is link:
            link.send(self._outbox.unsent())

    def _waiting(self, reason: str, delay: float) -> None:
        self._outbox.cut()
        self._set_status(Status(State.CONNECTING, None, reason, delay))

    def _given_up(self, why: LinkLost) -> None:
        self._finish(str(why), lambda: ServerEnded(why.code, why.reason)).addErrback(_report)

    def _told(self, data: Any) -> None:
        self._data = data
        _tell(self._data_listeners, data)

    # What the subscriptions report.

    def _channels_changed(self) -> None:
        self._connector.channels_changed()

    def _hole(self, what: str) -> None:
        if self._connector.link is not None:
            self._connector.link.lose(LinkLost(f"messages are missing: {what}"))

    def _set_status(self, status: Status) -> None:
        self._status = status
        _tell(self._listeners, status)


def _tell(listeners: Sequence[Callable[[Any], Any]], news: Any) -> None:
    for listener in list(listeners):
        try:
            listener(news)
        except Exception:
            _log.failure("A listener of the client failed")


def _json(said: Any) -> bytes:
    return b"" if said is None else msgspec.json.encode(said)


def _report(failure: Failure) -> None:
    _log.failure("Closing failed", failure=failure)
