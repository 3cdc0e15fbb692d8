"""
The node: everything that this process knows and does, for all transports and the server API.

There is one per reactor.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import rtpush
from rtpush.auth.permissions import Action, Grant, may
from rtpush.auth.revocation import Revocation
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.interfaces import IBroker, IBrokerReceiver, ICluster, IHealthCheck, IPresence, IReconfigurable, ISink
from rtpush.protocol.addresses import TrustedProxies
from rtpush.protocol.backoff import Backoff, retry_after
from rtpush.protocol.bucket import TokenBucket
from rtpush.protocol.channel import REVOCATIONS, Access, Namespace, Namespaces
from rtpush.protocol.commands import HistoryQuery, Publication
from rtpush.protocol.limits import Limits
from rtpush.protocol.message import Message
from rtpush.protocol.position import BadCursor, Position
from rtpush.protocol.pushes import Joined, Left, PresenceEntry
from rtpush.protocol.recovery import Page
from rtpush.protocol.wheel import TimerWheel
from rtpush.registry.attendance import Attendance
from rtpush.registry.channel import Channel
from rtpush.registry.connection import Connection
from rtpush.registry.counts import Counts
from rtpush.registry.credentials import Credentials, TokenCheck, fail_without_tokens
from rtpush.registry.fanout import FanOut
from rtpush.registry.guests import Guest, Hooks
from rtpush.registry.incoming import Incoming
from rtpush.registry.known import is_known
from rtpush.registry.limiter import POLLS, Limiter
from rtpush.registry.revoking import Revoking

__all__ = ["Node"]

#: To look it up takes longer than what is done with it.
_SERVER = Access.SERVER
_PUBLISH = Action.PUBLISH

#: Seconds: how exactly heartbeats and timeouts are kept.
_WHEEL_RESOLUTION = 0.1


@implementer(IBrokerReceiver)
class Node:
    """
    One rtpush process: its connections, the channels that they follow, and the broker behind them.

    :param proxies: Whose word on who their clients are is taken.
    :param linger: Seconds for which a channel is followed after its last subscription.
    :param chance: Gives random numbers, at least 0 and below 1.
    :param soon: Has something called at the end of this turn of the reactor, or in the next one.
    :param tokens: Checks the tokens of clients; without it there are none.
    :param now: Tells the seconds since 1970, as the times in tokens have them. By default the clock does.
    :ivar hooks: Asks the application about clients; nothing if it is not asked.
    :ivar cluster: The way to the other nodes, if the broker knows any.
    :ivar answering: Answers what another node asks. Until it is set there are no answers.
    :ivar counts: What has happened here, in numbers.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        broker: IBroker,
        namespaces: Namespaces,
        *,
        name: str,
        limits: Limits,
        backoff: Backoff,
        heartbeat: float,
        heartbeat_grace: float,
        proxies: TrustedProxies | None = None,
        linger: float = 0.0,
        chance: Callable[[], float],
        soon: Callable[[Callable[[], None]], object] | None = None,
        tokens: TokenCheck | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock
        self.broker = broker
        self._presence = cast("IPresence", broker) if IPresence.providedBy(broker) else None
        self.cluster = cast("ICluster", broker) if ICluster.providedBy(broker) else None
        self.answering: Callable[[bytes], Deferred[bytes]] = _no_answer
        self.namespaces = namespaces
        self.tokens = tokens
        self.hooks: Hooks | None = None
        self.now = now or clock.seconds
        self.revoking = Revoking(self)
        #: What clients without a token may do in any channel of a namespace (bits of actions), as far as was asked.
        self._free: dict[str, int] = {}
        self.name = name
        self.limits = limits
        self.backoff = backoff
        self.heartbeat = heartbeat
        self.heartbeat_grace = min(heartbeat_grace, heartbeat)
        self.linger = linger
        self.chance = chance
        self.counts = Counts()
        self.fanout = FanOut(clock, self.counts, soon)
        self.wheel: TimerWheel[Connection] = TimerWheel(_WHEEL_RESOLUTION, clock.seconds())
        #: Deadlines of what is no connection of the registry yet, or no more.
        self.deadlines: TimerWheel[Any] = TimerWheel(_WHEEL_RESOLUTION, clock.seconds())
        self.connections: dict[str, Connection] = {}
        #: Ids for connections to come: chance is cheaper by the hundreds.
        self._ids: list[str] = []
        #: Those whose transport has not taken what it was given.
        self.paused: dict[Connection, None] = {}
        self.channels: dict[str, Channel] = {}
        #: How many bytes of history are kept for those who come back together.
        self.shared_bytes = 0
        self._attendance = Attendance(clock, self.channels)
        self.proxies = proxies or TrustedProxies()
        self.limiter = Limiter(limits, self.counts, clock.seconds)
        self.incoming = Incoming(limits.incoming_bytes, self.counts)
        self._admission = TokenBucket(limits.connect_rate, limits.connect_burst, clock.seconds())
        self.started = clock.seconds()
        self.leaving = False
        self._due = self.started
        self._turning = LoopingCall(self._turn)
        self._turning.clock = clock

    def start(self) -> Deferred[None]:
        """Begin to serve."""
        self._due = self.clock.seconds() + _WHEEL_RESOLUTION
        self._turning.start(_WHEEL_RESOLUTION, now=False)
        if self.tokens is not None:
            self.tokens.startService()
        return self.broker.start(self).addCallback(self._started)

    def _started(self, _: None) -> None:
        if self.knows_clients:
            self.revoking.start()

    @property
    def knows_clients(self) -> bool:
        """Whether somebody says who clients are, and so something can be taken back: tokens, or the application."""
        return (self.tokens is not None and self.tokens.in_use) or self.hooks is not None

    def leave_all(self) -> None:
        """Tell every client to come back later, spread over the time that the backoff spreads them."""
        self.leaving = True
        self.farewell(list(self.connections.values()))

    def farewell(self, connections: Iterable[Connection], spread: float = 0.0) -> None:
        """
        Tell clients to come back later, since this node is leaving.

        :param spread: Seconds over which they come back, if that is more than the jitter of the backoff.
        """
        first = self.backoff.delay(0, 0.0)
        spread = max(spread, self.backoff.jitter)
        for connection in connections:
            try:
                connection.disconnect(Disconnect.SERVICE_RESTART, after=first + self.chance() * spread)
            except Exception:
                connection.failed("leaving")

    def reconfigure(
        self,
        namespaces: Sequence[Namespace],
        *,
        limits: Limits,
        backoff: Backoff,
        heartbeat: float,
        heartbeat_grace: float,
        proxies: TrustedProxies | None = None,
    ) -> None:
        """
        Go on with other settings. Nobody is dropped for it.

        What connections were told when they came, such as their heartbeat, stays so for them. A channel whose namespace
        is gone keeps the subscribers that it has.
        """
        self.namespaces.replace(namespaces, limits.channel_name_bytes)
        self._free.clear()
        if self.knows_clients:
            self.revoking.start()
        self.limits = limits
        self.proxies = proxies or TrustedProxies()
        self.limiter.change(limits, self.connections.values())
        self.incoming.most = limits.incoming_bytes
        self._admission.change(limits.connect_rate, limits.connect_burst, self.clock.seconds())
        self.backoff = backoff
        self.heartbeat = heartbeat
        self.heartbeat_grace = min(heartbeat_grace, heartbeat)
        for channel in self.channels.values():
            try:
                namespace = self.namespaces.of(channel.name)
            except RtpushError:
                continue
            before, channel.namespace = channel.namespace, namespace
            if before.presence is not namespace.presence:
                tell = self.join if namespace.presence else self.leave
                for subscription in channel.subscriptions():
                    tell(channel.name, subscription.connection.presence_entry())
        broker: Any = self.broker
        if IReconfigurable.providedBy(broker):
            broker.reconfigured(namespaces, limits.message_bytes)

    def stop(self) -> Deferred[None]:
        """Serve no more."""
        if self._turning.running:
            self._turning.stop()
        if self.tokens is not None:
            self.tokens.stopService()
        self.revoking.stop()
        for connection in list(self.connections.values()):
            connection.abort()
        if self.hooks is not None:
            return self.hooks.stop().addCallback(lambda _: self.broker.stop())
        return self.broker.stop()

    def problem(self) -> str | None:
        """Say in one line why this node should get no new clients; nothing if it should."""
        if self.leaving:
            return "this node is leaving"
        broker: Any = self.broker
        problem: str | None = broker.problem() if IHealthCheck.providedBy(broker) else None
        return problem

    def retry_after(self) -> int:
        """
        Return the whole seconds after which one that is refused for a while is asked to come back, by chance.

        When too many come at once, those who are refused are spread over the time that it takes to let all of them in.
        """
        return retry_after(self.backoff.base, self._admission.wait(self.clock.seconds()), self.chance())

    # Connections

    def admit(self, peer: str = "") -> None:
        """
        Let in one more client that comes to stay. To be asked before anything is done for it.

        :param peer: Its address, where somebody asked for it.
        :raises RtpushError: ``unavailable`` if too many come at once, ``limit_exceeded`` if too many come from there.
        """
        self.limiter.come(peer)
        if not self._admission.take(self.clock.seconds()):
            self.counts.turned_away += 1
            raise RtpushError(ErrorCode.UNAVAILABLE, "too many clients come at once: come back later")

    def connect(
        self,
        sink: ISink,
        transport: str,
        *,
        interval: float,
        duplex: bool = False,
        peer: str = "",
        credentials: Credentials | None = None,
    ) -> Connection:
        """
        Register a client; its state is CONNECTING.

        :param peer: Its address, if it is not that of the transport, or somebody asked for it.
        :param credentials: What it has shown.
        :raises RtpushError: ``unavailable`` if there are as many as may be, ``limit_exceeded`` if its address or user
            has.
        """
        limiter = self.limiter
        if limiter.of_clients:
            user = "" if credentials is None else credentials.user
            limiter.enter(peer, len(self.connections), user, is_poll=transport in POLLS)
        # The application was told this id already.
        id_ = self.new_id() if credentials is None or credentials.guest is None else credentials.guest.connection
        connection = Connection(
            self, sink, transport, id_=id_, interval=interval, duplex=duplex, peer=peer
        )
        if limiter.of_clients:
            limiter.own(connection, user)
            if transport in POLLS:
                limiter.poll(connection, user)
        self.connections[id_] = connection
        counts = connection.counts
        counts.accepted += 1
        counts.connecting += 1
        return connection

    def new_id(self) -> str:
        """Return an id for a connection: 12 bytes by chance."""
        if not self._ids:
            letters = secrets.token_urlsafe(12 * 256)
            self._ids = [letters[start : start + 16] for start in range(0, len(letters), 16)]
        return self._ids.pop()

    def forget(self, connection: Connection) -> None:
        """Unregister a client whose transport is gone."""
        self.connections.pop(connection.id, None)
        self.paused.pop(connection, None)
        self.wheel.cancel(connection)
        self.limiter.leave(connection)

    def channel(self, name: str, namespace: Namespace) -> Channel:
        """Return the local side of a channel; the first subscription subscribes this node at the broker."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, namespace, self)
            channel.open()
        return channel

    def release(self, channel: Channel) -> None:
        """A subscription has ended: soon after the last one, this node is unsubscribed at the broker."""
        if not channel.waiting and not channel.live:
            if self.linger:
                # One who polls is back at once.
                self.deadlines.set(channel, self.clock.seconds() + self.linger)
            else:
                self.abandon(channel)

    def abandon(self, channel: Channel) -> None:
        """Have nothing more to do with a channel: the next subscription to it begins anew."""
        if self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            self.broker.unsubscribe(channel.name).addErrback(self._unimportant, "unsubscribe")

    # Who may do what

    @property
    def leeway(self) -> float:
        """Seconds for which a token is taken after its end."""
        return 0.0 if self.tokens is None else self.tokens.leeway

    def checked(self, token: str) -> Deferred[Grant]:
        """
        Check a token.

        :returns: What it grants. Fails with :exc:`RtpushError`: ``token_revoked`` if it was taken back, ``unavailable``
            if it is not known yet what was, and with what :attr:`tokens` says.
        """
        if self.tokens is None or not self.tokens.in_use:
            return fail_without_tokens()
        return self.tokens.check(token).addCallback(self.not_revoked)

    def not_revoked(self, grant: Grant) -> Grant:
        """
        Return what was granted, if it was not taken back.

        :raises RtpushError: ``token_revoked``, or ``unavailable`` if it is not known yet what was taken back.
        """
        if not self.revoking.is_known:
            raise RtpushError(ErrorCode.UNAVAILABLE, "it cannot be read now which tokens were taken back")
        if self.revoking.revocations.is_revoked(grant, "", self.now()):
            raise RtpushError(ErrorCode.TOKEN_REVOKED, "the token was taken back", channel=grant.channel)
        return grant

    def is_good(self, grant: Grant) -> bool:
        """Tell whether something that was granted before still holds."""
        now = self.now()
        is_over = grant.expires is not None and grant.expires <= now
        return not is_over and not self.revoking.revocations.is_revoked(grant, "", now)

    def refusal(
        self, credentials: Credentials | None, action: Action, channel: str, namespace: Namespace
    ) -> RtpushError | None:
        """
        Decide whether a client may do something in a channel: return nothing if so, else the error.

        All that clients ask for comes through here.
        """
        if credentials is None:
            bit = action.bit
            name = namespace.name
            if self._free.get(name, 0) & bit:
                return None
            error = may(None, action, channel, namespace)
            if error is None and not namespace.user_limited:
                self._free[name] = self._free.get(name, 0) | bit
            return error
        grant = credentials.grant_for(action, channel)
        error = may(grant, action, channel, namespace)
        if error is not None or grant is None or not len(self.revoking.revocations):
            return error
        if not self.revoking.revocations.is_revoked(grant, channel, self.now()):
            return None
        # What the token permits is taken back, what all may do is not.
        if may(None, action, channel, namespace) is None:
            return None
        return RtpushError(ErrorCode.TOKEN_REVOKED, f"{action.word} in {channel!r}: the token was taken back for it")

    def _check(
        self, access: Access, credentials: Credentials | None, action: Action, channel: str, namespace: Namespace
    ) -> None:
        if access is not _SERVER:
            error = self.refusal(credentials, action, channel, namespace)
            if error is not None:
                raise error

    def revoked(self, revocation: Revocation) -> None:
        """Something was taken back: those who have it lose it now."""
        if revocation.channel:
            channel = self.channels.get(revocation.channel)
            concerned = [] if channel is None else [each.connection for each in channel.subscriptions()]
        else:
            concerned = list(self.connections.values())
        for connection in concerned:
            if connection.credentials is not None:
                try:
                    connection.revoked(revocation)
                except Exception:
                    connection.failed("taking a token back")

    # What clients and backends ask for

    def publish(
        self,
        publication: Publication,
        access: Access,
        road: str = "api",
        credentials: Credentials | None = None,
    ) -> Deferred[Position | None]:
        """
        Publish a message for a client or backend.

        :param access: Who asks: ``SERVER`` for a backend, which may do everything.
        :param road: How it came here: ``api``, ``websocket`` or ``emit``.
        :param credentials: What a client has shown.
        :returns: Its position, when it is in history. Fails with :class:`RtpushError` if it may not be published, or
            the broker is away.
        """
        try:
            namespace = self.namespaces.of(publication.channel)
            self._check(access, credentials, _PUBLISH, publication.channel, namespace)
            size = len(publication.payload.data)
            if size > self.limits.message_bytes:
                raise RtpushError(
                    ErrorCode.MESSAGE_TOO_LARGE,
                    f"the message has {size} bytes, expected {self.limits.message_bytes} at most",
                )
        except RtpushError as error:
            return fail(error)
        if self.hooks is not None and access is not _SERVER and namespace.hooks and credentials is not None:
            guest = credentials.guest
            if guest is not None:
                return self.hooks.publish(guest, publication).addCallback(self._allowed, guest, namespace, road)
        return self._publish(publication, namespace, road, size)

    def _allowed(
        self, publication: Publication, guest: Guest, namespace: Namespace, road: str
    ) -> Deferred[Position | None]:
        """The application permits something to be published, perhaps in other words."""
        if not guest.is_in:
            raise RtpushError(ErrorCode.UNAVAILABLE, "the client has gone")
        size = len(publication.payload.data)
        if size > self.limits.message_bytes:
            raise RtpushError(ErrorCode.MESSAGE_TOO_LARGE, f"the application has made a message of {size} bytes of it")
        return self._publish(publication, namespace, road, size)

    def _publish(
        self, publication: Publication, namespace: Namespace, road: str, size: int
    ) -> Deferred[Position | None]:
        counts = self.counts
        counts.published[road] += 1
        of_namespace = counts.namespaces[namespace.name]
        of_namespace.published += 1
        of_namespace.published_bytes += size
        return self.broker.publish(publication)

    def history(
        self, query: HistoryQuery, access: Access, credentials: Credentials | None = None
    ) -> Deferred[Page]:
        """Read what a channel keeps. Fails with :class:`RtpushError`."""
        try:
            namespace = self.namespaces.of(query.channel)
            self._check(access, credentials, Action.HISTORY, query.channel, namespace)
            if namespace.history_size == 0:
                raise RtpushError(ErrorCode.NOT_AVAILABLE, f"{query.channel!r} keeps no history")
            if not 0 <= query.limit <= 10_000:
                raise RtpushError(ErrorCode.BAD_REQUEST, f"limit is {query.limit}, expected 0 to 10000")
            since = None if query.since is None else Position.parse(query.since)
        except BadCursor as error:
            return fail(RtpushError(ErrorCode.BAD_CURSOR, str(error)))
        except RtpushError as error:
            return fail(error)
        read = self.broker.history_before if query.reverse else self.broker.history
        return read(query.channel, since, query.limit)

    def presence(
        self, channel: str, access: Access, credentials: Credentials | None = None
    ) -> Deferred[Sequence[PresenceEntry]]:
        """List who is in a channel. Fails with :class:`RtpushError`."""
        try:
            namespace = self.namespaces.of(channel)
            self._check(access, credentials, Action.PRESENCE, channel, namespace)
            if not namespace.presence or self._presence is None:
                raise RtpushError(ErrorCode.NOT_AVAILABLE, f"{channel!r} has no presence")
        except RtpushError as error:
            return fail(error)
        return self._presence.presence(channel)

    def join(self, channel: str, entry: PresenceEntry) -> None:
        """A connection is in a channel now."""
        if self._presence is not None:
            self._heed(self._presence.join(channel, entry), "presence")

    def leave(self, channel: str, entry: PresenceEntry) -> None:
        """A connection is no longer in a channel."""
        if self._presence is not None:
            self._heed(self._presence.leave(channel, entry), "presence")

    # IBrokerReceiver

    def received(self, message: Message) -> None:
        self.counts.received += 1
        channel = self.channels.get(message.channel)
        if channel is not None:
            channel.received(message)
        elif message.channel == REVOCATIONS:
            self.revoking.received(message)

    def compared(self, channel: str, top: Position) -> None:
        local = self.channels.get(channel)
        if local is not None:
            local.compared(top)
        elif channel == REVOCATIONS:
            self.revoking.compared(top)

    def joined(self, channel: str, entry: PresenceEntry) -> None:
        self._attendance.announce(Joined(channel, entry))

    def left(self, channel: str, entry: PresenceEntry) -> None:
        self._attendance.announce(Left(channel, entry))

    def status(self) -> bytes:
        return msgspec.json.encode(
            {
                "node": self.name,
                "version": rtpush.__version__,
                "pid": os.getpid(),
                "uptime": round(self.clock.seconds() - self.started, 3),
                "leaving": self.leaving,
                "connections": len(self.connections),
                "transports": {
                    transport: counts.present for transport, counts in self.counts.transports.items() if counts.present
                },
                "channels": len(self.channels),
            }
        )

    def asked(self, question: bytes) -> Deferred[bytes]:
        return maybeDeferred(self.answering, question)

    def _turn(self) -> None:
        now = self.clock.seconds()
        self._see_lag(now)
        for late in (*self.wheel.expire(now), *self.deadlines.expire(now)):
            try:
                late.tick()
            except Exception:
                late.failed("heartbeat")

    def _see_lag(self, now: float) -> None:
        """Count how much later than it should it is called."""
        lag = max(0.0, now - self._due)
        self.counts.lag.observe(lag)
        # When it was late, it is called next when it would have been anyway.
        self._due += _WHEEL_RESOLUTION * (1 + int(lag / _WHEEL_RESOLUTION))

    def _heed(self, result: Deferred[None], doing: str) -> None:
        """Log what of our own goes wrong with something that nobody waits for."""
        if not is_known(result):
            result.addErrback(self._unimportant, doing)

    def _unimportant(self, failure: Failure, doing: str) -> None:
        """The broker will find out by itself, or is away and says so elsewhere."""
        if not failure.check(RtpushError):
            self._log.failure("{doing} failed", failure=failure, doing=doing)


def _no_answer(question: bytes) -> Deferred[bytes]:
    raise RtpushError(ErrorCode.NOT_AVAILABLE, "this node answers no questions")
