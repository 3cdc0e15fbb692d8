"""
The hot path: what arrives for a channel within one reactor turn goes out as one batch.

A batch is encoded once per wire form, and each connection gets it in one write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from rtpush.registry.subscription import Stage

if TYPE_CHECKING:
    from rtpush.registry.channel import Channel

__all__ = ["FanOut"]


class FanOut:
    """Collects the channels that have messages, and flushes them all once a reactor turn."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._dirty: dict[Channel, None] = {}

    def enqueue(self, channel: Channel) -> None:
        """Have the pending messages of a channel delivered in this turn's flush."""
        if not self._dirty:
            self._clock.callLater(0, self.flush)
        self._dirty[channel] = None

    def flush(self) -> None:
        """Deliver what is pending everywhere."""
        dirty, self._dirty = self._dirty, {}
        for channel in dirty:
            self._deliver(channel)

    def _deliver(self, channel: Channel) -> None:
        batch, before = channel.take_pending()
        if batch is None:
            return
        # A poll that is answered may bring its connection's next request at once, and that may begin and end
        # subscriptions: the batch is for those that were there before.
        groups = [(form, list(group)) for form, group in channel.live.items()]
        waiting = list(channel.waiting)
        for form, group in groups:
            try:
                data = form.messages(batch, str)
            except Exception:
                # Nobody may miss a message without being told.
                for subscription in group:
                    subscription.connection.failed("encoding")
                continue
            for subscription in group:
                try:
                    if subscription.stage is Stage.LIVE and not subscription.connection.deliver(data):
                        subscription.refused(before)
                except Exception:
                    subscription.connection.failed("delivery")
        for subscription in waiting:
            try:
                subscription.offer(batch)
            except Exception:
                subscription.connection.failed("delivery")
