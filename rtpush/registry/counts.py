"""
What a node has counted since it started: plain numbers, added to where it happens, and read when somebody asks.

Numbers are kept for kinds of things, of which there are few: transports, namespaces, error codes. Never for channels or
clients.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, TypeVar

from rtpush.errors import Disconnect, ErrorCode

__all__ = [
    "BOUNDS",
    "HOOK_EVENTS",
    "HOOK_OUTCOMES",
    "Counts",
    "Each",
    "Histogram",
    "HookCounts",
    "NamespaceCounts",
    "TransportCounts",
]

#: Seconds: the upper bounds of what durations are sorted into.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

#: What the application can be asked about or told of, and what can come of it.
HOOK_EVENTS = ("connect", "subscribe", "publish", "disconnect")
HOOK_OUTCOMES = ("allowed", "denied", "failed", "skipped")

T = TypeVar("T")


class Histogram:
    """
    How often something took how long.

    :ivar buckets: How often it took up to each of the bounds, and no less than the bound before; at last, longer.
    :ivar sum: Seconds, together.
    """

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count once."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class TransportCounts:
    """
    Of one transport.

    :ivar connecting: Connections in that state now; so ``open`` and ``closing``.
    :ivar accepted: Connections that there were.
    :ivar delivered: Messages that were sent, counted for each connection.
    :ivar delivered_bytes: Their bytes on this transport: as WebSocket frames, events or the bodies of polls.
    :ivar recovered: Subscriptions that went on from the position they came with.
    :ivar gaps: How often a subscription was told that messages are missing.
    """

    __slots__ = (
        "accepted", "closing", "connecting", "delivered", "delivered_bytes", "gaps", "open", "recovered"
    )

    def __init__(self) -> None:
        self.connecting = self.open = self.closing = 0
        self.accepted = 0
        self.delivered = self.delivered_bytes = 0
        self.recovered = self.gaps = 0

    @property
    def present(self) -> int:
        """Connections now, in any state."""
        return self.connecting + self.open + self.closing


class NamespaceCounts:
    """
    Of one namespace.

    :ivar published: Messages that clients or backends of this node have published, and that were allowed.
    :ivar published_bytes: Their payloads.
    :ivar delivered: Messages that were sent, counted for each connection.
    """

    __slots__ = ("delivered", "published", "published_bytes")

    def __init__(self) -> None:
        self.published = self.published_bytes = self.delivered = 0


class HookCounts:
    """
    Of what the application is asked and told.

    :ivar outcomes: How often what came of it, by event and outcome: ``allowed``, ``denied``, ``failed`` (no good
        answer) or ``skipped`` (it was not even asked).
    :ivar seconds: How long it took to answer.
    """

    __slots__ = ("outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], int] = {}
        self.seconds = Histogram()

    def add(self, event: str, outcome: str) -> None:
        """Count once."""
        self.outcomes[event, outcome] = self.outcomes.get((event, outcome), 0) + 1


class Each(dict[str, T], Generic[T]):
    """What there is of each kind; it is made when it is asked for."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> T:
        made = self[key] = self._make()
        return made


class Counts:
    """
    All that a node counts.

    :ivar sockets: Connections over TCP or Unix sockets that were accepted, whatever came on them.
    :ivar published: Messages that were published on this node and allowed, by the road they came: ``api``,
        ``websocket`` or ``emit``.
    :ivar received: Messages that the broker has brought.
    :ivar refusals: Requests and commands that were answered by an error, by its name.
    :ivar disconnects: Connections that this node has ended, by the reason.
    :ivar limited: How often a limit was met, by its key in the configuration.
    :ivar turned_away: Clients that were refused because too many came at once.
    :ivar slow_readers: Subscriptions whose reader's queue was full, by what was done about it: the namespace's policy.
    :ivar fanout: The time from when a message is here to when all connections have it, once for each batch.
    :ivar lag: How late the reactor is, several times a second.
    :ivar hooks: What the application was asked and told.
    :ivar pauses: How long collections of garbage take.
    """

    __slots__ = (
        "disconnects",
        "fanout",
        "hooks",
        "lag",
        "limited",
        "namespaces",
        "pauses",
        "published",
        "received",
        "refusals",
        "slow_readers",
        "sockets",
        "transports",
        "turned_away",
    )

    def __init__(self) -> None:
        self.transports = Each(TransportCounts)
        self.namespaces = Each(NamespaceCounts)
        self.sockets = 0
        self.published = Each(int)
        self.received = 0
        self.refusals = Each(int)
        self.disconnects = Each(int)
        self.limited = Each(int)
        self.turned_away = 0
        self.slow_readers = Each(int)
        self.fanout = Histogram()
        self.lag = Histogram()
        self.hooks = HookCounts()
        self.pauses = Histogram()

    def delivered(self, namespace: str, transport: str, messages: int, size: int, times: int = 1) -> None:
        """
        Count messages that were sent together.

        :param size: Their bytes on the transport.
        :param times: To how many connections.
        """
        self.namespaces[namespace].delivered += messages * times
        counts = self.transports[transport]
        counts.delivered += messages * times
        counts.delivered_bytes += size * times

    def refused(self, kind: ErrorCode) -> None:
        """Count a request or command that is answered by an error."""
        self.refusals[kind.name.lower()] += 1

    def disconnected(self, why: Disconnect) -> None:
        """Count a connection that this node ends."""
        self.disconnects[why.reason] += 1
