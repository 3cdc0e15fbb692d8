"""Which web pages may use the node, and what their browsers are told (WHATWG Fetch, RFC 6454)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.origin import Origins
from tests.transports.serving import ServedTestCase
from tests.transports.sockets import HANDSHAKE

ROUTES = (
    ("GET", "/negotiate"),
    ("GET", "/poll?channel=demo:a&timeout=0"),
    ("GET", "/sse"),
    ("POST", "/emit"),
    ("POST", "/api/v1/info"),
    ("GET", "/healthz"),
)


class HeaderTests(SynchronousTestCase):
    """Headers that are strange, beside those that tests of the rule itself have."""

    def test_default_ports(self) -> None:
        """A port that is not said is that of the page's scheme, on both sides."""
        origins = Origins(())
        for origin, host, allowed in (
            ("http://a.example", "a.example:80", True),
            ("https://a.example:443", "a.example", True),
            ("http://[::1]", "[::1]", True),
            ("http://a.example:8080", "a.example", False),
            ("http://a.example", "a.example:443", False),
            ("http://a.example:0", "a.example", False),
            ("http://a.example", "a.example:0", False),
            ("http://[::1]:8080", "[::1]:8081", False),
            ("http://[::1]:8080", "[::2]:8080", False),
        ):
            self.assertIs(origins.allows(origin, host), allowed, (origin, host))

    def test_no_name(self) -> None:
        """What has no name of a host is not the same as what has none either."""
        origins = Origins(())
        for origin, host in (
            ("http://", ""),
            ("https://", ":443"),
            ("http://:80", ":80"),
            ("null", "null"),
            ("null", ""),
            ("file://", ""),
            ("a.example", "a.example"),
            ("ws://a.example", "a.example"),
            ("chrome-extension://a.example", "a.example"),
        ):
            self.assertFalse(origins.allows(origin, host), (origin, host))

    def test_null_by_name(self) -> None:
        """``null`` can be in the list, for who knows what that means."""
        self.assertTrue(Origins(["null"]).allows("null", "own.example"))
        self.assertFalse(Origins(["*.example"]).allows("https://a.example", "own.example"))


class ForeignTests(ServedTestCase):
    """Pages from elsewhere, where only some are let in."""

    server = "allowed_origins = https://friend.example"

    def test_refused(self) -> None:
        """A page that is not let in gets 403 everywhere, in words that its browser does not show it."""
        for method, path in (*ROUTES, ("GET", "/ws"), ("GET", "/echo"), ("PUT", "/negotiate"), ("OPTIONS", "/emit")):
            for origin in ("https://foe.example", "null", "", "http://friend.example", "http://node.example:81"):
                answer = self.ask(path, method=method, headers={"Origin": origin})
                self.assertEqual((answer.status, answer.error), (403, "origin_not_allowed"), (method, path, origin))
                self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_nothing_is_done(self) -> None:
        """What a page asks for that is not let in is not done."""
        body = b'{"publish": {"channel": "demo:a", "data": 1}}'
        before = self.now("demo:a")
        self.assertEqual(
            self.ask("/emit", method="POST", body=body, headers={"Origin": "https://foe.example"}).status, 403
        )
        self.assertEqual(self.now("demo:a"), before)

    def test_let_in(self) -> None:
        """A page that is let in may read its answer, even if that is an error; others' caches may not mix them up."""
        for method, path in ROUTES:
            for origin in ("https://friend.example", "http://node.example", "https://node.example"):
                answer = self.ask(path, method=method, headers={"Origin": origin})
                self.assertEqual(answer.headers["access-control-allow-origin"], origin, path)
                self.assertNotIn("access-control-allow-credentials", answer.headers)
                self.assertIn("Origin", answer.headers["vary"])

    def test_without(self) -> None:
        """Clients that are no pages have no origin, and are let in; caches are told that pages get another answer."""
        for method, path in ROUTES:
            answer = self.ask(path, method=method)
            self.assertNotIn("access-control-allow-origin", answer.headers)
            self.assertIn("Origin", answer.headers["vary"], path)

    def test_stream_and_poll(self) -> None:
        """Streams, and polls that waited, say the same."""
        headers = {"Origin": "https://friend.example"}
        stream, poll = self.client(), self.client()
        answer = stream.ask("/sse?channel=demo:a", headers=headers)
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://friend.example")
        poll.request("/poll?channel=demo:a", headers=headers)
        self.publish("demo:a", 1)
        self.assertEqual(poll.answer().headers["access-control-allow-origin"], "https://friend.example")

    def test_preflight(self) -> None:
        """A preflight tells methods and headers, and is short."""
        for method, path in ROUTES:
            headers = {
                "Origin": "https://friend.example",
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization,content-type,last-event-id",
            }
            answer = self.ask(path, method="OPTIONS", headers=headers)
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.headers["access-control-allow-origin"], "https://friend.example")
            self.assertIn(method, answer.headers["access-control-allow-methods"].split(", "))
            allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
            for header in ("authorization", "content-type", "x-api-key", "last-event-id", "if-none-match"):
                self.assertIn(header, allowed)
            self.assertGreater(int(answer.headers["access-control-max-age"]), 0)

    def test_preflight_needs_no_key(self) -> None:
        """A preflight has no credentials, and must not need any."""
        self.serve(sections="[api]\nkeys = 0123456789abcdef0123456789abcdef", server=self.server)
        headers = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
        self.assertEqual(self.ask("/api/v1/publish", method="OPTIONS", headers=headers).status, 204)
        answer = self.ask("/api/v1/publish", method="POST", headers={"Origin": "https://friend.example"})
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://friend.example")

    def test_two_origins(self) -> None:
        """Two origins are none."""
        client = self.client()
        client.send(
            b"GET /negotiate HTTP/1.1\r\nHost: node.example\r\nOrigin: https://foe.example\r\n"
            b"Origin: https://friend.example\r\n\r\n"
        )
        self.assertEqual(client.answer().status, 403)

    def test_websocket(self) -> None:
        """A WebSocket of a page that is not let in is refused before it is one."""
        for path in ("/ws", "/ws?channel=demo:a", "/echo"):
            for origin in ("https://foe.example", "null", "http://node.example:81", "https://friend.example:444"):
                answer = self.ask(path, headers={**HANDSHAKE, "Origin": origin})
                self.assertEqual((answer.status, answer.error), (403, "origin_not_allowed"), origin)
            for origin in ("https://friend.example", "http://node.example", "https://node.example"):
                self.assertEqual(self.ask(path, headers={**HANDSHAKE, "Origin": origin}).status, 101, origin)
        self.assert_nobody()
