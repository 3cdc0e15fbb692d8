"""The live subscriptions of a channel that have the same wire form: those that get the same bytes at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpush.interfaces import IStraight

if TYPE_CHECKING:
    from rtpush.registry.subscription import Subscription

__all__ = ["LiveGroup"]


class LiveGroup:
    """
    Live subscriptions.

    After each write the caches hold the kernel's data and not ours, so what counts in a fan-out is how many objects are
    touched for a delivery. Where nothing waits and nothing is to be looked at, it is the transport alone.

    :ivar straight: Those whose transport takes the bytes without more ado, and it.
    :ivar others: Those whose connection must be asked.
    """

    __slots__ = ("others", "straight")

    def __init__(self) -> None:
        self.straight: dict[Subscription, IStraight] = {}
        self.others: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self.straight) + len(self.others)

    def add(self, subscription: Subscription) -> None:
        """Take a subscription, or look at it anew: its connection takes things straight now, or no longer."""
        straight = subscription.connection.straight
        if straight is None:
            self.straight.pop(subscription, None)
            self.others[subscription] = None
        else:
            self.others.pop(subscription, None)
            self.straight[subscription] = straight

    def remove(self, subscription: Subscription) -> None:
        """Have it no longer."""
        if self.straight.pop(subscription, None) is None:
            del self.others[subscription]

    def subscriptions(self) -> list[Subscription]:
        """Return all of them."""
        return [*self.straight, *self.others]
