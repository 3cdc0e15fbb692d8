"""What was answered lately."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.hooks.remembered import Remembered


class RememberedTests(SynchronousTestCase):
    """How long, and how much."""

    def test_time(self) -> None:
        """An answer is good for some seconds, and then forgotten."""
        kept: Remembered[str] = Remembered(10.0)
        kept.put("a", "A", 0.0, 1)
        self.assertEqual((kept.get("a", 9.9), kept.get("b", 9.9)), ("A", None))
        self.assertIsNone(kept.get("a", 10.0))
        self.assertEqual(len(kept), 0)

    def test_not_at_all(self) -> None:
        """With no time nothing is kept."""
        kept: Remembered[str] = Remembered(0.0)
        kept.put("a", "A", 0.0, 1)
        self.assertEqual(len(kept), 0)

    def test_number(self) -> None:
        """The one that was not wanted for longest makes room."""
        kept: Remembered[int] = Remembered(10.0, most=3)
        for n in range(3):
            kept.put(n, n, 0.0, 1)
        kept.get(0, 1.0)
        kept.put(3, 3, 1.0, 1)
        self.assertEqual([kept.get(n, 1.0) for n in range(4)], [0, None, 2, 3])

    def test_size(self) -> None:
        """Together they are not larger than a bound; what is replaced or forgotten does not count."""
        kept: Remembered[str] = Remembered(10.0, most_bytes=100)
        for _ in range(5):
            kept.put("a", "A", 0.0, 60)
        kept.put("b", "B", 0.0, 40)
        self.assertEqual((kept.get("a", 1.0), kept.get("b", 1.0)), ("A", "B"))
        kept.forget("a")
        kept.forget("a")
        kept.put("c", "C", 0.0, 60)
        kept.put("d", "D", 0.0, 1)
        self.assertEqual([kept.get(each, 1.0) for each in "bcd"], [None, "C", "D"])
        kept.put("e", "E", 0.0, 101)
        self.assertEqual(len(kept), 0)
