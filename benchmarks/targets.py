"""The servers that are measured. A new peer is one more class here, and a line in `TARGETS`."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import CDLL
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import ClassVar

from benchmarks.errors import BenchmarkError
from benchmarks.load import Opening, http_get, http_post, websocket_request

__all__ = ["TARGETS", "Ability", "Target"]

_ROOT = Path(__file__).resolve().parent.parent
_PEERS = Path(__file__).resolve().parent / "peers"
_STARTING = 20.0
_STOPPING = 3.0
_PR_SET_PDEATHSIG = 1
_LIBC = CDLL(None)
_HEAD_END = b"\r\n\r\n"


class Ability:
    """What a target may be able to do, and a scenario may need."""

    WEBSOCKET = "websocket"
    SSE = "sse"
    POLL = "poll"
    FANOUT = "fanout"
    PUBLISH = "publish"
    BATCH = "batch"


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
        parent = os.getpid()

        def prepare() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if core is not None:
                os.sched_setaffinity(0, {core})

        with tempfile.TemporaryDirectory(prefix="rtpush-benchmark-") as name:
            directory = Path(name)
            log = directory / "log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    self.command(directory),
                    cwd=_ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=prepare,
                    start_new_session=True,
                )
            self.pid = process.pid
            try:
                self._await_listening(process, log)
                yield
            except BenchmarkError as error:
                if process.poll() is not None:
                    raise BenchmarkError(
                        f"{error}; the server ended with {process.returncode}: {_last_line(log)}"
                    ) from None
                raise
            finally:
                _stop(process)

    def _await_listening(self, process: subprocess.Popen[bytes], log: Path) -> None:
        give_up = time.monotonic() + _STARTING
        while time.monotonic() < give_up and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise BenchmarkError(f"{self.name} did not start: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children, which are in a process group of their own."""
    try:
        os.killpg(process.pid, SIGTERM)
        process.wait(_STOPPING)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:
        try:
            os.killpg(process.pid, SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


class Rtpush(Target):
    """rtpush as it comes, on its memory engine; subscribers get the payload alone."""

    name = "rtpush"
    title = "rtpush"
    settings = "rtpush.raw (a frame is the payload), memory engine, history of 100 messages, all other options default"
    abilities = frozenset(
        {Ability.WEBSOCKET, Ability.FANOUT, Ability.SSE, Ability.POLL, Ability.PUBLISH, Ability.BATCH}
    )

    def versions(self) -> str:
        return ", ".join((installed("rtpush"), installed("Twisted"), installed("autobahn")))

    def command(self, directory: Path) -> Sequence[str]:
        config = directory / "rtpush.ini"
        config.write_text(
            f"[server]\nlisten = tcp:{self.port}:interface=127.0.0.1\n[api]\nopen = yes\n"
            "[namespace:bench]\nhistory_size = 100\nhistory_ttl = 300\n"
        )
        twistd = "from twisted.scripts.twistd import run; run()"
        return sys.executable, "-c", twistd, "-n", "--pidfile=", "rtpush", "--config", str(config)

    def publish(self, payload: str) -> bytes:
        return http_post("/api/v1/publish", json.dumps({"channel": "bench:a", "data": payload}).encode())

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
        # The handshake's answer is followed by {"subscribed": {…}}.
        return Opening(self.http, websocket_request("/ws?channel=bench:a", "rtpush.v1"), b"}}")


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
