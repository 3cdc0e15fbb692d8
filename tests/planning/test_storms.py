"""Tests of rtpush.planning.storms."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from rtpush.planning.crowd import to_the_emptiest
from rtpush.planning.storms import Scene, crash, rolling_restart


class CrashTests(SynchronousTestCase):
    """All nodes die at once."""

    def test_jitter_spreads(self) -> None:
        """With jitter fewer come in the busiest second, and each tries less often."""
        scene = Scene(clients=20_000, nodes=4, rate=200.0, burst=500)
        spread, crowded = crash(scene, Random(1).random), crash(scene, None)
        self.assertEqual((spread.returns, crowded.returns), (20_000, 20_000))
        self.assertEqual(crowded.peak, 20_000)
        self.assertLess(spread.peak, 0.75 * crowded.peak)
        self.assertLess(spread.attempts, crowded.attempts / 2)

    def test_same_seed(self) -> None:
        """The same seed has the same outcome; another one has another."""
        scene = Scene(clients=2_000, nodes=2, rate=100.0, burst=100)
        self.assertEqual(crash(scene, Random(7).random), crash(scene, Random(7).random))
        self.assertNotEqual(crash(scene, Random(7).random), crash(scene, Random(8).random))

    def test_by_hand(self) -> None:
        """The times are those that the formula has: down for 5 s, so the attempts after 1 and 3 s are in vain."""
        outcome = crash(Scene(clients=10, nodes=1, rate=0.0), None)
        self.assertEqual((outcome.unreachable, outcome.peak_at, outcome.refusals), (20, 7, 0))

    def test_never_above_the_rate(self) -> None:
        """No second lets in more than the burst and the rate of all nodes."""
        outcome = crash(Scene(clients=30_000, nodes=3, rate=500.0, burst=1000), Random(1).random)
        self.assertLessEqual(max(outcome.admitted), 3 * (1000 + 500))
        self.assertLessEqual(sum(outcome.admitted[10:20]), 3 * 500 * 11)

    def test_report(self) -> None:
        """How far it is can be followed, up to the end."""
        seen: list[int] = []
        crash(Scene(clients=1_000, nodes=2), Random(1).random, lambda crowd: seen.append(crowd.returned))
        self.assertEqual((seen, max(seen)), (sorted(seen), 1_000))


class RollingTests(SynchronousTestCase):
    """One node after the other is restarted."""

    def test_everybody_moves(self) -> None:
        """Each client of each node moves, some twice; nobody finds no node, and the drain keeps the peak low."""
        scene = Scene(clients=30_000, nodes=3, rate=2000.0, burst=5000)
        spread, crowded = rolling_restart(scene, Random(1).random), rolling_restart(scene, None)
        for outcome in (spread, crowded):
            self.assertGreaterEqual(outcome.returns, 30_000)
            self.assertEqual(outcome.unreachable, 0)
        # 10,000 or more of a node leave within ten seconds, not at the same moment.
        self.assertGreaterEqual(crowded.peak, 10_000)
        self.assertLess(spread.peak, crowded.peak / 4)
        self.assertEqual(spread.refusals, 0)

    def test_alone(self) -> None:
        """With a single node there is nobody else to go to: its clients wait until it is back."""
        outcome = rolling_restart(Scene(clients=100, nodes=1), Random(1).random, window=5.0, notice=1.0)
        self.assertEqual(outcome.returns, 100)
        self.assertGreater(outcome.unreachable, 0)
        self.assertGreater(outcome.finished, 10.0)

    def test_emptiest(self) -> None:
        """A balancer that fills up the emptiest sends everybody to the node that has just come back."""
        scene = Scene(clients=3_000, nodes=3, share=to_the_emptiest)
        outcome = rolling_restart(scene, Random(1).random)
        # First 1,000 leave, then half of those who are on the two others; the last node has the fewest to lose.
        self.assertGreater(outcome.returns, 3_000)
