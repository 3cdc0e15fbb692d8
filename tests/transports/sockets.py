"""WebSocket clients made by hand: they send what no library would."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import attrs
import msgspec

from tests.transports.serving import Answer, Client, ServedTestCase

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "HANDSHAKE",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "SocketTestCase",
    "WebSocket",
    "close_frame",
    "frame",
    "frames_of",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: The headers that open a WebSocket.
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@attrs.frozen
class Frame:
    """
    A frame of the server.

    :ivar rsv: The three reserved bits; 4 is that of permessage-deflate.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int | None:
        """The code of a close frame."""
        return int.from_bytes(self.payload[:2]) if self.payload else None

    @property
    def reason(self) -> str:
        """The reason of a close frame."""
        return self.payload[2:].decode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_bytes: int | None = None,
    length: int | None = None,
) -> bytes:
    """
    Return a frame of a client.

    :param length_bytes: How many bytes more than the one bit field its length takes (0, 2, 8); the least if not given.
    :param length: What it says its length is, if that is not true.
    """
    size = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    short = {0: size, 2: 126, 8: 127}[length_bytes]
    head += bytes((masked << 7 | short,)) + (size.to_bytes(length_bytes) if length_bytes else b"")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + _masked(payload, mask)


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a close frame of a client."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def frames_of(data: bytes) -> tuple[list[Frame], bytes]:
    """Read the frames of the server; return them and what is left."""
    found, start = [], 0
    while len(data) - start >= 2:
        size, place = data[start + 1] & 0x7F, start + 2
        if data[start + 1] & 0x80:
            raise AssertionError("the frame of a server is masked")
        if size > 125:
            more = {126: 2, 127: 8}[size]
            size, place = int.from_bytes(data[place : place + more]), place + more
        if len(data) < place + size:
            break
        first = data[start]
        found.append(Frame(first & 15, data[place : place + size], bool(first & 0x80), first >> 4 & 7))
        start = place + size
    return found, data[start:]


def _masked(payload: bytes, mask: bytes) -> bytes:
    stream = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(len(payload))


class WebSocket:
    """A client on a WebSocket."""

    def __init__(self, client: Client, path: str, headers: dict[str, str] | None = None, more: bytes = b"") -> None:
        self.client = client
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**HANDSHAKE, **(headers or {})}.items())
        client.send(f"GET {path} HTTP/1.1\r\nHost: node.example\r\n{lines}\r\n".encode() + more)
        self.answer: Answer = client.answer()
        self._rest = b""

    def send(self, data: bytes) -> None:
        """Send bytes in one segment."""
        self.client.send(data)

    def say(self, command: Any) -> None:
        """Send a command, or an array of them, as JSON."""
        self.send(frame(TEXT, json.dumps(command).encode()))

    def frames(self) -> list[Frame]:
        """Take the frames that came."""
        found, self._rest = frames_of(self._rest + self.client.take())
        return found

    def heard(self) -> list[Any]:
        """Take the JSON objects that came; nothing else may be among them but pings."""
        found = []
        for each in self.frames():
            if each.opcode == PING:
                continue
            if each.opcode != TEXT or not each.fin:
                raise AssertionError(f"expected text, got {each}")
            found.append(json.loads(each.payload))
        return found

    def unpacked(self) -> list[Any]:
        """Take the msgpack objects that came."""
        return [msgspec.msgpack.decode(each.payload) for each in self.frames() if each.opcode == BINARY]

    def do(self, name: str, **fields: Any) -> Any:
        """Do a command, and return what came back for it."""
        self.say({"id": 7, name: fields})
        [reply] = [each for each in self.heard() if each.get("id") == 7]
        return reply.get(name, reply.get("error", {}).get("name"))

    def lose(self) -> None:
        """Go away."""
        self.client.lose()

    @property
    def closed(self) -> bool:
        """Whether the server has closed the TCP connection, or said that nothing more comes."""
        return self.client.closed


class SocketTestCase(ServedTestCase):
    """A node with clients on WebSockets."""

    def socket(
        self,
        path: str = "/ws",
        *,
        protocol: str | None = None,
        headers: dict[str, str] | None = None,
        more: bytes = b"",
    ) -> WebSocket:
        """Open a WebSocket."""
        sent = dict(headers or {})
        if protocol is not None:
            sent["Sec-WebSocket-Protocol"] = protocol
        socket = WebSocket(self.client(), path, sent, more)
        self.assertEqual(socket.answer.status, 101, socket.answer.body)
        return socket

    def closing(self, socket: WebSocket) -> tuple[int | None, str]:
        """Take the close frame that came last, and return its code and reason."""
        last = socket.frames()[-1]
        self.assertEqual(last.opcode, CLOSE)
        return last.code, last.reason
