"""Tests of rtpush.transports.front: what is not said of HTTP elsewhere, but of the two that read it here."""

from __future__ import annotations

import gc
import re

from rtpush.transports.front import HttpConnection
from rtpush.transports.request import LeanRequest
from rtpush.transports.web import HttpChannel
from tests.transports.serving import ServedTestCase, instances_of, request_bytes


class FrontTests(ServedTestCase):
    """Connections that have requests for both."""

    server = "demo = yes"

    def test_other_first(self) -> None:
        """Files are twisted.web's; a connection that has begun with one may ask for anything after it."""
        client = self.client()
        self.assertEqual(client.ask("/demo").status, 308)
        self.assertEqual(client.ask("/healthz").json, {"ok": True})
        self.assertEqual(client.ask("/poll?channel=demo:a&timeout=0").status, 200)

    def test_other_later(self) -> None:
        """A connection is handed over when a request comes that is not ours."""
        client = self.client()
        self.assertEqual(client.ask("/healthz").headers["server"], "rtpush")
        self.assertIsInstance(client.wire.protocol, HttpConnection)
        self.assertEqual(client.ask("/demo").status, 308)
        self.assertIsInstance(client.wire.protocol, HttpChannel)
        self.assertEqual(client.ask("/healthz").headers["server"], "rtpush")
        self.assertEqual(len(self.site._deadlines), 0)

    def test_other_behind_ours(self) -> None:
        """The same in one segment."""
        client = self.client()
        client.send(request_bytes("/healthz") + request_bytes("/demo") + request_bytes("/healthz"))
        self.assertEqual(client.answer().json, {"ok": True})
        self.assertEqual(client.answer().status, 308)
        self.assertEqual(client.answer().json, {"ok": True})

    def test_other_behind_one_that_is_not_plain(self) -> None:
        """One that llhttp has read, too, gets no answer but the end, after which it is asked again."""
        client = self.client()
        odd = request_bytes("/healthz", headers={"Expect": "nothing"})
        client.send(odd + request_bytes("/demo") + request_bytes("/healthz"))
        self.assertEqual(client.answer().json, {"ok": True})
        self.assertTrue(client.closed)
        self.assertEqual(client.take(), b"")

    def test_other_after_a_poll_that_waits(self) -> None:
        """The same in a segment of its own is answered when its turn comes."""
        client = self.client()
        client.request("/poll?channel=demo:a")
        client.request("/demo")
        self.publish("demo:a", 1)
        self.assertEqual(client.answer().json["messages"][0]["data"], 1)
        self.assertEqual(client.answer().status, 308)

    def test_websocket_after_others(self) -> None:
        """A connection that was handed over can still become a WebSocket."""
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for before in ("/demo", "/healthz"):
            client = self.client()
            client.ask(before)
            self.assertEqual(client.ask("/ws", headers=upgrade).status, 101)

    def test_head_in_pieces(self) -> None:
        """A head that comes in pieces is not larger for it: its limit is that of one that comes at once."""
        head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 15_000 + b"\r\n\r\n"
        client = self.client()
        for start in range(0, len(head), 100):
            client.send(head[start : start + 100])
        self.assertEqual(client.answer().status, 200)

    def test_many_behind_one_that_waits(self) -> None:
        """Of requests behind one that is not answered few are read, of either kind; then all are answered in order."""
        for odd in (b"", b"Expect: x\r\n"):
            client = self.client()
            gc.collect()
            before = instances_of(LeanRequest)["LeanRequest"]
            requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n%b\r\n" % (number, odd) for number in range(2000))
            client.send(b"GET /poll?channel=demo:a HTTP/1.1\r\nHost: x\r\n%b\r\n" % odd + requests)
            self.assertLess(instances_of(LeanRequest)["LeanRequest"] - before, 200)
            self.assertFalse(client.wire.reads)
            self.publish("demo:a", 1)
            self.clock.pump([0] * 5)
            self.assertEqual(client.answer().status, 200)
            found = re.findall(rb"there is nothing at '/(\d+)'", client.take())
            self.assertEqual(found, [b"%d" % number for number in range(2000)])
            client.lose()

    def test_pieces(self) -> None:
        """Wherever llhttp's pieces end, all requests are read as they were written."""
        for size in range(4000, 4200, 7):
            client = self.client()
            head = b"POST /emit HTTP/1.1\r\nHost: x\r\nExpect: x\r\nX: %b\r\nContent-Length: 11\r\n\r\n" % (b"y" * size)
            client.send((head + b'{"ping":{}}') * 3)
            self.assertEqual([client.answer().json for _ in range(3)], [{"ping": {}}] * 3)
            client.lose()

    def test_parsers_are_shared(self) -> None:
        """A connection has a parser only while it reads a request, and one that was in trouble is not used again."""
        site = self.site
        # Plain requests need none.
        odd = {"Expect": "nothing"}
        client = self.client()
        client.ask("/healthz")
        self.assertEqual(len(site._parsers), 0)
        client.ask("/healthz", headers=odd)
        self.assertEqual(len(site._parsers), 1)
        (parser,) = site._parsers
        waiting = self.client()
        waiting.request("/poll?channel=demo:a", headers=odd)
        self.assertEqual(site._parsers, [parser])
        for trouble in (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", request_bytes("/healthz", version="HTTP/1.0")):
            other = self.client()
            other.send(trouble)
            self.assertTrue(other.closed)
            self.assertEqual(site._parsers, [])
            self.assertEqual(client.ask("/healthz").status, 200)
        half = self.client()
        half.send(b"POST /emit HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        half.lose()
        self.assertEqual([self.client().ask("/healthz").status for _ in range(2)], [200, 200])

    def test_nothing_is_left(self) -> None:
        """Of connections that are gone nothing is left, whatever they were."""
        # Other tests may have left some.
        kinds = (HttpConnection, HttpChannel, LeanRequest)
        before = instances_of(*kinds)
        for path in ("/healthz", "/demo", "/poll?channel=demo:a", "/sse?channel=demo:a"):
            client = self.client()
            client.request(path)
            client.send(b"GET /heal")
            client.lose()
        # The channel is followed for a little longer.
        self.clock.advance(10)
        self.assertEqual((len(self.site._deadlines), self.node.channels), (0, {}))
        del client
        self.assertEqual(instances_of(*kinds), before)

    def test_our_fault(self) -> None:
        """What goes wrong here is told without its details, and logged; the connection goes on."""
        resource = self.site.resource.children[b"healthz"]
        self.patch(type(resource), "answer", lambda *_: 1 // 0)
        client = self.client()
        answer = client.ask("/healthz")
        self.assertEqual((answer.status, answer.error), (500, "internal"))
        self.assertEqual(client.ask("/readyz").status, 200)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.loudness.events), 1)
        self.loudness.events.clear()
