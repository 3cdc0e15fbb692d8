"""Tests of rtpush.protocol.deadlines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.deadlines import Deadlines


class DeadlinesTests(SynchronousTestCase):
    """Deadlines that are all equally far."""

    def setUp(self) -> None:
        self.deadlines: Deadlines[str] = Deadlines()
        for moment, item in enumerate("abcd"):
            self.deadlines.set(item, moment + 10.0)

    def test_on_time(self) -> None:
        """They pass at their time, not before, once, and in their order."""
        self.assertEqual(self.deadlines.next(), 10)
        self.assertEqual(self.deadlines.expire(9.9), [])
        self.assertEqual(self.deadlines.expire(11), ["a", "b"])
        self.assertEqual((len(self.deadlines), "b" in self.deadlines, "c" in self.deadlines), (2, False, True))
        self.assertEqual(self.deadlines.expire(11), [])
        self.assertEqual(self.deadlines.expire(100), ["c", "d"])
        self.assertIsNone(self.deadlines.next())

    def test_set_again(self) -> None:
        """An item has one deadline: the last."""
        self.deadlines.set("a", 14)
        self.assertEqual(self.deadlines.expire(13.9), ["b", "c", "d"])
        self.assertEqual(self.deadlines.expire(14), ["a"])

    def test_cancel(self) -> None:
        """What is taken out does not pass; the first one can be taken out at once."""
        self.deadlines.pop("b", None)
        self.deadlines.pop("x", None)
        self.assertEqual(self.deadlines.first(), "a")
        self.assertEqual(self.deadlines.expire(100), ["c", "d"])

    def test_hasten(self) -> None:
        """Those that are later come earlier, those that are not stay."""
        self.deadlines.hasten(11)
        self.assertEqual(self.deadlines.expire(10), ["a"])
        self.assertEqual(self.deadlines.expire(11), ["b", "c", "d"])
