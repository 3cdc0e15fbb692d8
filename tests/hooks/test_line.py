"""Results in the order in which they were asked for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from rtpush.registry.line import Line


class LineTests(SynchronousTestCase):
    """Whoever comes first is served first."""

    def test_nobody_waits(self) -> None:
        """What is known at once is there at once."""
        line = Line()
        self.assertEqual(self.successResultOf(line.put(succeed(1))), 1)
        self.failureResultOf(line.put(fail(ValueError())), ValueError)
        self.assertFalse(line.is_busy)

    @given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
    def test_order(self, arrivals: list[int], failures: set[int]) -> None:
        """In whatever order results come, and whichever fail, each has its turn in order."""
        line = Line()
        seen: list[Any] = []
        coming: list[Deferred[int]] = [Deferred() for _ in range(6)]
        for n, each in enumerate(coming):
            line.put(each).addBoth(lambda _, n=n: seen.append(n))
        for n in arrivals:
            self.assertTrue(line.is_busy)
            if n in failures:
                coming[n].errback(ValueError())
            else:
                coming[n].callback(n)
        self.assertEqual(seen, list(range(6)))
        self.assertFalse(line.is_busy)

    def test_known_behind_unknown(self) -> None:
        """What is known waits for what is not."""
        line, seen = Line(), []
        first: Deferred[int] = Deferred()
        line.put(first).addCallback(seen.append)
        line.put(succeed(2)).addCallback(seen.append)
        self.assertEqual(seen, [])
        first.callback(1)
        self.assertEqual(seen, [1, 2])

    def test_put_while_served(self) -> None:
        """Who comes while another is served is behind those who were there."""
        line, seen = Line(), []
        first: Deferred[int] = Deferred()
        line.put(first).addCallback(lambda n: (seen.append(n), line.put(succeed(3)).addCallback(seen.append)))
        line.put(succeed(2)).addCallback(seen.append)
        first.callback(1)
        self.assertEqual(seen, [1, 2, 3])
