"""The servers that are measured. A new peer is one more class here, and a line in `TARGETS`."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import BenchmarkError
from benchmarks.frames import client_frame, split_frame
from benchmarks.launch import ALL_CORES, free_port, launched
from benchmarks.load import Following, Opening, Sending, http_get, http_post, response_body, websocket_request

__all__ = ["TARGETS", "Ability", "Rtpush", "Target", "Way", "installed"]

_PEERS = Path(__file__).resolve().parent / "peers"
_HEAD_END = b"\r\n\r\n"


class Ability:
    """What a target may be able to do, and a scenario may need."""

    WEBSOCKET = "websocket"
    SSE = "sse"
    POLL = "poll"
    FANOUT = "fanout"
    PUBLISH = "publish"
    BATCH = "batch"
    #: Several channels, which can be followed where they are not published.
    CHANNELS = "channels"
    #: Messages can be published to its Redis.
    REDIS = "redis"


class Way:
    """How a message is published."""

    HTTP = "HTTP"
    WEBSOCKET = "WebSocket"
    REDIS = "Redis"


def installed(package: str) -> str:
    """Return name and version of an installed package."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


class Target(ABC):
    """One server: how it is started, and how a client talks to it.

    A started target serves one channel to everyone who subscribes. `settings` says in one line how it is configured,
    `versions` what it is made of.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    settings: ClassVar[str]
    abilities: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        self.port = 0
        self.pid = 0

    @classmethod
    def missing(cls) -> str | None:
        """Return what this machine lacks for this target, or None."""
        return None

    @abstractmethod
    def versions(self) -> str:
        """Return the versions of what the server is made of."""

    @abstractmethod
    def command(self, directory: Path) -> Sequence[str]:
        """Return the command that serves on `port`; ``directory`` is for its files and lives as long as the server."""

    @abstractmethod
    def publish(self, payload: str) -> bytes:
        """Return the HTTP request that publishes one message."""

    def batch(self, payloads: Sequence[str]) -> bytes:
        """Return the HTTP request that publishes several messages, for targets that can `Ability.BATCH`."""
        raise NotImplementedError

    def whole(self, messages: int) -> Callable[[bytes], bool]:
        """Return what tells whether the answer to a request with so many messages is complete."""
        return lambda data: response_body(data) is not None

    def parts(self) -> Mapping[str, int]:
        """Return the ids of the processes it consists of, by what they are."""
        return {"node": self.pid}

    def follow(self, channel: str) -> Opening:
        """Return how a subscriber of one channel begins, for targets that have `Ability.CHANNELS`."""
        raise NotImplementedError

    def sending(self, way: str) -> Sending:
        """Return how messages are published one by one, for targets that have `Ability.CHANNELS`."""
        raise NotImplementedError

    def following(self, channels: Sequence[str]) -> Following:
        """Return how one connection follows many channels, for targets that have `Ability.CHANNELS`."""
        raise NotImplementedError

    def redis_calls(self) -> int | None:
        """Return how many commands Redis was sent so far, or None where there is no Redis."""
        return None

    @property
    def http(self) -> tuple[str, int]:
        """Where HTTP requests go."""
        return "127.0.0.1", self.port

    def websocket(self) -> Opening:
        """Return how a WebSocket subscriber begins, for targets that can `Ability.WEBSOCKET`."""
        return Opening(("127.0.0.1", self.port), websocket_request("/ws"), _HEAD_END)

    def sse(self) -> Opening:
        """Return how an SSE subscriber begins, for targets that can `Ability.SSE`."""
        return Opening(self.http, http_get("/sse"), _HEAD_END)

    def poll(self, cursor: bytes) -> Opening:
        """Return a long poll from a cursor, or from now if it is empty, for targets that can `Ability.POLL`."""
        query = f"?cursor={cursor.decode()}" if cursor else ""
        return Opening(self.http, http_get(f"/poll{query}"), None)

    def cursor(self, body: bytes) -> bytes:
        """Return the cursor that the body of an answered poll gives."""
        start = body.index(b'"cursor":"') + 10
        return body[start : body.index(b'"', start)]

    @contextmanager
    def running(self, core: int | None) -> Iterator[None]:
        """Run the server, on one core if one is given, until the ``with`` block ends; it dies with this process, too.

        Raises `BenchmarkError` if it does not start.
        """
        self.port = free_port()
        cores = ALL_CORES if core is None else (core,)
        with tempfile.TemporaryDirectory(prefix="rtpush-benchmark-") as name:
            directory = Path(name)
            with launched(self.name, self.command(directory), self.port, directory, cores) as self.pid:
                yield


def _publish_request(channel: str, payload: str) -> bytes:
    return http_post("/api/v1/publish", json.dumps({"channel": channel, "data": payload}).encode())


def _publish_frame(channel: str, payload: str) -> bytes:
    return client_frame(json.dumps({"id": 1, "publish": {"channel": channel, "data": payload}}).encode())


def _framed(messages: int) -> Callable[[bytes], bool]:
    """Return what tells whether so many replies, a frame each, have come."""

    def whole(data: bytes) -> bool:
        start = 0
        for _ in range(messages):
            frame = split_frame(data, start, len(data))
            if frame is None:
                return False
            if b'"error"' in data[frame[1] : frame[2]]:
                raise BenchmarkError(f"a message was refused: {data[frame[1] : frame[2]]!r}")
            start = frame[2]
        return True

    return whole


class Rtpush(Target):
    """rtpush as it comes, on its memory engine; subscribers get the payload alone."""

    name = "rtpush"
    title = "rtpush"
    settings = "rtpush.raw (a frame is the payload), memory engine, history of 100 messages, all other options default"
    abilities = frozenset(
        {
            Ability.WEBSOCKET,
            Ability.FANOUT,
            Ability.SSE,
            Ability.POLL,
            Ability.PUBLISH,
            Ability.BATCH,
            Ability.CHANNELS,
        }
    )

    def versions(self) -> str:
        return ", ".join((installed("rtpush"), installed("Twisted"), installed("autobahn")))

    def command(self, directory: Path) -> Sequence[str]:
        return self.node(directory, self.port)

    def node(self, directory: Path, port: int, more: str = "") -> Sequence[str]:
        """Return the command of a node that listens on ``port``; ``more`` is added to its configuration."""
        config = directory / f"{port}.ini"
        config.write_text(
            f"[server]\nlisten = tcp:{port}:interface=127.0.0.1\n[api]\nopen = yes\n"
            f"[namespace:bench]\nhistory_size = 100\nhistory_ttl = 300\npublish = anyone\n{more}"
        )
        twistd = "from twisted.scripts.twistd import run; run()"
        return sys.executable, "-c", twistd, "-n", "--pidfile=", "rtpush", "--config", str(config)

    def where_followed(self) -> tuple[str, int]:
        """Where the subscribers of channels connect."""
        return self.http

    def follow(self, channel: str) -> Opening:
        # The handshake's answer is followed by {"subscribed": {…}}.
        return Opening(self.where_followed(), websocket_request(f"/ws?channel={channel}", "rtpush.v1"), b"}}")

    def sending(self, way: str) -> Sending:
        if way == Way.WEBSOCKET:
            opening = Opening(self.http, websocket_request("/ws", "rtpush.v1"), _HEAD_END)
            return Sending(opening, _publish_frame, _framed)
        return Sending(Opening(self.http, b"", None), _publish_request, self.whole)

    def following(self, channels: Sequence[str]) -> Following:
        commands = [{"id": number, "subscribe": {"channel": channel}} for number, channel in enumerate(channels, 1)]
        opening = Opening(self.where_followed(), websocket_request("/ws", "rtpush.v1"), _HEAD_END)
        return Following(opening, client_frame(json.dumps(commands).encode()), b'"epoch"')

    def publish(self, payload: str) -> bytes:
        return _publish_request("bench:a", payload)

    def batch(self, payloads: Sequence[str]) -> bytes:
        messages = [{"channel": "bench:a", "data": payload} for payload in payloads]
        return http_post("/api/v1/publish_batch", json.dumps({"messages": messages}).encode())

    def websocket(self) -> Opening:
        return Opening(self.http, websocket_request("/ws?channel=bench:a", "rtpush.raw"), _HEAD_END)

    def sse(self) -> Opening:
        return Opening(self.http, http_get("/sse?channel=bench:a"), b"event: open")

    def poll(self, cursor: bytes) -> Opening:
        query = f"&cursor={cursor.decode()}" if cursor else ""
        return Opening(self.http, http_get(f"/poll?channel=bench:a&timeout=60{query}"), None)


class RtpushJson(Rtpush):
    """The same server with what a browser client uses: envelopes in JSON."""

    name = "rtpush-json"
    title = "rtpush, JSON"
    settings = "the same, rtpush.v1 (a frame is a JSON envelope with the position)"
    abilities = frozenset({Ability.WEBSOCKET, Ability.FANOUT})

    def websocket(self) -> Opening:
        return self.follow("bench:a")


class PlainTarget(Target):
    """A server of `benchmarks.peers`: one channel, and ``POST /publish`` with the payload alone."""

    abilities = frozenset({Ability.WEBSOCKET, Ability.FANOUT, Ability.SSE, Ability.POLL, Ability.PUBLISH})

    def publish(self, payload: str) -> bytes:
        return http_post("/publish", payload.encode(), "text/plain")


class LimitC(PlainTarget):
    """The limit: one epoll loop in C that parses only what it must and calls send() once a delivery."""

    name = "limit-c"
    title = "send() loop, C"
    settings = "benchmarks/peers/limit.c, -O2; no history, no checks, one send() a delivery"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("cc") else "a C compiler (cc)"

    def versions(self) -> str:
        return subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]

    def command(self, directory: Path) -> Sequence[str]:
        program = directory / "limit"
        compiled = subprocess.run(
            ["cc", "-O2", "-o", str(program), str(_PEERS / "limit.c")], capture_output=True, text=True, check=False
        )
        if compiled.returncode:
            raise BenchmarkError(f"limit.c does not compile: {compiled.stderr.strip()[:300]}")
        return str(program), str(self.port)


class LimitPython(PlainTarget):
    """The same loop in Python, without Twisted."""

    name = "limit-py"
    title = "send() loop, Python"
    settings = "benchmarks/peers/limit.py; the same in Python"

    def versions(self) -> str:
        return f"Python {platform.python_version()}"

    def command(self, directory: Path) -> Sequence[str]:
        return sys.executable, "-m", "benchmarks.peers.limit", str(self.port)


class Autobahn(PlainTarget):
    """What one writes first with the same libraries: Autobahn's WebSocket classes and twisted.web resources."""

    name = "autobahn"
    title = "plain Autobahn"
    settings = "WebSocketServerProtocol with sendPreparedMessage, twisted.web for HTTP; default options; no history"

    def __init__(self) -> None:
        super().__init__()
        self._websocket_port = 0

    def versions(self) -> str:
        return ", ".join((installed("autobahn"), installed("Twisted"), f"Python {platform.python_version()}"))

    def command(self, directory: Path) -> Sequence[str]:
        self._websocket_port = free_port()
        return sys.executable, "-m", "benchmarks.peers.plain_autobahn", str(self.port), str(self._websocket_port)

    def websocket(self) -> Opening:
        return Opening(("127.0.0.1", self._websocket_port), websocket_request("/ws"), _HEAD_END)


TARGETS: tuple[type[Target], ...] = (Rtpush, RtpushJson, LimitC, LimitPython, Autobahn)
