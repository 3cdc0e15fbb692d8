"""Publishing on time, whatever the server makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from rtpush.cli.load.calling import Road
from rtpush.cli.load.crowd import text_of

__all__ = ["publish_on_time"]

#: The most messages in a request.
_BATCH = 200


async def publish_on_time(
    reactor: Any,
    road: Road,
    channels: Sequence[str],
    *,
    rate: float,
    seconds: float,
    size: int,
    clock: Callable[[], float],
    published: dict[str, int],
) -> None:
    """
    Publish to several channels, the same to each, at a rate that all of them share.

    Each channel has a connection of its own, so that its messages keep their order. When an answer is late, what has
    become due meanwhile goes with the next request, and its time runs from when it was due.

    :param published: How many have been published in each channel: kept up to date.
    :raises RtpushError: if one is refused.
    :raises LinkLost: if there is no answer.
    """
    each = rate / len(channels)
    begun = clock()

    async def one(channel: str, offset: float) -> None:
        caller = road.caller()
        try:
            while True:
                now = clock() - begun
                number = published.setdefault(channel, 0)
                due = offset + number / each
                if due >= seconds:
                    return
                if due > now:
                    await deferLater(reactor, due - now)
                    continue
                count = min(int((min(now, seconds) - due) * each) + 1, _BATCH)
                texts = [text_of(number + more, begun + due + more / each, size) for more in range(count)]
                published[channel] += count
                await road.publish(caller, channel, texts)
        finally:
            caller.close()

    await gatherResults(
        [Deferred.fromCoroutine(one(channel, place / len(channels) / each)) for place, channel in enumerate(channels)],
        consumeErrors=True,
    ).addErrback(_first)


def _first(failure: Any) -> None:
    """Raise the first error itself."""
    failure.value.subFailure.raiseException()
