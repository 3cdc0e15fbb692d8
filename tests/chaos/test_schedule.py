"""Tests of tests.chaos.schedule: the seed alone decides."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.schedule import CLIENT_SIDE, KINDS, LOSSY, PROFILES, schedule_of


class ScheduleTests(SynchronousTestCase):
    """Schedules by their seeds."""

    def test_seed(self) -> None:
        """The same seed gives the same schedule, another one another."""
        for profile in PROFILES:
            one, same, other = (schedule_of(seed, 600, profile, nodes=3, clients=10) for seed in (7, 7, 8))
            self.assertEqual(one, same)
            self.assertNotEqual(one, other)

    def test_known(self) -> None:
        """A seed gives the same schedule on any machine, and in any process."""
        first = schedule_of(1, 60, "durable", nodes=2, clients=18)[0]
        self.assertEqual(str(first), "   0.41 s  redis truncate 0, for 2.13 s, 500")

    def test_bounds(self) -> None:
        """All that a profile knows happens, in order, within the time, to who is there and for as long as it may."""
        for name, profile in PROFILES.items():
            faults = schedule_of(3, 2000, name, nodes=3, clients=10)
            self.assertEqual({fault.kind for fault in faults}, set(profile.weights))
            self.assertEqual([fault.at for fault in faults], sorted(fault.at for fault in faults))
            self.assertTrue(faults[0].at >= 0 and faults[-1].at <= 2000)
            for fault in faults:
                shortest, longest, where = KINDS[fault.kind]
                self.assertTrue(shortest <= fault.seconds <= longest, fault)
                allowed = {"node": range(3), "door": range(CLIENT_SIDE, 3), "redis": range(1), "client": range(10)}
                self.assertIn(fault.target, allowed[where])

    def test_loss(self) -> None:
        """Where nothing may be lost nothing happens that loses; where it may, one node is always there to know."""
        self.assertFalse(LOSSY & set(PROFILES["durable"].weights))
        self.assertLess(LOSSY, set(PROFILES["failover"].weights))
        faults = schedule_of(3, 2000, "failover", nodes=3, clients=10)
        self.assertEqual({fault.target for fault in faults if KINDS[fault.kind][2] == "node"}, {0, 1})
