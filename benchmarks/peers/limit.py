"""The limit in Python: one epoll loop, blocking sockets, one ``send`` a delivery, and no more parsing than it needs.

``python -m benchmarks.peers.limit PORT``. It relies on what its one client does: a request comes whole in one read.
"""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import sys
from collections import defaultdict

__all__ = ["serve"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_NOTHING = _JSON_HEAD % (2, b"{}")


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked text frame (RFC 6455, section 5.2) of less than 64 KiB."""
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    return bytes((0x81, 126)) + len(payload).to_bytes(2, "big") + payload


class Channel:
    """Whoever follows it."""

    def __init__(self) -> None:
        self.subscribers: dict[int, socket.socket] = {}
        self.streams: dict[int, socket.socket] = {}
        self.polls: dict[int, socket.socket] = {}
        self.count = 0
        self.answer = b""

    def publish(self, payload: bytes) -> None:
        """Send a message to everyone."""
        self.count += 1
        body = b'{"messages":["%s"],"cursor":"%d"}' % (payload, self.count)
        self.answer = _JSON_HEAD % (len(body), body)
        frame = text_frame(payload)
        for each in self.subscribers.values():
            each.send(frame)
        event = b"data: %s\n\n" % payload
        for each in self.streams.values():
            each.send(event)
        polls, self.polls = self.polls, {}
        for each in polls.values():
            each.send(self.answer)


class Limit:
    """All channels."""

    def __init__(self) -> None:
        self.sockets: dict[int, socket.socket] = {}
        self.channels: defaultdict[bytes, Channel] = defaultdict(Channel)
        self.followed: dict[int, Channel] = {}

    def request(self, fd: int, data: bytes) -> None:
        """Do what a request asks for."""
        each = self.sockets[fd]
        path, _, query = data[: data.index(b"\r\n")].split(b" ")[1].partition(b"?")
        what, _, name = path[1:].partition(b"/")
        channel = self.channels[name]
        if what == b"publish":
            channel.publish(data[data.index(b"\r\n\r\n") + 4 :])
            each.send(_NOTHING)
        elif what == b"ws":
            start = data.index(b"Sec-WebSocket-Key: ") + 19
            accept = base64.b64encode(hashlib.sha1(data[start : start + 24] + _GUID, usedforsecurity=False).digest())
            each.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
            )
            channel.subscribers[fd] = each
            self.followed[fd] = channel
        elif what == b"sse":
            each.send(_SSE_HEAD)
            channel.streams[fd] = each
            self.followed[fd] = channel
        elif what == b"poll" and query and int(query[7:]) < channel.count:
            each.send(channel.answer)
        elif what == b"poll":
            channel.polls[fd] = each
            self.followed[fd] = channel
        else:
            each.send(_NOTHING)

    def gone(self, fd: int) -> None:
        """Forget a connection."""
        channel = self.followed.pop(fd, None)
        if channel is not None:
            for table in (channel.subscribers, channel.streams, channel.polls):
                table.pop(fd, None)
        self.sockets.pop(fd).close()


def serve(port: int) -> None:
    """Serve for ever on a loopback port."""
    limit = Limit()
    epoll = select.epoll()
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        listener.setblocking(False)
        listening = listener.fileno()
        epoll.register(listening, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                if fd != listening:
                    try:
                        data = limit.sockets[fd].recv(65536)
                    except ConnectionError:
                        data = b""
                    if data:
                        limit.request(fd, data)
                    else:
                        limit.gone(fd)
                    continue
                try:
                    while True:
                        each = listener.accept()[0]
                        limit.sockets[each.fileno()] = each
                        epoll.register(each.fileno(), select.EPOLLIN)
                except BlockingIOError:
                    pass


if __name__ == "__main__":
    serve(int(sys.argv[1]))
