"""Tests of rtpush.client.link."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.link import Deadline


class DeadlineTests(SynchronousTestCase):
    """A deadline that moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.passed: list[float] = []
        self.deadline = Deadline(self.clock, lambda: self.passed.append(self.clock.seconds()))

    def test_passes(self) -> None:
        """It passes once, at its time."""
        self.deadline.within(5)
        self.clock.pump([1] * 20)
        self.assertEqual(self.passed, [5])

    def test_later(self) -> None:
        """Moved later it passes later, and has one timer however often it is moved."""
        for _ in range(100):
            self.deadline.within(5)
            self.clock.advance(1)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1] * 20)
        self.assertEqual(self.passed, [104])

    def test_earlier(self) -> None:
        """Moved earlier it passes earlier, and not again."""
        self.deadline.within(50)
        self.deadline.within(5)
        self.clock.pump([1] * 100)
        self.assertEqual(self.passed, [5])

    def test_stop(self) -> None:
        """Stopped it does not pass, until it is set again."""
        self.deadline.within(5)
        self.deadline.stop()
        self.deadline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(10)
        self.assertEqual(self.passed, [])
        self.deadline.within(5)
        self.clock.advance(5)
        self.assertEqual(self.passed, [15])
