"""What channels are like: ``[namespace:NAME]``."""

from __future__ import annotations

from rtpush.protocol.channel import Access, Namespace, SlowReader
from rtpush.service.sections import Key, SectionType
from rtpush.service.values import boolean, integer, member, number

__all__ = ["NAMESPACE"]

_YEAR = 366 * 24 * 3600

NAMESPACE = SectionType(
    "namespace:NAME",
    Namespace,
    (
        Key(
            "history_size",
            integer(0, 10_000_000),
            "The most messages that each channel keeps, for those who come back. 0 keeps none.",
        ),
        Key("history_ttl", number(0.1, 10 * _YEAR), "Seconds for which a message is kept."),
        Key("subscribe", member(Access), "Who may subscribe: anyone, token (whose token permits it) or server."),
        Key("publish", member(Access), "Who may publish: anyone, token, or server (the server API only)."),
        Key(
            "read_history",
            member(Access),
            "Who may ask for history: anyone, token or server. By default those who may subscribe.",
        ),
        Key(
            "read_presence",
            member(Access),
            "Who may ask for presence: anyone, token or server. By default those who may subscribe.",
        ),
        Key(
            "anonymous",
            boolean(),
            "Whether clients without a token may do anything here. By default no as soon as [auth] has keys.",
        ),
        Key(
            "user_limited",
            boolean(),
            "Whether a channel such as chat:room#42#43 is for the users 42 and 43 alone.",
        ),
        Key("presence", boolean(), "Whether the connections of a channel can be listed."),
        Key(
            "join_leave",
            boolean(),
            "Whether subscribers hear of others that come and go: for small channels, since each is a message to all.",
        ),
        Key(
            "slow_reader",
            member(SlowReader),
            "What happens to a reader that does not keep up: recover (it goes on from history), latest or disconnect.",
        ),
        Key("poll_max_age", integer(0, 86400), "Seconds for which caches may keep the answer of a short poll."),
        Key("hooks", boolean(), "Whether the application of [hooks] is asked about what clients do here."),
    ),
)
