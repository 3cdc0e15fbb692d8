"""A token bucket: so many at once, and so many a second after that. Pure: the caller gives the time."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """
    Lets in ``burst`` at once, and ``rate`` a second in the long run.

    It knows how many it has refused, too: so each of them can be told when its turn is, and they do not all come back
    at the same time.

    :param rate: How many a second; 0 for any number.
    :param burst: How many at once, after a quiet time.
    """

    __slots__ = ("_burst", "_rate", "_refused", "_then", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        #: How many were refused whose turn has not come.
        self._refused = 0.0
        self._then = now

    def change(self, rate: float, burst: float, now: float) -> None:
        """Have other bounds from now on."""
        self._pass_to(now)
        self._rate = rate
        self._burst = burst
        self._tokens = min(self._tokens, burst)

    def take(self, now: float) -> bool:
        """Let one in, or refuse it."""
        if not self._rate:
            return True
        self._pass_to(now)
        if self._tokens < 1.0:
            self._refused += 1.0
            return False
        self._tokens -= 1.0
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until it is the turn of the one that was refused last: 0 if there is none."""
        if not self._rate:
            return 0.0
        self._pass_to(now)
        return self._refused / self._rate

    def is_full(self, now: float) -> bool:
        """Tell whether it is as one that was never asked."""
        self._pass_to(now)
        return self._tokens >= self._burst and not self._refused

    def _pass_to(self, now: float) -> None:
        """Let the time pass since the last call."""
        come = max(0.0, now - self._then) * self._rate
        self._then = now
        self._tokens = min(self._tokens + come, self._burst)
        self._refused = max(self._refused - come, 0.0)
