"""Bytes by chance: whatever a stranger sends, nothing is logged as an error, and the others are not disturbed."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transports.serving import request_bytes, target
from tests.transports.sockets import CLOSE, HANDSHAKE, TEXT, SocketTestCase, close_frame, frame

#: A stranger has no luck with bytes alone; these pieces bring it further.
_HTTP_PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b" ",
        b":",
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"OPTIONS ",
        b"/",
        b"/ws",
        b"/sse",
        b"/poll",
        b"/emit",
        b"/client/",
        b"/api/v1/publish",
        b"?channel=demo:a",
        b"&channel=a,b",
        b"&cursor=",
        b"&cursor=-,-,-",
        b"&since=earliest",
        b"&timeout=0",
        b"&envelope=1",
        b"&info={}",
        b"%ff",
        b"%00",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"Host: x\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 11\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"Connection: close\r\n",
        b"Connection: Upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Sec-WebSocket-Protocol: rtpush.raw\r\n",
        b"Origin: null\r\n",
        b"If-None-Match: *\r\n",
        b"Last-Event-ID: a:1\r\n",
        b'{"ping":{}}',
        request_bytes("/healthz"),
        request_bytes("/poll?channel=demo:a"),
        request_bytes("/poll?channel=demo:a,b&timeout=0"),
        request_bytes("/sse?channel=demo:a"),
        request_bytes("/ws?channel=demo:a", headers=HANDSHAKE),
        request_bytes("/emit", method="POST", body=b'[{"publish":{"channel":"demo:a","data":1}}]'),
        frame(TEXT, b'{"id":1,"ping":{}}'),
    ]
)

_FRAMES = st.builds(
    lambda opcode, payload, fin, rsv, masked, length: frame(
        opcode, payload, fin=fin, rsv=rsv, masked=masked, length=length
    ),
    st.sampled_from([0, 0, 1, 1, 1, 2, 8, 9, 10, 3, 15]),
    st.binary(max_size=130),
    st.booleans(),
    st.sampled_from([0, 0, 0, 0, 4, 1]),
    st.sampled_from([True, True, True, True, False]),
    st.none() | st.integers(0, 2**63),
)

_COMMANDS = st.sampled_from(
    [
        {"subscribe": {"channel": "demo:a"}},
        {"subscribe": {"channel": "demo:a", "since": "earliest"}},
        {"subscribe": {"channel": "a", "cursor": "x:1"}},
        {"unsubscribe": {"channel": "demo:a"}},
        {"publish": {"channel": "demo:a", "data": {"a": []}}},
        {"publish": {"channel": "none:a", "data_b64": "AA==", "history": False}},
        {"history": {"channel": "demo:a", "limit": 3, "reverse": True}},
        {"presence": {"channel": "demo:a"}},
        {"connect": {"info": 1}},
        {"ping": {}},
        {"refresh": {"token": ""}},
        {"id": -1, "ping": {}},
        {"nonsense": {}},
    ]
)

_MESSAGES = st.one_of(
    _FRAMES,
    _COMMANDS.map(lambda command: frame(TEXT, json.dumps({"id": 1, **command}).encode())),
    st.lists(_COMMANDS, max_size=4).map(lambda commands: frame(TEXT, json.dumps(commands).encode())),
    st.binary(max_size=40),
    st.just(close_frame()),
)

_chance = settings(max_examples=150, suppress_health_check=list(HealthCheck))


class FuzzTests(SocketTestCase):
    """A stranger beside a witness, who hears everything that is said."""

    sections = "[api]\nopen = yes\n[websocket]\ncompression = yes"

    def setUp(self) -> None:
        super().setUp()
        self.witness = self.socket(target("/ws", channel="c"))
        self.witness.heard()
        self.said = 0

    def assert_undisturbed(self) -> None:
        """Nothing was logged as an error, and the witness hears the next message, and only that."""
        self.assertEqual(self.loudness.formats(), [])
        self.publish("c", self.said)
        self.assertEqual([each["message"]["data"] for each in self.witness.heard()], [self.said])
        self.said += 1
        self.assertEqual(self.witness.do("ping"), {})

    def attack(self, pieces: list[bytes], before: bytes = b"") -> None:
        """Send pieces, go away in the middle of whatever that was, and see that nothing is left."""
        client = self.client()
        if before:
            client.send(before)
        for piece in pieces:
            client.send(piece)
        self.publish("demo:a", self.said)
        self.assert_undisturbed()
        client.lose()
        self.assertEqual(len(self.node.connections), 1)
        self.assertEqual({name for name, channel in self.node.channels.items() if len(channel)}, {"c"})

    def test_http(self) -> None:
        """On a new connection."""

        @_chance
        @given(st.lists(_HTTP_PIECES | st.binary(max_size=20), max_size=25))
        def test(pieces: list[bytes]) -> None:
            self.attack(pieces)
            self.attack([b"".join(pieces)])

        test()

    def test_bytes(self) -> None:
        """On a new connection, where there is no sense at all in the bytes."""

        @_chance
        @given(st.lists(st.binary(max_size=200), max_size=5))
        def test(pieces: list[bytes]) -> None:
            self.attack(pieces)

        test()

    def test_websocket(self) -> None:
        """On each kind of open WebSocket."""
        kinds = [
            ("/ws", {}),
            ("/ws?channel=demo:a", {"Sec-WebSocket-Protocol": "rtpush.raw"}),
            ("/ws?channel=demo:a", {"Sec-WebSocket-Protocol": "rtpush.v1.msgpack"}),
            ("/echo", {"Sec-WebSocket-Extensions": "permessage-deflate"}),
        ]

        @_chance
        @given(st.sampled_from(kinds), st.lists(_MESSAGES, max_size=12))
        def test(kind: tuple[str, dict[str, str]], pieces: list[bytes]) -> None:
            path, headers = kind
            before = request_bytes(path, headers={**HANDSHAKE, **headers})
            self.attack(pieces, before)
            self.attack([before + b"".join(pieces)])

        test()

    def test_answered_or_closed(self) -> None:
        """After any frames, a WebSocket still answers a ping, or it was closed with a code, or waits for the rest."""

        @_chance
        @given(st.lists(_FRAMES, max_size=8))
        def test(frames: list[bytes]) -> None:
            ws = self.socket("/echo")
            for each in frames:
                ws.send(each)
            ended = [each.code for each in ws.frames() if each.opcode == CLOSE]
            if ended:
                self.assertEqual(len(ended), 1)
                self.assertIn(ended[0], (None, 1000, 1002, 1007, 1009, *range(1001, 1015), *range(3000, 5000)))
            ws.lose()
            self.assert_undisturbed()

        test()
