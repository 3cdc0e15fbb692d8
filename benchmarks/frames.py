"""Counts the messages in what a WebSocket server sends to many subscribers of one channel (RFC 6455, section 5.2).

Frames of a server are not masked, and all subscribers get the same ones, so that most reads hold nothing but whole
frames of one size. Those are counted without being walked, which keeps the client far from being what is measured.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.errors import BenchmarkError

__all__ = ["FrameCounter", "client_frame", "pong_frame", "split_frame"]

_FIN = 0x80
_TEXT = 1
_CLOSE, _PING, _PONG = 8, 9, 10
_READ_BYTES = 1 << 18


def split_frame(data: bytes | bytearray, start: int, end: int) -> tuple[int, int, int] | None:
    """Return opcode, start of the payload and end of the frame that begins at ``start``; None if it is not whole.

    Raises `BenchmarkError` for what no server may send: a masked frame.
    """
    if end - start < 2:
        return None
    length = data[start + 1]
    payload = start + 2
    if length & 0x80:
        raise BenchmarkError("the server sent a masked frame")
    if length == 126:
        payload += 2
        if end < payload:
            return None
        length = int.from_bytes(data[payload - 2 : payload], "big")
    elif length == 127:
        payload += 8
        if end < payload:
            return None
        length = int.from_bytes(data[payload - 8 : payload], "big")
    if end < payload + length:
        return None
    return data[start] & 0x0F, payload, payload + length


def client_frame(payload: bytes) -> bytes:
    """Return a text frame of a client, masked with zeros."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN | _TEXT, _FIN | size, 0, 0, 0, 0)) + payload
    if size < 1 << 16:
        return bytes((_FIN | _TEXT, _FIN | 126)) + size.to_bytes(2, "big") + bytes(4) + payload
    return bytes((_FIN | _TEXT, _FIN | 127)) + size.to_bytes(8, "big") + bytes(4) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the client's answer to a ping; masked with zeros, which leaves the payload as it is."""
    return bytes((_FIN | _PONG, _FIN | len(payload), 0, 0, 0, 0)) + payload


class FrameCounter:
    """Counts whole messages, socket by socket. Read into ``buffer``, then call `take` with the length read."""

    __slots__ = ("_header", "_partial", "_pinged", "_size", "buffer")

    def __init__(self, pinged: Callable[[int, bytes], None]) -> None:
        """``pinged(fd, payload)`` is called for each ping frame."""
        self.buffer = bytearray(_READ_BYTES)
        self._partial: dict[int, bytes] = {}
        self._pinged = pinged
        # Header and size of the last whole message: the guess for the next read. The first guess is always wrong.
        self._header = b""
        self._size = _READ_BYTES + 1

    def take(self, fd: int, length: int) -> int:
        """Return how many messages the first ``length`` bytes of the buffer complete for the socket ``fd``.

        Raises `BenchmarkError` when the server closes.
        """
        buffer = self.buffer
        size = self._size
        # Payloads are ASCII, so that a header cannot be found inside of one: if the last frame begins where it must,
        # nothing else stands between.
        if (
            length % size == 0
            and buffer.startswith(self._header)
            and buffer.startswith(self._header, length - size)
            and fd not in self._partial
        ):
            return length // size
        return self._walk(fd, self._partial.pop(fd, b"") + buffer[:length])

    def feed(self, fd: int, data: bytes) -> int:
        """Count ``data`` that was read elsewhere, as `take` does."""
        return self._walk(fd, self._partial.pop(fd, b"") + data)

    def _walk(self, fd: int, data: bytes | bytearray) -> int:
        start = messages = 0
        end = len(data)
        while (frame := split_frame(data, start, end)) is not None:
            opcode, payload, next_start = frame
            if opcode == _PING:
                self._pinged(fd, bytes(data[payload:next_start]))
            elif opcode == _CLOSE:
                code = int.from_bytes(data[payload : payload + 2], "big")
                reason = bytes(data[payload + 2 : next_start]).decode(errors="replace")
                raise BenchmarkError(f"the server closed a WebSocket: {code} {reason}")
            elif opcode != _PONG and data[start] & _FIN:
                messages += 1
                self._header = bytes(data[start:payload])
                self._size = next_start - start
            start = next_start
        if start < end:
            self._partial[fd] = bytes(data[start:])
        return messages
