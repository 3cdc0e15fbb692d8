"""Tests of rtpush.protocol.proxy_header."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.proxy_header import BadHeader, read_header

_MARK = b"\r\n\r\n\x00\r\nQUIT\n"


def second(host: str, *, command: int = 0x21, more: bytes = b"") -> bytes:
    """Return a header of version 2."""
    packed = ipaddress.ip_address(host).packed
    body = packed + packed + b"\x10\x00\x00\x50" + more
    return _MARK + bytes([command, 0x11 if len(packed) == 4 else 0x21]) + len(body).to_bytes(2, "big") + body


#: Headers, and whom they announce.
GOOD = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", "203.0.113.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n", "203.0.113.7"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""),
    (second("203.0.113.7"), "203.0.113.7"),
    (second("2001:db8::7"), "2001:db8::7"),
    (second("203.0.113.7", more=b"\x04\x00\x01x"), "203.0.113.7"),
    (second("203.0.113.7", command=0x20), ""),
    (_MARK + b"\x20\x00\x00\x00", ""),
    (_MARK + b"\x21\x31\x00\x02ab", ""),
]

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 203.0.113.777 192.0.2.1 4711 443\r\n",
    b"PROXY TCP5 203.0.113.7 192.0.2.1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
    b"PROXY TCP4 " + b"1" * 100,
    b"\r\n\r\nGET",
    _MARK + b"\x11\x11\x00\x0c",
    _MARK + b"\x22\x11\x00\x0c",
    _MARK + b"\x21\x11\xff\xff",
    _MARK + b"\x21\x11\x00\x04abcd",
    b"\x16\x03\x01",
]


class HeaderTests(SynchronousTestCase):
    """What a proxy says before anything else."""

    def test_good(self) -> None:
        """The client and the length of the header are found, whatever comes after it."""
        for header, host in GOOD:
            self.assertEqual(read_header(header), (host, len(header)), header)
            self.assertEqual(read_header(header + b"GET / HTTP/1.1\r\n\r\n"), (host, len(header)), header)

    def test_pieces(self) -> None:
        """Until all is there, nothing is said."""
        for header, _ in GOOD:
            for end in range(1, len(header)):
                self.assertIsNone(read_header(header[:end]), header[:end])

    def test_bad(self) -> None:
        """What is no header is told, and not waited for."""
        for data in BAD:
            with self.assertRaises(BadHeader):
                read_header(data)

    @given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda data: _MARK + data)))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes: a header, not yet one, or none; and never more than a bound is waited for."""
        try:
            found = read_header(data)
        except BadHeader:
            return
        self.assertTrue(found is None or found[1] <= len(data))
