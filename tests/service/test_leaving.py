"""Tests of rtpush.service.leaving."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.cluster import NodeStatus
from rtpush.protocol.lifecycle import State
from rtpush.service.leaving import Leaving, Plan

_PLAN = Plan(window=15.0, notice=3.0, spread=15.0)


@attrs.define(eq=False)
class _Connection:
    state: State = State.OPEN


class _Cluster:
    """The other nodes: whether each is leaving."""

    def __init__(self, *leaving: bool) -> None:
        self.leaving = leaving
        self.is_away = False
        self.asked = 0

    def nodes(self) -> Deferred[Sequence[NodeStatus]]:
        """Tell of them."""
        self.asked += 1
        if self.is_away:
            return fail(RtpushError(ErrorCode.UNAVAILABLE, "away"))
        statuses = [json.dumps({"leaving": leaving}).encode() for leaving in self.leaving]
        return succeed([NodeStatus(str(number), status, 0.1) for number, status in enumerate(statuses)])


class _Node:
    """A node whose clients go a second after they were told to."""

    def __init__(self, clock: Clock, count: int, cluster: _Cluster | None) -> None:
        self.cluster = cluster
        self.leaving = False
        self.connections: dict[str, Any] = {str(number): _Connection() for number in range(count)}
        #: When somebody was told, and over which time they come back.
        self.told: list[float] = []
        self.spreads: set[float] = set()
        self.stays = False
        self._clock = clock

    def farewell(self, connections: Iterable[Any], spread: float) -> None:
        """Tell some."""
        for connection in connections:
            assert connection.state in (State.CONNECTING, State.OPEN)
            connection.state = State.CLOSING
            self.told.append(self._clock.seconds())
            self.spreads.add(spread)
            if not self.stays:
                self._clock.callLater(1.0, self.forget, connection)

    def forget(self, connection: Any) -> None:
        """One is gone."""
        connection.state = State.CLOSED
        self.connections = {id_: each for id_, each in self.connections.items() if each is not connection}


@attrs.define
class _Site:
    leaving: bool = False
    open: int = 0
    idle_closed: int = 0

    def close_idle(self) -> None:
        """Note it."""
        self.idle_closed += 1


class LeavingTests(SynchronousTestCase):
    """When who is told what."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = _Site()
        #: When no more connections were accepted.
        self.closed: list[float] = []

    def _begin(self, count: int, cluster: _Cluster | None = None, plan: Plan = _PLAN) -> Deferred[None]:
        self.node: Any = _Node(self.clock, count, cluster)
        self.leaving = Leaving(
            self.clock, self.node, self.site, lambda: self.closed.append(self.clock.seconds()), plan
        )
        return self.leaving.begin()

    def _pass(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))

    def _until_over(self, over: Deferred[None]) -> float:
        """Let time pass until it is over; return when that is."""
        while not over.called:
            self._pass(0.1)
        self.successResultOf(over)
        # Only those are left whose clients go.
        self._pass(2.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return self.clock.seconds() - 2.0

    def test_not_ready(self) -> None:
        """It says at once that it is leaving, and that each answer is the last one on its connection."""
        self._begin(1, _Cluster(False))
        self.assertTrue(self.node.leaving)
        self.assertTrue(self.site.leaving)

    def test_notice(self) -> None:
        """Where there is another node, all goes on as before until balancers know."""
        self._begin(10, _Cluster(False))
        self._pass(2.9)
        self.assertEqual((self.node.told, self.closed, self.site.idle_closed), ([], [], 0))
        self._pass(0.2)
        self.assertEqual((len(self.closed), self.site.idle_closed), (1, 1))
        self.assertGreater(len(self.node.told), 0)

    def test_slices(self) -> None:
        """Then they are told in slices of one size, spread over the rest, but for the time that the last ones need."""
        over = self._begin(1000, _Cluster(False))
        end = self._until_over(over)
        told = self.node.told
        self.assertEqual(len(told), 1000)
        self.assertLess(abs(told[0] - 3.0), 0.11)
        self.assertLess(abs(told[-1] - 13.0), 0.21)
        self.assertLess(abs(end - 14.0), 0.31)
        for second in range(3, 13):
            self.assertLess(abs(sum(second <= when < second + 1 for when in told) - 100), 15)
        self.assertEqual(self.node.spreads, {0.0})

    def test_few(self) -> None:
        """Of a few, one is told after the other."""
        over = self._begin(3, _Cluster(False))
        self._until_over(over)
        self.assertEqual(len(set(self.node.told)), 3)

    def test_alone(self) -> None:
        """Without any other node all are told at once, to come back spread over the window."""
        end = self._until_over(self._begin(1000))
        self.assertLess(max(self.node.told), 1.0)
        self.assertLess(end, 2.0)
        self.assertEqual((self.closed, self.node.spreads), ([0.0], {15.0}))

    def test_only_node(self) -> None:
        """So it is if the only other nodes are leaving too, or there are none at all."""
        for leaving in ((), (True, True)):
            with self.subTest(leaving):
                begun = self.clock.seconds()
                end = self._until_over(self._begin(10, _Cluster(*leaving)))
                self.assertLess(end - begun, 2.0)
                self.assertEqual(self.node.spreads, {15.0})

    def test_all_begin_to_leave(self) -> None:
        """Who learns in the notice that all the others leave too stops waiting."""
        cluster = _Cluster(False, True)
        over = self._begin(10, cluster)
        self._pass(1.0)
        cluster.leaving = (True, True)
        self.assertLess(self._until_over(over), 3.5)
        self.assertEqual(self.node.spreads, {15.0})
        self.assertLess(cluster.asked, 10)

    def test_broker_away(self) -> None:
        """Without the broker nobody knows; then there may be others."""
        cluster = _Cluster()
        cluster.is_away = True
        self._begin(10, cluster)
        self._pass(2.9)
        self.assertEqual(self.node.told, [])

    def test_nobody(self) -> None:
        """With nobody there it is over at once."""
        self.successResultOf(self._begin(0, _Cluster(False)))
        self.assertEqual(self.closed, [0.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_requests(self) -> None:
        """Requests that are not answered yet are waited for, and connections that may bring one."""
        self.site.open = 2
        over = self._begin(0)
        self._pass(5.0)
        self.site.open = 1
        self._pass(5.0)
        self.assertNoResult(over)
        self.site.open = 0
        self._pass(0.1)
        self.successResultOf(over)

    def test_window_over(self) -> None:
        """It is over when the window is, whoever is left."""
        over = self._begin(10)
        self.node.stays = True
        self._pass(14.9)
        self.assertNoResult(over)
        self._pass(0.2)
        self.successResultOf(over)

    def test_newcomers(self) -> None:
        """Those who come after all were told, by connections that were there, are told as well."""
        self.site.open = 1
        over = self._begin(5)
        self._pass(3.0)
        self.node.connections["new"] = _Connection(State.CONNECTING)
        self._pass(0.2)
        self.assertEqual(len(self.node.told), 6)
        self.site.open = 0
        self._until_over(over)

    def test_gone_meanwhile(self) -> None:
        """Those who go by themselves before they are told are not told."""
        over = self._begin(10, _Cluster(False))
        self._pass(3.3)
        told = len(self.node.told)
        for connection in list(self.node.connections.values()):
            if connection.state is State.OPEN:
                self.node.forget(connection)
        self._until_over(over)
        self.assertEqual(len(self.node.told), told)

    def test_end(self) -> None:
        """It can be ended at any time, once."""
        over = self._begin(10, _Cluster(False))
        self._pass(1.0)
        self.leaving.end()
        self.leaving.end()
        self.successResultOf(over)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hasty(self) -> None:
        """In haste it takes a second at most, and they may come back soon."""
        over = self._begin(10, _Cluster(False), Plan.hasty())
        self.node.stays = True
        self.assertLess(self._until_over(over), 1.2)
        self.assertEqual(self.closed, [0.0])
        self.assertEqual(self.node.spreads, {0.0})

    def test_no_window(self) -> None:
        """Without any window all are told, and it is over."""
        self.successResultOf(self._begin(10, _Cluster(False), Plan(window=0.0, notice=0.0, spread=0.0)))
        self.assertEqual(len(self.node.told), 10)
