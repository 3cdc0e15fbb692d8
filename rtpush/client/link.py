"""What all transports have in common on the client's side: a link opens, carries, and is lost once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rtpush.client.errors import LinkLost
from rtpush.client.negotiation import Negotiation
from rtpush.client.outbox import Command, Outbox
from rtpush.client.token import Token
from rtpush.client.wants import Want
from rtpush.client.web import Web
from rtpush.client.wire import Frame
from rtpush.errors import Disconnect, RtpushError
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, Joined, Left, Unsubscribed

__all__ = ["Audience", "Deadline", "Link", "LinkContext"]


class Audience(Protocol):
    """What a link asks, and tells what it heard. It tells nothing before it is open, nor after it was closed."""

    def wants(self) -> Sequence[Want]:
        """Return the channels that are to be followed now, each with its position."""

    def told(self, channel: str, data: Any) -> None:
        """Hear what the application says about a channel, before that begins."""

    def begins(self, channel: str, position: Position) -> None:
        """Hear where delivery begins: after this position."""

    def message(self, message: Message) -> None:
        """Hear a message."""

    def gap(self, gap: GapPush) -> None:
        """Hear that the stream of a channel goes on elsewhere."""

    def unsubscribed(self, push: Unsubscribed) -> None:
        """Hear that the server ended a subscription."""

    def refused(self, channel: str, error: RtpushError) -> None:
        """Hear that a channel cannot be followed, or that its token has ended."""

    def token_for(self, channel: str) -> Token | None:
        """Return what is shown for a channel alone; nothing if it is not followed."""

    def token_ends(self, channel: str) -> None:
        """Hear that the token for a channel ends soon."""

    def member(self, push: Joined | Left) -> None:
        """Hear that somebody came or went."""


@attrs.frozen
class LinkContext:
    """
    What links need of the world.

    :ivar outbox: Gets the replies to the commands that links send.
    :ivar info: What the client says of itself, for presence: JSON, or nothing.
    :ivar data: What it says to the application, where the transport has room for it: JSON, or nothing.
    :ivar chance: Returns a random number, at least 0 and below 1.
    :ivar open_timeout: Seconds within which the first event must come through.
    :ivar token_ends: Told that the client's own token ends soon.
    :ivar told: Told what the application says to the client.
    """

    web: Web
    outbox: Outbox
    clock: IReactorTime
    negotiation: Negotiation
    chance: Callable[[], float]
    open_timeout: float
    info: bytes = b""
    data: bytes = b""
    token_ends: Callable[[], None] = lambda: None
    told: Callable[[Any], None] = lambda _: None


class Deadline:
    """One deadline that moves often: moving it later costs no timer."""

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        self._clock = clock
        self._passed = passed
        self._when = 0.0
        self._timer: IDelayedCall | None = None

    def within(self, seconds: float) -> None:
        """Let it pass so many seconds from now."""
        self._when = self._clock.seconds() + seconds
        if self._timer is not None and self._timer.getTime() > self._when:
            self.stop()
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._look)

    def stop(self) -> None:
        """Let it never pass."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left = self._when - self._clock.seconds()
        self._timer = self._clock.callLater(left, self._look) if left > 0 else None
        if self._timer is None:
            self._passed()


class Link(ABC):
    """
    One way to the server.

    :param lost: Called once when a link that was open is lost, not when it was closed from this side.
    """

    name: ClassVar[str]
    log = Logger()

    def __init__(self, context: LinkContext, audience: Audience, lost: Callable[[Link, LinkLost], Any]) -> None:
        self._context = context
        self._audience = audience
        self._tell_lost = lost
        self._opening: Deferred[None] | None = None
        self._ended = False
        self._silence = Deadline(context.clock, self._silent)

    def open(self) -> Deferred[None]:
        """
        Open the link.

        The result comes when the first event of the server came through, before anything that follows it is told. Call
        :meth:`channels_changed` then: what was wanted when it began may not be what is wanted now. It fails with
        :exc:`LinkLost`, after ``open_timeout`` seconds at the latest. Cancelling it closes the link.
        """
        opening = self._opening = Deferred(lambda _: self.close())
        self._silence.within(self._context.open_timeout)
        self._begin()
        return opening

    def close(self) -> None:
        """End the link without a word to the audience."""
        if not self._ended:
            self._ended = True
            self._silence.stop()
            self._end()

    def gone(self) -> Deferred[None]:
        """After :meth:`close`: say when the other side has seen it. Ask once."""
        return succeed(None)

    @abstractmethod
    def channels_changed(self) -> None:
        """Follow what the audience wants now."""

    @abstractmethod
    def token_changed(self) -> None:
        """Go on with another token: see :attr:`rtpush.client.web.Web.token`."""

    @abstractmethod
    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, in order after those that were sent before. Their replies go to the outbox."""

    @abstractmethod
    def _begin(self) -> None:
        """Start to open."""

    @abstractmethod
    def _end(self) -> None:
        """Release everything."""

    @property
    def _is_opening(self) -> bool:
        return self._opening is not None

    def _opened(self) -> None:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            opening.callback(None)

    def lose(self, why: LinkLost) -> None:
        """Count the link as lost: close it, and tell so."""
        if self._ended:
            return
        self.close()
        if self._opening is not None:
            opening, self._opening = self._opening, None
            opening.errback(why)
        else:
            self._tell_lost(self, why)

    def _hear(self, frame: Frame) -> None:
        """Tell the audience what the server pushes."""
        if frame.message is not None:
            self._audience.message(frame.message.message())
        elif frame.gap is not None:
            self._audience.gap(frame.gap.gap())
        elif frame.unsubscribed is not None:
            self._audience.unsubscribed(frame.unsubscribed.unsubscribed())
        elif frame.join is not None:
            self._audience.member(frame.join.joined())
        elif frame.leave is not None:
            self._audience.member(frame.leave.left())
        elif frame.token_expiring is not None:
            if frame.token_expiring.channel is None:
                self._context.token_ends()
            else:
                self._audience.token_ends(frame.token_expiring.channel)
        elif frame.disconnect is not None:
            told = frame.disconnect.disconnected()
            said = f"the server ended the connection: {told.reason} ({told.code})"
            self.lose(LinkLost(said, code=told.code, comes_back=told.reconnect, after=told.after))

    def _silent(self) -> None:
        self.lose(LinkLost("nothing came from the server in time", code=Disconnect.NO_HEARTBEAT.code))
