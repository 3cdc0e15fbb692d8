"""The opening handshake of a WebSocket (RFC 6455 section 4.2)."""

from __future__ import annotations

import json
from typing import Any

from tests.transports.serving import request_bytes
from tests.transports.sockets import HANDSHAKE, TEXT, SocketTestCase, frame, frames_of


class HandshakeTests(SocketTestCase):
    """What opens a WebSocket, and what does not."""

    def ask_with(self, path: str = "/ws", *, version: str = "HTTP/1.1", method: str = "GET", **changes: Any) -> Any:
        """Ask with the headers of a handshake, but for changes; nothing takes one away, a list repeats it."""
        client = self.client()
        lines = [f"{method} {path} {version}"]
        headers: dict[str, Any] = {"Host": "node.example", **HANDSHAKE}
        headers.update({name.replace("_", "-"): value for name, value in changes.items()})
        for name, value in headers.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    lines.append(f"{name}: {each}")
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return client.answer()

    def test_accepted(self) -> None:
        """The answer is that of the example in RFC 6455 section 1.3, and has nothing that was not asked for."""
        for path in ("/ws", "/echo"):
            client = self.client()
            client.request(path, headers=HANDSHAKE)
            self.assertEqual(
                client.take(),
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )
            self.assertFalse(client.closed)
            client.lose()
        self.assert_nobody()

    def test_forms(self) -> None:
        """Header values in the forms that browsers and proxies give them."""
        for changes in (
            {"Upgrade": "WebSocket"},
            {"Upgrade": "h2c, websocket"},
            {"Upgrade": ["h2c", "websocket"]},
            {"Connection": "keep-alive, Upgrade"},
            {"Connection": ["keep-alive", "upgrade"]},
            {"Connection": "UPGRADE"},
            {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA=="},
            {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
            {"Sec_WebSocket_Extensions": "x-unknown; a=1; b"},
            {"Sec_WebSocket_Protocol": "chat"},
        ):
            answer = self.ask_with(**changes)
            self.assertEqual(answer.status, 101, changes)
            self.assertNotIn("sec-websocket-extensions", answer.headers)
            self.assertNotIn("sec-websocket-protocol", answer.headers)

    def test_no_upgrade(self) -> None:
        """What does not ask for a WebSocket is told that this is one."""
        for changes in (
            {"Upgrade": None},
            {"Connection": None},
            {"Upgrade": "h2c"},
            {"Connection": "keep-alive"},
            {"Upgrade": "websockets"},
            {"Connection": "xupgrade"},
        ):
            answer = self.ask_with(**changes)
            self.assertEqual((answer.status, answer.error), (426, "upgrade_required"), changes)
            self.assertEqual(answer.headers["upgrade"], "websocket")
            self.assertIn("upgrade", answer.headers["connection"].lower())

    def test_http_1_0(self) -> None:
        """HTTP/1.0 cannot be upgraded."""
        answer = self.ask_with(version="HTTP/1.0")
        self.assertEqual((answer.status, answer.error), (426, "upgrade_required"))

    def test_method(self) -> None:
        """A handshake is a GET."""
        for method in ("POST", "PUT", "HEAD", "CONNECT"):
            answer = self.ask_with(method=method)
            self.assertEqual(answer.status, 405, method)
            self.assertIn("GET", answer.headers["allow"])

    def test_version(self) -> None:
        """Of the versions there is one, which is told (RFC 6455 section 4.4)."""
        for version in (None, "8", "12", "14", "0", "013", "13.0", "x", "", "13, 8", ["13", "8"]):
            answer = self.ask_with(Sec_WebSocket_Version=version)
            self.assertEqual((answer.status, answer.error), (426, "upgrade_required"), version)
            self.assertEqual(answer.headers["sec-websocket-version"], "13")

    def test_key(self) -> None:
        """There is one key, of 16 bytes in base64."""
        good = HANDSHAKE["Sec-WebSocket-Key"]
        for key in (
            None,
            "",
            "x",
            good[:-1],
            good[:-4] + "=",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZSE=" + "A",
            good + good,
            "dGhlIHNhbXBsZSBub25jZ!==",
            "dGhl IHNhbXBsZSBub25jZQ==",
            "\xe9GhlIHNhbXBsZSBub25jZQ==",
            [good, good],
            [good, "AAAAAAAAAAAAAAAAAAAAAA=="],
        ):
            answer = self.ask_with(Sec_WebSocket_Key=key)
            self.assertEqual((answer.status, answer.error), (400, "bad_request"), key)

    def test_host(self) -> None:
        """A handshake says which host it means."""
        self.assertEqual(self.ask_with(Host=None).status, 400)

    def test_subprotocols(self) -> None:
        """Of what a client offers, the server takes what it likes best; the rest of the stream is in that."""
        for offered, chosen in (
            ("rtpush.v1", "rtpush.v1"),
            ("rtpush.v1.msgpack", "rtpush.v1.msgpack"),
            ("rtpush.raw", "rtpush.raw"),
            ("rtpush.raw, rtpush.v1.msgpack, rtpush.v1", "rtpush.v1"),
            (["rtpush.raw", "rtpush.v1.msgpack"], "rtpush.v1.msgpack"),
            ("chat,rtpush.raw ,x", "rtpush.raw"),
            ("chat", None),
            ("rtpush.v2", None),
            ("RTPUSH.V1", None),
            (",,", None),
            (None, None),
        ):
            answer = self.ask_with("/ws?channel=demo:a", Sec_WebSocket_Protocol=offered)
            self.assertEqual(answer.status, 101)
            self.assertEqual(answer.headers.get("sec-websocket-protocol"), chosen, offered)

    def test_raw_needs_a_channel(self) -> None:
        """``rtpush.raw`` without exactly one channel is refused before it is a WebSocket."""
        for path in ("/ws", "/ws?channel=a,b", "/ws?channel=a&channel=b"):
            answer = self.ask_with(path, Sec_WebSocket_Protocol="rtpush.raw")
            self.assertEqual((answer.status, answer.error), (400, "bad_request"), path)

    def test_refused_in_words(self) -> None:
        """What a query asks for and cannot be is refused before there is a WebSocket, which could not show it."""
        for query, status, error in (
            ("channel=unknown:a", 404, "unknown_channel"),
            ("channel=private:a", 403, "permission_denied"),
            ("channel=%22", 400, "bad_channel"),
            ("channel=a,a", 400, "bad_request"),
            ("channel=a&cursor=x", 400, "bad_cursor"),
            ("channel=a&since=x", 400, "bad_request"),
            ("channel=a&info=x", 400, "bad_request"),
            ("channel=%ff", 400, "bad_request"),
        ):
            answer = self.ask_with(f"/ws?{query}")
            self.assertEqual((answer.status, answer.error), (status, error), query)
        self.assert_nobody()

    def test_too_many_channels(self) -> None:
        """More channels than a connection may follow are an error that the close code tells, or words before it."""
        client = self.client()
        client.request("/ws?channel=" + ",".join(f"c{n}" for n in range(21)), headers=HANDSHAKE)
        answer = client.answer()
        if answer.status == 101:
            frames, _ = frames_of(client.take())
            self.assertEqual((frames[-1].code, frames[-1].reason), (1008, "limit_exceeded"))
        else:
            self.assertEqual(answer.error, "limit_exceeded")

    def test_refused_connection_goes_on(self) -> None:
        """A connection whose handshake was refused is an HTTP connection still."""
        client = self.client()
        self.assertEqual(client.ask("/ws", headers={**HANDSHAKE, "Sec-WebSocket-Version": "8"}).status, 426)
        self.assertEqual(client.ask("/healthz").status, 200)
        client.request("/ws", headers=HANDSHAKE)
        self.assertEqual(client.answer().status, 101)
        client.send(frame(TEXT, b'{"id":1,"ping":{}}'))
        [reply], _ = frames_of(client.take())
        self.assertEqual(json.loads(reply.payload), {"id": 1, "ping": {}})

    def test_with_a_body(self) -> None:
        """A handshake has no body: where that ends and frames begin, others on the way may see otherwise."""
        for headers, body in (
            ({"Content-Length": "5"}, b"hello"),
            ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n0\r\n\r\n"),
            ({"Transfer-Encoding": "chunked"}, b"0\r\n\r\n"),
        ):
            client = self.client()
            client.send(request_bytes("/echo", headers={**HANDSHAKE, **headers}) + body)
            self.assertEqual(client.answer().error, "bad_request")
            self.assertTrue(client.closed)
        self.assertEqual(self.ask("/echo", headers={**HANDSHAKE, "Content-Length": "0"}).status, 101)

    def test_frames_in_the_same_segment(self) -> None:
        """Frames may come together with the handshake, in any pieces."""
        more = frame(TEXT, b"one") + frame(TEXT, b"x" * 300) + frame(TEXT, b"three")
        everything = request_bytes("/echo", headers=HANDSHAKE) + more
        for cut in range(0, len(everything), 7):
            client = self.client()
            for piece in (everything[:cut], everything[cut:]):
                if piece:
                    client.send(piece)
            self.assertEqual(client.answer().status, 101)
            frames, rest = frames_of(client.take())
            self.assertEqual([each.payload for each in frames], [b"one", b"x" * 300, b"three"], cut)
            self.assertEqual(rest, b"")
            client.lose()
        self.assert_nobody()

    def test_one_byte_at_a_time(self) -> None:
        """The same, byte by byte."""
        client = self.client()
        everything = request_bytes("/echo", headers=HANDSHAKE) + frame(TEXT, "é".encode()) + frame(TEXT, b"x" * 126)
        for index in range(len(everything)):
            client.send(everything[index : index + 1])
        self.assertEqual(client.answer().status, 101)
        frames, _ = frames_of(client.take())
        self.assertEqual([each.payload for each in frames], ["é".encode(), b"x" * 126])

    def test_behind_other_requests(self) -> None:
        """A handshake may come behind other requests in one segment."""
        client = self.client()
        client.send(
            request_bytes("/healthz")
            + request_bytes("/poll?channel=demo:a&timeout=0")
            + request_bytes("/ws", headers=HANDSHAKE)
            + frame(TEXT, b'{"id":1,"ping":{}}')
        )
        self.assertEqual([client.answer().status for _ in range(3)], [200, 200, 101])
        [reply], _ = frames_of(client.take())
        self.assertEqual(json.loads(reply.payload), {"id": 1, "ping": {}})

    def test_behind_an_answer_that_is_not_read(self) -> None:
        """A handshake behind an answer that fills the client's buffers is a WebSocket that listens."""
        self.publish("demo:a", "x" * 60_000)
        client = self.client()
        client.wire.stick()
        client.send(
            request_bytes("/poll?channel=demo:a&timeout=0&since=earliest") + request_bytes("/ws", headers=HANDSHAKE)
        )
        client.send(frame(TEXT, b'{"id":1,"ping":{}}'))
        client.wire.drain()
        self.clock.advance(0)
        self.assertEqual([client.answer().status for _ in range(2)], [200, 101])
        client.send(frame(TEXT, b'{"id":2,"ping":{}}'))
        frames, _ = frames_of(client.take())
        self.assertEqual([json.loads(each.payload)["id"] for each in frames], [1, 2])

    def test_behind_a_poll_whose_answer_is_not_read(self) -> None:
        """The same with so much behind it that the node had stopped to read."""
        client = self.client()
        silent = frame(TEXT, b'{"ping":{}}') * 2000
        client.send(request_bytes("/poll?channel=demo:a") + request_bytes("/ws", headers=HANDSHAKE) + silent)
        self.assertFalse(client.wire.reads)
        client.wire.stick()
        self.publish("demo:a", 1)
        client.wire.drain()
        self.clock.advance(0)
        self.assertEqual([client.answer().status for _ in range(2)], [200, 101])
        client.send(frame(TEXT, b'{"id":2,"ping":{}}'))
        [reply], _ = frames_of(client.take())
        self.assertEqual(json.loads(reply.payload), {"id": 2, "ping": {}})

    def test_header_names_of_others(self) -> None:
        """Nothing that a client sends is in the answer but what was chosen."""
        socket = self.socket(headers={"Sec-WebSocket-Protocol": "rtpush.v1, evil\x80", "X-Evil": "a"})
        self.assertEqual(
            set(socket.answer.headers) - {"upgrade", "connection"}, {"sec-websocket-accept", "sec-websocket-protocol"}
        )
        self.assertEqual(socket.answer.headers["sec-websocket-protocol"], "rtpush.v1")

    def test_echo_is_off(self) -> None:
        """``/echo`` is there only where the config says so."""
        self.serve(echo="", sections=self.sections)
        answer = self.ask_with("/echo")
        self.assertEqual((answer.status, answer.error), (404, "not_found"))


class SwitchedOffTests(SocketTestCase):
    """A node that has less."""

    server = "allowed_origins = *\ntransports = sse"

    def test_routes(self) -> None:
        """Transports that are switched off are not there."""
        for path in ("/ws", "/poll?channel=demo:a&timeout=0"):
            answer = self.ask(path, headers=HANDSHAKE)
            self.assertEqual((answer.status, answer.error), (404, "not_found"), path)
        self.assertEqual([each["transport"] for each in self.ask("/negotiate").json["transports"]], ["sse"])
