"""What carries messages and keeps history: ``[broker]`` and ``[redis]``."""

from __future__ import annotations

import attrs

from rtpush.broker.redis.address import RedisAddress, parse_address
from rtpush.service.sections import Key, SectionType
from rtpush.service.values import Many, One, choice, integer, matching, number, path

__all__ = ["BROKER", "REDIS", "Broker", "Redis"]

_HOUR = 3600
_YEAR = 366 * 24 * 3600


@attrs.frozen(kw_only=True)
class Broker:
    """``[broker]``."""

    engine: str = "memory"
    position_ttl: float = 86400.0
    idempotency_window: float = 300.0
    max_channels: int = 1_000_000


@attrs.frozen(kw_only=True)
class Redis:
    """``[redis]``: what counts if the engine is Redis. Several addresses are shards."""

    url: tuple[RedisAddress, ...] = (parse_address("redis://127.0.0.1:6379/0"),)
    prefix: str = "rtpush"
    timeout: float = 5.0
    node_ttl: float = 15.0
    ca: str = ""
    certificate: str = ""
    key: str = ""


_REDIS_URL = One("an address such as redis://127.0.0.1:6379/0", parse_address, secret=True)

BROKER = SectionType(
    "broker",
    Broker,
    (
        Key(
            "engine",
            choice("memory", "redis"),
            "What carries messages and keeps history. With memory, history ends with the process.",
        ),
        Key(
            "position_ttl",
            number(1, 10 * _YEAR),
            "Seconds for which the position of a channel is known after its last message or subscriber.",
        ),
        Key(
            "idempotency_window",
            number(0, _YEAR),
            "Seconds in which a publish with the same idempotency key is not done again.",
        ),
        Key(
            "max_channels",
            integer(0, 1_000_000_000),
            "The most channels that the memory engine remembers. 0 is no limit.",
        ),
    ),
)

REDIS = SectionType(
    "redis",
    Redis,
    (
        Key(
            "url",
            Many(_REDIS_URL, least=1),
            "Where Redis is. Several addresses, one a line, share the channels between them.",
        ),
        Key(
            "prefix",
            matching(r"[A-Za-z0-9_]{1,32}", "1 to 32 letters, digits and underscores"),
            "What all its keys and channels in Redis begin with: another one for each installation, "
            "even in different databases of a Redis.",
        ),
        Key(
            "timeout",
            number(0.1, 60),
            "Seconds within which Redis must answer; after them its connections are made anew.",
        ),
        Key(
            "node_ttl",
            number(3, _HOUR),
            "Seconds after which a node that is not heard of counts as dead.",
        ),
        Key(
            "ca",
            path(),
            "The file of the authorities that may sign Redis's certificate, if not those of the system.",
        ),
        Key("certificate", path(), "The file of the certificate that this node shows to Redis, if it asks for one."),
        Key("key", path(), "The file of that certificate's private key."),
    ),
)
