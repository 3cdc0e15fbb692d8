"""All subscriptions of a client: what a link hears goes to the right one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.client.errors import ServerEnded
from rtpush.client.subscription import Subscription
from rtpush.client.token import Token
from rtpush.client.wants import Want
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, Joined, Left, Unsubscribed
from rtpush.protocol.recovery import Gap, Tail

__all__ = ["Following"]

_log = Logger()


class Following:
    """
    The subscriptions of a client, by channel, in the order in which they were made.

    :param changed: Called when the channels are not what they were.
    :param hole: Called with what is wrong when messages are missing before one that came.
    :param chance: Returns a random number, at least 0 and below 1.
    """

    def __init__(
        self,
        clock: IReactorTime,
        chance: Callable[[], float],
        changed: Callable[[], None],
        hole: Callable[[str], None],
    ) -> None:
        self.backoff = Backoff()
        self._clock = clock
        self._chance = chance
        self._changed = changed
        self._hole = hole
        self._subscriptions: dict[str, Subscription] = {}
        self._limit: int | None = None

    def add(self, subscription: Subscription) -> None:
        """
        Follow a channel.

        :raises ValueError: if it is followed already.
        """
        if subscription.channel in self._subscriptions:
            raise ValueError(f"already subscribed to {subscription.channel}")
        self._subscriptions[subscription.channel] = subscription
        if self._limit is not None:
            self.limit(self._limit)
        if subscription.token.is_missing:
            self._renew(subscription)
        else:
            self._changed()

    def drop(self, subscription: Subscription) -> None:
        """Follow a channel no longer."""
        if self._subscriptions.get(subscription.channel) is subscription:
            del self._subscriptions[subscription.channel]
            if subscription.resting is not None:
                subscription.resting.cancel()
                subscription.resting = None
            self._changed()

    def position(self, channel: str) -> Position | None:
        """Return where a channel is, if it is followed and has a position."""
        subscription = self._subscriptions.get(channel)
        return None if subscription is None else subscription.position

    def limit(self, channels: int | None) -> None:
        """Hear how many channels the server allows: those that are too many end, for a request with them is refused."""
        self._limit = channels
        for channel in list(self._subscriptions)[channels:] if channels is not None else ():
            self._end(
                self._subscriptions[channel],
                RtpushError(ErrorCode.LIMIT_EXCEEDED, f"the server allows {channels} channels for a connection"),
            )

    def end(self, error: Callable[[], Exception]) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions.values()):
            self._end(subscription, error())

    # What links ask and tell: see rtpush.client.link.Audience.

    def wants(self) -> list[Want]:
        """Return what is to be followed now."""
        return [
            Want(subscription.channel, subscription.position, subscription.earliest, subscription.token.now)
            for subscription in self._subscriptions.values()
            if subscription.resting is None and not subscription.token.is_missing
        ]

    def told(self, channel: str, data: Any) -> None:
        """Hear what the application says about a channel."""
        if (subscription := self._subscriptions.get(channel)) is not None:
            subscription.told(data)

    def begins(self, channel: str, position: Position) -> None:
        """Hear where a channel begins."""
        if (subscription := self._subscriptions.get(channel)) is not None:
            subscription.live(position)

    def message(self, message: Message) -> None:
        """Hear a message: deliver it if it comes next, drop it if it came before."""
        subscription = self._subscriptions.get(message.channel)
        if subscription is None:
            return
        if message.position is not None and subscription.position is not None:
            tail = Tail.of(message.position, subscription.position)
            if tail is Tail.SEEN:
                return
            if tail is Tail.BEYOND:
                self._hole(f"{message.channel}: {message.position} came after {subscription.position}")
                return
        subscription.message(message)

    def gap(self, gap: GapPush) -> None:
        """Hear that a stream goes on elsewhere."""
        subscription = self._subscriptions.get(gap.channel)
        if subscription is None:
            return
        position = subscription.position
        # A request can be older than what another connection has brought in the meantime; then nothing is missing.
        stale = position is not None and Tail.of(gap.position, position) is Tail.SEEN
        if not stale or gap.reason is Gap.POSITION_AHEAD:
            subscription.gap(gap)

    def unsubscribed(self, push: Unsubscribed) -> None:
        """Hear that the server ended a subscription."""
        subscription = self._subscriptions.get(push.channel)
        if subscription is None:
            return
        if push.code == Disconnect.TOKEN_EXPIRED.code and subscription.token.renews:
            subscription.token.forget()
            self._changed()
            self._renew(subscription)
        else:
            self._end(subscription, ServerEnded(push.code, push.reason))

    def refused(self, channel: str, error: RtpushError) -> None:
        """Hear that a channel cannot be followed: for good, for a while, or until there is another token."""
        subscription = self._subscriptions.get(channel)
        if subscription is None:
            return
        if error.kind is ErrorCode.TOKEN_EXPIRED and subscription.token.renews:
            subscription.token.forget()
            self._rest(subscription)
            self._changed()
        elif error.kind.temporary:
            self._rest(subscription)
        else:
            self._end(subscription, error)

    def token_for(self, channel: str) -> Token | None:
        """Return what is shown for a channel alone; nothing if it is not followed."""
        subscription = self._subscriptions.get(channel)
        return None if subscription is None else subscription.token

    def token_ends(self, channel: str) -> None:
        """Hear that the token for a channel ends soon: go on with another one."""
        subscription = self._subscriptions.get(channel)
        if subscription is not None and subscription.token.renews:
            self._renew(subscription)

    def member(self, push: Joined | Left) -> None:
        """Hear that somebody came or went."""
        if (subscription := self._subscriptions.get(push.channel)) is not None:
            subscription.member(push)

    def _rest(self, subscription: Subscription) -> None:
        if subscription.resting is None:
            pause = self.backoff.delay(subscription.refusals, self._chance())
            subscription.refusals += 1
            subscription.resting = self._clock.callLater(pause, self._rested, subscription)

    def _rested(self, subscription: Subscription) -> None:
        subscription.resting = None
        if subscription.token.is_missing:
            self._renew(subscription)
        else:
            self._changed()

    def _renew(self, subscription: Subscription) -> None:
        """Ask the application for another token. While there is none, it is asked again and again."""
        renewed = subscription.token.renew()
        renewed.addCallbacks(lambda _: self._changed(), self._not_renewed, errbackArgs=(subscription,))

    def _not_renewed(self, failure: Failure, subscription: Subscription) -> None:
        channel = subscription.channel
        if self._subscriptions.get(channel) is subscription:
            _log.warn("{channel}: {why}", channel=channel, why=failure.getErrorMessage())
            if subscription.token.is_missing:
                self._rest(subscription)

    def _end(self, subscription: Subscription, error: Exception) -> None:
        self.drop(subscription)
        subscription.end(error)
