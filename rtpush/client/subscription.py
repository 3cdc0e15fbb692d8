"""What a user follows, and where each subscription is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rtpush.client.errors import ClientClosed
from rtpush.client.token import Token
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, Joined, Left

__all__ = ["Callbacks", "Subscription", "ignore"]

_log = Logger()


def ignore(_: object) -> None:
    """What happens to what nobody wants to hear."""


@attrs.frozen
class Callbacks:
    """
    Whom a subscription tells what. What one of them raises is logged, and stops nothing.

    :ivar message: Gets each message, once and in order.
    :ivar gap: Gets a :class:`GapPush` when messages are lost: the stream goes on after its position.
    :ivar member: Gets who joined or left, where the namespace tells it.
    :ivar data: Gets what the application says about the channel, when it says something.
    :ivar ended: Gets the exception when the subscription is ended by the other side.
    """

    message: Callable[[Message], Any]
    gap: Callable[[GapPush], Any] = ignore
    member: Callable[[Joined | Left], Any] = ignore
    ended: Callable[[Exception], Any] = ignore
    data: Callable[[Any], Any] = ignore


class Subscription:
    """
    A channel that is followed.

    :ivar channel: Its name.
    :ivar token: What is shown for this channel alone, if anything is.
    :ivar position: The position of the last message that was delivered, or where delivery begins; :obj:`None` until the
        server has said that.
    :ivar data: What the application has said about it last, as JSON says; :obj:`None` if it has said nothing.
    :ivar error: Why it ended, if it did.
    """

    def __init__(
        self,
        channel: str,
        position: Position | None,
        earliest: bool,
        callbacks: Callbacks,
        drop: Callable[[Subscription], None],
        token: Token | None = None,
    ) -> None:
        self.channel = channel
        self.position = position
        self.earliest = earliest
        self.token = token or Token(None)
        self.data: Any = None
        self.error: Exception | None = None
        #: The timer until it is asked for again, after the server refused it for a while or there was no good token.
        self.resting: IDelayedCall | None = None
        self.refusals = 0
        self._callbacks = callbacks
        self._drop = drop
        self._live = False
        self._waiting: list[Deferred[Subscription]] = []

    def unsubscribe(self) -> None:
        """Follow the channel no longer. Nothing is delivered after this."""
        self._drop(self)

    def when_live(self) -> Deferred[Subscription]:
        """
        Say when the server has accepted the subscription for the first time.

        Fails with what :attr:`error` is if it ends before.
        """
        if self.error is not None:
            return fail(self.error)
        if self._live:
            return succeed(self)
        waiting: Deferred[Subscription] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def told(self, data: Any) -> None:
        """For the client: the application says something about the channel."""
        self.data = data
        self._call(self._callbacks.data, data)

    def live(self, position: Position) -> None:
        """For the client: the server has accepted it, and delivery begins here."""
        if self.position is None:
            self.position = position
        self.refusals = 0
        self._live = True
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(self)

    def message(self, message: Message) -> None:
        """For the client: deliver a message that comes next."""
        if message.position is not None:
            self.position = message.position
        self._call(self._callbacks.message, message)

    def gap(self, gap: GapPush) -> None:
        """For the client: the stream goes on elsewhere."""
        self.position = gap.position
        self._call(self._callbacks.gap, gap)

    def member(self, push: Joined | Left) -> None:
        """For the client: somebody came or went."""
        self._call(self._callbacks.member, push)

    def end(self, error: Exception) -> None:
        """For the client: it is over."""
        self.error = error
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.errback(error)
        if not isinstance(error, ClientClosed):
            self._call(self._callbacks.ended, error)

    def _call(self, callback: Callable[[Any], Any], argument: Any) -> None:
        try:
            callback(argument)
        except Exception:
            _log.failure("A callback of the subscription to {channel} failed", channel=self.channel)
