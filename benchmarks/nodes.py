"""What is measured across nodes: two nodes of rtpush on one Redis, and Redis alone, which is the limit."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.launch import await_answer, free_port, launched
from benchmarks.load import Following, Opening, Sending
from benchmarks.target import Ability, Target, Way, installed
from benchmarks.targets import Rtpush

__all__ = ["NODE_TARGETS", "BareRedis", "TwoNodes"]

_READY = 10.0
_CALLS = re.compile(r"cmdstat_(\w+):calls=(\d+)")
#: The commands that come from outside; what scripts call inside of Redis costs no round trip.
_FROM_OUTSIDE = ("subscribe", "unsubscribe", "evalsha", "eval", "fcall", "script")


def command(*arguments: str) -> bytes:
    """Return a command for Redis."""
    parts = [argument.encode() for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def lines(count: int) -> Callable[[bytes], bool]:
    """Return what tells whether so many lines have come. It raises `BenchmarkError` for an error of Redis."""

    def whole(data: bytes) -> bool:
        if data.startswith(b"-") or b"\n-" in data:
            raise BenchmarkError(f"Redis refuses: {data[:200]!r}")
        return data.count(b"\r\n") >= count

    return whole


def redis_server(port: int, directory: Path) -> Sequence[str]:
    """Return the command of a Redis that keeps nothing."""
    return (
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
        # Protected mode refuses all but 127.0.0.1, and each of our clients has a loopback address of its own.
        *("--save", "", "--appendonly", "no", "--protected-mode", "no"),
    )


def redis_version() -> str:
    """Return name and version of the Redis that is installed."""
    found = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return "Redis " + found.partition("v=")[2].partition(" ")[0]


def calls(port: int) -> int:
    """Return how many commands a Redis was sent so far, of those that nodes send."""
    with socket.create_connection(("127.0.0.1", port), _READY) as connection:
        connection.sendall(command("INFO", "commandstats") + command("PING"))
        data = b""
        while not data.endswith(b"+PONG\r\n"):
            data += connection.recv(1 << 16)
    return sum(int(count) for name, count in _CALLS.findall(data.decode()) if name in _FROM_OUTSIDE)


class TwoNodes(Rtpush):
    """Two nodes on one Redis: what is published at the first is followed at the second."""

    name = "rtpush-redis"
    title = "rtpush, 2 nodes"
    settings = "the same on one Redis without a disk; all is published at one node and followed at the other"
    abilities = frozenset({Ability.CHANNELS, Ability.REDIS})

    def __init__(self) -> None:
        super().__init__()
        self._other_port = 0
        self._redis_port = 0
        self._parts: dict[str, int] = {}

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("redis-server") else "redis-server"

    def versions(self) -> str:
        return f"{super().versions()}, {installed('txredisapi')}, {installed('hiredis')}, {redis_version()}"

    @contextmanager
    def running(self, core: int | None) -> Iterator[None]:
        # Three servers and the client share the cores as the kernel sees fit.
        self.port, self._other_port, self._redis_port = free_port(), free_port(), free_port()
        broker = f"[broker]\nengine = redis\n[redis]\nurl = redis://127.0.0.1:{self._redis_port}/0\n"
        with tempfile.TemporaryDirectory(prefix="rtpush-benchmark-") as name, ExitStack() as running:
            directory = Path(name)
            redis = launched("redis", redis_server(self._redis_port, directory), self._redis_port, directory)
            self._parts = {"redis": running.enter_context(redis)}
            for part, port in (("publisher", self.port), ("follower", self._other_port)):
                node = launched(f"rtpush-{part}", self.node(directory, port, broker), None, directory)
                self._parts[part] = running.enter_context(node)
            for port in (self.port, self._other_port):
                await_answer(port, "/readyz")
            self.pid = self._parts["publisher"]
            yield

    def parts(self) -> Mapping[str, int]:
        return self._parts

    def where_followed(self) -> tuple[str, int]:
        return "127.0.0.1", self._other_port

    def sending(self, way: str) -> Sending:
        if way != Way.REDIS:
            return super().sending(way)
        opening = Opening(("127.0.0.1", self._redis_port), b"", None)
        return Sending(opening, _call, lambda messages: lines(2 * messages))

    def redis_calls(self) -> int | None:
        return calls(self._redis_port)


def _call(channel: str, payload: str) -> bytes:
    return command("FCALL", "rtpush_publish", "1", channel, json.dumps(payload))


class BareRedis(Target):
    """The limit: the same client publishes in Redis, and follows there."""

    name = "redis"
    title = "Redis alone"
    settings = "PUBLISH and SUBSCRIBE by the client itself: no history, no positions, no nodes"
    abilities = frozenset({Ability.CHANNELS, Ability.REDIS})

    @classmethod
    def missing(cls) -> str | None:
        return TwoNodes.missing()

    def versions(self) -> str:
        return redis_version()

    def command(self, directory: Path) -> Sequence[str]:
        return redis_server(self.port, directory)

    def publish(self, payload: str, channel: int = 0) -> bytes:
        return command("PUBLISH", f"bench:{channel}", payload)

    def batch(self, payloads: Sequence[str]) -> bytes:
        return b"".join(map(self.publish, payloads))

    def whole(self, messages: int) -> Callable[[bytes], bool]:
        return lines(messages)

    def parts(self) -> Mapping[str, int]:
        return {"redis": self.pid}

    def follow(self, channel: str) -> Opening:
        return Opening(self.http, command("SUBSCRIBE", channel), b":1\r\n")

    def sending(self, way: str) -> Sending:
        opening = Opening(self.http, b"", None)
        return Sending(opening, lambda channel, payload: command("PUBLISH", channel, payload), self.whole)

    def following(self, channels: Sequence[str]) -> Following:
        opening = Opening(self.http, command("PING"), b"+PONG\r\n")
        return Following(opening, command("SUBSCRIBE", *channels), b"\r\nsubscribe\r\n")

    def redis_calls(self) -> int | None:
        return calls(self.port)


NODE_TARGETS: tuple[type[Target], ...] = (TwoNodes, BareRedis)
