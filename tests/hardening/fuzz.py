"""
Bytes by chance against a whole node without sockets: ``python -m tests.hardening.fuzz --inputs 1000000``.

Inputs are made from what clients send, cut, mixed and changed. After each there must be nothing in the log that is an
error, and no exception but those that are told; from time to time another client must have heard all that was said, and
nothing may be left of those who are gone. The seed is printed: with it all happens again in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import httptools
import msgspec
from twisted.internet.task import Clock

from rtpush.protocol.addresses import host_of
from rtpush.protocol.position import BadCursor, Position, parse_cursor
from rtpush.protocol.proxy_header import BadHeader, read_header
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import ConfigError, parse
from rtpush.transports.heads import read_line, read_plain
from rtpush.transports.proxied import ProxiedFactory
from tests.support.processes import resident_bytes
from tests.transports.serving import CONFIG, Client, Loudness, request_bytes, target
from tests.transports.sockets import BINARY, HANDSHAKE, TEXT, WebSocket, frame

__all__ = ["Fuzz", "Trouble", "main"]

#: After how many inputs it is seen whether all is well.
_LOOK_EVERY = 500

#: How many inputs a stranger's WebSocket gets before another one is opened.
_LIFE = 100

#: Bytes of memory that may be added after the first fifth of the inputs.
MAX_GROWTH = 64 << 20

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


class Trouble(Exception):
    """Something happened that must not."""


class _Heard:
    """What llhttp tells of the head of a request."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: dict[bytes, list[bytes]] = {}

    def on_url(self, url: bytes) -> None:
        """Note a part of the target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a field."""
        self.fields.setdefault(name.lower(), []).append(value.strip(b" \t"))


@attrs.define
class _Stranger:
    """A WebSocket, and how many inputs it has had."""

    socket: WebSocket
    inputs: int = 0


