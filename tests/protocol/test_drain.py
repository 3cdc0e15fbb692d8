"""Tests of rtpush.protocol.drain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.drain import TICK, last_told, slice_size


class DrainTests(SynchronousTestCase):
    """Who is told when."""

    def test_last_told(self) -> None:
        """Those who are told last have a fifth of the window to go, and two seconds at most."""
        self.assertEqual((last_told(5.0), last_told(15.0)), (4.0, 13.0))

    def test_slices_are_alike(self) -> None:
        """A hundred clients and ten ticks make slices of ten; what is left when time is up goes at once."""
        self.assertEqual(slice_size(100, 1.0, 2.0), 10)
        self.assertEqual(slice_size(7, 2.0, 2.0), 7)
        self.assertEqual(slice_size(7, 9.0, 2.0), 7)
        self.assertEqual(slice_size(0, 0.0, 2.0), 0)

    @given(st.integers(0, 100_000), st.floats(1, 120), st.floats(0, 0.7))
    def test_all_are_told_in_time(self, clients: int, window: float, part: float) -> None:
        """All are told by the time by which the last should be."""
        last, elapsed, untold = last_told(window), window * part, clients
        while untold:
            untold -= slice_size(untold, elapsed, last)
            elapsed += TICK
        self.assertLessEqual(elapsed, last + 2 * TICK)
