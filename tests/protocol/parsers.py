"""Readers of what goes over the wire, written from the standards alone: nothing here comes from rtpush."""

from __future__ import annotations

import struct
import zlib

import attrs

__all__ = ["EventStream", "Frame", "SentEvent", "read_events", "read_frames"]


@attrs.frozen
class SentEvent:
    """An event as an ``EventSource`` dispatches it."""

    name: str
    data: str
    last_id: str


@attrs.define
class EventStream:
    """What a stream said: its events, and the rest that an ``EventSource`` takes note of."""

    events: list[SentEvent] = attrs.Factory(list)
    retries: list[int] = attrs.Factory(list)
    comments: list[str] = attrs.Factory(list)


def read_events(stream: bytes) -> EventStream:
    """Read an event stream (WHATWG HTML, sections 9.2.5 and 9.2.6)."""
    text = stream.decode("utf-8").removeprefix("\ufeff")
    said = EventStream()
    name = data = last_id = buffered_id = ""
    for line in _lines(text):
        if line == "":
            last_id = buffered_id
            if data:
                said.events.append(SentEvent(name or "message", data.removesuffix("\n"), last_id))
            name = data = ""
            continue
        field, colon, value = line.partition(":")
        if colon and not field:
            said.comments.append(value)
            continue
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            buffered_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            said.retries.append(int(value))
    return said


def _lines(text: str) -> list[str]:
    """Split at CRLF, LF and CR; what comes after the last of them is no line yet."""
    lines: list[str] = []
    line = ""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\r":
            if text[position : position + 1] == "\n":
                position += 1
        elif character != "\n":
            line += character
            continue
        lines.append(line)
        line = ""
    return lines


@attrs.frozen
class Frame:
    """A WebSocket frame with its payload as the application gets it."""

    opcode: int
    payload: bytes
    compressed: bool = False


def read_frames(stream: bytes, window_bits: int = 15) -> list[Frame]:
    """
    Read the whole frames of a server (RFC 6455 section 5.2; RFC 7692 section 7.2.2).

    :raises ValueError: if anything is not as the RFC wants it, and :exc:`zlib.error` if a window is too small.
    """
    frames: list[Frame] = []
    while stream:
        if len(stream) < 2:
            raise ValueError("half a head")
        first, second = stream[0], stream[1]
        if not first & 0x80:
            raise ValueError("not final")
        if first & 0x30:
            raise ValueError("reserved bits")
        if second & 0x80:
            raise ValueError("a server must not mask")
        compressed, opcode, length, begin = bool(first & 0x40), first & 0x0F, second, 2
        if length == 126:
            (length,) = struct.unpack("!H", stream[2:4])
            begin = 4
            if length < 126:
                raise ValueError("not the shortest length")
        elif length == 127:
            (length,) = struct.unpack("!Q", stream[2:10])
            begin = 10
            if length < 65536 or length >= 2**63:
                raise ValueError("not the shortest length")
        payload = stream[begin : begin + length]
        if len(payload) < length:
            raise ValueError("half a payload")
        if opcode >= 8 and (length > 125 or compressed):
            raise ValueError("a control frame that is long or compressed")
        if compressed:
            payload = _inflated(payload + b"\x00\x00\xff\xff", window_bits)
        frames.append(Frame(opcode, payload, compressed))
        stream = stream[begin + length :]
    return frames


def _inflated(data: bytes, window_bits: int) -> bytes:
    """Inflate piece by piece: zlib looks back into what it gave in the same call without regard to the window."""
    inflater = zlib.decompressobj(wbits=-window_bits)
    pieces = [inflater.decompress(data, 256)]
    while inflater.unconsumed_tail or pieces[-1]:
        pieces.append(inflater.decompress(inflater.unconsumed_tail, 256))
    return b"".join(pieces)
