"""What a server that is measured has to tell: how it is started, and how a client talks to it."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from benchmarks.launch import ALL_CORES, free_port, launched
from benchmarks.load import OPENING_WINDOW, Following, Opening, Sending, http_get, response_body, websocket_request

__all__ = ["EVENTS", "HEAD_END", "Ability", "Target", "Way", "installed"]

#: What an event stream is asked for by; some servers insist on it.
EVENTS = "text/event-stream"
#: What ends the answer to a WebSocket handshake.
HEAD_END = b"\r\n\r\n"


class Ability:
    """What a target may be able to do, and a scenario may need."""

    WEBSOCKET = "websocket"
    SSE = "sse"
    #: A long poll can wait.
    POLL = "poll"
    #: What is published while a poll is on its way back is not lost to it.
    CYCLE = "cycle"
    #: What is published over HTTP on one of many channels comes to its WebSockets.
    FANOUT = "fanout"
    PUBLISH = "publish"
    BATCH = "batch"
    #: What one node publishes can be followed at another, or there is but one.
    CHANNELS = "channels"
    #: Messages can be published to its Redis.
    REDIS = "redis"
    #: It has worker processes, and can be restarted without losing what was published.
    WORKERS = "workers"


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

    `settings` says in one line how it is configured, and why so; `versions` what it is made of. Channels are named by
    small numbers.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    settings: ClassVar[str]
    abilities: ClassVar[frozenset[str]]
    #: Whether it is another project's. Those are no part of a quick run, but for ``--peers``.
    peer: ClassVar[bool] = False
    #: How many connections can be opened at once, where that is not what is measured.
    window: ClassVar[int] = OPENING_WINDOW
    #: Whether it is part of a quick run at all.
    quick: ClassVar[bool] = True

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
    def publish(self, payload: str, channel: int = 0) -> bytes:
        """Return the request that publishes one message to WebSockets."""

    def answer(self, payload: str) -> bytes:
        """Return the request that publishes one message to long polls."""
        return self.publish(payload)

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
        """Where HTTP requests of subscribers go."""
        return "127.0.0.1", self.port

    @property
    def publishing(self) -> tuple[str, int]:
        """Where publishes go."""
        return self.http

    def websocket(self, channel: int = 0) -> Opening:
        """Return how a WebSocket subscriber begins, for targets that can `Ability.WEBSOCKET`."""
        return Opening(self.http, websocket_request(f"/ws/{channel}"), HEAD_END)

    def sse(self) -> Opening:
        """Return how an SSE subscriber begins, for targets that can `Ability.SSE`."""
        return Opening(self.http, http_get("/sse/0", EVENTS), HEAD_END)

    def poll(self, cursor: bytes) -> Opening:
        """Return a long poll from a cursor, or from now if it is empty, for targets that can `Ability.POLL`."""
        query = f"?cursor={cursor.decode()}" if cursor else ""
        return Opening(self.http, http_get(f"/poll/0{query}"), None)

    def cursor(self, response: bytes) -> bytes:
        """Return the cursor that an answered poll gives."""
        start = response.index(b'"cursor":"') + 10
        return response[start : response.index(b'"', start)]

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
