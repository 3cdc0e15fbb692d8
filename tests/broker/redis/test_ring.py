"""Tests of rtpush.broker.redis.ring."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.broker.redis.ring import Ring

_NAMES = tuple(f"redis-{number}:6379/0" for number in range(8))
_CHANNELS = [f"demo:{number}" for number in range(20_000)]

_names = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=6, unique=True)


class RingTests(SynchronousTestCase):
    """Which shard has which channel."""

    def test_stable(self) -> None:
        """These shards never change: history that is stored is found by them."""
        ring = Ring(_NAMES[:4])
        expected = {"demo:a": 0, "demo:b": 0, "demo:chat": 1, "news": 3, "é": 3, "x" * 255: 2}
        self.assertEqual({channel: ring(channel) for channel in expected}, expected)

    def test_single(self) -> None:
        """One shard has everything."""
        self.assertEqual({Ring(["a"])(channel) for channel in _CHANNELS[:100]}, {0})

    def test_balanced(self) -> None:
        """Each shard has about its part of many channels."""
        for count in (2, 3, 5, 8):
            ring = Ring(_NAMES[:count])
            loads = Counter(map(ring, _CHANNELS))
            part = len(_CHANNELS) / count
            self.assertEqual(set(loads), set(range(count)))
            self.assertTrue(all(0.7 * part < load < 1.3 * part for load in loads.values()), (count, loads))

    def test_growth(self) -> None:
        """A new shard takes about its part of the channels; no other channel moves."""
        for count in (1, 2, 4, 7):
            before, after = Ring(_NAMES[:count]), Ring(_NAMES[: count + 1])
            moved = [channel for channel in _CHANNELS if before(channel) != after(channel)]
            self.assertEqual({after(channel) for channel in moved}, {count})
            self.assertLess(len(moved), 1.3 * len(_CHANNELS) / (count + 1))

    @given(_names, st.text(st.characters(codec="utf-8")))
    def test_order(self, names: list[str], channel: str) -> None:
        """The order of the shards changes their indexes and nothing else."""
        other = sorted(names, reverse=True)
        self.assertEqual(names[Ring(names)(channel)], other[Ring(other)(channel)])

    @given(_names, st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8")))
    def test_any_growth(self, names: list[str], new: str, channel: str) -> None:
        """Whatever the shards are called, a channel stays where it is or moves to the new one."""
        if new in names:
            return
        before, after = names[Ring(names)(channel)], [*names, new][Ring([*names, new])(channel)]
        self.assertIn(after, {before, new})

    def test_impossible(self) -> None:
        """No shard at all, and two of the same name, are refused."""
        for names in ([], ["a", "b", "a"]):
            self.assertRaises(ValueError, Ring, names)
