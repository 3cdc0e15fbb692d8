"""rtpush as many processes that share a port: ``[server] workers``, on one Redis."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.launch import await_answer, free_port, launched
from benchmarks.load import http_post
from benchmarks.nodes import TwoNodes, command, redis_server, redis_version
from benchmarks.target import Ability, installed
from benchmarks.targets import Rtpush

__all__ = ["RtpushWorkers"]

_FAREWELL = 15.0
_TIMEOUT = 10.0


class RtpushWorkers(Rtpush):
    """Worker processes that can be stopped and started again; Redis goes on."""

    name = "rtpush-workers"
    title = "rtpush, workers"
    settings = "worker processes on one port and one Redis without a disk, history of 100 messages, rest default"
    abilities = frozenset({Ability.WORKERS})
    #: Seconds; the server's default.
    heartbeat = 30.0

    def __init__(self) -> None:
        super().__init__()
        self.workers = 2
        self._redis_port = 0
        self._redis_pid = 0
        self._directory = Path()
        self._server = ExitStack()

    @classmethod
    def missing(cls) -> str | None:
        return TwoNodes.missing()

    def versions(self) -> str:
        return f"{super().versions()}, {installed('txredisapi')}, {redis_version()}"

    def command(self, directory: Path) -> Sequence[str]:
        config = directory / "rtpush.ini"
        config.write_text(
            f"[server]\nlisten = tcp:{self.port}:interface=127.0.0.1:backlog=4096\nworkers = {self.workers}\n"
            f"heartbeat = {self.heartbeat:g}\n[limits]\nconnect_rate = 0\n[api]\nopen = yes\n"
            f"[broker]\nengine = redis\n[redis]\nurl = redis://127.0.0.1:{self._redis_port}/0\n"
            "[namespace:bench]\nhistory_size = 100\nhistory_ttl = 600\n"
        )
        twistd = "from twisted.scripts.twistd import run; run()"
        return sys.executable, "-c", twistd, "-n", "--pidfile=", "rtpush", "--config", str(config)

    @contextmanager
    def running(self, core: int | None) -> Iterator[None]:
        # All processes share the cores as the kernel sees fit.
        self.port, self._redis_port = free_port(), free_port()
        with tempfile.TemporaryDirectory(prefix="rtpush-benchmark-") as name:
            self._directory = Path(name)
            redis = redis_server(self._redis_port, self._directory)
            with launched("redis", redis, self._redis_port, self._directory) as self._redis_pid:
                try:
                    self.start()
                    yield
                finally:
                    self.stop()

    def start(self) -> None:
        """Start the server, and wait until it is ready."""
        launching = launched(self.name, self.command(self._directory), None, self._directory, patience=_FAREWELL)
        self.pid = self._server.enter_context(launching)
        await_answer(self.port, "/readyz")

    def stop(self) -> None:
        """Stop the server as an operator would: it says farewell to its clients."""
        self._server.close()

    def parts(self) -> Mapping[str, int]:
        return {"workers": self.pid, "redis": self._redis_pid}

    def publish_in_redis(self, channels: Sequence[str], payload: str) -> None:
        """Publish a message on each channel while the server is away."""
        calls = b"".join(command("FCALL", "rtpush_publish", "1", channel, json.dumps(payload)) for channel in channels)
        with socket.create_connection(("127.0.0.1", self._redis_port), _TIMEOUT) as connection:
            connection.sendall(calls)
            answers = b""
            while answers.count(b"\r\n") < 2 * len(channels):
                answers += connection.recv(1 << 16)
                if b"\n-" in answers or answers.startswith(b"-"):
                    raise BenchmarkError(f"Redis refuses: {answers[:200]!r}")

    def spread(self, channels: Sequence[str], payload: str) -> bytes:
        """Return the request that publishes a message on each channel."""
        messages = [{"channel": channel, "data": payload} for channel in channels]
        return http_post("/api/v1/publish_batch", json.dumps({"messages": messages}).encode())
