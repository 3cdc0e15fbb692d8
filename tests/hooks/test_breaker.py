"""The circuit breaker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.hooks.breaker import Breaker


class BreakerTests(SynchronousTestCase):
    """When it opens, and how it closes."""

    def setUp(self) -> None:
        self.breaker = Breaker(3, 10.0, lambda: 0.5)

    def fail(self, now: float, times: int = 1) -> list[bool]:  # type: ignore[override]
        """Let some through, and have them fail."""
        told = []
        for _ in range(times):
            self.assertTrue(self.breaker.let_through(now))
            told.append(self.breaker.failed(now))
        return told

    def test_opens(self) -> None:
        """So many failures in a row open it, which is told once; a success in between begins anew."""
        self.assertEqual(self.fail(0.0, 2), [False, False])
        self.assertFalse(self.breaker.succeeded())
        self.assertEqual(self.fail(0.0, 3), [False, False, True])
        self.assertTrue(self.breaker.is_open)
        self.assertTrue(self.breaker.blocks(0.0))
        self.assertFalse(self.breaker.let_through(10.49))
        self.assertEqual(self.breaker.left(0.0), 10.5)

    def test_tries(self) -> None:
        """After its pause it lets one through, and no other until that is known."""
        self.fail(0.0, 3)
        self.assertTrue(self.breaker.let_through(10.5))
        self.assertTrue(self.breaker.blocks(10.5))
        self.assertFalse(self.breaker.let_through(1000.0))

    def test_closes(self) -> None:
        """If that one is good it closes, which is told; all failures are forgotten."""
        self.fail(0.0, 3)
        self.breaker.let_through(11.0)
        self.assertTrue(self.breaker.succeeded())
        self.assertEqual(self.fail(11.0, 2), [False, False])

    def test_opens_again(self) -> None:
        """If that one fails it is open for another pause."""
        self.fail(0.0, 3)
        self.assertEqual(self.fail(11.0), [False])
        self.assertTrue(self.breaker.blocks(21.0))
        self.assertFalse(self.breaker.blocks(21.5))

    def test_late_failures(self) -> None:
        """Failures of what was under way when it opened make nothing longer."""
        self.fail(0.0, 3)
        self.assertFalse(self.breaker.failed(9.0))
        self.assertFalse(self.breaker.blocks(10.5))
