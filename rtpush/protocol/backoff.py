"""When to come back: exponential backoff with additive jitter. Pure: the random number is passed in."""

from __future__ import annotations

import math

import attrs

__all__ = ["Backoff", "earlier", "later", "retry_after"]

#: Seconds over which those who are refused for a while are spread.
_RETRY_SPREAD = 5

#: Seconds: the longest that one is told to wait for its turn when too many come at once.
_LONGEST_WAIT = 60


@attrs.frozen(slots=True)
class Backoff:
    """
    How a client spreads its attempts to reconnect.

    :ivar base: Seconds before the first attempt.
    :ivar maximum: The most that the doubling may reach, in seconds.
    :ivar jitter: The most that chance adds, in seconds.
    """

    base: float = 1.0
    maximum: float = 30.0
    jitter: float = 1.0

    def delay(self, attempt: int, chance: float) -> float:
        """
        Return the seconds to wait before an attempt: ``min(base · 2^attempt, maximum) + chance · jitter``.

        :param attempt: How many attempts failed since the last success, from 0.
        :param chance: A random number, at least 0 and below 1.
        """
        # 2 ** 64 seconds is past any maximum; without the bound a very high attempt overflows the float.
        return min(self.base * 2.0 ** min(attempt, 64), self.maximum) + chance * self.jitter


def earlier(seconds: float, fraction: float, chance: float) -> float:
    """Return a time that is earlier than ``seconds`` by up to ``fraction`` of it: for deadlines that must be kept."""
    return seconds * (1.0 - fraction * chance)


def later(seconds: float, fraction: float, chance: float) -> float:
    """Return a time that is later than ``seconds`` by up to ``fraction`` of it: for invitations to come back."""
    return seconds * (1.0 + fraction * chance)


def retry_after(base: float, wait: float, chance: float) -> int:
    """
    Return the whole seconds after which one that is refused for a while is asked to come back.

    When too many come at once, those who are refused are spread over the time that it takes to let all of them in.

    :param base: The seconds that clients wait before their first attempt.
    :param wait: The seconds until it is its turn, if too many come at once.
    :param chance: A random number, at least 0 and below 1.
    """
    first = max(1, math.ceil(base))
    if wait > _LONGEST_WAIT:
        return first + int(chance * _LONGEST_WAIT)
    return first + int(wait + chance * _RETRY_SPREAD)
