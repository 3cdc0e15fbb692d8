"""
Bytes by chance against a whole node without sockets: ``python -m tests.hardening.fuzz --inputs 1000000``.

Inputs are made from what clients send, cut, mixed and changed. After each there must be nothing in the log that is an
error, and no exception but those that are told; from time to time another client must have heard all that was said, and
nothing may be left of those who are gone. The seed is printed: with it all happens again in the same way.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from twisted.internet.task import Clock

from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import parse
from rtpush.transports.proxied import ProxiedFactory
from tests.auth.makers import SECRET
from tests.hardening.inputs import Inputs
from tests.hardening.parsers import NOW, PARSERS, Trouble
from tests.support.processes import resident_bytes
from tests.transports.serving import CONFIG, Client, Loudness, request_bytes, target
from tests.transports.sockets import BINARY, HANDSHAKE, TEXT, WebSocket, frame

__all__ = ["Fuzz", "Trouble", "main"]

#: After how many inputs it is seen whether all is well.
_LOOK_EVERY = 500

#: How many inputs a stranger's WebSocket gets before another one is opened.
_LIFE = 100

#: Bytes of memory that may be added after the first fifth of the inputs; and blocks of Python's allocator, of which
#: there is at least one for each object.
MAX_GROWTH = 64 << 20
MAX_BLOCKS = 10_000

#: In how many parts of a run blocks are counted.
_PARTS = 10

#: What remembers clients for when they come again, up to some bound: functions, and attributes of what is ours.
_Cache = type(functools.lru_cache(lambda: None))
_KNOWN = ("_known", "_known_lines", "known_requests", "_leaves")

#: A header field has no ends of lines.
_NO_LINES = dict.fromkeys(map(ord, "\r\n\0"))

_SECTIONS = f"""
[api]
open = yes
[websocket]
compression = yes
[broker]
position_ttl = 5
[auth]
keys = hs HS256 {SECRET.decode()}
audience = us
cookie = session
[namespace:rights]
subscribe = token
publish = token
history_size = 10
presence = yes
"""


@attrs.define
class _Stranger:
    """A WebSocket, and how many inputs it has had."""

    socket: WebSocket
    inputs: int = 0


class Fuzz:
    """
    A node, a witness, and strangers.

    :ivar counts: How many inputs there were, by their kind.
    :ivar blocks: How many blocks of memory were in use, after each part of the inputs.
    """

    def __init__(self, seed: int) -> None:
        self.counts: dict[str, int] = {}
        self.blocks: list[int] = []
        self._seed = seed
        self._random = Random(seed)
        self._clock = Clock()
        self._clock.advance(NOW)
        server = "trusted_proxies = 127.0.0.1, 10.0.0.0/8\nallowed_origins = https://a.b"
        text = CONFIG.format(echo="echo = yes", server=server, limits="", sections=_SECTIONS)
        for name in ("default", "demo", "short", "none"):
            text = text.replace(f"[namespace:{name}]\n", f"[namespace:{name}]\nanonymous = yes\n")
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
        self._inputs = made = Inputs()
        self._kinds: list[tuple[str, int, Callable[[], bytes], Callable[[bytes], None]]] = [
            ("http", 30, made.request, self._http),
            ("http2", 10, made.http2, self._http2),
            ("proxied", 5, made.proxy_header, lambda data: self._sent(self._client(self._proxied), data)),
            ("frame", 15, made.websocket_frame, lambda data: self._websocket("rtpush.v1", data)),
            ("json", 15, made.json_command, lambda data: self._websocket("rtpush.v1", frame(TEXT, data))),
            (
                "msgpack",
                8,
                made.msgpack_command,
                lambda data: self._websocket("rtpush.v1.msgpack", frame(BINARY, data)),
            ),
            ("emit", 2, made.json_command, self._emit),
            ("token", 5, made.token, self._shown),
            ("cursor", 2, made.cursor, self._followed),
            *[
                (f"{name} alone", weight, make, PARSERS[name])
                for name, weight, make in (
                    ("head", 20, made.request),
                    ("query", 3, made.query),
                    ("cursor", 8, made.cursor),
                    ("json", 3, made.json_command),
                    ("msgpack", 3, made.msgpack_command),
                    ("proxy", 3, made.proxy_header),
                    ("forwarded", 3, made.forwarded),
                    ("ini", 2, made.lines),
                    ("name", 3, made.name),
                    ("token", 8, made.token),
                    ("jwks", 2, made.key_set),
                )
            ],
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
            self._random = self._inputs.chance = Random(f"{self._seed} {done}")
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
                if done * _PARTS // inputs > len(self.blocks):
                    self.blocks.append(self._blocks())
                progress(done)

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

    def _followed(self, data: bytes) -> None:
        cursor = data.decode("utf-8", "replace").replace("#", "")
        self._http(request_bytes(target("/poll", channel="demo:a", cursor=cursor, timeout=0)))

    def _http2(self, data: bytes) -> None:
        client = self._client()
        client.wire.protocol.connectionLost(None)
        client.wire.unregisterProducer()
        client.wire.protocol = self._site.build_http2("")
        client.wire.protocol.makeConnection(client.wire)
        self._sent(client, data)

    def _shown(self, data: bytes) -> None:
        """Show a token somewhere."""
        token = data.decode("latin-1").translate(_NO_LINES)
        channel = self._random.choice(("demo:a", "rights:a"))
        bearer = {"Authorization": f"Bearer {token}"}
        match self._random.randrange(5):
            case 0:
                self._http(request_bytes(target("/poll", channel=channel, timeout=0, token=token)))
            case 1:
                self._http(request_bytes(target("/sse", channel=channel), headers=bearer))
            case 2:
                self._http(request_bytes("/emit", method="POST", headers=bearer, body=b'{"ping":{}}'))
            case 3:
                self._http(request_bytes(target("/ws", channel=channel), headers={**HANDSHAKE, **bearer}))
            case 4:
                command = {"id": 1, self._random.choice(("connect", "refresh")): {"token": token}}
                self._websocket("rtpush.v1", frame(TEXT, json.dumps(command).encode()))

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

    def _blocks(self) -> int:
        """Return how many blocks are in use when all is forgotten that is kept for those who come again."""
        for each in gc.get_objects():
            if type(each) is _Cache and str(getattr(each, "__module__", "")).startswith("rtpush."):
                each.cache_clear()
            elif str(type(each).__module__).startswith("rtpush."):
                for name in _KNOWN:
                    known = getattr(each, name, None)
                    if isinstance(known, dict | set):
                        known.clear()
        gc.collect()
        return sys.getallocatedblocks()

    def grown(self) -> int:
        """Return how many more blocks of memory were in use at the end than after the first fifth."""
        return self.blocks[-1] - self.blocks[len(self.blocks) // 5]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Try as many inputs as asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hardening.fuzz", description="Bytes by chance.")
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--seed", type=int, help="what decides them (default: by chance)")
    parser.add_argument("--atheris", type=int, metavar="SECONDS", help="look so long for code that was not reached")
    options = parser.parse_args(arguments)
    if options.atheris is not None:
        # In a process of its own, where everything is loaded by it.
        with tempfile.TemporaryDirectory(prefix="rtpush-guided-") as folder:
            return subprocess.call([sys.executable, "-m", "tests.hardening.guided", str(options.atheris), folder])
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
    grown, blocks = memory[1] - memory[0], fuzz.grown()
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(fuzz.counts.items()))
    _say(f"{options.inputs:,} inputs in {time.monotonic() - begun:.0f} s: {kinds}")
    _say(f"memory: {memory[0] >> 20} MiB after the first fifth, {memory[1] >> 20} MiB at the end")
    _say(f"blocks of memory: {blocks:+,} since then")
    return 1 if grown > MAX_GROWTH or blocks > MAX_BLOCKS else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
