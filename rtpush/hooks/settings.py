"""How the application is asked: the values of ``[hooks]``."""

from __future__ import annotations

import attrs

from rtpush.hooks.signing import Secret
from rtpush.registry.counts import HOOK_EVENTS

__all__ = ["EVENTS", "HookSettings"]

#: What it can be asked about, or told of.
EVENTS = HOOK_EVENTS


@attrs.frozen(kw_only=True)
class HookSettings:
    """
    ``[hooks]``: where the application is, and what it is asked.

    :ivar url: Where it is; empty if it is not asked.
    :ivar on_failure: What happens if it gives no good answer: ``deny`` or ``allow``.
    :ivar failures: How many failures in a row there are before it is left alone.
    :ivar pause: Seconds for which it is left alone.
    :ivar remember: Seconds for which answers to those who poll are remembered.
    """

    url: str = ""
    events: tuple[str, ...] = EVENTS
    timeout: float = 2.0
    secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False)
    headers: tuple[str, ...] = ("cookie",)
    max_in_flight: int = 100
    on_failure: str = "deny"
    failures: int = 5
    pause: float = 10.0
    ca: str = ""
    remember: float = 60.0

    @property
    def in_use(self) -> bool:
        """Whether the application is asked or told anything."""
        return bool(self.url and self.events)
