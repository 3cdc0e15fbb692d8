"""
Leaving: how the clients of this node come to others, and nothing is lost on the way.

The node says that it is not ready, and goes on as before for the notice, so that balancers see it. Then no more
connections are accepted, and the clients are told to leave in slices, spread over the rest of the window. It is over
when nobody is left, or the window is.

If there is no other node that they could go to, there is nothing to wait for: everybody is told at once, and they come
back spread over the window, when another process may be here.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from rtpush.errors import RtpushError
from rtpush.protocol.cluster import NodeStatus
from rtpush.protocol.drain import TICK, last_told, slice_size
from rtpush.protocol.lifecycle import State
from rtpush.registry.connection import Connection
from rtpush.registry.node import Node

__all__ = ["AllSites", "Leaving", "Plan"]

#: How many ticks are between two looks at which other nodes there are. They tell of themselves every second.
_ASK_EVERY = 5

#: Seconds over which everybody is told if there is no other node: enough to do other things in between.
_AT_ONCE = 0.5


@attrs.frozen
class Plan:
    """
    How much time there is, in seconds.

    :ivar window: After it, it is over.
    :ivar notice: In this first part of it everything goes on as before, if there are other nodes.
    :ivar spread: Over which those come back who have no other node to go to.
    """

    window: float
    notice: float
    spread: float

    @classmethod
    def hasty(cls) -> Plan:
        """Return the plan for when a person waits."""
        return cls(window=1.0, notice=0.0, spread=0.0)


class Site(Protocol):
    """What serves HTTP, as far as it matters here."""

    leaving: bool

    @property
    def open(self) -> int:
        """How many connections there are that have a request, or may bring one."""

    def close_idle(self) -> None:
        """Have connections end that wait for a request."""


class AllSites:
    """Several sites, as one."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites

    @property
    def leaving(self) -> bool:
        return all(site.leaving for site in self._sites)

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        for site in self._sites:
            site.leaving = leaving

    @property
    def open(self) -> int:
        return sum(site.open for site in self._sites)

    def close_idle(self) -> None:
        """Have connections end that wait for a request."""
        for site in self._sites:
            site.close_idle()


class Leaving:
    """
    One time of leaving.

    :param stop_accepting: Called once, when no more connections are to be accepted.
    """

    def __init__(
        self, clock: IReactorTime, node: Node, site: Site, stop_accepting: Callable[[], object], plan: Plan
    ) -> None:
        self._clock = clock
        self._node = node
        self._site = site
        self._stop_accepting = stop_accepting
        self._plan = plan
        self._done: Deferred[None] = Deferred()
        self._is_over = False
        self._is_accepting = True
        self._is_alone = node.cluster is None
        self._ticks = 0
        #: When the clients are told, from the first to the last.
        self._first = self._last = 0.0
        self._untold: deque[Connection] = deque()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    def begin(self) -> Deferred[None]:
        """Begin; the result is there when it is over."""
        self._node.leaving = True
        self._site.leaving = True
        self._begun = self._clock.seconds()
        self._ticking.start(TICK).addErrback(self._done.errback)
        return self._done

    def end(self) -> None:
        """Have it be over now."""
        if not self._is_over:
            self._is_over = True
            self._ticking.stop()
            self._done.callback(None)

    @property
    def _is_empty(self) -> bool:
        return not self._node.connections and not self._site.open

    def _tick(self) -> None:
        elapsed = self._clock.seconds() - self._begun
        if self._is_accepting:
            if self._ticks % _ASK_EVERY == 0 and self._node.cluster is not None:
                self._node.cluster.nodes().addCallbacks(self._hear_of, self._unknown)
            self._ticks += 1
            if self._is_alone or self._is_empty or elapsed >= self._plan.notice:
                self._accept_no_more(elapsed)
        if not self._is_accepting:
            self._tell(elapsed)
            if self._is_empty:
                self.end()
                return
        if elapsed >= self._plan.window:
            self.end()

    def _hear_of(self, others: Sequence[NodeStatus]) -> None:
        """See whether there is a node that stays."""
        self._is_alone = all(json.loads(other.status).get("leaving") for other in others)

    @staticmethod
    def _unknown(failure: Failure) -> None:
        # The broker is away. Who knows: there may be others.
        failure.trap(RtpushError)

    def _accept_no_more(self, elapsed: float) -> None:
        self._is_accepting = False
        self._stop_accepting()
        self._site.close_idle()
        self._first = elapsed
        self._last = last_told(self._plan.window)
        if self._is_alone:
            self._last = min(self._last, elapsed + _AT_ONCE)
        self._untold.extend(self._node.connections.values())

    def _tell(self, elapsed: float) -> None:
        """Tell the next slice."""
        if not self._untold:
            # Those who have come since: by connections that were there, or waited.
            self._untold.extend(each for each in self._node.connections.values() if _is_there(each))
        count = slice_size(len(self._untold), elapsed, self._last)
        slice_: list[Connection] = []
        while self._untold and len(slice_) < count:
            connection = self._untold.popleft()
            if _is_there(connection):
                slice_.append(connection)
        self._node.farewell(slice_, self._plan.spread if self._is_alone else 0.0)


def _is_there(connection: Connection) -> bool:
    return connection.state in (State.CONNECTING, State.OPEN)
