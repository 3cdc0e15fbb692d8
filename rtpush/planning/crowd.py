"""
Clients that lost their nodes and come back, on a simulated clock. Pure.

The clock moves in slots of a hundredth of a second. Clients are alike, so none of them is an object: those that try in
the same slot, for the same time and since the same loss, are one number. What chance decides is drawn for each of them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import attrs

from rtpush.protocol.backoff import Backoff, retry_after
from rtpush.protocol.bucket import TokenBucket

__all__ = ["Chance", "Crowd", "Node", "Outcome", "Share", "evenly", "to_the_emptiest"]

#: Returns random numbers, at least 0 and below 1.
Chance = Callable[[], float]

#: Seconds in a slot of the clock.
_SLOT = 0.01
#: Seconds after which a simulation is given up.
_LIMIT = 7 * 86400.0


@attrs.define(eq=False)
class Node:
    """
    A simulated node.

    :ivar bucket: Lets in so many a second.
    :ivar listens: Whether it can be connected to.
    :ivar clients: How many it has.
    """

    bucket: TokenBucket
    listens: bool = True
    clients: int = 0


#: Shares clients that come at the same time out to nodes: returns how many each gets.
Share = Callable[[Sequence[Node], int], Sequence[int]]


def evenly(nodes: Sequence[Node], clients: int) -> list[int]:
    """Give each node the same: what a balancer that takes turns does, and DNS."""
    each, rest = divmod(clients, len(nodes))
    return [each + (place < rest) for place in range(len(nodes))]


def to_the_emptiest(nodes: Sequence[Node], clients: int) -> list[int]:
    """Give each new client to the node that has the fewest (``leastconn``)."""
    shares = [0] * len(nodes)
    order = sorted(range(len(nodes)), key=lambda place: nodes[place].clients)
    left = clients
    for number, place in enumerate(order, 1):
        # Raise the emptiest ones to the level of the next, as far as there are clients for it.
        level = nodes[place].clients + shares[place]
        higher = nodes[order[number]].clients if number < len(nodes) else level + left
        rise = min((higher - level) * number, left)
        each, rest = divmod(rise, number)
        for position, filled in enumerate(order[:number]):
            shares[filled] += each + (position < rest)
        left -= rise
    return shares


@attrs.frozen(kw_only=True)
class Outcome:
    """
    What happened. Times are seconds since the beginning.

    :ivar returns: How often a client came back: one that was sent away twice came back twice.
    :ivar arrivals: The attempts that reached a node, in each second.
    :ivar admitted: Those of them that were let in.
    :ivar unreachable: How many attempts found no node that listens.
    :ivar finished: When the last was back.
    :ivar away: For each number of slots of :attr:`slot` seconds, how many were away for that long.
    """

    returns: int
    arrivals: Sequence[int]
    admitted: Sequence[int]
    unreachable: int
    finished: float
    away: Sequence[int]
    slot: float = _SLOT

    @property
    def peak(self) -> int:
        """The most arrivals in a second."""
        return max(self.arrivals, default=0)

    @property
    def peak_at(self) -> int:
        """The second in which that was."""
        return self.arrivals.index(self.peak) if self.arrivals else 0

    @property
    def attempts(self) -> int:
        """All attempts, in vain or not."""
        return sum(self.arrivals) + self.unreachable

    @property
    def refusals(self) -> int:
        """How many were told to come again later (503)."""
        return sum(self.arrivals) - sum(self.admitted)

    @property
    def retries(self) -> int:
        """How many attempts were not the first after a loss."""
        return self.attempts - self.returns

    def away_for(self, part: float) -> float:
        """Return within how many seconds a part of the clients was back: 0.5 gives the median."""
        wanted, seen = part * self.returns, 0
        for place, number in enumerate(self.away):
            seen += number
            if seen >= wanted:
                return place * self.slot
        return 0.0


class Crowd:
    """
    Clients, and the nodes that they come back to.

    :param nodes: All nodes.
    :param backoff: How clients spread their attempts.
    :param share: Which of the nodes that listen gets whom.
    :param chance: Spreads what is to be spread; without it nothing is, as if there were no jitter anywhere: all who are
        refused come again at the same time too.

    :ivar now: The time, in seconds.
    :ivar returned: How many have come back until now.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        backoff: Backoff,
        share: Share,
        chance: Chance | None,
    ) -> None:
        self.now = 0.0
        self.returned = 0
        self._nodes = nodes
        self._backoff = backoff
        self._share = share
        self._chance = chance
        #: By slot, by (number of the attempt, slot of the loss): how many.
        self._slots: dict[int, dict[tuple[int, int], int]] = {}
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._gone = 0
        self._unreachable = 0
        self._finished = 0.0
        self._arrivals: list[int] = []
        self._admitted: list[int] = []
        self._away: list[int] = []

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._plans, (time, next(self._order), action))

    def lose(self, clients: int, after: Callable[[float], float] | None = None) -> None:
        """
        Have clients lose their connection now.

        :param after: The seconds after which they were asked to come back, by a random number; without it they were cut
            off, and wait by the backoff formula.
        """
        self._gone += clients
        lost = round(self.now / _SLOT)
        if after is None:
            self._come(self.now, clients, partial(self._backoff.delay, 0), 1, lost)
        else:
            # Who was told when to come has not failed before.
            self._come(self.now, clients, after, 0, lost)

    def run(self, report: Callable[[], object] = lambda: None) -> Outcome:
        """
        Let time pass until all are back and nothing is planned any more.

        :param report: Called now and then, and at the end.
        :raises RuntimeError: if that takes more than a week.
        """
        slot = 0
        while self._plans or self._gone:
            while self._plans and self._plans[0][0] < (slot + 1) * _SLOT:
                time, _, action = heapq.heappop(self._plans)
                self.now = max(self.now, time)
                action()
            if (groups := self._slots.pop(slot, None)) is not None:
                self._attempt(slot, groups)
            slot += 1
            self.now = max(self.now, slot * _SLOT)
            if slot % 10 == 0:
                report()
            if self.now > _LIMIT:
                raise RuntimeError("the clients are not back after a week: too few are let in")
        report()
        return Outcome(
            returns=self.returned,
            arrivals=self._arrivals,
            admitted=self._admitted,
            unreachable=self._unreachable,
            finished=self._finished,
            away=self._away,
        )

    def _come(self, time: float, clients: int, wait: Callable[[float], float], attempt: int, lost: int) -> None:
        """Have clients try after a wait, each by its own chance."""
        # Not in the slot that is being worked through: a hundredth of a second changes nothing.
        soonest = int(time / _SLOT) + 1
        slots, key = self._slots, (attempt, lost)
        if self._chance is None:
            self._put(max(int((time + wait(0.0)) / _SLOT), soonest), key, clients)
            return
        chance = self._chance
        for _ in range(clients):
            place = max(int((time + wait(chance())) / _SLOT), soonest)
            if (found := slots.get(place)) is None:
                slots[place] = {key: 1}
            else:
                found[key] = found.get(key, 0) + 1

    def _attempt(self, slot: int, groups: dict[tuple[int, int], int]) -> None:
        """Let clients try."""
        time = slot * _SLOT
        coming = sum(groups.values())
        nodes = [node for node in self._nodes if node.listens]
        if not nodes:
            self._unreachable += coming
            for (attempt, lost), clients in groups.items():
                self._come(time, clients, partial(self._backoff.delay, attempt), attempt + 1, lost)
            return
        waits: list[int] = []
        for node, share in zip(nodes, self._share(nodes, coming), strict=True):
            refused = self._ask(node, share, time)
            node.clients += share - len(refused)
            waits += refused
        admitted = coming - len(waits)
        self._count(slot, coming, admitted)
        # Who of them gets in does not depend on how long they have been away.
        come = taken = told = 0
        for (attempt, lost), clients in groups.items():
            come += clients
            let_in = admitted * come // coming - taken
            taken += let_in
            if let_in:
                place = slot - lost
                self._away.extend([0] * (place + 1 - len(self._away)))
                self._away[place] += let_in
            for wait, several in Counter(waits[told : told + clients - let_in]).items():
                self._put(int((time + wait) / _SLOT), (attempt, lost), several)
            told += clients - let_in

    def _ask(self, node: Node, clients: int, time: float) -> list[int]:
        """Let clients come to a node; return the waits of those who are refused."""
        take, chance, base = node.bucket.take, self._chance, self._backoff.base
        if chance is None:
            refused = clients
            while refused and take(time):
                refused -= 1
            return [retry_after(base, 0.0, 0.0)] * refused
        waits = []
        for _ in range(clients):
            if not take(time):
                waits.append(retry_after(base, node.bucket.wait(time), chance()))
        return waits

    def _put(self, place: int, key: tuple[int, int], clients: int) -> None:
        group = self._slots.setdefault(place, {})
        group[key] = group.get(key, 0) + clients

    def _count(self, slot: int, coming: int, admitted: int) -> None:
        second = int(slot * _SLOT)
        for series, number in ((self._arrivals, coming), (self._admitted, admitted)):
            series.extend([0] * (second + 1 - len(series)))
            series[second] += number
        if admitted:
            self._finished = slot * _SLOT
            self.returned += admitted
            self._gone -= admitted
