"""What a stranger can send or hold: ``[limits]``."""

from __future__ import annotations

from rtpush.protocol.channel import MAX_CHANNEL_BYTES
from rtpush.protocol.limits import Limits
from rtpush.service.sections import Key, SectionType
from rtpush.service.values import integer, number

__all__ = ["LIMITS"]

_HOUR = 3600
_GIBIBYTE = 1 << 30

LIMITS = SectionType(
    "limits",
    Limits,
    (
        Key("message_bytes", integer(1, _GIBIBYTE), "The largest payload of a message, in bytes."),
        Key(
            "request_bytes",
            integer(1, _GIBIBYTE),
            "The largest body of an HTTP request, in bytes: at least message_bytes.",
        ),
        Key(
            "incoming_bytes",
            integer(1, 1024 * _GIBIBYTE),
            "The most bytes of requests and messages that are not complete, for all clients together.",
        ),
        Key("queue_bytes", integer(1, _GIBIBYTE), "The most bytes that wait for a reader that does not keep up."),
        Key("channels_per_connection", integer(1, 100_000), "The most channels that one connection follows."),
        Key(
            "page_messages",
            integer(1, 100_000),
            "The most messages in one page of history, and in the answer to a poll.",
        ),
        Key("header_timeout", number(0.1, _HOUR), "Seconds in which the head of a request must have come."),
        Key(
            "connect_rate",
            number(0, 1_000_000, "a number a second"),
            "The most clients that a process lets in a second; others are told when to come back. 0 is no limit.",
        ),
        Key(
            "connect_burst",
            integer(1, 10_000_000),
            "The most that it lets in at once, after a quiet time.",
        ),
        Key("header_bytes", integer(1024, 1 << 20), "The largest head of an HTTP request, with its URL, in bytes."),
        Key("url_bytes", integer(256, 1 << 20), "The longest URL of a request, in bytes."),
        Key(
            "channel_name_bytes",
            integer(32, MAX_CHANNEL_BYTES),
            "The longest name of a channel, in bytes, for clients and backends.",
        ),
        Key(
            "max_waiting",
            integer(1, 10_000_000),
            "The most connections that may wait for a request; beyond it, the one is closed that waits longest.",
        ),
        Key(
            "max_connections",
            integer(0, 10_000_000),
            "The most clients that a process has. 0 is no limit but that of open files.",
        ),
        Key(
            "connections_per_ip",
            integer(0, 10_000_000),
            "The most clients of one address that a process has. 0 is no limit.",
        ),
        Key(
            "connections_per_user",
            integer(0, 10_000_000),
            "The most clients of one user of tokens that a process has. 0 is no limit.",
        ),
        Key(
            "polls_per_client",
            integer(0, 10_000_000),
            "The most polls that wait for one client. 0 is no limit.",
        ),
        Key(
            "connect_rate_per_ip",
            number(0, 1_000_000, "a number a second"),
            "The most clients of one address that a process lets in a second. 0 is no limit.",
        ),
        Key(
            "command_rate",
            number(0, 1_000_000, "a number a second"),
            "The most commands a second of one WebSocket. 0 is no limit.",
        ),
        Key(
            "publish_rate",
            number(0, 1_000_000, "a number a second"),
            "The most messages a second that one WebSocket publishes. 0 is no limit.",
        ),
        Key(
            "command_rate_per_ip",
            number(0, 1_000_000, "a number a second"),
            "The most commands and requests a second of one address. 0 is no limit.",
        ),
        Key(
            "publish_rate_per_ip",
            number(0, 1_000_000, "a number a second"),
            "The most messages a second that one address publishes. 0 is no limit.",
        ),
    ),
)
