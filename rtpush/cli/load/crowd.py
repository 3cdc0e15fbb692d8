"""Many links to one server: opened together, counted together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred, gatherResults

from rtpush.cli.load.dialling import Dialler
from rtpush.cli.load.links import Link
from rtpush.client import LinkLost

__all__ = ["Histogram", "Links", "text_of"]

#: By how much a step of the histogram is longer than the one before.
_RATIO = math.log(1.01)


class Histogram:
    """
    How long things took, to 1 %: it does not grow with their number.

    :ivar count: How many there were.
    :ivar longest: In seconds.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._steps: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        if seconds > self.longest:
            self.longest = seconds
        self._steps[int(math.log(max(seconds, 1e-7)) / _RATIO)] += 1

    def percentile(self, part: float) -> float:
        """Return the time within which a part of them was done; 0 if there is none."""
        wanted, seen = part * self.count, 0
        for step in sorted(self._steps):
            seen += self._steps[step]
            if seen >= wanted:
                return min(math.exp(step * _RATIO), self.longest)
        return 0.0


@attrs.define
class _Seen:
    """What one link has seen: the number of the last message."""

    last: int = -1


_NOTHING = _Seen()


def text_of(number: int, due: float, size: int) -> str:
    """Return a message: its number in its channel and when it was due, filled up to a size in bytes."""
    return f"{number} {int(due * 1e6)} ".ljust(size, "x")


class Links:
    """
    Links, and what came through them: messages as :func:`text_of` makes them.

    :param make: Makes a link for a channel.
    :param clock: Tells the time, in seconds.

    :ivar times: From when a message was due until it came.
    :ivar came: How many came.
    :ivar missing: How many never came, between others.
    :ivar repeated: How many came twice, or after later ones.
    :ivar reasons: Why links were lost, and how often.
    """

    def __init__(self, make: Callable[[str, Links], Link], dialler: Dialler, clock: Callable[[], float]) -> None:
        self.links: list[Link] = []
        self.times = Histogram()
        self.came = self.missing = self.repeated = 0
        self.reasons: Counter[str] = Counter()
        self._make = make
        self._dialler = dialler
        self._clock = clock
        self._seen: dict[Link, _Seen] = {}
        self._opening: dict[Link, Deferred[None]] = {}

    async def open(self, channels: Sequence[str], window: int, report: Callable[[int], object]) -> None:
        """Open a link to each of the channels, so many at once. Those that fail are in :attr:`reasons`."""
        left = iter(channels)
        done = 0

        async def one_after_the_other() -> None:
            nonlocal done
            for channel in left:
                try:
                    await self._open(channel)
                except LinkLost as lost:
                    self.reasons[str(lost)] += 1
                done += 1
                report(done)

        await gatherResults(
            [Deferred.fromCoroutine(one_after_the_other()) for _ in range(min(window, len(channels)))],
            consumeErrors=True,
        )

    async def _open(self, channel: str) -> None:
        link = self._make(channel, self)
        opening: Deferred[None] = Deferred()
        self._opening[link] = opening
        try:
            await self._dialler.dial(link)
            await opening
        except BaseException:
            self._opening.pop(link, None)
            link.close()
            raise
        self.links.append(link)

    def close(self) -> None:
        """Close all."""
        for link in [*self.links, *self._opening]:
            link.close()
        self.links.clear()

    def lacks(self, published: dict[str, int]) -> int:
        """Return how many of the messages that were published in each channel have not come to links that are open."""
        return self.missing + sum(
            published.get(link.channel, 0) - 1 - self._seen.get(link, _NOTHING).last for link in self.links
        )

    def have_all(self, published: dict[str, int]) -> bool:
        """Tell whether the last message of each channel has come everywhere."""
        return all(self._seen.get(link, _NOTHING).last >= published.get(link.channel, 0) - 1 for link in self.links)

    # Audience

    def opened(self, link: Link) -> None:
        opening = self._opening.pop(link, None)
        if opening is not None:
            opening.callback(None)

    def received(self, link: Link, payload: str) -> None:
        number, _, rest = payload.partition(" ")
        due = rest.partition(" ")[0]
        if not number.isdecimal() or not due.isdecimal():
            # Somebody else's.
            return
        seen = self._seen.get(link)
        if seen is None:
            seen = self._seen[link] = _Seen()
        self.came += 1
        place = int(number)
        if place <= seen.last:
            self.repeated += 1
            return
        self.missing += place - seen.last - 1
        seen.last = place
        self.times.add(self._clock() - int(due) / 1e6)

    def lost(self, link: Link, reason: str) -> None:
        opening = self._opening.pop(link, None)
        if opening is not None:
            opening.errback(LinkLost(reason))
            return
        self.reasons[reason] += 1
        if link in self.links:
            self.links.remove(link)
