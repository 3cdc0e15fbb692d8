"""The limit, and servers that are a program of `benchmarks.peers`: each has channels, and takes publishes over HTTP."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import BenchmarkError
from benchmarks.frames import client_frame
from benchmarks.install import installed_in_node, node_modules, python_with
from benchmarks.launch import free_port
from benchmarks.load import Opening, http_post, websocket_request
from benchmarks.target import HEAD_END, Ability, Target, installed

__all__ = ["PLAIN_TARGETS", "PYTHON_PEERS", "Autobahn", "LimitC", "LimitJoined", "LimitPython"]

_PROGRAMS = Path(__file__).resolve().parent / "peers"
_WEBSOCKETS = frozenset({Ability.WEBSOCKET, Ability.FANOUT, Ability.PUBLISH})
_ALL = _WEBSOCKETS | {Ability.SSE, Ability.POLL, Ability.CYCLE}


class PlainTarget(Target):
    """A server of `benchmarks.peers`: ``POST /publish/CHANNEL`` with the payload alone."""

    abilities = _ALL

    def publish(self, payload: str, channel: int = 0) -> bytes:
        return http_post(f"/publish/{channel}", payload.encode(), "text/plain")


class LimitC(PlainTarget):
    """The limit: one epoll loop in C that parses only what it must and calls send() once a delivery."""

    name = "limit-c"
    title = "limit, C"
    settings = "benchmarks/peers/limit.c, -O2; no history, no checks, one send() a delivery"
    arguments: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("cc") else "a C compiler (cc)"

    def versions(self) -> str:
        return subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]

    def command(self, directory: Path) -> Sequence[str]:
        program = directory / "limit"
        compiled = subprocess.run(
            ["cc", "-O2", "-o", str(program), str(_PROGRAMS / "limit.c")], capture_output=True, text=True, check=False
        )
        if compiled.returncode:
            raise BenchmarkError(f"limit.c does not compile: {compiled.stderr.strip()[:300]}")
        return str(program), str(self.port), *self.arguments


class LimitJoined(LimitC):
    """The same with one send() a socket for all that arrived in a turn of the loop."""

    name = "limit-joined"
    title = "limit, joined"
    settings = "the same, with one send() a WebSocket for all messages that arrived in a turn of its loop"
    abilities = _WEBSOCKETS
    arguments = ("joined",)


class LimitPython(PlainTarget):
    """The same loop in Python, without Twisted."""

    name = "limit-py"
    title = "limit, Python"
    settings = "benchmarks/peers/limit.py; the same in Python"
    # It tells little that the one in C does not.
    quick = False

    def versions(self) -> str:
        return f"Python {platform.python_version()}"

    def command(self, directory: Path) -> Sequence[str]:
        return sys.executable, "-m", "benchmarks.peers.limit", str(self.port)


class Autobahn(PlainTarget):
    """What one writes first with the same libraries: Autobahn's WebSocket classes and twisted.web resources."""

    name = "autobahn"
    title = "plain Autobahn"
    settings = (
        "WebSocketServerProtocol with sendPreparedMessage, twisted.web for HTTP; default options, but a backlog of "
        "1,024; no history"
    )

    def __init__(self) -> None:
        super().__init__()
        self._websocket_port = 0

    def versions(self) -> str:
        return ", ".join((installed("autobahn"), installed("Twisted"), f"Python {platform.python_version()}"))

    def command(self, directory: Path) -> Sequence[str]:
        self._websocket_port = free_port()
        return sys.executable, "-m", "benchmarks.peers.plain_autobahn", str(self.port), str(self._websocket_port)

    def websocket(self, channel: int = 0) -> Opening:
        return Opening(("127.0.0.1", self._websocket_port), websocket_request(f"/ws/{channel}"), HEAD_END)


class PythonPeer(PlainTarget):
    """A server in Python whose packages may be in the folder of ``--install-peers``."""

    abilities = _WEBSOCKETS
    peer = True
    packages: ClassVar[tuple[str, ...]]
    program: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        return None if python_with(cls.packages) else " and ".join(cls.packages)

    def versions(self) -> str:
        python = python_with(self.packages)
        assert python is not None
        asked = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        found = subprocess.run([python, "-c", asked, *self.packages], capture_output=True, text=True, check=True)
        versions = zip(self.packages, found.stdout.split(), strict=True)
        return ", ".join((*map(" ".join, versions), f"Python {platform.python_version()}"))

    def command(self, directory: Path) -> Sequence[str]:
        python = python_with(self.packages)
        assert python is not None
        return python, str(_PROGRAMS / self.program), str(self.port)


