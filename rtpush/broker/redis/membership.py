"""Being one of several nodes: showing that this one lives, and burying those that do not."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.broker.redis.link import Link
from rtpush.broker.redis.protocol import unavailable
from rtpush.broker.redis.session import Session
from rtpush.errors import RtpushError
from rtpush.protocol.cluster import NodeStatus

__all__ = ["Membership"]


class Membership:
    """
    This node among those at one Redis.

    Each beat carries a probe to this node itself: it comes back only if what is published arrives here.

    :param name: What the node is called, before the number of its life: it has another one after it was taken for dead.
    :param inbox: The channel in Redis on which only this node is spoken to.
    :param status: Tells what the others are to know of this node.
    :param node_ttl: Milliseconds after which a node that is not heard of is dead.
    :param timeout: Seconds for a probe to come back.
    :param reborn: Brings what Redis has of this node under its new name.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        name: str,
        inbox: str,
        status: Callable[[], bytes],
        node_ttl: int,
        timeout: float,
        reborn: Callable[[str, Session], Awaitable[None]],
    ) -> None:
        self.link: Link
        self._clock = clock
        self._name = name
        self._inbox = inbox
        self._status = status
        self._node_ttl = node_ttl
        self._timeout = timeout
        self._reborn = reborn
        self._lives = 1
        self._is_known = False
        #: The number of the last probe; those that are not back, with when they were sent; and who waits for one.
        self._probe = 0
        self._probes: deque[tuple[int, float]] = deque()
        self._awaiting: Deferred[None] | None = None
        #: How many seconds the last one took that is back, and when it was.
        self._took = 0.0
        self._back = clock.seconds()
        self._beating = False

    @property
    def node(self) -> str:
        """The name in this life."""
        return f"{self._name}.{self._lives}"

    async def restore(self, session: Session) -> None:
        """Come to life in a new session; this is done when its first probe is back."""
        self._probes.clear()
        back = self._awaiting = Deferred()
        await session.follow([self._inbox.encode()])
        await self._beat(session)
        await back.addTimeout(self._timeout, self._clock, self._dead)

    def _dead(self, result: object, timeout: float) -> None:
        raise unavailable(f"what is published does not arrive: a probe is not back after {timeout:g} s")

    def tick(self) -> None:
        """A second has passed."""
        session = self.link.session
        if session is None:
            return
        if self._probes and self._clock.seconds() - self._probes[0][1] > self._timeout:
            session.abort(f"what is published does not arrive: a probe is not back after {self._timeout:g} s")
        elif not self._beating:
            self._beating = True
            Deferred.fromCoroutine(self._beat(session)).addBoth(self._beaten)

    def took(self, probe: int) -> None:
        """A probe is back."""
        while self._probes and self._probes[0][0] <= probe:
            self._back = self._clock.seconds()
            self._took = self._back - self._probes.popleft()[1]
        waiting, self._awaiting = self._awaiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def lag(self) -> float:
        """Return how many seconds what is published takes to arrive; while nothing does, how long that is so."""
        now = self._clock.seconds()
        if self.link.session is None:
            return now - self._back
        return max(self._took, now - self._probes[0][1] if self._probes else 0.0)

    async def leave(self) -> None:
        """End in good order: nobody waits until this node is dead."""
        if self.link.session is not None:
            await self.link.session.evaluate("leave", self.node)

    async def others(self, session: Session) -> Sequence[NodeStatus]:
        """Tell what the other nodes that live have said of themselves."""
        found = await session.evaluate("nodes", self._node_ttl)
        return [
            NodeStatus(found[index].decode(), found[index + 1], int(found[index + 2]) / 1000)
            for index in range(0, len(found), 3)
            if found[index].decode() != self.node
        ]

    async def _beat(self, session: Session) -> None:
        self._probe += 1
        self._probes.append((self._probe, self._clock.seconds()))
        status = self._status()
        probe = b"b %d" % self._probe
        known, *graves = await session.evaluate("beat", self.node, status, self._node_ttl, self._inbox, probe)
        if not known and self._is_known:
            # This node was taken for dead, or Redis has lost what it knew. What it may still have of this node must not
            # be mixed with what is true now.
            before = self.node
            self._lives += 1
            await session.evaluate("beat", self.node, status, self._node_ttl, self._inbox, probe)
            await self._reborn(self.node, session)
            await session.evaluate("leave", before)
        self._is_known = True
        for grave in graves:
            await session.evaluate("bury", grave)

    def _beaten(self, result: Any) -> None:
        self._beating = False
        error = getattr(result, "value", None)
        if error is not None and not isinstance(error, RtpushError):
            self._log.failure("the beat failed", failure=result)
