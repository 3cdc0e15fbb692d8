"""A connection: one client as the registry sees it, whatever transport it is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rtpush.auth.permissions import Action
from rtpush.auth.revocation import Revocation
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.interfaces import ISink, IStraight
from rtpush.protocol.backoff import earlier
from rtpush.protocol.channel import Namespace
from rtpush.protocol.forms import CursorOf, WireForm
from rtpush.protocol.lifecycle import Event, State, next_state
from rtpush.protocol.position import Position, format_cursor
from rtpush.protocol.pushes import Disconnected, GapPush, PresenceEntry, Push, Subscribed, Unsubscribed
from rtpush.registry.credentials import Credentials
from rtpush.registry.outbox import Outbox
from rtpush.registry.subscription import Since, Stage, Subscription

if TYPE_CHECKING:
    from rtpush.registry.node import Node

__all__ = ["Connection"]

#: Seconds that a closing handshake may take.
_CLOSE_TIMEOUT = 5.0

#: How many commands of a client may wait for the broker before no more are read.
_MAX_COMMANDS = 64

# To look up a member of an enumeration takes longer than most of what is done with it here.
_CONNECTING, _OPEN, _CLOSING, _CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED
_SUBSCRIBE = Action.SUBSCRIBE
_ACCEPTED, _CLOSE, _LOST = Event.ACCEPTED, Event.CLOSE, Event.LOST


@implementer(IPushProducer)
class Connection:
    """
    One client.

    :ivar sink: The transport's end.
    :ivar transport: Its name: ``websocket``, ``sse``, ``longpoll`` or ``shortpoll``.
    :ivar counts: What is counted for its transport.
    :ivar order: The subscriptions in the order of the connection's cursor; they keep their places when they end.
    :ivar interval: Seconds between two heartbeats.
    :ivar duplex: Whether the client talks on it too: then it must be heard from in time, and keeps its own positions.
    :ivar peer: The address of the client, if it is not that of the transport, or limits depend on it; else empty.
    :ivar since: When it was opened, by the clock of the reactor.
    :ivar credentials: The tokens that its client has shown; nothing if there are none.
    """

    __slots__ = (
        "_asked",
        "_commands",
        "_heard",
        "_outbox",
        "counts",
        "credentials",
        "duplex",
        "id",
        "info",
        "interval",
        "node",
        "order",
        "peer",
        "since",
        "sink",
        "state",
        "subscriptions",
        "transport",
    )

    _log = Logger()

    def __init__(
        self, node: Node, sink: ISink, transport: str, *, id_: str, interval: float, duplex: bool, peer: str = ""
    ) -> None:
        self.node = node
        self.sink = sink
        self.transport = transport
        self.counts = node.counts.transports[transport]
        self.id = id_
        self.info = b""
        self.credentials: Credentials | None = None
        self.interval = interval
        self.duplex = duplex
        self.peer = peer
        self.since = node.clock.seconds()
        self.state = _CONNECTING
        self.subscriptions: dict[str, Subscription] = {}
        self.order: list[Subscription] = []
        self._outbox: Outbox | None = None
        #: How many commands have no answer yet.
        self._commands = 0
        #: When something was heard last.
        self._heard = self.since
        #: When the peer was asked for a sign of life that it has not been seen to give.
        self._asked: float | None = None

    # What transports call

    def opened(self, first_beat: float | None = None) -> None:
        """
        The transport has accepted the client: messages may go to it.

        :param first_beat: Seconds until the first heartbeat; by chance if they are not given, so that those who came
            together do not beat together.
        """
        self.state = next_state(self.state, _ACCEPTED)
        counts = self.counts
        counts.connecting -= 1
        counts.open += 1
        self._beat_in(earlier(self.interval, 0.5, self.node.chance()) if first_beat is None else first_beat)

    def heard(self) -> None:
        """Something came from the peer."""
        self._heard = self.node.clock.seconds()

    def closing(self) -> None:
        """The transport has begun to close."""
        if self.state in (_CONNECTING, _OPEN):
            self._count_out()
            if self.credentials is not None:
                self.credentials.detach()
            self.state = next_state(self.state, _CLOSE)
            self.counts.closing += 1
            self._end_subscriptions()
            # What still waits is not lost: the client comes back with the position of the last message that it saw.
            waited, self._outbox = not self.reads, None
            self.node.paused.pop(self, None)
            if waited:
                self.sink.resume_reading()
            self._beat_in(_CLOSE_TIMEOUT)

    def lost(self) -> None:
        """The transport is gone."""
        if self.state is not _CLOSED:
            self._count_out()
            if self.credentials is not None:
                self.credentials.detach()
            self.state = next_state(self.state, _LOST)
            self._end_subscriptions()
            self.node.forget(self)

    def doing(self, command: Deferred[Any], *, alone: bool = False) -> None:
        """
        Count a command until it is done. While there are too many, nothing is read from the client.

        To be called when everything is added that is to be done with the result: more is read after that.

        :param alone: Whether what comes after it must wait until it is done.
        """
        reads = self.reads
        weight = _MAX_COMMANDS if alone else 1
        self._commands += weight
        if reads and not self.reads and self.state is _OPEN:
            self.sink.pause_reading()
        command.addBoth(self._done, weight)

    def subscribe(self, channel: str, since: Position | Since) -> Subscribed | Deferred[Subscribed]:
        """
        Follow a channel. Nothing of it is delivered before :meth:`go`.

        :returns: Where delivery begins, if that is known; else a Deferred, which fails with :class:`RtpushError` if the
            broker is away.
        :raises RtpushError: if this may not be.
        """
        namespace = self._may_subscribe(channel)
        subscription = Subscription(self, self.node.channel(channel, namespace))
        self.subscriptions[channel] = subscription
        self.order.append(subscription)
        begun = subscription.begin(since) if self.node.hooks is None else self._begin(subscription, since)
        if isinstance(begun, Subscribed):
            if namespace.presence:
                self.node.join(channel, self.presence_entry())
            return begun
        begun.addCallback(self._subscribed, subscription)
        begun.addErrback(self._not_subscribed, subscription)
        return begun

    def go(self, channel: str) -> None:
        """Deliver a channel that :meth:`subscribe` was answered for."""
        subscription = self.subscriptions.get(channel)
        if subscription is not None:
            subscription.go()

    def unsubscribe(self, channel: str) -> None:
        """
        Follow a channel no longer.

        :raises RtpushError: ``not_subscribed``.
        """
        subscription = self.subscriptions.pop(channel, None)
        if subscription is None:
            raise RtpushError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to {channel!r}")
        self._end(subscription)

    def introduce(self, credentials: Credentials | None, info: bytes) -> None:
        """
        Say whose connection this is.

        :param info: What the client says of itself. What its token says comes before that.
        """
        self.info = info
        if credentials is not None:
            credentials.attach(self)

    # What subscriptions and the fan-out call

    @property
    def is_alive(self) -> bool:
        """Whether it has not begun to close."""
        return self.state is _OPEN or self.state is _CONNECTING

    @property
    def user(self) -> str:
        """Whose connection it is, as the token says; or nothing."""
        return "" if self.credentials is None else self.credentials.user

    @property
    def form(self) -> WireForm:
        """The wire form of the transport."""
        form: WireForm = self.sink.form
        return form

    @property
    def shares(self) -> bool:
        """
        Whether the bytes for this connection are those of all with the same wire form.

        They are not if they hold a cursor of several channels.
        """
        return self.duplex or len(self.order) == 1

    @property
    def straight(self) -> IStraight | None:
        """What the fan-out may write to without asking this connection, if there is something like that now."""
        straight: IStraight | None = self.sink.straight if self._outbox is None else None
        return straight

    @property
    def paused(self) -> bool:
        """Whether the transport has not yet taken what it was given."""
        return self._outbox is not None

    @property
    def reads(self) -> bool:
        """Whether input is taken: not while the peer does not read, nor while too many of its commands wait."""
        return self._outbox is None and self._commands < _MAX_COMMANDS

    @property
    def queued(self) -> int:
        """Bytes that wait for the transport."""
        return 0 if self._outbox is None else self._outbox.size

    def cursor_of(self, subscription: Subscription) -> CursorOf:
        """Return what makes this connection's cursor from a position of one of its subscriptions."""
        if self.shares:
            return str
        return lambda position: format_cursor(
            position if other is subscription else other.position for other in self.order
        )

    def cursor(self) -> str:
        """
        Return where this connection is in all of its channels.

        Before it is open that is where its client asked to begin: it has got nothing, and was told of no gap. It is
        empty if that is at the earliest message, for which a cursor has no word.
        """
        if self.state is _CONNECTING:
            asked = [subscription.asked for subscription in self.order]
            if Since.EARLIEST in asked:
                return ""
            return format_cursor(start if isinstance(start, Position) else None for start in asked)
        return format_cursor(subscription.position for subscription in self.order)

    def deliver(self, data: bytes) -> bool:
        """
        Send bytes of the wire form.

        :returns: Whether they were taken: all, or (the queue is full) nothing.
        """
        if self.state is not _OPEN:
            return True
        if self._outbox is None:
            self.sink.write(data)
            return True
        return self._outbox.put(data)

    def deliver_at_once(self, data: bytes) -> bool:
        """
        Send bytes of the wire form if they can go out at once.

        :returns: Whether they were taken: all, or (something waits before them) nothing.
        """
        return self._outbox is None and self.deliver(data)

    def push(self, push: Push) -> None:
        """
        Tell the client something.

        A client whose queue is full, or whose wire form has no room for what it must know, is disconnected with the
        reason instead.
        """
        # Only a form without commands has a cursor in it.
        data = self.form.push(push, "" if self.duplex else self.cursor())
        if data:
            if not self.deliver(data):
                self.disconnect(Disconnect.SLOW_READER)
        elif isinstance(push, GapPush):
            self.disconnect(Disconnect.GAP, reason=str(push.position))
        elif isinstance(push, Unsubscribed):
            self.disconnect(Disconnect.of(push.code), reason=push.reason)

    def disconnect(
        self, why: Disconnect, *, code: int | None = None, reason: str | None = None, after: float | None = None
    ) -> None:
        """
        End this connection in good order.

        :param code: Another code than that of ``why``; its range must say the same about coming back.
        :param after: Seconds after which the client is asked to come back.
        """
        if self.state in (_CLOSING, _CLOSED):
            return
        self.node.counts.disconnected(why)
        farewell = Disconnected(code or why.code, reason or why.reason, why.reconnect, after)
        if self.credentials is not None:
            self.credentials.ends_by(farewell.code, farewell.reason)
        data = self.form.push(farewell, self.cursor())
        self.closing()
        self.sink.finish(data, farewell.code, farewell.reason)

    def failed(self, doing: str, failure: Failure | None = None) -> None:
        """Something of ours went wrong for this connection: log it, and end it alone."""
        self._log.failure("{doing} failed", failure=failure, doing=doing, connection=self.id)
        try:
            self.disconnect(Disconnect.INTERNAL_ERROR)
        except Exception:
            self._log.failure("it could not be ended in good order", connection=self.id)
            self.abort()

    def abort(self) -> None:
        """End this connection at once; its transport tells when it is gone."""
        try:
            self.sink.abort()
        except Exception:
            self._log.failure("it could not be ended", connection=self.id)

    def end_subscription(self, channel: str, reason: str, why: Disconnect = Disconnect.UNSUBSCRIBED) -> bool:
        """End a subscription for the client, and tell it; say whether there was one."""
        subscription = self.subscriptions.pop(channel, None)
        if subscription is None:
            return False
        self._end(subscription)
        self.push(Unsubscribed(channel, why.code, reason))
        if not self.subscriptions and not self.duplex:
            # Nothing can come any more, and the client cannot ask for anything here.
            self.disconnect(why, reason=reason)
        return True

    def review(self, channel: str | None = None, why: Disconnect = Disconnect.UNSUBSCRIBED) -> None:
        """
        End the subscriptions that the client may not have any more, with what it has shown.

        :param channel: To look at this one alone.
        :param why: What they end with, if their tokens were not taken back.
        """
        for name in list(self.subscriptions) if channel is None else [channel]:
            subscription = self.subscriptions.get(name)
            if subscription is not None:
                namespace = subscription.channel.namespace
                error = self.node.refusal(self.credentials, _SUBSCRIBE, name, namespace)
                if error is not None:
                    is_revoked = error.kind is ErrorCode.TOKEN_REVOKED
                    ends = Disconnect.TOKEN_REVOKED if is_revoked else why
                    is_told = why is Disconnect.UNSUBSCRIBED and not is_revoked
                    self.end_subscription(name, error.kind.name.lower() if is_told else ends.reason, ends)

    def revoked(self, revocation: Revocation) -> None:
        """Something was taken back; perhaps this client has it."""
        credentials, revocations = self.credentials, self.node.revoking.revocations
        if credentials is None:
            return
        if revocation.channel:
            self.review(revocation.channel)
            return
        now = self.node.now()
        grant = credentials.grant
        if grant is not None and revocations.is_revoked(grant, "", now):
            self.disconnect(Disconnect.TOKEN_REVOKED)
            return
        for grant in list(credentials.grants()):
            if grant.channel and revocations.is_revoked(grant, "", now):
                credentials.drop(grant.channel)
                self.review(grant.channel, Disconnect.TOKEN_REVOKED)

    def tick(self) -> None:
        """The deadline that was set last has passed."""
        if self.state is _CLOSING:
            self.abort()
        elif self._asked is None:
            self._ask()
        elif self._heard >= self._asked or self._commands >= _MAX_COMMANDS:
            self._asked = None
            self._beat_in(max(self.interval - self.node.heartbeat_grace, 0.0))
        elif (left := self._heard + self.interval + self.node.heartbeat_grace - self.node.clock.seconds()) > 0:
            # A client need not answer at once, if it says something often enough by itself.
            self._beat_in(left)
        else:
            self.disconnect(Disconnect.SLOW_READER if self.paused else Disconnect.NO_HEARTBEAT)

    def _ask(self) -> None:
        """Show the peer that this side lives, and see later whether it does."""
        if self.duplex or self.paused:
            self._asked = self.node.clock.seconds()
        if self.paused:
            # One that has not read for a whole interval will not.
            self._beat_in(self.interval)
        else:
            self._beat_in(self.node.heartbeat_grace if self.duplex else self.interval)
            self.sink.heartbeat()

    # IPushProducer: the transport's back-pressure

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        if self._outbox is None and self.state is _OPEN:
            reads = self.reads
            self._outbox = Outbox(self.node.limits.queue_bytes)
            self.node.paused[self] = None
            self._go_straight_or_not()
            if reads:
                self.sink.pause_reading()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        waiting, self._outbox = self._outbox, None
        if waiting is None or self.state is not _OPEN:
            return
        self.node.paused.pop(self, None)
        # Writing may fill the transport's buffer, and so pause us, again.
        while (data := waiting.pop()) is not None:
            self.sink.write(data)
            if self.paused:
                self._outbox = waiting
                return
        self._read_again()
        self._go_straight_or_not()
        for channel, subscription in list(self.subscriptions.items()):
            if self.paused or self.state is not State.OPEN:
                return
            if subscription.awaits_room:
                # Next time the others are first.
                self.subscriptions[channel] = self.subscriptions.pop(channel)
                subscription.resume()

    def _go_straight_or_not(self) -> None:
        """Have the fan-out look anew at whether it can write straight to the transport."""
        for subscription in self.subscriptions.values():
            if subscription.stage is Stage.LIVE:
                subscription.channel.live[self.form].add(subscription)

    def stopProducing(self) -> None:
        """The transport takes nothing more; that it is lost is said elsewhere."""

    def _count_out(self) -> None:
        """Count it no more in the state that it leaves."""
        counts = self.counts
        if self.state is _OPEN:
            counts.open -= 1
        elif self.state is _CONNECTING:
            counts.connecting -= 1
        else:
            counts.closing -= 1

    def _may_subscribe(self, channel: str) -> Namespace:
        namespace = self.node.namespaces.of(channel)
        error = self.node.refusal(self.credentials, _SUBSCRIBE, channel, namespace)
        if error is not None:
            raise error
        if channel in self.subscriptions:
            raise RtpushError(ErrorCode.ALREADY_SUBSCRIBED, f"already subscribed to {channel!r}")
        limit = self.node.limits.channels_per_connection
        if len(self.subscriptions) >= limit:
            raise RtpushError(ErrorCode.LIMIT_EXCEEDED, f"a connection may follow {limit} channels at most")
        return namespace

    def _begin(self, subscription: Subscription, since: Position | Since) -> Subscribed | Deferred[Subscribed]:
        """Find out where delivery begins when the application permits it."""
        guest = None if self.credentials is None else self.credentials.guest
        hooks, channel = self.node.hooks, subscription.channel
        if hooks is None or guest is None or not channel.namespace.hooks:
            return subscription.begin(since)
        told: list[bytes] = []
        asked = hooks.subscribe(guest, channel.name).addCallback(told.append)
        begun = subscription.begin_after(asked, since)
        return begun.addCallback(lambda subscribed: subscribed.with_data(told[0]) if told[0] else subscribed)

    def _subscribed(self, subscribed: Subscribed, subscription: Subscription) -> Subscribed:
        if subscription.ended:
            raise RtpushError(ErrorCode.NOT_SUBSCRIBED, f"no longer subscribed to {subscribed.channel!r}")
        if subscription.channel.namespace.presence:
            self.node.join(subscribed.channel, self.presence_entry())
        return subscribed

    def _not_subscribed(self, failure: Failure, subscription: Subscription) -> Failure:
        if not subscription.ended:
            del self.subscriptions[subscription.channel.name]
            self._end(subscription)
        return failure

    def _done(self, result: Any, weight: int) -> Any:
        reads = self.reads
        self._commands -= weight
        if not reads and self.state is _OPEN:
            self._read_again()
        return result

    def _read_again(self) -> None:
        """Take input again, if nothing is in the way of that."""
        if self.reads:
            # What it said meanwhile was not heard.
            self.heard()
            self.sink.resume_reading()

    def presence_entry(self) -> PresenceEntry:
        """Return this connection as the others in a channel see it."""
        return PresenceEntry(self.id, self.transport, self.info, self.user)

    def _end(self, subscription: Subscription) -> None:
        subscription.end()
        if self.credentials is not None:
            self.credentials.drop(subscription.channel.name)
        if self.duplex:
            # Its cursor is the client's own affair, so the place is not kept.
            self.order.remove(subscription)
        if subscription.channel.namespace.presence:
            self.node.leave(subscription.channel.name, self.presence_entry())
        self.node.release(subscription.channel)

    def _end_subscriptions(self) -> None:
        subscriptions, self.subscriptions = self.subscriptions, {}
        for subscription in subscriptions.values():
            self._end(subscription)

    def _beat_in(self, seconds: float) -> None:
        self.node.wheel.set(self, self.node.clock.seconds() + seconds)
