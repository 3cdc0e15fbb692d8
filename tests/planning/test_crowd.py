"""Tests of rtpush.planning.crowd."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.planning import crowd as crowd_module
from rtpush.planning.crowd import Crowd, Node, evenly, to_the_emptiest
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.bucket import TokenBucket


def node(rate: float = 0.0, burst: float = 1.0, clients: int = 0) -> Node:
    """Return a node; by default it lets everybody in."""
    return Node(TokenBucket(rate, burst, 0.0), clients=clients)


class ShareTests(SynchronousTestCase):
    """Which node gets whom."""

    def test_evenly(self) -> None:
        """Each gets the same, whatever it has."""
        self.assertEqual(evenly([node(clients=90), node(), node()], 8), [3, 3, 2])

    def test_to_the_emptiest(self) -> None:
        """Those that have fewer are filled up first."""
        nodes = [node(clients=10), node(clients=2), node(clients=4)]
        self.assertEqual(to_the_emptiest(nodes, 1), [0, 1, 0])
        self.assertEqual(to_the_emptiest(nodes, 6), [0, 4, 2])
        self.assertEqual(to_the_emptiest(nodes, 17), [1, 9, 7])

    @given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200))
    def test_all_get_a_node(self, present: list[int], coming: int) -> None:
        """Nobody is lost, and who got somebody is no fuller than who got nobody."""
        shares = to_the_emptiest([node(clients=each) for each in present], coming)
        self.assertEqual(sum(shares), coming)
        after = [each + share for each, share in zip(present, shares, strict=True)]
        filled = [total for total, share in zip(after, shares, strict=True) if share]
        if filled:
            self.assertLessEqual(max(filled), min(after) + 1)


class CrowdTests(SynchronousTestCase):
    """Clients that come back."""

    def test_by_the_formula(self) -> None:
        """Without chance a client that was cut off comes back after the base, and is let in."""
        crowd = Crowd([node()], Backoff(2.0, 30.0, 1.0), evenly, None)
        crowd.at(0.0, lambda: crowd.lose(10))
        outcome = crowd.run()
        self.assertEqual((outcome.returns, outcome.attempts, outcome.retries, outcome.refusals), (10, 10, 0, 0))
        self.assertEqual((list(outcome.arrivals), outcome.peak, outcome.peak_at), ([0, 0, 10], 10, 2))
        self.assertApproximates(outcome.finished, 2.0, 0.02)

    def test_nobody_listens(self) -> None:
        """While no node listens the waits double: attempts after 1, 3 and 7 seconds, of which the last succeeds."""
        only = node()
        only.listens = False
        crowd = Crowd([only], Backoff(1.0, 30.0, 0.0), evenly, None)
        crowd.at(0.0, lambda: crowd.lose(5))
        crowd.at(4.0, lambda: setattr(only, "listens", True))
        outcome = crowd.run()
        self.assertEqual((outcome.unreachable, outcome.attempts, outcome.retries), (10, 15, 10))
        self.assertApproximates(outcome.finished, 7.0, 0.05)
        self.assertApproximates(outcome.away_for(1.0), 7.0, 0.05)

    def test_admission(self) -> None:
        """A bucket lets in its burst, then its rate; who is refused comes again after what he was told."""
        crowd = Crowd([node(rate=10.0, burst=20.0)], Backoff(1.0, 30.0, 0.0), evenly, None)
        crowd.at(0.0, lambda: crowd.lose(50))
        outcome = crowd.run()
        # 20 at once; ten more with each second that all the others wait.
        self.assertEqual(list(outcome.admitted[:5]), [0, 20, 10, 10, 10])
        self.assertEqual(list(outcome.arrivals[:5]), [0, 50, 30, 20, 10])
        self.assertEqual(outcome.refusals, 60)

    def test_told_when(self) -> None:
        """Who was told when to come back comes then."""
        crowd = Crowd([node()], Backoff(), evenly, Random(1).random)
        crowd.at(1.0, lambda: crowd.lose(100, lambda chance: 5.0))
        outcome = crowd.run()
        self.assertEqual((outcome.peak, outcome.peak_at, outcome.retries), (100, 6, 0))
        self.assertApproximates(outcome.away_for(0.5), 5.0, 0.02)

    @given(st.integers(1, 300), st.integers(1, 4), st.floats(1, 100), st.integers(1, 50), st.integers())
    def test_all_come_back(self, clients: int, nodes: int, rate: float, burst: int, seed: int) -> None:
        """Whatever the bounds, each client comes back once, and what is counted fits together."""
        all_nodes = [node(rate, burst) for _ in range(nodes)]
        crowd = Crowd(all_nodes, Backoff(), evenly, Random(seed).random)
        crowd.at(0.0, lambda: crowd.lose(clients))
        outcome = crowd.run()
        self.assertEqual((outcome.returns, sum(outcome.admitted), sum(outcome.away)), (clients,) * 3)
        self.assertEqual(sum(each.clients for each in all_nodes), clients)
        self.assertEqual(outcome.attempts, clients + outcome.refusals)

    def test_never(self) -> None:
        """It ends when there is no way in."""
        only = node()
        only.listens = False
        crowd = Crowd([only], Backoff(3600.0, 36000.0, 0.0), evenly, None)
        crowd.at(0.0, lambda: crowd.lose(1))
        self.patch(crowd_module, "_LIMIT", 20000.0)
        self.assertRaises(RuntimeError, crowd.run)
