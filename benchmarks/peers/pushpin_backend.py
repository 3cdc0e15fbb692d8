"""What is behind Pushpin: says that ``/ws/CHANNEL``, ``/sse/CHANNEL`` and ``/poll/CHANNEL`` are held (GRIP).

``pushpin_backend.py PORT``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

__all__ = ["main"]


def answer(head: bytes, body: bytes) -> bytes:
    """Return the response to a request."""
    path = head.split(b" ", 2)[1]
    what, _, channel = path[1:].partition(b"/")
    if what == b"ws":
        content = b""
        if body.startswith(b"OPEN"):
            control = b'c:{"type":"subscribe","channel":"%s"}' % channel
            content = b"OPEN\r\nTEXT %X\r\n%s\r\n" % (len(control), control)
        return _response(b"Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n", content)
    if what == b"sse":
        hold = b"Content-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: %s\r\n" % channel
        return _response(hold, b": open\n\n")
    if what == b"poll":
        hold = b"Content-Type: text/plain\r\nGrip-Hold: response\r\nGrip-Timeout: 600\r\nGrip-Channel: %s\r\n"
        return _response(hold % channel, b"")
    return _response(b"", b"{}")


def _response(headers: bytes, content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(content), content)


class Backend(asyncio.Protocol):
    """Enough of HTTP for Pushpin's requests."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are whole."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n") + 4) > 3:
            head = self._data[:end].lower()
            place = head.find(b"\r\ncontent-length:")
            length = int(head[place + 17 : head.index(b"\r\n", place + 2)]) if place >= 0 else 0
            if len(self._data) < end + length:
                return
            self._transport.write(answer(self._data[:end], self._data[end : end + length]))
            self._data = self._data[end + length :]


async def main(port: int) -> None:
    """Serve for ever on a loopback port."""
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
