"""Tests of rtpush.client.negotiation."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.errors import BadAnswer
from rtpush.client.negotiation import Negotiation, base_url, websocket_url
from rtpush.protocol.backoff import Backoff


def answer(**changes: Any) -> bytes:
    """Return the answer that docs/protocol.rst shows, with changes."""
    fields = {
        "direction": "duplex",
        "transports": [
            {"transport": "websocket", "url": "/ws", "reason": "both sides talk"},
            {"transport": "sse", "url": "https://push.example.org/sse", "reason": ""},
            {"transport": "carrier-pigeon", "url": "/roof", "reason": ""},
        ],
        "excluded": [],
        "emit": "/emit",
        "heartbeat": 20,
        "heartbeat_grace": 5,
        "backoff": {"base": 2, "max": 40, "jitter": 3},
        "poll": {"timeout": 50, "max_age": 7},
        "limits": {"message_bytes": 65536, "channels": 100, "channel_name_bytes": 255},
    }
    return json.dumps(fields | changes).encode()


class NegotiationTests(SynchronousTestCase):
    """Reading /negotiate."""

    def test_answer(self) -> None:
        """URLs become absolute, below the place of the server; what we do not know is passed over."""
        terms = Negotiation.of(answer(), "http://h:1/push/", ["sse", "websocket"])
        self.assertEqual(
            list(terms.urls.items()),
            [("websocket", "http://h:1/push/ws"), ("sse", "https://push.example.org/sse")],
        )
        self.assertEqual(terms.emit, "http://h:1/push/emit")
        self.assertEqual((terms.heartbeat, terms.grace, terms.hold, terms.pause), (20, 5, 50, 7))
        self.assertEqual(terms.backoff, Backoff(2, 40, 3))
        self.assertEqual(terms.channels, 100)

    def test_only_what_is_wanted(self) -> None:
        """What the client does not want is not among the URLs, be it that none is left."""
        self.assertEqual(list(Negotiation.of(answer(), "http://h/", ["sse"]).urls), ["sse"])
        self.assertEqual(Negotiation.of(answer(), "http://h/", ["longpoll"]).urls, {})

    def test_sparse(self) -> None:
        """What is missing has the defaults of the protocol."""
        terms = Negotiation.of(b'{"transports": [{"transport": "sse", "url": "/sse"}]}', "http://h/", ["sse"])
        self.assertEqual(terms, Negotiation.default("http://h/", ["sse"]))

    def test_nonsense(self) -> None:
        """Anything else is a bad answer, not an exception of another kind."""
        for body in (b"", b"[]", b"<html>", b'{"transports": 1}', b"\xff", answer(heartbeat="soon")):
            self.assertRaises(BadAnswer, Negotiation.of, body, "http://h/", ["sse"])
        for url in ("ftp://h/ws", "ws", "", "javascript:alert(1)", "//h/ws"):
            offer = answer(transports=[{"transport": "sse", "url": url}])
            self.assertRaises(BadAnswer, Negotiation.of, offer, "http://h/", ["sse"])

    def test_no_busy_loop(self) -> None:
        """Times that would make the client run in circles are raised."""
        terms = Negotiation.of(answer(heartbeat=0, poll={"timeout": 0, "max_age": 0}), "http://h/", ["sse"])
        self.assertEqual((terms.heartbeat, terms.hold, terms.pause), (1, 1, 1))


class UrlTests(SynchronousTestCase):
    """The URLs that users give."""

    def test_good(self) -> None:
        """The place of the server ends with one slash."""
        for given, expected in (
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://example.org/push//", "https://example.org/push/"),
            ("http://[::1]:80/", "http://[::1]:80/"),
        ):
            self.assertEqual(base_url(given), expected)

    def test_bad(self) -> None:
        """Anything else is refused in one line."""
        for given in (
            "",
            "127.0.0.1:8080",
            "ws://h/",
            "http://",
            "http://h:99999/",
            "http://h:x/",
            "http://h:0/",
            "http://[::1/",
            "http://h/a b",
            "http://h/\n",
            "http://h/?a=1",
            "http://h/#a",
            "http://u:p@h/",
            "http://hé/",
        ):
            error = self.assertRaises(ValueError, base_url, given)
            self.assertNotIn("\n", str(error))

    def test_websocket(self) -> None:
        """WebSockets have schemes of their own."""
        self.assertEqual(websocket_url("http://h:1/ws?a=b"), "ws://h:1/ws?a=b")
        self.assertEqual(websocket_url("https://h/ws"), "wss://h/ws")
        self.assertEqual(websocket_url("wss://h/ws"), "wss://h/ws")
