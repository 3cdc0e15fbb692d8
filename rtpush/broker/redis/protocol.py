"""
The two protocols that a node speaks with Redis, on top of txredisapi's.

This is the only module that imports txredisapi, since that imports the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import txredisapi
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.errors import ErrorCode, RtpushError

__all__ = ["CommandProtocol", "Refusal", "SubscriberProtocol", "unavailable"]


def unavailable(reason: str) -> RtpushError:
    """Return what is said while Redis does not do its work."""
    return RtpushError(ErrorCode.UNAVAILABLE, reason)


class Refusal(RtpushError):
    """
    Redis has answered with an error.

    :ivar word: What its answer begins with, as in ``NOAUTH`` or ``OOM``.
    """

    def __init__(self, answer: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, f"Redis refuses: {answer[:200]}")
        self.word = answer.partition(" ")[0]


class CommandProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """
    Sends commands; their answers come in the same order.

    :ivar on_lost: Called once with the reason when the connection is gone.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._clock = clock
        #: When each was sent whose answer is awaited, and who awaits it.
        self._sent: deque[tuple[float, Deferred[Any]]] = deque()
        self._problem: str | None = None
        self._is_lost = False
        self.on_lost: Callable[[str], None] | None = None

    @property
    def pending(self) -> int:
        """How many answers are awaited."""
        return len(self._sent)

    def waits_since(self) -> float | None:
        """Tell when the command was sent whose answer is awaited longest."""
        return self._sent[0][0] if self._sent else None

    def connectionMade(self) -> None:
        super().connectionMade()
        # Else a command may wait until Redis has acknowledged the one before.
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def command(self, *arguments: Any) -> Deferred[Any]:
        """
        Send a command. This is not txredisapi's ``execute_command``, which takes several times as long.

        :returns: The answer, in which texts are :class:`bytes`. Fails with :class:`Refusal` if that is an error, and
            with :class:`RtpushError` ``unavailable`` if the connection is lost before.
        """
        if not self.connected:
            return fail(unavailable(self._problem or "the connection to Redis is lost"))
        answer: Deferred[Any] = Deferred()
        self._sent.append((self._clock.seconds(), answer))
        self.transport.write(hiredis.pack_command(arguments))
        return answer

    def abort(self, problem: str) -> None:
        """End the connection."""
        if self._problem is None:
            self._problem = problem
        if self.transport is not None and not self._is_lost:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        try:
            super().dataReceived(data, unpause)
        except (hiredis.ProtocolError, txredisapi.InvalidData):
            self.abort("what answers there is not a Redis")

    def replyReceived(self, reply: Any) -> None:
        if not self._sent:
            return
        _, answer = self._sent.popleft()
        if not isinstance(reply, txredisapi.ResponseError):
            answer.callback(reply)
            return
        refusal = Refusal(str(reply))
        if refusal.word == "READONLY":
            self.abort("it has become a read-only replica: expected a master")
        answer.errback(refusal)

    def connectionLost(self, reason: Failure) -> None:
        self._is_lost = True
        if self._problem is None:
            self._problem = f"the connection to Redis is lost ({reason.getErrorMessage()})"
        super().connectionLost(reason)
        sent, self._sent = self._sent, deque()
        for _, answer in sent:
            answer.errback(unavailable(self._problem))
        lost, self.on_lost = self.on_lost, None
        if lost is not None:
            lost(self._problem)


class SubscriberProtocol(CommandProtocol):
    """
    Takes what is published.

    :param receive: Called with the channel and the record of each.
    """

    def __init__(self, clock: IReactorTime, receive: Callable[[bytes, bytes], None]) -> None:
        super().__init__(clock)
        self._receive = receive
        #: Who waits for how many confirmations; they come in the order of what they confirm.
        self._confirming: deque[list[Any]] = deque()

    def follow(self, names: Sequence[bytes]) -> Deferred[None]:
        """Subscribe; the result is there when Redis has confirmed all. Fails as :meth:`command` does."""
        return self._change(b"SUBSCRIBE", names)

    def unfollow(self, names: Sequence[bytes]) -> Deferred[None]:
        """The opposite."""
        return self._change(b"UNSUBSCRIBE", names)

    def waits_since(self) -> float | None:
        return self._confirming[0][2] if self._confirming else super().waits_since()

    def replyReceived(self, reply: Any) -> None:
        if type(reply) is list and len(reply) == 3:
            kind = reply[0]
            if kind == b"message":
                try:
                    self._receive(reply[1], reply[2])
                except Exception:
                    self._log.failure("what Redis published on {channel!r} cannot be taken", channel=reply[1])
                return
            if kind == b"subscribe" or kind == b"unsubscribe":
                self._confirmed()
                return
        if self._confirming and isinstance(reply, txredisapi.ResponseError):
            self._confirming.popleft()[1].errback(Refusal(str(reply)))
            return
        super().replyReceived(reply)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        confirming, self._confirming = self._confirming, deque()
        for _, confirmed, _ in confirming:
            confirmed.errback(unavailable(self._problem or ""))

    def _change(self, word: bytes, names: Sequence[bytes]) -> Deferred[None]:
        confirmed: Deferred[None] = Deferred()
        if not self.connected:
            confirmed.errback(unavailable(self._problem or "the connection to Redis is lost"))
            return confirmed
        self._confirming.append([len(names), confirmed, self._clock.seconds()])
        command: tuple[Any, ...] = (word, *names)
        self.transport.write(hiredis.pack_command(command))
        return confirmed

    def _confirmed(self) -> None:
        if self._confirming:
            waiting = self._confirming[0]
            waiting[0] -= 1
            if not waiting[0]:
                self._confirming.popleft()
                waiting[1].callback(None)
