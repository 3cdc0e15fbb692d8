"""
The memory engine: one node, nothing to install.

History ends with the process: after a restart every channel has a new epoch, so a client's old position is told as a
gap, never mistaken for a new one.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from rtpush.errors import ErrorCode, RtpushError
from rtpush.interfaces import IBroker, IBrokerReceiver, IHealthCheck, IPresence, IReconfigurable
from rtpush.protocol.channel import Namespace, Namespaces
from rtpush.protocol.commands import Publication
from rtpush.protocol.history import History
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Page, gap_between
from rtpush.protocol.wheel import TimerWheel

__all__ = ["Epochs", "MemoryBroker"]

#: Seconds between two looks at what has expired.
SWEEP_INTERVAL = 1.0


class Epochs:
    """
    Makes the epochs of channels: 8 letters and digits, which nobody can foresee and no other process repeats.

    They follow from the channel and the life that it is in. So one that nothing was published to can be forgotten, and
    has its epoch again when somebody asks for it: a client that comes back is not told of a gap that is none.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def __call__(self, channel: str, life: int) -> str:
        """Return the epoch of a channel in a life."""
        digest = hashlib.blake2s(f"{life} {channel}".encode(), key=self._key, digest_size=5).digest()
        return base64.b32encode(digest).decode().lower()


class _Channel:
    """What the engine keeps of one channel."""

    __slots__ = ("history", "keys", "present", "subscribed", "used")

    def __init__(self, history: History, now: float) -> None:
        self.history = history
        self.subscribed = False
        self.present: dict[str, PresenceEntry] | None = None
        #: Idempotency keys: when each was used, and what came of it; oldest first.
        self.keys: OrderedDict[str, tuple[float, Position | None]] | None = None
        #: When the channel was last published to or left.
        self.used = now


