"""What requests meet while the server leaves, and when it goes on with other settings."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource

from tests.transports.serving import ServedTestCase


class LeavingTests(ServedTestCase):
    """Each answer is the last one on its connection."""

    limits = "header_timeout = 20"

    def test_answers(self) -> None:
        """An answer says that its connection ends, which it does."""
        client = self.client()
        self.assertNotIn("connection", client.ask("/healthz").headers)
        self.site.leaving = True
        answer = client.ask("/healthz")
        self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
        self.assertTrue(client.closed)

    def test_begun_before(self) -> None:
        """So does one to a request that waited since before, and a stream that ends."""
        poll, stream = self.client(), self.client()
        poll.request(f"/poll?channel=demo:a&cursor={self.now('demo:a')}&timeout=30")
        stream.request("/sse?channel=demo:a")
        self.site.leaving = True
        self.publish("demo:a", 1)
        self.assertEqual(poll.answer().headers["connection"], "close")
        self.assertTrue(poll.closed)
        self.assertFalse(stream.closed)
        self.node.leave_all()
        self.clock.advance(0)
        self.assertTrue(stream.closed)

    def test_open(self) -> None:
        """It is known how many connections are open that are not WebSockets."""
        clients = [self.client() for _ in range(3)]
        clients[0].ask("/healthz")
        clients[1].request("/sse?channel=demo:a")
        self.assertEqual(self.site.open, 3)
        websocket = self.client()
        websocket.request(
            "/ws",
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
        )
        files = self.client()
        files.request("/client/rtpush.js")
        self.assertEqual(self.site.open, 3)
        for client in (*clients, websocket, files):
            client.lose()
        self.assertEqual(self.site.open, 0)

    def test_idle(self) -> None:
        """Connections that wait for a request end soon, also new ones; those with a request do not."""
        idle, fresh, stream = self.client(), self.client(), self.client()
        idle.ask("/healthz")
        stream.request("/sse?channel=demo:a")
        self.site.leaving = True
        self.site.close_idle()
        late = self.client()
        self.pump(0.5)
        self.assertFalse(idle.closed or fresh.closed or late.closed)
        self.assertEqual(late.ask("/healthz").status, 200)
        self.pump(1.0)
        self.assertTrue(idle.closed)
        self.assertTrue(fresh.closed)
        self.assertFalse(stream.closed)
        stream.lose()


class _Other(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"other"


class ReconfigureTests(ServedTestCase):
    """Other settings for the requests to come."""

    def test_root(self) -> None:
        """The routes are others; who has been answered by the ones before goes on with these."""
        client = self.client()
        self.assertEqual(client.ask("/healthz").json, {"ok": True})
        root = Resource()
        root.putChild(b"healthz", _Other())
        self.site.reconfigure(root, request_bytes=10, timeout=20.0, header_bytes=16384, max_waiting=10)
        self.assertEqual(client.ask("/healthz").body, b"other")
        self.assertEqual(client.ask("/healthz", method="POST", body=b"x" * 11).status, 413)
