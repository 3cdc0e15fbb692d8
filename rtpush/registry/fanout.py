"""
The hot path: what arrives for a channel within one reactor turn goes out as one batch.

A batch is encoded once per wire form, and each connection gets it in one write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from rtpush.protocol.channel import SlowReader
from rtpush.registry.connection import Connection
from rtpush.registry.subscription import Stage

if TYPE_CHECKING:
    from rtpush.protocol.forms import Batch, WireForm
    from rtpush.registry.channel import Channel
    from rtpush.registry.counts import Counts
    from rtpush.registry.live import LiveGroup
    from rtpush.registry.subscription import Subscription

__all__ = ["FanOut"]

# Looking them up takes longer than what is done with them.
_LIVE, _LATEST = Stage.LIVE, SlowReader.LATEST


class FanOut:
    """
    Collects the channels that have messages, and flushes them all once a reactor turn.

    :param soon: Has something called at the end of this turn, or in the next one.
    """

    def __init__(
        self, clock: IReactorTime, counts: Counts, soon: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        self._clock = clock
        self._soon = soon or partial(clock.callLater, 0)
        self._counts = counts
        #: When the first message came that is pending.
        self._since = 0.0
        self._dirty: dict[Channel, None] = {}

    def enqueue(self, channel: Channel) -> None:
        """Have the pending messages of a channel delivered in this turn's flush."""
        if not self._dirty:
            self._since = self._clock.seconds()
            self._soon(self.flush)
        self._dirty[channel] = None

    def flush(self) -> None:
        """Deliver what is pending everywhere."""
        dirty, self._dirty = self._dirty, {}
        since = self._since
        for channel in dirty:
            # What is very much goes out in several batches. What comes meanwhile has its own turn.
            left = channel.pending
            while left > 0:
                left -= self._deliver(channel, since)

    def _deliver(self, channel: Channel, since: float) -> int:
        """Deliver a batch; return how many messages it had."""
        batch, before = channel.take_pending()
        if batch is None:
            return 1
        waiting = list(channel.waiting)
        left = [each for form, group in list(channel.live.items()) if (each := self._send(channel, batch, form, group))]
        # A poll that is answered may bring its connection's next request at once, and that may begin and end
        # subscriptions: the batch is for those that were there before.
        for data, others in left:
            # Where only the newest message counts, nothing is queued.
            is_latest = channel.namespace.slow_reader is _LATEST
            deliver = Connection.deliver_at_once if is_latest else Connection.deliver
            for subscription in others:
                try:
                    if subscription.stage is _LIVE and not deliver(subscription.connection, data):
                        self._counts.delivered(
                            channel.namespace.name, subscription.connection.transport, -len(batch.messages), len(data)
                        )
                        subscription.refused(before)
                except Exception:
                    subscription.connection.failed("delivery")
        for subscription in waiting:
            try:
                subscription.offer(batch)
            except Exception:
                subscription.connection.failed("delivery")
        self._counts.fanout.observe(max(0.0, self._clock.seconds() - since))
        return len(batch.messages)

    def _send(
        self, channel: Channel, batch: Batch, form: WireForm, group: LiveGroup
    ) -> tuple[bytes, list[Subscription]] | None:
        """Send a batch to those who take it straight; return what the others of the group are to get."""
        if not len(group):
            # The end of others has ended them.
            return None
        try:
            data = form.messages(batch, str)
        except Exception:
            # Nobody may miss a message without being told.
            for subscription in group.subscriptions():
                subscription.connection.failed("encoding")
            return None
        others = list(group.others)
        # All with the same form are on one transport.
        one = others[0] if others else next(iter(group.straight))
        self._counts.delivered(
            channel.namespace.name, one.connection.transport, len(batch.messages), len(data), len(group)
        )
        for transport in list(group.straight.values()):
            try:
                transport.write(data)
            except Exception:
                next(each for each, to in group.straight.items() if to is transport).connection.failed("delivery")
        return (data, others) if others else None
