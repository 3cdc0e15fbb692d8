"""
Negotiation: which transports a client should try, in which order, and why.

The rule: both sides talk → WebSocket; only the server pushes → server-sent events; data changes rarely (over minutes) →
short polling; long polling is the last fallback of the first two.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

import attrs

__all__ = ["TRANSPORTS", "Choice", "Direction", "choose"]

#: All transports, from the best to the last resort.
TRANSPORTS = ("websocket", "sse", "longpoll", "shortpoll")


class Direction(enum.Enum):
    """What a client needs the connection for."""

    DUPLEX = "duplex"
    PUSH = "push"
    RARE = "rare"


_REASONS: dict[Direction, dict[str, str]] = {
    Direction.DUPLEX: {
        "websocket": "both sides talk: one connection carries both directions",
        "sse": "first fallback: messages are streamed, the client talks by POST /emit",
        "longpoll": "last fallback: works wherever HTTP does, at a request per delivery",
    },
    Direction.PUSH: {
        "sse": "only the server pushes: plain HTTP, and the browser reconnects by itself",
        "websocket": "first fallback: more than is needed, but not held back by proxies that buffer answers",
        "longpoll": "last fallback: works wherever HTTP does, at a request per delivery",
    },
    Direction.RARE: {
        "shortpoll": "data changes rarely: no connection is held, and caches answer most polls",
        "sse": "fallback where changes must be seen at once",
        "longpoll": "last fallback: works wherever HTTP does, at a request per delivery",
    },
}

_UNRANKED = {
    Direction.DUPLEX: {"shortpoll": "a poll every few seconds costs more than a held connection, and is later"},
    Direction.PUSH: {"shortpoll": "a poll every few seconds costs more than a held connection, and is later"},
    Direction.RARE: {"websocket": "a held connection in both directions is not worth its memory for rare changes"},
}


@attrs.frozen(slots=True)
class Choice:
    """
    What a client is told.

    :ivar ranked: Transport and reason, the best first.
    :ivar excluded: Transport and reason, in no order.
    """

    ranked: list[tuple[str, str]]
    excluded: list[tuple[str, str]]


def choose(direction: Direction, *, offered: Sequence[str], supported: Collection[str]) -> Choice:
    """
    Rank the transports for a client.

    What the network between lets through is not guessed: a proxy may treat each route in another way, and the client
    finds out in seconds.

    :param offered: What this server has switched on.
    :param supported: What the client can do.
    """
    ranked: list[tuple[str, str]] = []
    excluded: list[tuple[str, str]] = []
    reasons = _REASONS[direction]
    unranked = _UNRANKED[direction]
    for name in (*reasons, *unranked):
        if name not in offered:
            excluded.append((name, "switched off on this server"))
        elif name not in supported:
            excluded.append((name, "not among those that the client can do"))
        elif name in unranked:
            excluded.append((name, unranked[name]))
        else:
            ranked.append((name, reasons[name]))
    if not ranked:
        # What is possible, though not worth it, is better than nothing.
        ranked = [(name, reason) for name, reason in excluded if unranked.get(name) == reason]
        excluded = [pair for pair in excluded if pair not in ranked]
    return Choice(ranked, excluded)
