"""The package `websockets`, fed over HTTP: ``websockets_peer.py HTTP_PORT WEBSOCKET_PORT``."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from typing import Any

import httptools
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

__all__ = ["main"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

Channels = defaultdict[bytes, set[ServerConnection]]


class Publishing(asyncio.Protocol):
    """``POST /publish/CHANNEL``: the body is the payload."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Note the channel."""
        self._channel = url.rpartition(b"/")[2]
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """Collect the payload."""
        self._body += body

    def on_message_complete(self) -> None:
        """Publish and answer."""
        broadcast(self._channels[self._channel], self._body.decode())
        self._transport.write(_ANSWER)


async def main(http_port: int, websocket_port: int) -> None:
    """Serve for ever on two loopback ports."""
    channels: Channels = defaultdict(set)

    async def subscribed(connection: ServerConnection) -> None:
        assert connection.request is not None
        channel = channels[connection.request.path.rpartition("/")[2].encode()]
        channel.add(connection)
        try:
            await connection.wait_closed()
        finally:
            channel.discard(connection)

    loop = asyncio.get_running_loop()
    async with serve(
        subscribed, "127.0.0.1", websocket_port, compression=None, ping_interval=None, backlog=1024, logger=None
    ):
        server = await loop.create_server(lambda: Publishing(channels), "127.0.0.1", http_port, backlog=1024)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
