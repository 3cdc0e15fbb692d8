"""
The heads of plain requests, read at once: what nearly all clients send, and nothing else.

llhttp calls back for each field. Where a head is there as a whole and is written as RFC 9112 would have it, to look at
it with two regular expressions takes a third of that. Whatever is not so plain is left to llhttp.
"""

from __future__ import annotations

import re

from rtpush.transports.request import Fields

__all__ = ["PlainFields", "read_line", "read_plain"]

_LINE = re.compile(rb"(GET|POST|HEAD|OPTIONS) (/[!$-~]*) HTTP/1\.1")

# RFC 9110 sections 5.1 and 5.5; the space around a value is for the reader to strip.
_NAME, _VALUE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", rb"[\t -~\x80-\xff]*"
_EACH = re.compile(rb"\r\n(%b):(%b)" % (_NAME, _VALUE))
_ALL = re.compile(rb"(?:\r\n%b:%b)*" % (_NAME, _VALUE))

_LENGTH = re.compile(rb"[0-9]{1,10}")

#: More fields than this are left to llhttp, too.
_MAX_FIELDS = 100


class PlainFields:
    """
    The header fields of a request.

    :ivar length: How many bytes of a body follow.
    :ivar persists: Whether the connection persists after it.
    :ivar upgrades: Whether another protocol is asked for.
    """

    __slots__ = ("fields", "length", "persists", "upgrades")

    def __init__(self, fields: Fields, length: int, persists: bool, upgrades: bool) -> None:
        self.fields = fields
        self.length = length
        self.persists = persists
        self.upgrades = upgrades


def read_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Return the method and the target of the request with this first line; nothing if it is not plain."""
    match = _LINE.fullmatch(line)
    return None if match is None else (match[1], match[2])


def read_plain(block: bytes) -> PlainFields | None:
    """
    Read header fields, each with the line end before it; return nothing if they are not plain.

    They are not if a character is where it should not be, if they say that the body is chunked or awaited, or if they
    do not name one host.
    """
    if block.count(b"\r\n") > _MAX_FIELDS or _ALL.fullmatch(block) is None:
        return None
    fields: dict[bytes, list[bytes]] = {}
    for name, value in _EACH.findall(block):
        name = name.lower()
        if name in fields:
            fields[name].append(value.strip(b" \t"))
        else:
            fields[name] = [value.strip(b" \t")]
    if b"transfer-encoding" in fields or b"expect" in fields or len(fields.get(b"host", ())) != 1:
        return None
    length = 0
    if b"content-length" in fields:
        lengths = fields[b"content-length"]
        if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
            return None
        length = int(lengths[0])
    wishes = b",".join(fields.get(b"connection", ())).lower()
    persists = b"close" not in wishes or b"close" not in [wish.strip() for wish in wishes.split(b",")]
    return PlainFields(Fields(fields), length, persists, b"upgrade" in fields)
