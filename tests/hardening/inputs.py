"""
What strangers send, by chance: made from what clients send, cut, mixed and changed.

All is decided by the source of chance, so that the same comes again from the same seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from rtpush.auth.keys import Key
from rtpush.auth.tokens import make_token
from tests.auth.makers import b64, hs, oct_token, private_key, private_pem
from tests.hardening.parsers import NOW
from tests.transports.serving import request_bytes
from tests.transports.sockets import HANDSHAKE, frame

__all__ = ["Inputs"]

_PROD = Path(__file__).resolve().parents[2] / "conf" / "prod.ini"

_COMMANDS: list[dict[str, Any]] = [
    {"connect": {"info": {"name": "Ann"}}},
    {"connect": {"token": "eyJhbGciOiJIUzI1NiJ9.e30.x"}},
    {"subscribe": {"channel": "demo:a"}},
    {"subscribe": {"channel": "demo:b", "since": "earliest"}},
    {"subscribe": {"channel": "a", "cursor": "k3f9:7"}},
    {"unsubscribe": {"channel": "demo:a"}},
    {"publish": {"channel": "demo:a", "data": {"a": [1, 2.5, None, "\u00e9"]}, "event": "e"}},
    {"publish": {"channel": "none:a", "data_b64": "AA==", "history": False}},
    {"publish": {"channel": "demo:a", "data": 1, "idempotency_key": "k"}},
    {"history": {"channel": "demo:a", "limit": 3, "reverse": True}},
    {"history": {"channel": "demo:a", "since": "k3f9:7"}},
    {"presence": {"channel": "demo:a"}},
    {"ping": {}},
    {"refresh": {"token": ""}},
]

_REQUESTS = [
    *[
        request_bytes(path)
        for path in (
            "/healthz",
            "/negotiate?direction=push&transports=sse,longpoll",
            "/poll?channel=demo:a&timeout=0",
            "/poll?channel=demo:a,b&cursor=k3f9:7,-&timeout=1.5&since=earliest",
            "/sse?channel=demo:a&channel=b&envelope=1&info=%7B%7D",
            "/client/rtpush.js",
            "/metrics",
            "/%2e%2e/%00/admin/../x?y=%ff",
        )
    ],
    request_bytes("/poll?channel=demo:a&timeout=0", headers={"If-None-Match": '"k3f9:7"', "Origin": "null"}),
    request_bytes("/sse?channel=demo:a", headers={"Last-Event-ID": "k3f9:7", "Accept": "text/event-stream"}),
    request_bytes("/sse?channel=demo:a", headers={"X-Forwarded-For": "1.2.3.4, [2001:db8::1]:80, unknown"}),
    request_bytes("/sse?channel=demo:a", headers={"Authorization": "Bearer a.b.c", "Cookie": "a=b; c"}),
    request_bytes(
        "/client/rtpush.js",
        method="HEAD",
        headers={"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT; length=5", "Range": "bytes=0-1,5-"},
    ),
    request_bytes("/ws?channel=demo:a", headers={**HANDSHAKE, "Sec-WebSocket-Protocol": "rtpush.raw, rtpush.v1"}),
    request_bytes("/ws", headers={**HANDSHAKE, "Sec-WebSocket-Extensions": "permessage-deflate, x; y"}),
    request_bytes("/emit", method="POST", body=b'[{"id":1,"publish":{"channel":"demo:a","data":1}},{"ping":{}}]'),
    request_bytes("/emit", method="OPTIONS", headers={"Origin": "https://a.b", "Access-Control-Request-Method": "x"}),
    request_bytes("/api/v1/publish", method="POST", body=b'{"channel":"demo:a","data":{"x":1}}'),
    request_bytes("/api/v1/connections", method="POST", body=b'{"limit":3,"channel":"demo:a"}'),
    request_bytes("/emit", method="POST", headers={"Transfer-Encoding": "chunked", "Expect": "100-continue"})
    + b'b\r\n{"ping":{}}\r\n0\r\nTrailer: x\r\n\r\n',
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]

#: What is put in between.
_PIECES = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b"%", b"\xff", b"\xc3\xa9", b"\\u0000", b"[" * 200),
    *(b"GET ", b"POST ", b" HTTP/1.1", b" HTTP/1.0", b"HTTP/9.9", b"/ws", b"/sse", b"/poll", b"/emit", b"/api/v1/"),
    *(b"?channel=", b"&cursor=", b"&timeout=", b"&since=", b"&info=", b"Host: x\r\n", b"Content-Length: ", b"0"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\n"),
    *(b"99999999999999999999", b"1e999", b"NaN", b"null", b"true", b"-1", b"{}", b"[]", b'"', b"{", b"}", b"[", b"]"),
    *(b'"channel":', b'"data":', b'"id":', b"demo:a", b"demo:", b"k3f9:1", b"[server]\n", b"listen = ", b"yes", b":"),
    *(b",", b"-", b"${x}"),
]

_CURSORS = [b"k3f9:7", b"k3f9:7,m2p1:12", b"-", b"-,-,k3f9:1", b"k3f9:18446744073709551615"]
_HEADERS = [
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\nGET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb",
    b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
]

_FORWARDED = [
    *(b"203.0.113.7", b"198.51.100.1, 10.0.0.2", b"[2001:db8::1]:80, unknown"),
    b"1.2.3.4:5\n10.0.0.1, ::ffff:1.2.3.4",
]
_QUERIES = [
    b"channel=demo:a&cursor=k3f9:7&timeout=1.5",
    b"channel=a,b&channel=c&since=earliest&info=%7B%22a%22%3A1%7D",
    b"channel=%64emo%3Aa&token=a.b.c&envelope=1&_=7",
]
_NAMES = [b"demo:a", b"a", b"room:x#42#43", b"demo:" + b"x" * 250, b"$rtpush:revocations", "demo:\u212a".encode()]

_CLAIMS: dict[str, Any] = {
    "sub": "42",
    "aud": "us",
    "exp": NOW + 1e9,
    "nbf": NOW - 1,
    "iat": NOW - 1,
    "jti": "j",
    "iss": "them",
    "channels": {"demo:a": ["subscribe", "publish"], "user:*:x": ["history"], "*": ["presence"]},
    "channel": "demo:a",
    "actions": ["subscribe"],
    "info": {"name": "Ann"},
}

#: What may stand where something else is expected.
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 1e308, 10**30, NOW, [], {}, [[]]),
    *("", "42", "demo:a", "*" * 50, "x" * 300, "\u0000", "\ud800", "\u00e9"),
    *(["us", "them"], ["subscribe"], ["subscribe", 1], {"demo:a": "subscribe"}, {"**": ["publish"]}, {"": []}),
    *({"demo:a": ["subscribe", "subscribe", "publish"]}, {str(n): ["publish"] for n in range(101)}, [[[[[[]]]]]]),
]

_PUBLIC: dict[str, Any] = {
    name: json.loads(text)
    for name, text in {
        "RS256": '{"kty":"RSA","n":"' + "q" * 341 + '8","e":"AQAB","kid":"r"}',
        "ES256": '{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":'
        '"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"e","use":"sig","key_ops":["verify"]}',
        "EdDSA": '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"EdDSA"}',
        "secret": '{"kty":"oct","k":"AAAA","alg":"HS256"}',
    }.items()
}

_SIGNERS = {
    name: Key.pem(id_, name, private_pem(private_key(name)))
    for name, id_ in (("RS256", "rs"), ("ES256", "es"), ("EdDSA", "ed"))
}

_SIGNED = {name: make_token(key, _CLAIMS).encode() for name, key in _SIGNERS.items()}

#: Where requests of HTTP/2 go.
_PATHS = [
    *(b"/healthz", b"/emit", b"/poll?channel=demo:a&timeout=0", b"/poll?channel=demo:a", b"/sse?channel=demo:a"),
    *(b"/ws", b"/client/nothing", b"/nothing", b"*", b"/metrics", b"/api/v1/info", b"/%ff", b"/negotiate"),
]


class Inputs:
    """
    Makes them.

    :ivar chance: What decides.
    """

    def __init__(self) -> None:
        self.chance = Random()
        self._ini = [line.lstrip("#") for line in _PROD.read_text().splitlines() if line[:1] not in ("", " ")]

    def changed(self, corpus: list[bytes]) -> bytes:
        """Return one of a corpus, cut, mixed and changed."""
        chance = self.chance
        data = chance.choice(corpus)
        for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
            start = chance.randrange(len(data) + 1)
            end = min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16)))
            match chance.randrange(5):
                case 0:
                    data = data[:start] + bytes([chance.randrange(256)]) + data[start + 1 :]
                case 1:
                    data = data[:start] + data[end:]
                case 2:
                    data = data[:start] + chance.choice(_PIECES) + data[end:]
                case 3:
                    data = data[:start] + data[start:end] * chance.choice((2, 2, 2, 50)) + data[end:]
                case 4:
                    other = chance.choice(corpus)
                    data = data[:start] + other[chance.randrange(len(other) + 1) :]
        return data[:40_000]

    def request(self) -> bytes:
        """Return requests of HTTP/1.1."""
        return b"".join(self.changed(_REQUESTS) for _ in range(self.chance.choice((1, 1, 1, 2, 3))))

    def json_command(self) -> bytes:
        """Return a command in JSON."""
        return self.changed(
            [json.dumps({"id": 1, **command}).encode() for command in self.chance.sample(_COMMANDS, 2)]
        )

    def msgpack_command(self) -> bytes:
        """Return a command in msgpack."""
        return self.changed(
            [msgspec.msgpack.encode({"id": 1, **command}) for command in self.chance.sample(_COMMANDS, 2)]
        )

    def websocket_frame(self) -> bytes:
        """Return a frame of a WebSocket."""
        chance = self.chance
        size = chance.choice((0, 1, 2, 4, 125, 126, 300))
        data = frame(
            chance.choice((0, 0, 1, 1, 1, 2, 8, 9, 10, 3, 15)),
            self.json_command() if chance.random() < 0.5 else chance.randbytes(size),
            fin=chance.random() < 0.7,
            rsv=chance.choice((0, 0, 0, 0, 4, 1)),
            masked=chance.random() < 0.9,
            length=chance.choice((None, None, None, None, chance.randrange(200), 2 ** chance.randrange(64))),
        )
        return data if chance.random() < 0.7 else self.changed([data])

    def lines(self) -> bytes:
        """Return a configuration."""
        chosen = ["[server]", "listen = tcp:8080", *self.chance.sample(self._ini, self.chance.randrange(1, 12))]
        return self.changed(["\n".join(chosen).encode()])

    def cursor(self) -> bytes:
        """Return a cursor."""
        return self.changed(_CURSORS)

    def proxy_header(self) -> bytes:
        """Return a header of the PROXY protocol, and perhaps more."""
        return self.changed(_HEADERS)

    def forwarded(self) -> bytes:
        """Return what a proxy says of its clients, in lines."""
        return self.changed(_FORWARDED)

    def query(self) -> bytes:
        """Return the query of a URL."""
        return self.changed(_QUERIES)

    def name(self) -> bytes:
        """Return the name of a channel."""
        return self.changed(_NAMES)

    def token(self) -> bytes:
        """Return a token: a good one that was changed, parts by chance, or strange claims and headers, well signed."""
        chance = self.chance
        match chance.randrange(5):
            case 0:
                good = [hs(**_CLAIMS), oct_token({"alg": "HS512", "kid": "hs5"}, _CLAIMS, algorithm="sha512")]
                return self.changed([*good, *_SIGNED.values()])
            case 1:
                parts = range(chance.choice((3, 3, 2, 4)))
                return b".".join(b64(chance.randbytes(chance.randrange(60))) for _ in parts)
            case 2:
                return oct_token(self._strange({"alg": "HS256", "kid": "hs", "typ": "JWT"}), _CLAIMS)
            case 3:
                claims = json.dumps(_CLAIMS).encode()
                return oct_token({"alg": "HS256", "kid": "hs"}, self.changed([claims]))
        name, key = chance.choice(list(_SIGNERS.items()))
        if chance.random() < 0.9:
            return oct_token({"alg": "HS256", "kid": "hs"}, self._strange(_CLAIMS))
        content = b64(json.dumps({"alg": name, "kid": key.id})) + b"." + b64(json.dumps(self._strange(_CLAIMS)))
        return content + b"." + b64(key.sign(content))

    def key_set(self) -> bytes:
        """Return a key set."""
        chance = self.chance
        keys = [self._strange(key) for key in chance.sample(list(_PUBLIC.values()), chance.randrange(1, 4))]
        data = json.dumps({"keys": keys}).encode()
        return data if chance.random() < 0.5 else self.changed([data])

    def http2(self) -> bytes:
        """Return what a client says over HTTP/2: frames, of which few or none are odd."""
        chance = self.chance
        frames = [self._http2_frame() for _ in range(chance.choice((1, 2, 3, 8)))]
        data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize() + b"".join(frames)
        return data if chance.random() < 0.7 else self.changed([data])

    def _http2_frame(self) -> bytes:
        chance = self.chance
        id_ = chance.choice((1, 1, 3, 5, 7, 2, 9, 2**31 - 1))
        made: Frame
        match chance.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                made = HeadersFrame(id_, data=self._fields(), flags=["END_HEADERS"])
                if chance.random() < 0.7:
                    made.flags.add("END_STREAM")
                if chance.random() < 0.1:
                    made.flags.discard("END_HEADERS")
            case 5 | 6:
                made = DataFrame(id_, data=self.json_command(), flags=chance.choice(([], ["END_STREAM"])))
            case 7:
                made = ContinuationFrame(id_, data=self._fields(), flags=chance.choice(([], ["END_HEADERS"])))
            case 8:
                value = chance.choice((0, 1, 65535, 2**31 - 1, 2**32 - 1))
                made = SettingsFrame(0, settings={chance.randrange(1, 9): value})
            case 9:
                made = WindowUpdateFrame(id_, window_increment=chance.choice((1, 65535, 2**31 - 1)))
            case 10:
                made = RstStreamFrame(id_, error_code=chance.randrange(16))
            case _:
                made = chance.choice(
                    (
                        PingFrame(0, opaque_data=b"12345678"),
                        GoAwayFrame(0),
                        PriorityFrame(id_, depends_on=id_, stream_weight=1, exclusive=True),
                    )
                )
        # Some stand in another place than they should.
        made.stream_id = 0 if chance.random() < 0.02 else made.stream_id
        return made.serialize()

    def _fields(self) -> bytes:
        chance = self.chance
        fields = [
            (b":method", chance.choice((b"GET", b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT"))),
            (b":scheme", b"https"),
            (b":authority", b"a"),
            (b":path", chance.choice(_PATHS)),
            (b"content-length", b"11"),
            (b"origin", b"https://a.b"),
            (b"x-forwarded-for", self.forwarded()),
            (b"authorization", b"Bearer " + self.token()),
            (b"last-event-id", self.cursor()),
        ]
        kept = fields[:4] + [field for field in fields[4:] if chance.random() < 0.2]
        if chance.random() < 0.1:
            kept = chance.sample(fields, len(fields))
        return Encoder().encode(kept, huffman=chance.random() < 0.5)

    def _strange(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the same with other values here and there."""
        chance = self.chance
        strange = dict(values)
        for name in chance.sample(list(values), chance.choice((0, 1, 1, 2))):
            if chance.random() < 0.2:
                del strange[name]
            else:
                strange[name] = chance.choice(_VALUES)
        return strange