class Socketify(PythonPeer):
    """uWebSockets, driven from Python."""

    name = "socketify"
    title = "uWebSockets (socketify)"
    settings = (
        "topics of uWebSockets (ws.subscribe, app.publish), no compression, one process, as its README advises; its "
        "libuv loop is run without asyncio, which would turn without a pause"
    )
    packages = ("socketify",)
    program = "socketify_peer.py"


class Websockets(PythonPeer):
    """The package `websockets`."""

    name = "websockets"
    title = "websockets"
    settings = (
        "websockets.asyncio with broadcast() and compression=None on uvloop, as its documentation advises "
        "(Broadcasting, Memory and buffers, Performance); publishes come by a listener of httptools in the same loop"
    )
    packages = ("websockets", "uvloop", "httptools")
    program = "websockets_peer.py"

    def __init__(self) -> None:
        super().__init__()
        self._websocket_port = 0

    def command(self, directory: Path) -> Sequence[str]:
        self._websocket_port = free_port()
        return *super().command(directory), str(self._websocket_port)

    def websocket(self, channel: int = 0) -> Opening:
        return Opening(("127.0.0.1", self._websocket_port), websocket_request(f"/ws/{channel}"), HEAD_END)


def socket_io(address: tuple[str, int], channel: int) -> Opening:
    """Return how a subscriber of Socket.IO (protocol 5 on Engine.IO 4) begins: open packet, CONNECT, CONNECT."""
    request = websocket_request("/socket.io/?EIO=4&transport=websocket")
    connect = client_frame(b'40{"channel":"%d"}' % channel)
    return Opening(address, request, b'"}', replies=((b'"maxPayload":', connect),))


class PythonSocketIo(PythonPeer):
    """python-socketio on uvicorn."""

    name = "python-socketio"
    title = "python-socketio"
    settings = (
        "rooms of AsyncServer on uvicorn with uvloop, httptools and websockets-sansio, one worker, WebSocket only, no "
        "compression, no access log; heartbeats every 10 minutes"
    )
    packages = ("python-socketio", "uvicorn", "uvloop", "httptools", "websockets")
    program = "socketio_peer.py"

    def websocket(self, channel: int = 0) -> Opening:
        return socket_io(self.http, channel)


class NodePeer(PlainTarget):
    """A server on Node whose packages are in the folder of ``--install-peers``."""

    abilities = _WEBSOCKETS
    peer = True
    package: ClassVar[str]
    program: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("node") is None:
            return "node"
        return None if installed_in_node(cls.package) else f"{cls.package} of npm"

    def versions(self) -> str:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        packages = (self.package, "bufferutil")
        versions = [f"{package} {version}" for package in packages if (version := installed_in_node(package))]
        return ", ".join((*versions, f"Node {node}"))

    def command(self, directory: Path) -> Sequence[str]:
        return "node", str(_PROGRAMS / self.program), str(node_modules()), str(self.port)


class Ws(NodePeer):
    """The package ``ws``."""

    name = "ws"
    title = "ws (Node)"
    settings = "a loop of send() with one Buffer, bufferutil, no permessage-deflate: its README's broadcast and advice"
    package = "ws"
    program = "ws_peer.cjs"


class NodeSocketIo(NodePeer):
    """Socket.IO itself."""

    name = "socket.io"
    title = "socket.io (Node)"
    settings = (
        "rooms, WebSocket only, bufferutil, the HTTP request of each connection discarded, as its documentation "
        "advises (Performance tuning, Memory usage); heartbeats every 10 minutes"
    )
    package = "socket.io"
    program = "socketio_peer.cjs"

    def websocket(self, channel: int = 0) -> Opening:
        return socket_io(self.http, channel)


PYTHON_PEERS: tuple[type[PythonPeer], ...] = (Socketify, PythonSocketIo, Websockets)

PLAIN_TARGETS: tuple[type[Target], ...] = (
    LimitC,
    LimitJoined,
    LimitPython,
    Autobahn,
    *PYTHON_PEERS,
    Ws,
    NodeSocketIo,
)
