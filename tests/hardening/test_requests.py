"""Requests that two who read them could take for different ones, by both ways in which HTTP/1.1 is read here."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

import rtpush
from rtpush.transports.web import HttpChannel
from tests.transports.serving import Client
from tests.transports.test_tokens import TokenTestCase

_PING = b'{"ping":{}}'
_NEXT = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def _emit(fields: bytes, body: bytes) -> bytes:
    """Return a request with a body, and another one behind it."""
    return b"POST /emit HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n" + body + _NEXT


def _get(fields: bytes, line: bytes = b"GET /healthz HTTP/1.1") -> bytes:
    """Return a request, and another one behind it."""
    return line + b"\r\n" + fields + b"\r\n" + _NEXT


_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNK = b"b\r\n" + _PING + b"\r\n0\r\n"

_BAD = {
    "length and chunks": _emit(b"Content-Length: 5\r\n" + _CHUNKED, b"0\r\n\r\n"),
    "chunks and length": _emit(_CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"),
    "the same length twice": _emit(b"Content-Length: 11\r\n" * 2, _PING),
    "two lengths": _emit(b"Content-Length: 11\r\nContent-Length: 5\r\n", _PING),
    "a list of lengths": _emit(b"Content-Length: 11, 11\r\n", _PING),
    "a length with a sign": _emit(b"Content-Length: +11\r\n", _PING),
    "a length in hex": _emit(b"Content-Length: 0xb\r\n", _PING),
    "a length with a space in it": _emit(b"Content-Length: 1 1\r\n", _PING),
    "a length below nothing": _emit(b"Content-Length: -1\r\n", _PING),
    "no length": _emit(b"Content-Length:\r\n", _PING),
    "another coding": _emit(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "identity": _emit(b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    "chunked and then another": _emit(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "chunked twice": _emit(_CHUNKED * 2, b"0\r\n\r\n"),
    "a space before the colon": _emit(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "white space that is none": _emit(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "lines that end with LF": b"GET /healthz HTTP/1.1\nHost: x\n\n" + _NEXT,
    "one that ends with LF": _get(b"Host: x\nX: y\r\n"),
    "one that ends with CR": _get(b"Host: x\rX: y\r\n"),
    "a NUL": _get(b"Host: x\r\nX: \x00\r\n"),
    "a field without a name": _get(b"Host: x\r\n: y\r\n"),
    "a first field that goes on": _get(b" Host: x\r\n"),
    "the end of an extension": _emit(_CHUNKED, b"b;a=b\n" + _PING + b"\r\n0\r\n\r\n"),
    "the end of a chunk's size": _emit(_CHUNKED, b"b\n" + _PING + b"\r\n0\r\n\r\n"),
    "a CR in an extension": _emit(_CHUNKED, b"b;\rx\r\n" + _PING + b"\r\n0\r\n\r\n"),
    "a chunk's size with a sign": _emit(_CHUNKED, b"+b\r\n" + _PING + b"\r\n0\r\n\r\n"),
    "a chunk's size with 0x": _emit(_CHUNKED, b"0xb\r\n" + _PING + b"\r\n0\r\n\r\n"),
    "a chunk's size with a space": _emit(_CHUNKED, b"b \r\n" + _PING + b"\r\n0\r\n\r\n"),
    "no end of a chunk": _emit(_CHUNKED, b"b\r\n" + _PING + b"XX0\r\n\r\n"),
    "a NUL in the target": _get(b"Host: x\r\n", b"GET /healthz\x00 HTTP/1.1"),
    "tabs between the parts": _get(b"Host: x\r\n", b"GET\t/healthz\tHTTP/1.1"),
    "two spaces": _get(b"Host: x\r\n", b"GET  /healthz HTTP/1.1"),
    "another version": _get(b"Host: x\r\n", b"GET /healthz HTTP/1.2"),
    "no version": _get(b"Host: x\r\n", b"GET /healthz"),
    "no host": _get(b""),
    "two hosts": _get(b"Host: x\r\nHost: y\r\n"),
}

_GOOD = {
    "zeros before a length": _emit(b"Content-Length: 0000000000000011\r\n", _PING),
    "an extension": _emit(_CHUNKED, b"b;a=b\r\n" + _PING + b"\r\n0;x\r\n\r\n"),
    "trailers": _emit(_CHUNKED, _CHUNK + b"X: y\r\nY: z\r\n\r\n"),
    "a body for GET": b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n" + _PING + _NEXT,
}


class RequestTests(TokenTestCase):
    """What is odd is refused, and nothing behind it is read; what is not is read by all in the same way."""

    server = "allowed_origins = https://friend.example\ntrusted_proxies = 127.0.0.1"

    def each(self) -> tuple[Client, Client]:
        """Return connections of which one is read here, and one by twisted.web."""
        other = self.client()
        self.assertEqual(other.ask("/client/nothing").status, 404)
        self.assertIsInstance(other.wire.protocol, HttpChannel)
        return self.client(), other

    def statuses(self, client: Client, data: bytes, size: int) -> list[bytes]:
        """Send something in pieces; return the statuses of what was answered."""
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
        return re.findall(rb"HTTP/1\.[01] (\d+) ", client.take())

    def test_bad(self) -> None:
        """400, once, and the end."""
        for what, data in _BAD.items():
            for size in (len(data), 7):
                for client in self.each():
                    self.assertEqual(self.statuses(client, data, size), [b"400"], (what, size, client.wire.protocol))
                    self.assertTrue(client.closed, what)

    def test_good(self) -> None:
        """Both are answered."""
        for what, data in _GOOD.items():
            for size in (len(data), 7):
                for client in self.each():
                    self.assertEqual(self.statuses(client, data, size), [b"200"] * 2, (what, size))

    def test_trailers(self) -> None:
        """What comes after a body is no header: neither a token, nor an origin, nor the address of a client."""
        body = b'{"history":{"channel":"rights:a"}}'
        token = self.rights("history").encode()
        for trailer in (b"Authorization: Bearer " + token, b"Cookie: session=" + token):
            head = b"POST /emit HTTP/1.1\r\nHost: x\r\n" + _CHUNKED
            for client in self.each():
                client.send(head + trailer + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                self.assertEqual(client.answer().status, 200)
                client.send(head + b"\r\n%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer))
                self.assertEqual(client.answer().error, "unauthorized")
        for client in self.each():
            client.send(
                b"GET /sse?channel=free:a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n"
                + _CHUNKED
                + b"\r\n0\r\nX-Forwarded-For: 198.51.100.1\r\nOrigin: https://evil.example\r\n\r\n"
            )
        peers = [each["peer"] for each in self.call("connections")["connections"]]
        self.assertEqual(peers, ["203.0.113.7"] * 2)

    def test_not_logged(self) -> None:
        """Requests are not in the log, whoever reads them: they may have a token in their query."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "X"):
            for path in ("/client/rtpush.js", "/client/x", "/client/%ff", "/poll", "/emit", "/sse", "/nothing"):
                for client in self.each():
                    client.request(f"{path}?channel=x&timeout=0&token=SECRET", method=method)
                    self.assertTrue(client.take().startswith(b"HTTP/1.1 ") or method == "GET", (method, path))
        for event in events:
            self.assertNotIn("SECRET", formatEvent(event) + repr(event))

    def test_host(self) -> None:
        """What a request calls this host is in no answer: where a client goes next, the configuration says."""
        for path in ("/negotiate", "/nothing", "/client/nothing", "/ws", "/sse?channel=free:a", "/emit"):
            for client in self.each():
                fields = "Host: evil.example\r\nX-Forwarded-Host: evil.example"
                client.send(f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
                self.assertNotIn(b"evil", client.take())

    def test_pages(self) -> None:
        """No script of ours makes HTML or code of a text, whatever is in it."""
        scripts = list((Path(rtpush.__file__).parent / "static").rglob("*.js"))
        self.assertGreater(len(scripts), 5)
        for script in scripts:
            found = re.findall(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|ContextualFragment|\beval\(|new Function",
                script.read_text(),
            )
            self.assertEqual(found, [], script.name)

    def test_dates(self) -> None:
        """What is no date counts for nothing, and is no error of ours."""
        for date in (";;;", "", "x", "a b c d e", "Sun, 06 Nov 0000 08:49:37 GMT", "Thu, 99 Foo 99999 99:99:99 GMT"):
            for client in self.each():
                answer = client.ask("/client/rtpush.js", method="HEAD", headers={"If-Modified-Since": date})
                self.assertEqual(answer.status, 200, date)

    def test_long_line(self) -> None:
        """A line that is too long is told as such, and counted, by both."""
        for client in self.each():
            client.send(b"GET /client/x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
            self.assertEqual(client.answer().status, 431)
        self.assertEqual(self.node.counts.limited["header_bytes"], 2)

    def test_file(self) -> None:
        """Who would change a file is told as everywhere."""
        answer = self.ask("/client/rtpush.js?<script>", method="POST", body=b"x")
        self.assertEqual((answer.status, answer.error), (405, "method_not_allowed"))
        self.assertEqual(answer.headers["allow"], "GET, HEAD")
