"""
The node: everything that this process knows and does, for all transports and the server API.

There is one per reactor.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import rtpush
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.interfaces import IBroker, IBrokerReceiver, ICluster, IHealthCheck, IPresence, ISink
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Access, Namespace, Namespaces
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
from rtpush.registry.fanout import FanOut

__all__ = ["Node"]

#: Seconds: how exactly heartbeats and timeouts are kept.
_WHEEL_RESOLUTION = 0.1

#: Seconds over which those who are refused for a while are spread.
_RETRY_SPREAD = 5


@implementer(IBrokerReceiver)
class Node:
    """
    One rtpush process: its connections, the channels that they follow, and the broker behind them.

    :param linger: Seconds for which a channel is followed after its last subscription.
    :param chance: Gives random numbers, at least 0 and below 1.
    :ivar cluster: The way to the other nodes, if the broker knows any.
    :ivar answering: Answers what another node asks. Until it is set there are no answers.
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
        linger: float = 0.0,
        chance: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.broker = broker
        self._presence = cast("IPresence", broker) if IPresence.providedBy(broker) else None
        self.cluster = cast("ICluster", broker) if ICluster.providedBy(broker) else None
        self.answering: Callable[[bytes], Deferred[bytes]] = _no_answer
        self.namespaces = namespaces
        self.name = name
        self.limits = limits
        self.backoff = backoff
        self.heartbeat = heartbeat
        self.heartbeat_grace = min(heartbeat_grace, heartbeat)
        self.linger = linger
        self.chance = chance
        self.fanout = FanOut(clock)
        self.wheel: TimerWheel[Connection] = TimerWheel(_WHEEL_RESOLUTION, clock.seconds())
        #: Deadlines of what is no connection of the registry yet, or no more.
        self.deadlines: TimerWheel[Any] = TimerWheel(_WHEEL_RESOLUTION, clock.seconds())
        self.connections: dict[str, Connection] = {}
        #: How many connections there are of each transport.
        self._transports: dict[str, int] = {}
        self.channels: dict[str, Channel] = {}
        self._attendance = Attendance(clock, self.channels)
        self.started = clock.seconds()
        self.leaving = False
        self._turning = LoopingCall(self._turn)
        self._turning.clock = clock

    def start(self) -> Deferred[None]:
        """Begin to serve."""
        self._turning.start(_WHEEL_RESOLUTION, now=False)
        return self.broker.start(self)

    def leave_all(self) -> None:
        """Tell every client to come back later, spread over the time that the backoff spreads them."""
        self.leaving = True
        for connection in list(self.connections.values()):
            try:
                connection.disconnect(Disconnect.SERVICE_RESTART, after=self.backoff.delay(0, self.chance()))
            except Exception:
                connection.failed("leaving")

    def stop(self) -> Deferred[None]:
        """Serve no more."""
        if self._turning.running:
            self._turning.stop()
        for connection in list(self.connections.values()):
            connection.abort()
        return self.broker.stop()

    def problem(self) -> str | None:
        """Say in one line why this node should get no new clients; nothing if it should."""
        if self.leaving:
            return "this node is leaving"
        broker: Any = self.broker
        problem: str | None = broker.problem() if IHealthCheck.providedBy(broker) else None
        return problem

    def retry_after(self) -> int:
        """Return the whole seconds after which one that is refused for a while is asked to come back, by chance."""
        return max(1, math.ceil(self.backoff.base)) + int(self.chance() * _RETRY_SPREAD)

    # Connections

    def connect(self, sink: ISink, transport: str, *, interval: float, duplex: bool = False) -> Connection:
        """Register a client; its state is CONNECTING."""
        connection = Connection(
            self, sink, transport, id_=secrets.token_urlsafe(12), interval=interval, duplex=duplex
        )
        self.connections[connection.id] = connection
        self._transports[transport] = self._transports.get(transport, 0) + 1
        return connection

    def forget(self, connection: Connection) -> None:
        """Unregister a client whose transport is gone."""
        if self.connections.pop(connection.id, None) is not None:
            self._transports[connection.transport] -= 1
        self.wheel.cancel(connection)

    def channel(self, name: str, namespace: Namespace) -> Channel:
        """Return the local side of a channel; the first subscription subscribes this node at the broker."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, namespace, self)
            channel.open()
        return channel

    def release(self, channel: Channel) -> None:
        """A subscription has ended: soon after the last one, this node is unsubscribed at the broker."""
        if not len(channel):
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

    # What clients and backends ask for

    def publish(self, publication: Publication, access: Access) -> Deferred[Position | None]:
        """
        Publish a message for a client or backend.

        :returns: Its position, when it is in history. Fails with :class:`RtpushError` if it may not be published, or
            the broker is away.
        """
        try:
            namespace = self.namespaces.of(publication.channel)
            if access is Access.ANYONE and namespace.publish is Access.SERVER:
                raise RtpushError(
                    ErrorCode.PERMISSION_DENIED, f"clients may not publish to {publication.channel!r}"
                )
            size = len(publication.payload.data)
            if size > self.limits.message_bytes:
                raise RtpushError(
                    ErrorCode.MESSAGE_TOO_LARGE,
                    f"the message has {size} bytes, expected {self.limits.message_bytes} at most",
                )
        except RtpushError as error:
            return fail(error)
        return self.broker.publish(publication)

    def history(self, query: HistoryQuery, access: Access) -> Deferred[Page]:
        """Read what a channel keeps. Fails with :class:`RtpushError`."""
        try:
            namespace = self._readable(query.channel, access)
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

    def presence(self, channel: str, access: Access) -> Deferred[Sequence[PresenceEntry]]:
        """List who is in a channel. Fails with :class:`RtpushError`."""
        try:
            namespace = self._readable(channel, access)
            if not namespace.presence or self._presence is None:
                raise RtpushError(ErrorCode.NOT_AVAILABLE, f"{channel!r} has no presence")
        except RtpushError as error:
            return fail(error)
        return self._presence.presence(channel)

    def join(self, channel: str, entry: PresenceEntry) -> None:
        """A connection is in a channel now."""
        if self._presence is not None:
            self._presence.join(channel, entry).addErrback(self._unimportant, "presence")

    def leave(self, channel: str, entry: PresenceEntry) -> None:
        """A connection is no longer in a channel."""
        if self._presence is not None:
            self._presence.leave(channel, entry).addErrback(self._unimportant, "presence")

    # IBrokerReceiver

    def received(self, message: Message) -> None:
        channel = self.channels.get(message.channel)
        if channel is not None:
            channel.received(message)

    def compared(self, channel: str, top: Position) -> None:
        local = self.channels.get(channel)
        if local is not None:
            local.compared(top)

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
                "transports": {transport: count for transport, count in self._transports.items() if count},
                "channels": len(self.channels),
            }
        )

    def asked(self, question: bytes) -> Deferred[bytes]:
        return maybeDeferred(self.answering, question)

    def _readable(self, channel: str, access: Access) -> Namespace:
        namespace = self.namespaces.of(channel)
        if access is Access.ANYONE and namespace.subscribe is Access.SERVER:
            raise RtpushError(ErrorCode.PERMISSION_DENIED, f"clients may not read {channel!r}")
        return namespace

    def _turn(self) -> None:
        now = self.clock.seconds()
        for late in (*self.wheel.expire(now), *self.deadlines.expire(now)):
            try:
                late.tick()
            except Exception:
                late.failed("heartbeat")

    def _unimportant(self, failure: Failure, doing: str) -> None:
        """The broker will find out by itself, or is away and says so elsewhere."""
        if not failure.check(RtpushError):
            self._log.failure("{doing} failed", failure=failure, doing=doing)


def _no_answer(question: bytes) -> Deferred[bytes]:
    raise RtpushError(ErrorCode.NOT_AVAILABLE, "this node answers no questions")
