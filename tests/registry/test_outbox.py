"""Tests of rtpush.registry.outbox."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.registry.outbox import Outbox


class OutboxTests(SynchronousTestCase):
    """The queue of a slow connection."""

    @given(st.integers(0, 50), st.lists(st.none() | st.integers(0, 60)))
    def test_against_list(self, limit: int, steps: list[int | None]) -> None:
        """Bytes come out as they went in; what is over the bound is refused whole, but for a single item."""
        outbox = Outbox(limit)
        model: list[bytes] = []
        for step in steps:
            if step is None:
                self.assertEqual(outbox.pop(), model.pop(0) if model else None)
            else:
                fits = not model or sum(map(len, model)) + step <= limit
                self.assertIs(outbox.put(b"x" * step), fits)
                if fits:
                    model.append(b"x" * step)
            self.assertEqual(outbox.size, sum(map(len, model)))

    def test_every_message_can_pass(self) -> None:
        """One that is larger than the bound passes when nothing else waits."""
        outbox = Outbox(10)
        self.assertTrue(outbox.put(b"x" * 1000))
        self.assertFalse(outbox.put(b"y"))
        self.assertEqual(outbox.pop(), b"x" * 1000)
        self.assertTrue(outbox.put(b"y"))
