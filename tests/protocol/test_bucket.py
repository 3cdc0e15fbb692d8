"""Tests of rtpush.protocol.bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.bucket import TokenBucket


class TokenBucketTests(SynchronousTestCase):
    """How many are let in, and when the others come back."""

    def take(self, bucket: TokenBucket, count: int, now: float) -> int:
        """Let so many try; return how many are let in."""
        return sum(bucket.take(now) for _ in range(count))

    def test_burst(self) -> None:
        """At once there may be a burst, and no more."""
        bucket = TokenBucket(10, 25, 100.0)
        self.assertEqual(self.take(bucket, 100, 100.0), 25)

    def test_rate(self) -> None:
        """Then so many a second, however they are spread; what was not used is kept up to the burst."""
        bucket = TokenBucket(10, 25, 0.0)
        self.take(bucket, 25, 0.0)
        self.assertEqual(self.take(bucket, 100, 0.5), 5)
        self.assertEqual(sum(self.take(bucket, 1, 0.5 + step / 32) for step in range(1, 65)), 20)
        self.assertEqual(self.take(bucket, 100, 1000.0), 25)

    def test_wait(self) -> None:
        """Each that is refused has its turn after those that were refused before, and is let in when it comes then."""
        bucket = TokenBucket(8, 2, 0.0)
        turns = []
        for _ in range(18):
            if not bucket.take(0.0):
                turns.append(bucket.wait(0.0))
        self.assertEqual(turns, [number / 8 for number in range(1, 17)])
        self.assertEqual([bucket.take(turn) for turn in turns], [True] * 16)
        self.assertEqual(bucket.wait(turns[-1]), 0.0)

    def test_wait_grows_less(self) -> None:
        """As time passes, the turn of a newcomer is nearer."""
        bucket = TokenBucket(8, 1, 0.0)
        self.take(bucket, 17, 0.0)
        self.assertEqual([bucket.wait(now) for now in (0.0, 1.0, 1.5, 5.0)], [2.0, 1.0, 0.5, 0.0])

    def test_no_bound(self) -> None:
        """Without a rate all are let in, and nobody waits."""
        bucket = TokenBucket(0, 1, 0.0)
        self.assertEqual(self.take(bucket, 1000, 0.0), 1000)
        self.assertEqual(bucket.wait(0.0), 0.0)

    def test_change(self) -> None:
        """Other bounds hold from when they are set, for what is there too."""
        bucket = TokenBucket(10, 100, 0.0)
        bucket.change(1, 5, 0.0)
        self.assertEqual(self.take(bucket, 100, 0.0), 5)
        self.assertEqual(self.take(bucket, 100, 2.0), 2)
        bucket.change(0, 5, 2.0)
        self.assertEqual(self.take(bucket, 100, 2.0), 100)

    def test_time_stands(self) -> None:
        """A clock that goes back makes no tokens, and takes none away."""
        bucket = TokenBucket(10, 5, 10.0)
        self.assertEqual(self.take(bucket, 3, 10.0), 3)
        self.assertEqual(self.take(bucket, 9, 9.0), 2)
        self.assertEqual(self.take(bucket, 9, 9.125), 1)

    @given(
        rate=st.floats(0.5, 1000),
        burst=st.integers(1, 100),
        steps=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 50)), max_size=50),
    )
    def test_never_more(self, rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
        """Whatever comes and when, no more are let in than the burst and the rate allow."""
        bucket = TokenBucket(rate, burst, 0.0)
        now, let_in = 0.0, 0
        for pause, count in steps:
            now += pause
            let_in += self.take(bucket, count, now)
            self.assertLessEqual(let_in, burst + now * rate + 1e-6)
