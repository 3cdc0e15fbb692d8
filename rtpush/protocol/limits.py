"""The bounds on what one client can ask for or make the node hold."""

from __future__ import annotations

import attrs

from rtpush.protocol.channel import MAX_CHANNEL_BYTES

__all__ = ["Limits"]


@attrs.frozen(kw_only=True)
class Limits:
    """
    ``[limits]`` of the configuration.

    :ivar message_bytes: The largest payload of a message.
    :ivar request_bytes: The largest body of an HTTP request, and the largest command of a WebSocket.
    :ivar incoming_bytes: What requests and messages that are not complete may have together.
    :ivar queue_bytes: What may wait for a slow reader, besides the 64 KiB in the buffer of its transport.
    :ivar channels_per_connection: How many channels a connection may follow.
    :ivar page_messages: How many messages are read from history at once, and the most that an answer holds.
    :ivar header_timeout: Seconds for the head of an HTTP request to arrive, and between two pieces of its body.
    :ivar connect_rate: How many clients are let in a second in the long run; 0 for any number.
    :ivar connect_burst: How many are let in at once.
    :ivar header_bytes: The largest head of an HTTP request, with its URL.
    :ivar url_bytes: The longest path and query of a request.
    :ivar channel_name_bytes: The longest name of a channel.
    :ivar max_waiting: How many connections may wait for a request at once.

    Of what follows, 0 is any number. That of an address is that of its clients together, and not for addresses of this
    machine. Of commands and clients, five seconds' worth may come at once.

    :ivar max_connections: How many clients a process may have.
    :ivar connections_per_ip: How many an address may have.
    :ivar connections_per_user: How many a user of tokens may have.
    :ivar polls_per_client: How many polls may wait for a user of tokens, or for an address whose clients have none.
    :ivar connect_rate_per_ip: How many clients of an address are let in a second.
    :ivar command_rate: How many commands a connection may send in a second.
    :ivar publish_rate: How many of them may publish.
    :ivar command_rate_per_ip: How many commands, and requests of any kind, may come in a second from an address.
    :ivar publish_rate_per_ip: How many of them may publish.
    """

    message_bytes: int = 65536
    request_bytes: int = 1048576
    incoming_bytes: int = 67108864
    queue_bytes: int = 1048576
    channels_per_connection: int = 100
    page_messages: int = 500
    header_timeout: float = 20.0
    # A WebSocket that opens and subscribes takes a good 100 µs of a processor, and more when there is something to
    # recover. So this is about a half of one in a storm; the rest is left for those who are here already.
    connect_rate: float = 5000.0
    # As many as a process can mostly have files open: who comes back to a node that was away for a while is let in, at
    # the cost of two or three seconds of work.
    connect_burst: int = 20_000
    header_bytes: int = 16384
    # A token has 8 KiB at most, and the query is for those alone that cannot send it in a header: what they send is
    # far less. Proxies have bounds of this size, too.
    url_bytes: int = 8192
    channel_name_bytes: int = MAX_CHANNEL_BYTES
    # With what each may have sent of a head this is 320 MB at the very most.
    max_waiting: int = 20_000
    max_connections: int = 0
    connections_per_ip: int = 0
    connections_per_user: int = 0
    polls_per_client: int = 0
    connect_rate_per_ip: float = 0.0
    command_rate: float = 0.0
    publish_rate: float = 0.0
    command_rate_per_ip: float = 0.0
    publish_rate_per_ip: float = 0.0
