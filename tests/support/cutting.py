"""A TCP proxy that cuts its connections wherever it likes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.waiting import soon

__all__ = ["MOST", "CuttingProxy"]

#: The most bytes that a connection carries before it is cut.
MOST = 20_000


class CuttingProxy(Factory):
    """
    Passes bytes on, both ways, until a connection has had its share; then it is cut, in the middle of anything.

    :param upstream: The port of 127.0.0.1 behind it.
    :param may_cut: Tells whether a connection is cut now that has had its share; if not, it gets another one.
    :ivar port: Where it listens.
    :ivar cuts: How many connections it has cut.
    """

    def __init__(self, upstream: int, random: Random, may_cut: Callable[[], bool]) -> None:
        self.upstream = TCP4ClientEndpoint(reactor, "127.0.0.1", upstream)
        self.random = random
        self.may_cut = may_cut
        self.cuts = 0
        self.port = 0
        self.pairs: set[_Outer] = set()
        self.empty: Deferred[None] | None = None

    async def start(self, test: TestCase) -> None:
        """Listen; this ends with the test."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)
        self.port = listening.getHost().port
        test.addCleanup(self._stop)
        test.addCleanup(listening.stopListening)

    def share(self) -> int:
        """
        Return how many bytes a connection may carry: :data:`MOST` at most.

        Often they are so few that the request or the answer's head is cut; seldom so many that one catches up.
        """
        return self.random.randrange(1, self.random.choice((500, 5000, 5000, MOST)))

    def cut(self) -> None:
        """Cut all connections now."""
        for pair in list(self.pairs):
            pair.cut()

    def buildProtocol(self, address: object) -> Protocol:
        return _Outer(self)

    def _stop(self) -> Deferred[None] | None:
        if not self.pairs:
            return None
        self.empty = Deferred()
        for pair in list(self.pairs):
            pair.end(abort=True)
        return soon(self.empty)


class _Outer(Protocol):
    """
    The side of the client.

    :ivar over: Whether nothing is passed on any more.
    """

    transport: Any

    def __init__(self, proxy: CuttingProxy) -> None:
        self._proxy = proxy
        self._left = proxy.share()
        self._inner: _Inner | None = None
        self._early = b""
        self.over = False

    def connectionMade(self) -> None:
        self._proxy.pairs.add(self)
        inner = _Inner(self)
        self._proxy.upstream.connect(Factory.forProtocol(lambda: inner)).addCallbacks(self._connected, self._failed)

    def _connected(self, inner: _Inner) -> None:
        self._inner = inner
        if self.over:
            inner.transport.abortConnection()
        elif self._early:
            inner.transport.write(self._early)

    def _failed(self, failure: Failure) -> None:
        self._inner = None
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self.over:
            return
        part = self._share_of(data)
        if self._inner is None:
            self._early += part
        elif part:
            self._inner.transport.write(part)
        self._look()

    def answered(self, data: bytes) -> None:
        """Take bytes of the server."""
        self.transport.write(self._share_of(data))
        self._look()

    def _share_of(self, data: bytes) -> bytes:
        while len(data) > self._left and not self._proxy.may_cut():
            self._left += self._proxy.share()
        part = data[: self._left]
        self._left -= len(part)
        return part

    def _look(self) -> None:
        if self._left == 0 and not self.over:
            if self._proxy.may_cut():
                self.cut()
            else:
                self._left = self._proxy.share()

    def cut(self) -> None:
        """Cut it, if it is not cut already."""
        if not self.over:
            self._proxy.cuts += 1
            # One that is aborted loses besides what has not gone out.
            self.end(abort=self._proxy.random.random() < 0.3)

    def end(self, *, abort: bool) -> None:
        """End the connections on both sides."""
        self.over = True
        for transport in (self.transport, self._inner and self._inner.transport):
            if transport is not None and transport.connected:
                transport.abortConnection() if abort else transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.over = True
        self._proxy.pairs.discard(self)
        if self._inner is not None and self._inner.transport.connected:
            self._inner.transport.loseConnection()
        if self._proxy.empty is not None and not self._proxy.pairs:
            self._proxy.empty.callback(None)


class _Inner(Protocol):
    """The side of the server."""

    transport: Any

    def __init__(self, outer: _Outer) -> None:
        self._outer = outer

    def dataReceived(self, data: bytes) -> None:
        if not self._outer.over:
            self._outer.answered(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self._outer.transport.loseConnection()
