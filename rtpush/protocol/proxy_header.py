"""
The header of the PROXY protocol, versions 1 and 2, by which a proxy says who is behind a connection.

``haproxy.org/download/3.0/doc/proxy-protocol.txt`` is its specification. Pure: bytes in, an address out.
"""

from __future__ import annotations

import ipaddress
import re

from rtpush.protocol.addresses import host_of

__all__ = ["MAX_HEADER", "BadHeader", "read_header"]

#: The most bytes of a header that are waited for. Version 2 may have more, in extensions that nobody sends.
MAX_HEADER = 2048

_MARK_2 = b"\r\n\r\n\x00\r\nQUIT\n"
_MAX_1 = 107
_LINE_1 = re.compile(rb"PROXY TCP[46] ([0-9A-Fa-f:.]{2,45}) [0-9A-Fa-f:.]{2,45} [0-9]{1,5} [0-9]{1,5}")

#: The commands of version 2: the proxy speaks for itself, or for a client.
_LOCAL, _PROXY = 0x20, 0x21

#: Families of addresses in version 2, and the length of each one's addresses.
_FAMILIES = {1: 4, 2: 16}


class BadHeader(Exception):
    """What came is no such header."""


def read_header(data: bytes) -> tuple[str, int] | None:
    """
    Read the header at the beginning of what came.

    :returns: The address of the client (empty if the proxy speaks for itself, or does not know) and how long the header
        is; nothing if it is not complete.
    :raises BadHeader: if there is none.
    """
    if data[:1] == b"\r":
        return _read_2(data)
    return _read_1(data)


def _read_1(data: bytes) -> tuple[str, int] | None:
    end = data.find(b"\r\n", 0, _MAX_1)
    if end < 0:
        if not b"PROXY ".startswith(data[:6]) or len(data) >= _MAX_1:
            raise BadHeader
        return None
    line = data[:end]
    if line.startswith(b"PROXY UNKNOWN"):
        return "", end + 2
    match = _LINE_1.fullmatch(line)
    host = None if match is None else host_of(match[1].decode() if b"." in match[1] else f"[{match[1].decode()}]")
    if host is None:
        raise BadHeader
    return host, end + 2


def _read_2(data: bytes) -> tuple[str, int] | None:
    if data[:12] != _MARK_2[: len(data)]:
        raise BadHeader
    if len(data) < 16:
        return None
    command, family, length = data[12], data[13] >> 4, int.from_bytes(data[14:16], "big")
    whole = 16 + length
    if command not in (_LOCAL, _PROXY) or whole > MAX_HEADER:
        raise BadHeader
    if len(data) < whole:
        return None
    if command == _LOCAL or family not in _FAMILIES:
        return "", whole
    size = _FAMILIES[family]
    if length < 2 * size + 4:
        raise BadHeader
    host = host_of(f"[{ipaddress.ip_address(data[16 : 16 + size])}]")
    assert host is not None
    return host, whole
