"""
What is taken back, on all nodes: told and remembered through a channel of the broker's, which is no client's.

So a node that was away, or comes later, reads what it has missed from history, as any subscriber does. With the memory
engine there is one node, and what is taken back is forgotten when it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.auth.revocation import Revocation, Revocations
from rtpush.errors import RtpushError
from rtpush.protocol.channel import REVOCATIONS
from rtpush.protocol.commands import Publication
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Page, Tail

if TYPE_CHECKING:
    from rtpush.registry.node import Node

__all__ = ["Revoking"]

#: Seconds until the broker is asked again when it did not answer.
_RETRY = 1.0

#: How many are read at once.
_PAGE = 1000


class Revoking:
    """
    What is taken back now, and how this node hears of it.

    :ivar revocations: All that is known.
    :ivar is_known: Whether all that was taken back before is known: until then no token can be called good.
    """

    _log = Logger()

    def __init__(self, node: Node) -> None:
        self.revocations = Revocations()
        self.is_known = False
        self._node = node
        self._position: Position | None = None
        self._is_started = False
        self._is_reading = False
        self._again = False
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Listen, and read what was taken back before; once."""
        if not self._is_started:
            self._is_started = True
            self._subscribe()

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def publish(self, revocation: Revocation) -> Deferred[Any]:
        """
        Take something back, here and on all nodes.

        :returns: Fires when no node can miss it. Fails with :exc:`RtpushError` ``unavailable`` if only this node knows.
        :raises RtpushError: ``limit_exceeded`` if there is no room.
        """
        self._take(revocation)
        payload = Payload(revocation.encode(), Kind.JSON)
        published: Deferred[Any] = self._node.broker.publish(Publication(REVOCATIONS, payload))
        return published

    def received(self, message: Message) -> None:
        """Hear what was taken back just now, on any node."""
        before, position = self._position, message.position
        tail = Tail.BEYOND if before is None or position is None else Tail.of(position, before)
        if tail is Tail.NEXT and not self._is_reading:
            self._position = position
            self._apply(message)
        elif tail is not Tail.SEEN:
            self._read()

    def compared(self, top: Position) -> None:
        """Hear how far the channel is: something may have been missed."""
        if top != self._position:
            self._read()

    def _subscribe(self) -> None:
        self._timer = None
        self._node.broker.subscribe(REVOCATIONS).addCallbacks(lambda _: self._read(), self._later)

    def _read(self) -> None:
        """Read on from where this node is."""
        if self._is_reading:
            self._again = True
            return
        self._is_reading, self._again = True, False
        page = self._node.broker.history(REVOCATIONS, self._position, _PAGE)
        page.addCallback(self._page).addErrback(self._later)

    def _page(self, page: Page) -> None:
        self._is_reading = False
        if page.gap is not None and self._position is not None:
            # History has begun anew, or does not reach back: what is there is read from its beginning.
            self._position = None
            self._again = True
        else:
            for message in page.messages:
                self._apply(message)
            if page.messages and not page.complete:
                self._position = page.messages[-1].position
                self._again = True
            else:
                self._position = page.top
                self.is_known = True
        if self._again:
            self._read()

    def _later(self, failure: Failure) -> None:
        """The broker does not answer: ask again. When it is back after a while, it says so too."""
        self._is_reading = False
        if not failure.check(RtpushError):
            self._log.failure("what is taken back cannot be read", failure=failure)
        if self._timer is None or not self._timer.active():
            self._timer = self._node.clock.callLater(_RETRY, self._subscribe)

    def _apply(self, message: Message) -> None:
        try:
            self._take(Revocation.decode(message.payload.data))
        except (ValueError, RtpushError) as error:
            self._log.error("a revocation cannot be taken: {error}", error=str(error))

    def _take(self, revocation: Revocation) -> None:
        self.revocations.add(revocation, self._node.now())
        self._node.revoked(revocation)
