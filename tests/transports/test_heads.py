"""Tests of rtpush.transports.heads: what it reads is what llhttp reads, and it reads nothing else."""

from __future__ import annotations

from typing import Any

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.transports.heads import read_line, read_plain

_NAMES = st.sampled_from(
    [b"Host", b"host", b"X", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Expect", b"A b", b""]
)
_VALUES = st.one_of(
    st.sampled_from(
        [b"close", b"keep-alive, Close", b"enclosed", b"0", b"5", b"+5", b"5, 5", b"0x5", b"chunked", b"a\r\n b"]
    ),
    st.binary(max_size=12),
)
_FIELDS = st.tuples(
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]),
    _NAMES,
    st.sampled_from([b":", b": ", b":\t ", b" :", b""]),
    _VALUES,
    st.sampled_from([b"", b" ", b"\t"]),
).map(b"".join)
_BLOCKS = st.one_of(st.lists(_FIELDS, max_size=6).map(b"".join), st.binary(max_size=60))


class _Llhttp:
    """What llhttp makes of a head."""

    def __init__(self, head: bytes) -> None:
        self.fields: dict[bytes, list[bytes]] = {}
        self.url = b""
        self.is_complete = False
        parser: Any = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        self.persists = parser.should_keep_alive()
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.setdefault(name.lower(), []).append(value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self.is_complete = True


class FieldsTests(SynchronousTestCase):
    """Header fields."""

    @settings(max_examples=1000)
    @given(_BLOCKS)
    @example(b"\r\nA:\x80\xff")
    @example(b"\r\nA: b\r\n c: d")
    @example(b"\r\nConnection: close\r\nConnection: keep-alive")
    def test_as_llhttp_does(self, block: bytes) -> None:
        """Whatever is read here, llhttp reads as well, and as the same."""
        block = b"\r\nHost: h" + block
        plain = read_plain(block)
        if plain is None:
            return
        head = _Llhttp(b"POST / HTTP/1.1" + block + b"\r\n\r\n")
        self.assertTrue(head.is_complete)
        for name, values in head.fields.items():
            self.assertEqual(plain.fields.getRawHeaders(name), values)
        for name in {line.partition(b":")[0].strip().lower() for line in block.split(b"\n")}:
            self.assertEqual(plain.fields.hasHeader(name), name in head.fields)
        self.assertEqual(plain.length, int(head.fields.get(b"content-length", [b"0"])[0]))
        self.assertEqual(plain.upgrades, b"upgrade" in head.fields)
        wishes = [wish.strip().lower() for value in head.fields.get(b"connection", ()) for wish in value.split(b",")]
        self.assertEqual(plain.persists, b"close" not in wishes)

    def test_plain(self) -> None:
        """What clients send is plain."""
        plain = read_plain(b"\r\nHost: a:80\r\nX-Empty:\r\nAccept: */*\r\naccept:\ttext/html  \r\nContent-Length: 12")
        assert plain is not None
        self.assertEqual(plain.fields.getRawHeaders(b"accept"), [b"*/*", b"text/html"])
        self.assertEqual(plain.fields.getRawHeaders(b"x-empty"), [b""])
        self.assertEqual((plain.length, plain.persists, plain.upgrades), (12, True, False))
        plain = read_plain(b"\r\nhost:")
        assert plain is not None
        self.assertEqual((plain.length, plain.persists), (0, True))

    def test_not_plain(self) -> None:
        """All else is left to llhttp."""
        for block in (
            b"\r\nHost : a",
            b"\r\nHost",
            b"\r\n: a",
            b"\r\nA: b\r\n folded",
            b"\nA: b",
            b"\r\nA: b\nC: d",
            b"\r\nA: \x00",
            b"\r\nA: \x7f",
            b"\r\n\xe4: b",
            b"\r\nTransfer-Encoding: chunked",
            b"\r\nExpect: 100-continue",
            b"\r\nContent-Length: 1\r\nContent-Length: 1",
            b"\r\nContent-Length: 1, 1",
            b"\r\nContent-Length: -1",
            b"\r\nContent-Length: +1",
            b"\r\nContent-Length:",
            b"\r\nContent-Length: 99999999999",
            b"\r\nA: b" * 101,
        ):
            self.assertIsNone(read_plain(b"\r\nHost: h" + block), block)
        for block in (b"", b"\r\nA: b", b"\r\nHost: a\r\nhost: a"):
            self.assertIsNone(read_plain(block), block)


class LineTests(SynchronousTestCase):
    """The first line."""

    @settings(max_examples=1000)
    @given(
        st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"get", b""]),
        st.one_of(st.sampled_from([b"/", b"/a?b=c#d", b"*", b"http://a/"]), st.binary(max_size=8).map(b"/".__add__)),
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"", b"HTTP/1.1 "]),
    )
    def test_as_llhttp_does(self, method: bytes, target: bytes, version: bytes) -> None:
        """Whatever is read here, llhttp reads as well, and as the same."""
        data = method + b" " + target + b" " + version
        line = read_line(data)
        if line is not None:
            head = _Llhttp(data + b"\r\nHost: a\r\n\r\n")
            self.assertEqual((head.method, head.url, head.is_complete), (*line, True))

    def test_lines(self) -> None:
        """Some that are read, and some that are not."""
        for data, line in (
            (b"GET /a?b=%20 HTTP/1.1", (b"GET", b"/a?b=%20")),
            (b"POST /emit HTTP/1.1", (b"POST", b"/emit")),
            (b"GET /a b HTTP/1.1", None),
            (b"GET / HTTP/1.0", None),
            (b"GET /\xc3\xa4 HTTP/1.1", None),
            (b"DELETE / HTTP/1.1", None),
            (b"", None),
        ):
            self.assertEqual(read_line(data), line)
