"""WebSocket frames as a server sends them: unmasked and whole (RFC 6455 section 5.2), compressed or not (RFC 7692)."""

from __future__ import annotations

import struct
import zlib

__all__ = ["BINARY", "DEFLATE_THRESHOLD", "PING_FRAME", "TEXT", "deflated_frame", "frame"]

#: The opcode of a text frame.
TEXT = 1
#: The opcode of a binary frame.
BINARY = 2

#: A ping without payload.
PING_FRAME = b"\x89\x00"

#: Payloads below this many bytes are not worth compressing: deflate makes many of them longer.
DEFLATE_THRESHOLD = 64

_FIN = 0x80
_RSV1 = 0x40


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message as one frame."""
    return _head(_FIN | opcode, len(payload)) + payload


def deflated_frame(opcode: int, payload: bytes, window_bits: int) -> bytes:
    """
    Return a whole message as one frame, compressed by itself (RFC 7692 section 7.2.1).

    No context is taken over from message to message, so the same bytes serve all connections with the same window.

    :param window_bits: 9 to 15; 0 does not compress.
    """
    if window_bits == 0 or len(payload) < DEFLATE_THRESHOLD:
        return frame(opcode, payload)
    compressor = zlib.compressobj(wbits=-window_bits)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    data = data[:-4]
    return _head(_FIN | _RSV1 | opcode, len(data)) + data


def _head(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
