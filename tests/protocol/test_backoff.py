"""Tests of rtpush.protocol.backoff."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.backoff import Backoff, earlier, later, retry_after

_chances = st.floats(0, 1, exclude_max=True)
_seconds = st.floats(0, 86400)
_backoffs = st.builds(Backoff, st.floats(0, 60), st.floats(60, 3600), st.floats(0, 60))


class BackoffTests(SynchronousTestCase):
    """The delay before an attempt to reconnect."""

    def test_formula(self) -> None:
        """The delays are those of the protocol's formula."""
        backoff = Backoff(1, 30, 1)
        delays = [backoff.delay(attempt, 0.0) for attempt in range(8)]
        self.assertEqual(delays, [1, 2, 4, 8, 16, 30, 30, 30])
        self.assertEqual(backoff.delay(2, 0.25), 4.25)

    @given(_backoffs, st.integers(0, 10**9), _chances)
    def test_bounds(self, backoff: Backoff, attempt: int, chance: float) -> None:
        """However many attempts failed, a delay is never below the base nor above maximum and jitter together."""
        delay = backoff.delay(attempt, chance)
        self.assertGreaterEqual(delay, backoff.base)
        self.assertLessEqual(delay, backoff.maximum + backoff.jitter)

    @given(_backoffs, st.integers(0, 100), _chances)
    def test_never_sooner(self, backoff: Backoff, attempt: int, chance: float) -> None:
        """With the same chance, a later attempt does not wait for a shorter time."""
        self.assertGreaterEqual(backoff.delay(attempt + 1, chance), backoff.delay(attempt, chance))


class JitterTests(SynchronousTestCase):
    """Deadlines that are spread."""

    @given(_seconds, _chances, _chances)
    def test_earlier(self, seconds: float, fraction: float, chance: float) -> None:
        """A deadline that must be kept gets earlier, by the fraction at most."""
        spread = earlier(seconds, fraction, chance)
        self.assertLessEqual(spread, seconds)
        self.assertGreaterEqual(spread, seconds * (1 - fraction))

    @given(_seconds, _chances, _chances)
    def test_later(self, seconds: float, fraction: float, chance: float) -> None:
        """An invitation gets later, by the fraction at most."""
        spread = later(seconds, fraction, chance)
        self.assertGreaterEqual(spread, seconds)
        self.assertLessEqual(spread, seconds * (1 + fraction))

    def test_chance_counts(self) -> None:
        """Chance moves both, in their directions."""
        self.assertEqual([earlier(10, 0.5, chance) for chance in (0.0, 0.5)], [10, 7.5])
        self.assertEqual([later(10, 0.5, chance) for chance in (0.0, 0.5)], [10, 12.5])


class RetryAfterTests(SynchronousTestCase):
    """What those are told who are refused for a while."""

    def test_turn(self) -> None:
        """They come back when it is their turn, spread over five seconds, and not before the first step."""
        self.assertEqual((retry_after(1.0, 0.0, 0.0), retry_after(1.0, 0.0, 0.99)), (1, 5))
        self.assertEqual((retry_after(0.0, 20.0, 0.0), retry_after(2.5, 20.0, 0.99)), (21, 27))

    def test_long(self) -> None:
        """Nobody waits for much longer than a minute; those whose turn is later are spread over it."""
        self.assertEqual((retry_after(1.0, 600.0, 0.0), retry_after(1.0, 600.0, 0.999)), (1, 60))
