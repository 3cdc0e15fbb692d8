"""The bounds on what one client can ask for or make the node hold."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen(kw_only=True)
class Limits:
    """
    ``[limits]`` of the configuration.

    :ivar message_bytes: The largest payload of a message.
    :ivar request_bytes: The largest body of an HTTP request, and the largest command of a WebSocket.
    :ivar queue_bytes: What may wait for a slow reader, besides the 64 KiB in the buffer of its transport.
    :ivar channels_per_connection: How many channels a connection may follow.
    :ivar page_messages: How many messages are read from history at once, and the most that an answer holds.
    :ivar header_timeout: Seconds for the head of an HTTP request to arrive, and between two pieces of its body.
    """

    message_bytes: int = 65536
    request_bytes: int = 1048576
    queue_bytes: int = 1048576
    channels_per_connection: int = 100
    page_messages: int = 500
    header_timeout: float = 20.0
