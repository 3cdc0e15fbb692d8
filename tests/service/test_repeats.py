"""Tests of rtpush.service.repeats."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.repeats import Repeats


class RepeatsTests(SynchronousTestCase):
    """What is said again and again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.repeats = Repeats(self.clock.seconds, self.clock.callLater, most=3, window=60.0)
        self.told: list[tuple[str, int]] = []

    def _say(self, key: str, times: int = 1) -> int:
        """Say something, and return how often that passed."""
        return sum(self.repeats.passes(key, lambda count: self.told.append((key, count))) for _ in range(times))

    def test_few(self) -> None:
        """A few of a kind pass, and those of another kind besides; nothing is told of them."""
        self.assertEqual([self._say("a", 3), self._say("b", 3)], [3, 3])
        self.clock.advance(120)
        self.assertEqual(self.told, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """The rest is counted, and told when the minute from the first one is over; then a few pass again."""
        self.assertEqual(self._say("a", 2), 2)
        self.clock.advance(20)
        self.assertEqual(self._say("a", 1000), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(39)
        self.assertEqual((self._say("a"), self.told), (0, []))
        self.clock.advance(1)
        self.assertEqual(self.told, [("a", 1000)])
        self.assertEqual(self._say("a", 5), 3)
        self.clock.advance(60)
        self.assertEqual(self.told, [("a", 1000), ("a", 2)])

    def test_now_and_then(self) -> None:
        """What is said now and then always passes."""
        for _ in range(20):
            self.assertEqual(self._say("a", 3), 3)
            self.clock.advance(60)
        self.assertEqual(self.told, [])

    def test_many_kinds(self) -> None:
        """However many kinds there are, few are remembered; of those that wait to be told none is forgotten."""
        self._say("a", 10)
        for number in range(5000):
            self.assertEqual(self._say(f"{number}"), 1)
        self.assertLessEqual(len(self.repeats._seen), 1000)
        self.clock.advance(60)
        self.assertEqual(self.told, [("a", 7)])