@implementer(IBroker, IPresence, IHealthCheck, IReconfigurable)
class MemoryBroker:
    """
    Keeps everything in this process.

    :param position_ttl: Seconds for which the position of an idle channel is remembered, if it ever had a message.
    :param idempotency_window: Seconds for which an idempotency key counts.
    :param max_channels: How many channels are remembered at most; 0 is any number.
    """

    def __init__(
        self,
        clock: IReactorTime,
        namespaces: Namespaces,
        *,
        position_ttl: float,
        idempotency_window: float,
        max_channels: int = 0,
        make_epoch: Callable[[str, int], str] | None = None,
    ) -> None:
        self._clock = clock
        self._namespaces = namespaces
        self._position_ttl = position_ttl
        self._idempotency_window = idempotency_window
        self._max_channels = max_channels
        self._make_epoch = make_epoch or Epochs()
        #: The life that new channels are in: another one since a channel with messages was forgotten.
        self._life = 0
        self._channels: dict[str, _Channel] = {}
        self._wheel: TimerWheel[str] = TimerWheel(SWEEP_INTERVAL, clock.seconds())
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self._receiver: IBrokerReceiver | None = None

    def __len__(self) -> int:
        """Return how many channels are remembered."""
        return len(self._channels)

    # IBroker

    def start(self, receiver: IBrokerReceiver) -> Deferred[None]:
        self._receiver = receiver
        self._sweeping.start(SWEEP_INTERVAL, now=False)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._receiver = None
        if self._sweeping.running:
            self._sweeping.stop()
        return succeed(None)

    def publish(self, publication: Publication) -> Deferred[Position | None]:
        try:
            return succeed(self._publish(publication))
        except RtpushError as error:
            return fail(error)

    def history(self, channel: str, since: Position | None, limit: int) -> Deferred[Page]:
        return maybeDeferred(self._history, channel, since, limit)

    def history_before(self, channel: str, before: Position | None, limit: int) -> Deferred[Page]:
        return maybeDeferred(self._history_before, channel, before, limit)

    def subscribe(self, channel: str) -> Deferred[Position]:
        try:
            state = self._channel(channel)
        except RtpushError as error:
            return fail(error)
        state.subscribed = True
        return succeed(state.history.position)

    def unsubscribe(self, channel: str) -> Deferred[None]:
        state = self._channels.get(channel)
        if state is not None:
            state.subscribed = False
            state.used = self._clock.seconds()
            self._schedule(channel, state)
        return succeed(None)

    # IPresence

    def join(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        try:
            state = self._channel(channel)
        except RtpushError as error:
            return fail(error)
        if state.present is None:
            state.present = {}
        state.present[entry.connection] = entry
        if self._receiver is not None and state.subscribed:
            self._receiver.joined(channel, entry)
        return succeed(None)

    def leave(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        state = self._channels.get(channel)
        if state is not None and state.present is not None and state.present.pop(entry.connection, None) is not None:
            if not state.present:
                state.present = None
            if self._receiver is not None and state.subscribed:
                self._receiver.left(channel, entry)
            self._schedule(channel, state)
        return succeed(None)

    def presence(self, channel: str) -> Deferred[Sequence[PresenceEntry]]:
        state = self._channels.get(channel)
        return succeed(list(state.present.values()) if state is not None and state.present else [])

    # IHealthCheck

    def problem(self) -> str | None:
        return None

    # IReconfigurable

    def reconfigured(self, namespaces: Sequence[Namespace], message_bytes: int) -> None:
        now = self._clock.seconds()
        for name, state in self._channels.items():
            try:
                namespace = self._namespaces.of(name)
            except RtpushError:
                # Nobody can publish there, and what it keeps expires as before.
                continue
            if state.history.size != namespace.history_size:
                state.history.size = namespace.history_size
            state.history.ttl = namespace.history_ttl
            self._wheel.set(name, now)

    def _channel(self, name: str) -> _Channel:
        """
        Return what is kept of a channel, beginning it if nothing is.

        :raises RtpushError: ``unavailable`` if there is no room for another one.
        """
        state = self._channels.get(name)
        if state is None:
            if 0 < self._max_channels <= len(self._channels):
                raise RtpushError(ErrorCode.UNAVAILABLE, "there are as many channels as may be: see max_channels")
            namespace = self._namespaces.of(name)
            history = History(self._make_epoch(name, self._life), namespace.history_size, namespace.history_ttl)
            now = self._clock.seconds()
            state = self._channels[name] = _Channel(history, now)
            # At the next sweep it is seen whether there is anything to remember of it.
            self._wheel.set(name, now)
        return state

    def _publish(self, publication: Publication) -> Position | None:
        now = self._clock.seconds()
        state = self._channel(publication.channel)
        key = publication.idempotency_key
        if key is not None and state.keys is not None and (used := state.keys.get(key)) is not None:
            if used[0] > now - self._idempotency_window:
                return used[1]
            del state.keys[key]
        history = state.history
        position = Position(history.epoch, history.top + 1) if publication.history else None
        message = Message(publication.channel, publication.payload, publication.event, position)
        if position is not None:
            history.append(message, now)
        if key is not None:
            state.keys = state.keys or OrderedDict()
            state.keys[key] = (now, position)
        state.used = now
        self._schedule(publication.channel, state)
        if self._receiver is not None and state.subscribed:
            self._receiver.received(message)
        return position

    def _history(self, channel: str, since: Position | None, limit: int) -> Page:
        history = self._channel(channel).history
        history.expire(self._clock.seconds())
        top = history.position
        gap = None if since is None else gap_between(since, top, len(history))
        if gap is not None:
            return Page((), top, gap)
        return Page(history.after(0 if since is None else since.offset, limit), top)

    def _history_before(self, channel: str, before: Position | None, limit: int) -> Page:
        history = self._channel(channel).history
        history.expire(self._clock.seconds())
        top = history.position
        if before is not None and before.epoch != top.epoch:
            return Page((), top, gap_between(before, top, len(history)))
        return Page(history.before(top.offset + 1 if before is None else before.offset, limit), top)

    def _schedule(self, name: str, state: _Channel) -> None:
        """Have a channel looked at when something of it may have expired."""
        if name not in self._wheel:
            due = self._clock.seconds() + min(state.history.ttl, self._position_ttl, self._idempotency_window)
            self._wheel.set(name, due)

    def _sweep(self) -> None:
        now = self._clock.seconds()
        for name in self._wheel.expire(now):
            state = self._channels[name]
            dues = [due for due in (state.history.expire(now), self._forget_keys(state, now)) if due is not None]
            if not (state.subscribed or state.present):
                forgotten = state.used + (self._position_ttl if state.history.top else 0.0)
                if forgotten > now:
                    dues.append(forgotten)
                elif not dues:
                    del self._channels[name]
                    self._life += state.history.top > 0
                    continue
            # A channel that has nothing to expire is looked at again when something happens to it.
            if dues:
                self._wheel.set(name, min(dues))

    def _forget_keys(self, state: _Channel, now: float) -> float | None:
        """Drop the idempotency keys that no longer count; return when the next one will not."""
        while state.keys:
            due = next(iter(state.keys.values()))[0] + self._idempotency_window
            if due > now:
                return due
            state.keys.popitem(last=False)
        state.keys = None
        return None
