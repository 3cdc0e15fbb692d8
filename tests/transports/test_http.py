"""The HTTP front: what clients of all ages, and strangers, send to it."""

from __future__ import annotations

import json

from tests.transports.serving import ServedTestCase, request_bytes, target

#: Routes, with a request for each that is answered at once, and the methods that they answer.
ROUTES = {
    "/negotiate": ("/negotiate", {"GET", "HEAD"}),
    "/sse": ("/sse?channel=demo:a", {"GET", "HEAD"}),
    "/poll": ("/poll?channel=demo:a&timeout=0", {"GET", "HEAD"}),
    "/ws": ("/ws?channel=demo:a", {"GET"}),
    "/echo": ("/echo", {"GET"}),
    "/emit": ("/emit", {"POST"}),
    "/api/v1/publish": ("/api/v1/publish", {"POST"}),
    "/api/v1/info": ("/api/v1/info", {"POST"}),
    "/api/v1/openapi.json": ("/api/v1/openapi.json", {"GET", "HEAD"}),
    "/healthz": ("/healthz", {"GET", "HEAD"}),
    "/readyz": ("/readyz", {"GET", "HEAD"}),
}

PUBLISH = json.dumps({"channel": "demo:a", "data": "hello"}).encode()


class VersionTests(ServedTestCase):
    """Clients of HTTP/1.0, and of what is not HTTP/1 at all."""

    def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 gets its answer whole, without chunks, and the connection ends."""
        for route in ("/healthz", "/negotiate", "/poll?channel=demo:a&timeout=0", "/sse", "/nothing"):
            for headers in ({}, {"Connection": "keep-alive"}):
                client = self.client()
                answer = client.ask(route, version="HTTP/1.0", headers=headers)
                self.assertNotIn("transfer-encoding", answer.headers, route)
                self.assertEqual(int(answer.headers["content-length"]), len(answer.body))
                self.assertIsInstance(answer.json, dict)
                self.assertTrue(client.closed)

    def test_http_1_0_stream(self) -> None:
        """A client of HTTP/1.0 gets a stream as it is, which ends with the connection."""
        client = self.client()
        answer = client.ask("/sse?channel=demo:a", version="HTTP/1.0")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/event-stream"))
        self.assertNotIn("transfer-encoding", answer.headers)
        self.assertIn(b"event: open\n", answer.body)
        self.publish("demo:a", "hello")
        self.assertRegex(client.take(), rb"^id: \w+:1\ndata: hello\n\n$")
        self.call("disconnect", channel="demo:a")
        self.clock.advance(0)
        self.assertTrue(client.closed)
        self.assert_nobody()

    def test_http_1_0_long_poll(self) -> None:
        """A client of HTTP/1.0 waits as others do."""
        client = self.client()
        client.request("/poll?channel=demo:a", version="HTTP/1.0")
        self.assertEqual(client.take(), b"")
        self.publish("demo:a", 1)
        answer = client.answer()
        self.assertEqual(len(answer.json["messages"]), 1)
        self.assertEqual(int(answer.headers["content-length"]), len(answer.body))
        self.assertTrue(client.closed)

    def test_not_http_1(self) -> None:
        """What is not HTTP/1 is refused, and the connection ends."""
        for data in (
            b"GET /healthz\r\n\r\n",
            b"GET  /healthz HTTP/1.1\r\n\r\n",
            b"GET /healthz HTTP/2.0\r\n\r\n",
            b"GET /healthz HTTP/1.2\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"G\xc9T /healthz HTTP/1.1\r\n\r\n",
            b"GET /health\tz HTTP/1.1\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        ):
            client = self.client()
            client.send(data)
            self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "), data)
            self.assertTrue(client.closed, data)


class MethodTests(ServedTestCase):
    """Methods."""

    def test_not_allowed(self) -> None:
        """A method that a route does not have is answered with 405 and those that it has."""
        for path, methods in ROUTES.values():
            for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} - methods:
                answer = self.ask(path, method=method)
                self.assertEqual(answer.status, 405, (method, path))
                self.assertEqual(set(answer.headers["allow"].split(", ")), methods | {"OPTIONS"})
                if method != "HEAD":
                    self.assertEqual(answer.error, "method_not_allowed")
        self.assert_nobody()

    def test_case(self) -> None:
        """Methods are case-sensitive (RFC 9110 section 9.1)."""
        self.assertEqual(self.ask("/healthz", method="get").status, 405)

    def test_head(self) -> None:
        """HEAD gets the status and headers of GET, and no body (RFC 9110 section 9.3.2)."""
        paths = [path for path, methods in ROUTES.values() if "HEAD" in methods]
        paths += [
            "/nothing",
            "/sse",
            "/sse?channel=unknown:a",
            "/sse?channel=private:a",
            "/sse?channel=demo:a&cursor=x",
            "/sse?channel=%22",
            "/poll",
            "/poll?channel=unknown:a",
            "/poll?channel=private:a",
            "/poll?channel=demo:a&timeout=x",
            "/poll?channel=unknown:a&timeout=0",
            "/negotiate?direction=x",
        ]
        for path in paths:
            got = self.ask(path)
            client = self.client()
            head = client.ask(path, method="HEAD")
            self.assertEqual(head.status, got.status, path)
            self.assertEqual(client.take(), b"", path)
            for headers in (got.headers, head.headers):
                headers.pop("transfer-encoding", None)
                del headers["date"]
            # A length that is known only when the content is made may be left out.
            if "content-length" not in head.headers:
                got.headers.pop("content-length", None)
            self.assertEqual(head.headers, got.headers, path)
        self.assert_nobody()

    def test_head_waits_for_nothing(self) -> None:
        """HEAD of a long poll is answered at once."""
        answer = self.ask("/poll?channel=demo:a&timeout=30", method="HEAD")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
        self.assert_nobody()

    def test_options(self) -> None:
        """OPTIONS tells the methods of a route, with an empty answer."""
        for path, methods in ROUTES.values():
            client = self.client()
            answer = client.ask(path, method="OPTIONS")
            self.assertEqual((answer.status, answer.body), (204, b""), path)
            self.assertNotIn("content-length", answer.headers)
            self.assertEqual(set(answer.headers["allow"].split(", ")), methods | {"OPTIONS"})
            # The connection goes on: nothing of the answer was left over.
            self.assertEqual(client.ask("/healthz").status, 200)

    def test_nothing_there(self) -> None:
        """What there is not is said as JSON, with the path cut short and without its query."""
        for path in (
            "/",
            "/nothing",
            "/api",
            "/api/",
            "/api/v1",
            "/api/v1/nothing",
            "/api/v2/publish",
            "//",
            "/%00",
            "/ws/",
            "/poll/x",
        ):
            answer = self.ask(path)
            self.assertEqual((answer.status, answer.error), (404, "not_found"), path)
        answer = self.ask("/" + "x" * 5000 + "?token=secret")
        self.assertLess(len(answer.body), 500)
        self.assertNotIn(b"secret", answer.body)


class ManyRequestsTests(ServedTestCase):
    """Several requests on one connection."""

    def test_keep_alive(self) -> None:
        """A connection serves one request after the other, whatever became of the one before."""
        client = self.client()
        for _ in range(3):
            self.assertEqual(client.ask("/healthz").json, {"ok": True})
            self.assertEqual(client.ask("/nothing").status, 404)
            self.assertEqual(client.ask("/sse").status, 400)
            self.assertEqual(client.ask("/ws").status, 426)
            self.assertEqual(client.ask("/emit", method="POST", body=b"[]").status, 400)
            self.assertEqual(client.ask("/poll?channel=demo:a&timeout=0").json["messages"], [])
            self.assertEqual(client.ask("/healthz", method="HEAD").status, 200)
            self.assertEqual(client.ask("/api/v1/publish", method="POST", body=PUBLISH).status, 200)
        self.assertFalse(client.closed)

    def test_close(self) -> None:
        """``Connection: close`` is obeyed and repeated."""
        client = self.client()
        answer = client.ask("/healthz", headers={"Connection": "close"})
        self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
        self.assertTrue(client.closed)

    def test_close_among_others(self) -> None:
        """``Connection`` is a list, in any case (RFC 9110 section 7.6.1)."""
        for value in ("Close", "keep-alive, close", "TE, CLOSE"):
            client = self.client()
            client.ask("/healthz", headers={"Connection": value})
            self.assertTrue(client.closed, value)

    def test_pipelined(self) -> None:
        """Requests that come in one segment are answered in their order."""
        client = self.client()
        client.send(
            request_bytes("/healthz")
            + request_bytes("/api/v1/publish", method="POST", body=PUBLISH)
            + b"\r\n"
            + request_bytes("/nothing")
            + request_bytes("/poll?channel=demo:a&timeout=0&since=earliest")
            + request_bytes("/healthz", method="HEAD")
            + request_bytes("/readyz")
        )
        self.assertEqual([client.answer().status for _ in range(3)], [200, 200, 404])
        self.assertEqual(client.answer().json["messages"][0]["data"], "hello")
        self.assertEqual(client.answer(head=True).status, 200)
        self.assertEqual(client.answer().json, {"ok": True})

    def test_polls_pipelined(self) -> None:
        """A poll that waits holds back the next request, which is done when it was answered."""
        client = self.client()
        client.send(
            request_bytes("/poll?channel=demo:a")
            + request_bytes("/poll?channel=demo:a")
            + request_bytes("/emit", method="POST", body=b'{"ping":{}}')
        )
        self.assertEqual(client.take(), b"")
        self.publish("demo:a", 1)
        self.assertEqual([each["data"] for each in client.answer().json["messages"]], [1])
        self.assertEqual(client.take(), b"")
        self.publish("demo:a", 2)
        self.assertEqual([each["data"] for each in client.answer().json["messages"]], [2])
        self.assertEqual(client.answer().json, {"ping": {}})
        client.lose()
        self.assert_nobody()

    def test_behind_a_stream(self) -> None:
        """A request behind a stream waits for its end, and does not disturb it, however long it is."""
        for more in (request_bytes("/healthz"), request_bytes("/healthz") * 1000):
            client = self.client()
            client.send(request_bytes("/sse?channel=demo:a") + more)
            client.answer()
            client.send(more)
            self.publish("demo:a", "hello")
            self.assertEqual([event.data for event in client.events()], ["hello"])
            client.lose()
            self.assert_nobody()

    def test_behind_a_stream_that_ends(self) -> None:
        """When a stream ends, the connection goes on with the request behind it."""
        client = self.client()
        client.send(request_bytes("/sse?channel=demo:a") + request_bytes("/healthz"))
        client.answer()
        self.call("disconnect", channel="demo:a")
        self.assertEqual([event.name for event in client.events()], ["disconnect"])
        self.assertEqual(client.answer().json, {"ok": True})

    def test_one_byte_at_a_time(self) -> None:
        """Requests may come in any pieces."""
        client = self.client()
        body = b'{"channel":"demo:a","data":"\xc3\xa9"}'
        chunked = b"1\r\n{\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 1, body[1:])
        requests = (
            request_bytes("/healthz")
            + request_bytes("/api/v1/publish", method="POST", body=body)
            + request_bytes("/api/v1/publish", method="POST", headers={"Transfer-Encoding": "chunked"})
            + chunked
            + request_bytes("/poll?channel=demo:a&timeout=0&since=earliest")
        )
        for index in range(len(requests)):
            client.send(requests[index : index + 1])
        self.assertEqual([client.answer().status for _ in range(3)], [200, 200, 200])
        self.assertEqual([each["data"] for each in client.answer().json["messages"]], ["é", "é"])

    def test_absolute_form(self) -> None:
        """The target may be a whole URL, as clients send it to a proxy (RFC 9112 section 3.2.2)."""
        self.assertEqual(self.ask("http://node.example/healthz").status, 200)
        self.assertEqual(self.ask("http://node.example/poll?channel=demo:a&timeout=0").status, 200)


    def test_offer_of_http_2(self) -> None:
        """A client that offers HTTP/2 with its request has it answered over HTTP/1.1, whatever its method."""
        offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQA"}
        client = self.client()
        answer = client.ask("/api/v1/publish", method="POST", headers=offer, body=PUBLISH)
        self.assertEqual(answer.status, 200)
        self.assertEqual(client.ask("/poll?channel=demo:a&timeout=0&since=earliest", headers=offer).status, 200)
        client = self.client()
        self.assertEqual([client.ask("/healthz", headers=offer).status for _ in range(2)], [200, 200])


class SizeTests(ServedTestCase):
    """Too much of everything."""

    limits = "header_timeout = 20"

    def test_large_heads(self) -> None:
        """A head that is too large ends the connection, and does not keep what came."""
        for head in (
            b"GET /" + b"x" * 100_000,
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000,
            b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 600 + b"\r\n",
            b"GET /healthz HTTP/1.1\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 20 + b"\r\n",
            b"\r\n" * 50_000,
        ):
            client = self.client()
            for start in range(0, len(head), 4096):
                client.send(head[start : start + 4096])
            self.assertNotIn(b"200 OK", client.take().partition(b"\r\n")[0])
            self.assertTrue(client.closed, head[:40])

    def test_large_body(self) -> None:
        """A body over the limit is read to its end, then refused; the connection goes on."""
        client = self.client()
        body = json.dumps({"channel": "demo:a", "data": "x" * 262_144}).encode()
        for path in ("/api/v1/publish", "/emit", "/healthz", "/nothing"):
            answer = client.ask(path, method="POST", body=body)
            self.assertEqual((answer.status, answer.error), (413, "message_too_large"), path)
        self.assertEqual(client.ask("/healthz").status, 200)

    def test_large_chunked_body(self) -> None:
        """The same for a body whose length is not told before."""
        client = self.client()
        client.request("/emit", method="POST", headers={"Transfer-Encoding": "chunked"})
        for _ in range(5):
            client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        client.send(b"0\r\n\r\n")
        answer = client.answer()
        self.assertEqual((answer.status, answer.error), (413, "message_too_large"))
        self.assertEqual(client.ask("/healthz").status, 200)

    def test_endless_body(self) -> None:
        """A body that goes on and on ends the connection."""
        for headers in ({"Transfer-Encoding": "chunked"}, {"Content-Length": "1000000000000000000"}):
            client = self.client()
            client.request("/emit", method="POST", headers=headers)
            chunk = b"x" * 65536
            piece = b"10000\r\n" + chunk + b"\r\n" if "Transfer-Encoding" in headers else chunk
            for _ in range(16 * 4 + 1):
                client.send(piece)
            self.assertTrue(client.closed, headers)

    def test_message_limit(self) -> None:
        """A message over the limit is refused by its own size, not by that of what carries it."""
        for data, status in (("x" * 65536, 200), ("x" * 65537, 413), ("é" * 32768, 200), ("é" * 32769, 413)):
            body = json.dumps({"publish": {"channel": "demo:a", "data": data}}).encode()
            self.assertEqual(self.ask("/emit", method="POST", body=body).status, status)

    def test_content_lengths(self) -> None:
        """A length that is no number, or is told twice, is refused and the connection ends (RFC 9112 section 6.3)."""
        for headers in (
            b"Content-Length: -1",
            b"Content-Length: +5",
            b"Content-Length: 1e3",
            b"Content-Length: 0x10",
            b"Content-Length: ten",
            b"Content-Length:",
            b"Content-Length: 5, 5",
            b"Content-Length: 5\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 50",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
        ):
            client = self.client()
            client.send(b"POST /emit HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\nhello" + request_bytes("/healthz"))
            self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "), headers)
            self.assertTrue(client.closed, headers)

    def test_no_content_length(self) -> None:
        """A POST without a length has no body."""
        client = self.client()
        self.assertEqual(client.ask("/emit", method="POST").status, 400)
        self.assertEqual(client.ask("/api/v1/info", method="POST").status, 200)

    def test_bad_chunks(self) -> None:
        """Chunks that are none end the connection."""
        for chunks in (b"zz\r\n", b"-1\r\n", b"5\r\nhelloX\r\n", b"1" * 2000, b"0x5\r\n", b"\r\n", b"5;" + b"x" * 5000):
            client = self.client()
            client.request("/emit", method="POST", headers={"Transfer-Encoding": "chunked"})
            client.send(chunks)
            self.assertTrue(client.closed, chunks[:40])

    def test_expect_continue(self) -> None:
        """A client that asks before it sends its body is told to."""
        client = self.client()
        client.request("/emit", method="POST", headers={"Expect": "100-continue", "Content-Length": "11"})
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b'{"ping":{}}')
        self.assertEqual(client.answer().json, {"ping": {}})

    def test_slow_head(self) -> None:
        """The head has its time as a whole: a byte now and then does not keep the connection."""
        client = self.client()
        client.send(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(4):
            self.clock.advance(4.9)
            client.send(b"X: y\r\n")
            self.assertFalse(client.closed)
        self.clock.advance(0.5)
        self.clock.advance(0)
        self.assertTrue(client.closed)

    def test_slow_body(self) -> None:
        """A body may take longer, as long as some of it comes."""
        client = self.client()
        client.request("/emit", method="POST", headers={"Content-Length": "11"})
        for byte in b'{"ping":{}}':
            self.clock.advance(19)
            client.send(bytes((byte,)))
        self.assertEqual(client.answer().json, {"ping": {}})
        client.request("/emit", method="POST", headers={"Content-Length": "11"})
        self.clock.advance(20)
        self.clock.advance(0)
        self.assertTrue(client.closed)

    def test_idle(self) -> None:
        """A connection without a request ends; one whose poll waits, or that is a stream, does not."""
        idle, used, poll, stream = (self.client() for _ in range(4))
        self.clock.advance(10)
        self.assertEqual(used.ask("/healthz").status, 200)
        poll.request("/poll?channel=demo:a&timeout=60")
        stream.request("/sse?channel=demo:a")
        self.clock.advance(10)
        self.clock.advance(0)
        self.assertEqual([client.closed for client in (idle, used, poll, stream)], [True, False, False, False])
        self.clock.advance(10)
        self.clock.advance(0)
        self.assertEqual([client.closed for client in (idle, used, poll, stream)], [True, True, False, False])
        poll.lose()
        stream.lose()
        self.assert_nobody()

    def test_client_that_does_not_close(self) -> None:
        """A client that was told to go and does not read is cut off."""
        client = self.client()
        client.wire.stick()
        self.clock.advance(20)
        self.assertFalse(client.closed)
        self.clock.advance(15)
        self.clock.advance(0)
        self.assertTrue(client.closed)


class QueryTests(ServedTestCase):
    """Queries that are not well."""

    def test_bad_encoding(self) -> None:
        """What is not UTF-8 in a query is refused, wherever it is."""
        for query in ("channel=%ff", "channel=demo:a&x=%C3%28", "%ff=1&channel=demo:a", "channel=demo:a&cursor=%e9"):
            for path in ("/sse", "/poll", "/negotiate"):
                answer = self.ask(f"{path}?{query}")
                self.assertEqual((answer.status, answer.error), (400, "bad_request"), (path, query))

    def test_raw_bytes(self) -> None:
        """Bytes beyond ASCII in a target are refused."""
        client = self.client()
        client.send(b"GET /poll?channel=demo:\xa9 HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(client.answer().error, "bad_request")

    def test_bad_names(self) -> None:
        """Names of channels that are not allowed are refused, with what is."""
        for name in ("a%00b", "%00", "a%0ab", "a%20b", "a+b c", "%22", "a%5cb", "caf%c3%a9", "x" * 256, "a%7fb"):
            answer = self.ask(f"/poll?timeout=0&channel={name}".replace(" ", "%20"))
            self.assertEqual((answer.status, answer.error), (400, "bad_channel"), name)
            self.assertLess(len(answer.body), 400)
        self.assertEqual(self.ask("/poll?timeout=0&channel=" + "x" * 255).status, 200)

    def test_channels(self) -> None:
        """There must be a channel, none twice, and not too many."""
        for query, error in (
            ("", "bad_request"),
            ("channel=", "bad_request"),
            ("channel=,", "bad_request"),
            ("channel=a,", "bad_request"),
            ("channel=a&channel=", "bad_request"),
            ("channel=a,a", "bad_request"),
            ("channel=a&channel=b,a", "bad_request"),
            ("Channel=a", "bad_request"),
            ("channel=unknown:a", "unknown_channel"),
            ("channel=a,unknown:a", "unknown_channel"),
            ("channel=:a", "unknown_channel"),
            ("channel=private:a", "permission_denied"),
            ("channel=a,private:a", "permission_denied"),
            ("channel=" + ",".join(f"c{n}" for n in range(21)), "limit_exceeded"),
        ):
            for path in ("/poll?timeout=0&", "/poll?", "/sse?"):
                answer = self.ask(path + query)
                self.assertEqual(answer.error, error, path + query)
                self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(self.ask("/poll?timeout=0&channel=" + ",".join(f"c{n}" for n in range(20))).status, 200)
        self.assert_nobody()

    def test_duplicates(self) -> None:
        """Of all others there may be one."""
        for name, value in (("cursor", "a:1"), ("since", "earliest"), ("timeout", "0"), ("info", "1")):
            answer = self.ask(target("/poll", channel="demo:a", **{name: [value, value]}))
            self.assertEqual((answer.status, answer.error), (400, "bad_request"), name)
        self.assertEqual(self.ask("/sse?channel=demo:a&envelope=1&envelope=1").error, "bad_request")
        self.assertEqual(self.ask("/negotiate?direction=push&direction=push").error, "bad_request")

    def test_many_parameters(self) -> None:
        """Parameters without number are refused."""
        self.assertEqual(self.ask("/negotiate?" + "&".join(["a=1"] * 2000)).error, "bad_request")

    def test_unknown_parameters(self) -> None:
        """Those that are not known are let through: caches are passed with them."""
        self.assertEqual(self.ask("/poll?channel=demo:a&timeout=0&_=17&utm=&=&x").status, 200)

    def test_since(self) -> None:
        """``since`` is one of two words."""
        for word in ("", "Earliest", "0", "yesterday", "k:1"):
            self.assertEqual(self.ask(target("/poll", channel="demo:a", since=word)).error, "bad_request", word)

    def test_info(self) -> None:
        """What a client says of itself is JSON, and short."""
        for info in ("{", "NaN", "{}x", "'a'", '"' + "x" * 4095 + '"', "[" * 1200 + "]" * 1200):
            answer = self.ask(target("/poll", channel="demo:a", timeout=0, info=info))
            self.assertEqual((answer.status, answer.error), (400, "bad_request"), info[:40])
        for info in ("{}", "null", "0", '"é"', '"' + "x" * 4094 + '"'):
            self.assertEqual(self.ask(target("/poll", channel="demo:a", timeout=0, info=info)).status, 200)

    def test_timeout(self) -> None:
        """``timeout`` is a number of seconds that is not negative."""
        for value in ("-1", "-0.1", "nan", "inf", "-inf", "1e999", "abc", "", "1s", "0x10", "%00"):
            answer = self.ask(f"/poll?channel=demo:a&timeout={value}")
            self.assertEqual((answer.status, answer.error), (400, "bad_request"), value)
        for value in ("0", "0.0", "00", "0e5"):
            self.assertEqual(self.ask(f"/poll?channel=demo:a&timeout={value}").status, 200, value)