class Fuzz:
    """
    A node, a witness, and strangers.

    :ivar counts: How many inputs there were, by their kind.
    """

    def __init__(self, seed: int) -> None:
        self.counts: dict[str, int] = {}
        self._seed = seed
        self._random = Random(seed)
        self._clock = Clock()
        self._clock.advance(1_000_000.0)
        sections = "[api]\nopen = yes\n[websocket]\ncompression = yes\n[broker]\nposition_ttl = 5"
        text = CONFIG.format(
            echo="echo = yes", server="trusted_proxies = 127.0.0.1, 10.0.0.0/8", limits="", sections=sections
        )
        for before in (3600, 300):
            text = text.replace(f"history_ttl = {before}\n", "history_ttl = 5\n")
        config = parse(text)
        self._node: Any = build_node(config, self._clock, self._clock.seconds)
        self._node.chance = Random(seed).random
        self._site = build_site(config, self._node, self._clock)
        self._node.start()
        self._proxied: Any = ProxiedFactory(self._site, lambda: self._node.proxies, self._clock)
        self._loudness = Loudness()
        self._port = 1024
        self._strangers: dict[str, _Stranger] = {}
        self._ini = [line.lstrip("#") for line in _PROD.read_text().splitlines() if line[:1] not in ("", " ")]
        self._kinds: list[tuple[str, int, Callable[[], bytes], Callable[[bytes], None]]] = [
            ("http", 30, self._request, self._http),
            ("head", 20, self._request, self._head),
            ("proxied", 5, lambda: self._changed(_HEADERS), self._announced),
            ("frame", 15, self._frame, lambda data: self._websocket("rtpush.v1", data)),
            ("json", 15, self._json, lambda data: self._websocket("rtpush.v1", frame(TEXT, data))),
            ("msgpack", 8, self._msgpack, lambda data: self._websocket("rtpush.v1.msgpack", frame(BINARY, data))),
            ("emit", 2, self._json, self._emit),
            ("cursor", 10, lambda: self._changed(_CURSORS), self._cursor),
            ("ini", 2, self._lines, self._configuration),
        ]
        self._witness = self._client()
        self._witness.ask("/sse?channel=witness")
        self._said = 0

    def close(self) -> None:
        """End it."""
        self._loudness.close()

    def run(self, inputs: int, progress: Callable[[int], None] = lambda done: None) -> None:
        """
        Try so many inputs.

        :param progress: Told from time to time how many were tried.
        :raises Trouble: if something happens that must not.
        """
        weights = [weight for _, weight, _, _ in self._kinds]
        for done in range(1, inputs + 1):
            # Of its own, so that an input does not depend on what became of those before it.
            self._random = Random(f"{self._seed} {done}")
            [(kind, _, make, take)] = self._random.choices(self._kinds, weights)
            data = make()
            self.counts[kind] = self.counts.get(kind, 0) + 1
            try:
                take(data)
            except Exception as error:
                raise Trouble(f"{kind}: {data!r}: {type(error).__name__}: {error}") from error
            if self._loudness.events:
                raise Trouble(f"{kind}: {data!r}: logged: {self._loudness.formats()}")
            if done % _LOOK_EVERY == 0 or done == inputs:
                self._look()
                progress(done)

    # What inputs are like

    def _changed(self, corpus: list[bytes]) -> bytes:
        chance = self._random
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

    def _request(self) -> bytes:
        return b"".join(self._changed(_REQUESTS) for _ in range(self._random.choice((1, 1, 1, 2, 3))))

    def _json(self) -> bytes:
        return self._changed(
            [json.dumps({"id": 1, **command}).encode() for command in self._random.sample(_COMMANDS, 2)]
        )

    def _msgpack(self) -> bytes:
        return self._changed(
            [msgspec.msgpack.encode({"id": 1, **command}) for command in self._random.sample(_COMMANDS, 2)]
        )

    def _frame(self) -> bytes:
        chance = self._random
        data = frame(
            chance.choice((0, 0, 1, 1, 1, 2, 8, 9, 10, 3, 15)),
            self._json() if chance.random() < 0.5 else chance.randbytes(chance.choice((0, 1, 2, 4, 125, 126, 300))),
            fin=chance.random() < 0.7,
            rsv=chance.choice((0, 0, 0, 0, 4, 1)),
            masked=chance.random() < 0.9,
            length=chance.choice((None, None, None, None, chance.randrange(200), 2 ** chance.randrange(64))),
        )
        return data if chance.random() < 0.7 else self._changed([data])

    def _lines(self) -> bytes:
        chosen = ["[server]", "listen = tcp:8080", *self._random.sample(self._ini, self._random.randrange(1, 12))]
        return self._changed(["\n".join(chosen).encode()])

    # What is done with them

    def _client(self, factory: Any = None) -> Client:
        self._port = 1024 + (self._port - 1023) % 60_000
        return Client(self._clock, factory or self._site, self._port)

    def _sent(self, client: Client, data: bytes) -> None:
        """Send in one piece or in several; perhaps time passes; then be gone."""
        chance = self._random
        while data:
            size = len(data) if chance.random() < 0.6 else chance.randrange(1, len(data) + 1)
            client.send(data[:size])
            data = data[size:]
        if chance.random() < 0.05:
            client.wire.stick()
            self._clock.advance(chance.choice((0.1, 1.0)))
        client.lose()

    def _http(self, data: bytes) -> None:
        self._sent(self._client(), data)

    def _announced(self, data: bytes) -> None:
        self._sent(self._client(self._proxied), data)
        try:
            read_header(data)
        except BadHeader:
            pass
        host_of(data.decode("latin-1"))

    def _head(self, data: bytes) -> None:
        """What is read of a head at once is what llhttp reads of it, or nothing."""
        end = data.find(b"\r\n\r\n")
        line_end = data.find(b"\r\n")
        if not 0 < line_end <= end:
            return
        line, plain = read_line(data, line_end), read_plain(data[line_end:end])
        if line is None or plain is None:
            return
        # Whatever follows is no part of it.
        other = _Heard()
        parser = httptools.HttpRequestParser(other)
        try:
            parser.feed_data(data[: end + 4])
        except httptools.HttpParserUpgrade:
            pass
        if (parser.get_method(), other.url, other.fields) != (*line, plain.fields._fields):
            raise Trouble(f"{line} and {plain.fields._fields} are not {other.url!r} and {other.fields}")

    def _emit(self, data: bytes) -> None:
        self._http(request_bytes("/emit", method="POST", body=data))

    def _websocket(self, protocol: str, data: bytes) -> None:
        stranger = self._strangers.get(protocol)
        if stranger is None or stranger.socket.closed or stranger.inputs >= _LIFE:
            if stranger is not None:
                stranger.socket.lose()
            deflate = self._random.choice(("permessage-deflate", "x"))
            headers = {"Sec-WebSocket-Protocol": protocol, "Sec-WebSocket-Extensions": deflate}
            stranger = self._strangers[protocol] = _Stranger(WebSocket(self._client(), "/ws?channel=demo:a", headers))
        stranger.inputs += 1
        stranger.socket.send(data)

    def _cursor(self, data: bytes) -> None:
        text = data.decode("latin-1")
        for read in (Position.parse, lambda text: parse_cursor(text, text.count(",") + 1)):
            try:
                read(text)
            except BadCursor:
                pass
        if self._random.random() < 0.2:
            cursor = data.decode("utf-8", "replace").replace("#", "")
            self._http(request_bytes(target("/poll", channel="demo:a", cursor=cursor, timeout=0)))

    def _configuration(self, data: bytes) -> None:
        try:
            parse(data.decode("utf-8", "replace"))
        except ConfigError as error:
            if len(str(error).splitlines()) != 1:
                raise

    # Whether all is well

    def _look(self) -> None:
        for stranger in self._strangers.values():
            stranger.socket.lose()
        self._strangers.clear()
        # Histories end, and so does what is lingered for.
        for _ in range(12):
            self._clock.advance(1.0)
        self._said += 1
        client = self._client()
        body = json.dumps({"channel": "witness", "data": self._said}).encode()
        answer = client.ask("/api/v1/publish", method="POST", body=body)
        client.lose()
        self._clock.advance(0)
        heard = [event.data for event in self._witness.events() if event.name == "message"]
        if answer.status != 200 or heard != [str(self._said)]:
            raise Trouble(f"the witness has heard {heard} after {answer}, not {self._said}")
        del self._witness.wire.sent[: self._witness._read]
        self._witness._read = 0
        left = {each.transport for each in self._node.connections.values()}
        followed = [name for name, channel in self._node.channels.items() if len(channel)]
        if len(self._node.connections) != 1 or followed != ["witness"] or self._site.open != 1:
            raise Trouble(f"left are {len(self._node.connections)} connections ({left}), {followed}, {self._site.open}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Try as many inputs as asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hardening.fuzz", description="Bytes by chance.")
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--seed", type=int, help="what decides them (default: by chance)")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    _say(f"python -m tests.hardening.fuzz --inputs {options.inputs} --seed {seed}")
    fuzz = Fuzz(seed)
    begun, memory = time.monotonic(), [0, 0]

    def progress(done: int) -> None:
        memory[1] = resident_bytes(os.getpid())
        if done <= options.inputs // 5 or not memory[0]:
            memory[0] = memory[1]
        if done % 50_000 == 0:
            _say(f"{done:,} inputs in {time.monotonic() - begun:.0f} s, {memory[1] >> 20} MiB")

    try:
        fuzz.run(options.inputs, progress)
    except Trouble as trouble:
        _say(str(trouble))
        return 1
    finally:
        fuzz.close()
    grown = memory[1] - memory[0]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(fuzz.counts.items()))
    _say(f"{options.inputs:,} inputs in {time.monotonic() - begun:.0f} s: {kinds}")
    _say(f"memory: {memory[0] >> 20} MiB after the first fifth, {memory[1] >> 20} MiB at the end")
    return 1 if grown > MAX_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
