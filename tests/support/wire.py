"""Just enough of HTTP/1.1 and of WebSocket for a client on a bare socket."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import attrs

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Frames", "Response", "frame", "get", "handshake"]

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def get(path: str, query: Mapping[str, str], **headers: str) -> bytes:
    """Return a request; underscores in the names of headers stand for hyphens."""
    lines = [f"GET {path}?{urlencode(query)} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def handshake(path: str, query: Mapping[str, str], subprotocol: str = "rtpush.v1") -> bytes:
    """Return the request that opens a WebSocket."""
    return get(
        path,
        query,
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
        Sec_WebSocket_Protocol=subprotocol,
    )


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame as a client sends it, masked (RFC 6455 section 5.2)."""
    length = len(payload)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | length]) if length < 126 else bytes([0x80 | 126]) + length.to_bytes(2, "big")
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@attrs.define
class Response:
    """
    Reads one answer of a server, cut into pieces anywhere.

    :ivar status: Its status; 0 until the head is there.
    :ivar headers: Its headers, by names in lower case.
    :ivar body: What came of the body since it was taken last.
    :ivar complete: Whether all of it is there.
    """

    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    complete: bool = False
    _rest: bytes = b""
    #: Bytes of the body, or of the chunk, that are still to come; nothing if the length of a chunk is to come.
    _left: int | None = None
    _is_last: bool = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return those that belong to what comes after this answer."""
        self._rest += data
        if not self.status and not self._take_head():
            return b""
        if self.status == 101:
            self.complete = True
        elif self.headers.get("transfer-encoding") == "chunked":
            while not self.complete and self._take_chunk():
                pass
        else:
            self._take_body()
        if not self.complete:
            return b""
        rest, self._rest = self._rest, b""
        return rest

    def _take_head(self) -> bool:
        head, end, rest = self._rest.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        fields = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        self._rest = rest
        if "content-length" in self.headers or self.status == 304:
            self._left = int(self.headers.get("content-length", 0))
        return True

    def _take_body(self) -> None:
        part = self._rest if self._left is None else self._rest[: self._left]
        self.body += part
        self._rest = self._rest[len(part) :]
        if self._left is not None:
            self._left -= len(part)
            self.complete = self._left == 0

    def _take_chunk(self) -> bool:
        """Take what is there of a chunk; tell whether it is over."""
        if self._left is None:
            size, end, rest = self._rest.partition(b"\r\n")
            if not end:
                return False
            self._left, self._rest = int(size, 16), rest
            self._is_last = self._left == 0
        part = self._rest[: self._left]
        self.body += part
        self._rest = self._rest[len(part) :]
        self._left -= len(part)
        # Two more bytes end the chunk.
        if self._left or len(self._rest) < 2:
            return False
        self._rest = self._rest[2:]
        self._left = None
        self.complete = self._is_last
        return True


class Frames:
    """Reads the frames of a server (RFC 6455 section 5.2), cut into pieces anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes; yield the opcode and payload of each frame that is there in full."""
        self._rest += data
        while (size := self._size()) is not None and len(self._rest) >= sum(size):
            begin, length = size
            opcode, payload = self._rest[0] & 0x0F, self._rest[begin : begin + length]
            self._rest = self._rest[begin + length :]
            yield opcode, payload

    def _size(self) -> tuple[int, int] | None:
        """Return where the payload of the next frame begins, and how long it is."""
        if len(self._rest) < 2:
            return None
        length = self._rest[1] & 0x7F
        begin = {126: 4, 127: 10}.get(length, 2)
        if len(self._rest) < begin:
            return None
        return begin, length if begin == 2 else int.from_bytes(self._rest[2:begin], "big")
