"""
The hot path: what arrives for a channel within one reactor turn goes out as one batch.

A batch is encoded once per wire form, and each connection gets it in one write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.protocol.forms import Batch

if TYPE_CHECKING:
    from rtpush.registry.channel import Channel

__all__ = ["FanOut"]


class FanOut:
    """Collects the channels that have messages, and flushes them all once a reactor turn."""

    _log = Logger()

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
        # A poll that is answered may bring its connection's next request at once, so nothing is walked as it stands.
        for form, group in list(channel.live.items()):
            try:
                data = form.messages(batch, str)
            except Exception:
                self._log.failure("{channel}: cannot be encoded as {form}", channel=channel.name, form=form)
                continue
            for subscription in list(group):
                try:
                    if not subscription.connection.deliver(data):
                        subscription.refused(before)
                except Exception:
                    subscription.connection.failed("delivery")
        self._offer(channel, batch)

    def _offer(self, channel: Channel, batch: Batch) -> None:
        for subscription in list(channel.waiting):
            try:
                subscription.offer(batch)
            except Exception:
                subscription.connection.failed("delivery")
