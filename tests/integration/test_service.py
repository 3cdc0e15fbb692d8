"""``twistd rtpush`` as a whole: how it starts, how it ends, and what those cost it who do not read."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.processes import resident_bytes
from tests.support.server import Server, twistd, write_config
from tests.support.waiting import soon, until
from tests.support.wire import CLOSE, TEXT, Frames, Response, get, handshake

_CONF = Path(__file__).resolve().parents[2] / "conf"
_CHANNEL = "demo:all"


class StartTests(TestCase):
    """What is wrong is said in one line."""

    timeout = 60

    async def _refused(self, *arguments: str) -> str:
        """Start twistd, which must end with exit code 1 and one line; return that line."""
        process = twistd(self, *arguments)
        self.assertEqual(await soon(process.ended()), 1, process)
        self.assertNotIn(b"Traceback", process.out + process.err)
        [line] = process.err.decode().splitlines()
        return line

    async def test_check_good(self) -> None:
        """``--check`` finds the files that we ship good."""
        for name in ("dev.ini", "prod.ini"):
            process = twistd(self, "--config", str(_CONF / name), "--check")
            self.assertEqual(await soon(process.ended()), 0, process)
            self.assertEqual((process.out.decode(), process.err), (f"{_CONF / name}: ok\n", b""))

    async def test_check_bad(self) -> None:
        """``--check`` says in one line where a mistake is, what is there, and what was expected."""
        path = write_config(self, {"limits": {"message_bytes": "many"}})
        number = Path(path).read_text().splitlines().index("message_bytes = many") + 1
        line = await self._refused("--config", path, "--check")
        self.assertTrue(line.startswith(f"{path}:{number}: "), line)
        self.assertIn("'many': expected a whole number", line)

    async def test_unknown_key(self) -> None:
        """A misspelt key ends it with one line that names the key that was meant."""
        line = await self._refused("--config", write_config(self, {"server": {"hartbeat": 3}}))
        self.assertIn("hartbeat: unknown key; did you mean heartbeat?", line)

    async def test_no_file(self) -> None:
        """A file that is not there ends it with one line."""
        line = await self._refused("--config", "nowhere.ini")
        self.assertIn("nowhere.ini", line)

    async def test_no_config(self) -> None:
        """Without a file it says what is missing."""
        self.assertIn("--config FILE is missing", await self._refused())

    def _taken_address(self) -> str:
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        return f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"

    async def test_port_in_use(self) -> None:
        """An address that another program has ends it with one line that names it."""
        address = self._taken_address()
        line = await self._refused("--config", write_config(self, {"server": {"listen": address}}))
        self.assertEqual(line, f"{address}: cannot listen: Address already in use")

    async def test_port_in_use_in_background(self) -> None:
        """In the background, the process that the user has started says the same, and ends with exit code 1 too."""
        address = self._taken_address()
        path = write_config(self, {"server": {"listen": address}})
        options = [f"--pidfile={path}.pid", f"--logfile={path}.log"]
        process = twistd(self, "--config", path, options=options)
        self.assertEqual(await soon(process.ended()), 1, process)
        # twistd cuts what is longer.
        self.assertIn(f"{address}: cannot listen", process.err.decode())


class _Peer(Protocol):
    """Makes one request, and keeps what comes."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        self.response = Response()
        self.after = b""
        self.gone: Deferred[None] = Deferred()
        self._request = request

    @classmethod
    async def connect(cls, test: TestCase, server: Server, request: bytes) -> _Peer:
        """Make a request on a connection of its own, which ends with the test."""
        peer = cls(request)
        await TCP4ClientEndpoint(reactor, "127.0.0.1", server.port).connect(Factory.forProtocol(lambda: peer))
        test.addCleanup(peer.close)
        return peer

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.after += data if self.response.complete else self.response.feed(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.gone.callback(None)

    def close(self) -> Deferred[None]:
        """Close the connection."""
        self.transport.abortConnection()
        return soon(self.gone)


def _events(body: bytes) -> list[dict[str, str]]:
    """Return the events of a stream as their fields."""
    return [
        dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        for event in body.decode().split("\n\n")
        if event
    ]


class EndTests(TestCase):
    """SIGTERM."""

    timeout = 60

    async def test_tells_everyone(self) -> None:
        """
        A WebSocket hears ``disconnect`` and is closed with 1012, an event stream hears it with a ``retry``, a poll is
        answered early; the process ends by the signal, as every one that twistd runs.
        """
        server = await Server.start(self)
        query = {"channel": _CHANNEL}
        websocket = await _Peer.connect(self, server, handshake("/ws", query))
        stream = await _Peer.connect(self, server, get("/sse", query))
        poll = await _Peer.connect(self, server, get("/poll", {**query, "timeout": "50"}))

        async def all_there() -> bool:
            return await server.subscribers(_CHANNEL) == 3

        await until(all_there, "three subscribers")
        [last] = await server.publish(_CHANNEL, ["x"])
        cursor = "{epoch}:{offset}".format_map(last)
        await until(lambda: poll.response.complete, "the poll to be answered")
        poll = await _Peer.connect(self, server, get("/poll", {**query, "cursor": cursor, "timeout": "50"}))
        await until(all_there, "three subscribers")

        server.process.signal(signal.SIGTERM)
        self.assertEqual(await soon(server.process.ended()), -signal.SIGTERM, server.process)
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)

        *pushes, (opcode, closing) = Frames().feed(websocket.after)
        self.assertEqual((opcode, int.from_bytes(closing[:2], "big")), (CLOSE, 1012))
        self._assert_told(json.loads(pushes[-1][1])["disconnect"])
        self.assertEqual(pushes[-1][0], TEXT)

        self.assertTrue(stream.response.complete, "the event stream was cut")
        farewell = _events(stream.response.body)[-1]
        self.assertEqual(farewell["event"], "disconnect")
        self.assertGreater(int(farewell["retry"]), 0)
        self._assert_told(json.loads(farewell["data"]))

        self.assertEqual(poll.response.status, 200)
        self.assertTrue(poll.response.complete, "the poll was cut")
        answer = json.loads(poll.response.body)
        self.assertEqual((answer["messages"], answer["cursor"]), ([], cursor))
        self._assert_told(answer["disconnect"])

    def _assert_told(self, told: dict[str, Any]) -> None:
        self.assertEqual((told["code"], told["reconnect"]), (1012, True))
        self.assertGreater(told["after"], 0)

    async def test_idle(self) -> None:
        """With nobody there it ends at once."""
        server = await Server.start(self)
        server.process.signal(signal.SIGTERM)
        self.assertEqual(await soon(server.process.ended()), -signal.SIGTERM, server.process)


