"""
A network in one process: passes bytes on between those who connect and a port, and does harm to them as it is told.

What it does not do it does not by itself: bytes of one direction stay in order, and nothing is changed, as TCP has it.
"""

from __future__ import annotations

import socket
from collections import deque
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.waiting import soon

__all__ = ["HarmfulProxy"]

#: Bytes that the kernel keeps for one who does not read: so few that the other side notices.
_KERNEL_BYTES = 32768


class HarmfulProxy(Factory):
    """
    Passes bytes on.

    :param upstream: The port behind it.
    :param host: The address of that.
    :param interface: The address at which it listens.
    :ivar port: Where it listens.
    :ivar delay: Seconds by which each piece is late, at most; in one direction nothing overtakes.
    :ivar late: Seconds by which a new connection is late, at most: others overtake it.
    :ivar holds: Whether bytes are kept, in both directions, until that ends.
    :ivar chokes: Whether nothing is read, so that those who send find their buffers full.
    :ivar swallows: Whether new connections are taken and lead nowhere: nobody hears anything.
    :ivar truncates: After how many bytes of the next piece a connection is cut; nothing if it is not.
    :ivar connections: How many connections it had.
    """

    def __init__(self, upstream: int, random: Random, *, host: str = "127.0.0.1", interface: str = "127.0.0.1") -> None:
        self.upstream = TCP4ClientEndpoint(reactor, host, upstream, timeout=5)
        self._interface = interface
        self.random = random
        self.port = 0
        self.delay = 0.0
        self.late = 0.0
        self.swallows = False
        self.truncates: int | None = None
        self.connections = 0
        self.pairs: set[Pair] = set()
        self.empty: Deferred[None] | None = None
        self._holds = False
        self._chokes = False

    async def start(self, test: TestCase) -> None:
        """Listen; this ends with the test."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface=self._interface).listen(self)
        self.port = listening.getHost().port
        test.addCleanup(self._stop)
        test.addCleanup(listening.stopListening)

    @property
    def holds(self) -> bool:
        return self._holds

    @holds.setter
    def holds(self, holds: bool) -> None:
        self._holds = holds
        for pair in list(self.pairs):
            pair.pump()

    @property
    def chokes(self) -> bool:
        return self._chokes

    @chokes.setter
    def chokes(self, chokes: bool) -> None:
        self._chokes = chokes
        for pair in list(self.pairs):
            pair.choke(chokes)

    def cut(self, share: float = 1.0) -> int:
        """Cut a share of the connections now; return how many."""
        chosen = self._choose(share)
        for pair in chosen:
            pair.cut()
        return len(chosen)

    def silence(self, share: float = 1.0) -> int:
        """Pass nothing on any more in a share of the connections, nor that one side has ended; return how many."""
        chosen = self._choose(share)
        for pair in chosen:
            pair.is_silent = True
        return len(chosen)

    def heal(self) -> None:
        """Do no more harm. What was silent stays so: for those connections the other side is gone."""
        self.delay = self.late = 0.0
        self.swallows = False
        self.truncates = None
        self.chokes = False
        self.holds = False

    def _choose(self, share: float) -> list[Pair]:
        return [pair for pair in list(self.pairs) if self.random.random() < share]

    def buildProtocol(self, address: object) -> Protocol:
        self.connections += 1
        pair = Pair(self)
        return pair.outer

    def _stop(self) -> Deferred[None] | None:
        self.heal()
        if not self.pairs:
            return None
        self.empty = Deferred()
        for pair in list(self.pairs):
            pair.cut()
        return soon(self.empty)


class _Side(Protocol):
    """One of the two connections of a pair."""

    transport: Any

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        #: What this side said and the other side has not got yet, and when that is due; nothing stands for the end.
        self.said: deque[tuple[float, bytes | None]] = deque()
        self.due = 0.0
        self.is_connected = False
        self.is_over = False

    def connectionMade(self) -> None:
        self.is_connected = True
        self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        self.transport.setTcpNoDelay(True)
        self.pair.made(self)

    def dataReceived(self, data: bytes) -> None:
        self.pair.say(self, data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.is_connected = False
        self.is_over = True
        self.pair.lost(self)


class Pair:
    """
    One who connected, and his connection to the port.

    :ivar is_silent: Whether nothing is passed on any more.
    """

    def __init__(self, proxy: HarmfulProxy) -> None:
        self._proxy = proxy
        self.is_silent = proxy.swallows
        self._is_cut = False
        self._is_truncated = False
        self._is_connecting = False
        self._timers: set[Any] = set()
        self.outer = _Side(self)
        self.inner = _Side(self)

    def made(self, side: _Side) -> None:
        """One side is there."""
        if side is self.outer:
            self._proxy.pairs.add(self)
            if not self.is_silent:
                self._later(self._proxy.random.uniform(0.0, self._proxy.late), self._connect)
        else:
            self._is_connecting = False
            if self._is_cut:
                side.transport.abortConnection()
                return
        if self._proxy.chokes:
            side.transport.pauseProducing()
        self.pump()

    def _connect(self) -> None:
        if not self._is_cut:
            self._is_connecting = True
            connecting = self._proxy.upstream.connect(Factory.forProtocol(lambda: self.inner))
            connecting.addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        self._is_connecting = False
        self.cut()

    def say(self, side: _Side, data: bytes) -> None:
        """One side has said something."""
        if self.is_silent or self._is_cut or self._is_truncated:
            return
        limit = self._proxy.truncates
        if limit is not None and len(data) > limit:
            self._is_truncated = True
            self._queue(side, data[:limit])
            self._queue(side, None)
            other = self.inner if side is self.outer else self.outer
            self._queue(other, None)
            return
        self._queue(side, data)

    def _queue(self, side: _Side, data: bytes | None) -> None:
        now = reactor.seconds()
        late = self._proxy.random.uniform(0.0, self._proxy.delay)
        # Nothing overtakes what was said before it.
        side.due = max(side.due, now + late)
        side.said.append((side.due, data))
        if side.due > now:
            self._later(side.due - now, self.pump)
        else:
            self.pump()

    def pump(self) -> None:
        """Pass on what is due."""
        if self._proxy.holds or self.is_silent or self._is_cut:
            return
        now = reactor.seconds()
        for side, other in ((self.outer, self.inner), (self.inner, self.outer)):
            while side.said and side.said[0][0] <= now + 0.001 and other.is_connected:
                _, data = side.said.popleft()
                if data is not None:
                    other.transport.write(data)
                else:
                    other.transport.loseConnection()

    def choke(self, chokes: bool) -> None:
        """Read nothing, or all again."""
        for side in (self.outer, self.inner):
            if side.is_connected and not side.transport.disconnecting:
                side.transport.pauseProducing() if chokes else side.transport.resumeProducing()

    def lost(self, side: _Side) -> None:
        """One side has ended: the other one hears of it after all that was said before, unless nobody does."""
        if not self._is_cut and not self.is_silent:
            self._queue(side, None)
        self._end_if_over()

    def cut(self) -> None:
        """End both sides, in the middle of anything."""
        self._is_cut = True
        for side in (self.outer, self.inner):
            if side.is_connected:
                side.transport.abortConnection()
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self.outer.is_connected or self.inner.is_connected or self._is_connecting:
            return
        if self._timers and not self._is_cut and not self.inner.is_over:
            # It is still to be connected: who said something and did not wait is heard all the same.
            return
        for timer in list(self._timers):
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._proxy.pairs.discard(self)
        if self._proxy.empty is not None and not self._proxy.pairs and not self._proxy.empty.called:
            self._proxy.empty.callback(None)

    def _later(self, seconds: float, call: Any) -> None:
        if seconds <= 0.0:
            call()
            return
        timer: Any = None

        def due() -> None:
            self._timers.discard(timer)
            call()

        timer = reactor.callLater(seconds, due)
        self._timers.add(timer)