class SlowReaderTests(TestCase):
    """Those who open a connection and never read from it."""

    timeout = 120

    #: 200 MB in messages of 64 KB.
    _messages = 3200
    _message_bytes = 64_000

    #: What two slow readers may cost: twice queue_bytes, the buffers of their transports and a message in each; history
    #: holds ten messages; the rest is what any server needs that parses requests of a megabyte.
    _allowed_bytes = 32_000_000

    def _slow(self, server: Server, request: bytes) -> None:
        slow = socket.socket()
        self.addCleanup(slow.close)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(request)

    async def test_memory(self) -> None:
        """They cost the server no more than the bounds of the configuration, and the others get every message."""
        server = await Server.start(
            self, {"limits": {"queue_bytes": 1_048_576}, "namespace:demo": {"history_size": 10}}
        )
        query = {"channel": _CHANNEL}
        reader = await _Peer.connect(self, server, handshake("/ws", query))
        self._slow(server, handshake("/ws", query))
        self._slow(server, get("/sse", query))

        async def all_there() -> bool:
            return await server.subscribers(_CHANNEL) == 3

        await until(all_there, "three subscribers")
        frames, read = Frames(), []

        def all_read() -> bool:
            received, reader.after = reader.after, b""
            pushes = (json.loads(payload) for _, payload in frames.feed(received))
            read.extend(push["message"]["data"]["n"] for push in pushes if "message" in push)
            return len(read) == self._messages

        padding = "x" * self._message_bytes
        before = highest = resident_bytes(server.process.pid)
        for first in range(0, self._messages, 10):
            await server.publish(_CHANNEL, [{"n": number, "padding": padding} for number in range(first, first + 10)])
            highest = max(highest, resident_bytes(server.process.pid))
            all_read()
        await until(all_read, "the reader that reads to get all", seen=lambda: f"{len(read)} have come")
        self.assertEqual(read, list(range(self._messages)))
        self.assertLess(highest - before, self._allowed_bytes)
        # They are still there: it is not that they were thrown out.
        self.assertEqual(await server.subscribers(_CHANNEL), 3)
