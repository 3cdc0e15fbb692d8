"""
A real rtpush under those who mean no good: the limits hold, memory has a bound, and others are served.

How long messages of another client take meanwhile is printed, not asserted: that depends on the machine.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.hardening.strangers import Witness, connected, ended, open_websocket
from tests.support.processes import resident_bytes
from tests.support.server import Server
from tests.support.wire import TEXT, Frames, Response, frame, get, handshake

T = TypeVar("T")

_MIB = 1 << 20

#: How much memory an attack may add: it is more than what Python's allocator keeps for later, and less than what any of
#: these would take if nothing had a bound.
_GROWTH = 24 * _MIB

_SLOW = 1000
_MANY = 10_000


class StrangerTests(TestCase):
    """One kind of stranger each."""

    timeout = 120

    async def _server(self, **changes: Mapping[str, object]) -> Server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        few = {"history_size": 10, "publish": "anyone"}
        return await Server.start(self, {"namespace:few": few, **changes})

    async def _beside(self, server: Server, attack: Callable[[int], T]) -> T:
        """Do something in a thread beside a witness; check the memory, and print what the witness saw."""
        witness = await deferToThread(Witness, server.port)
        # What is needed once is there then.
        before = resident_bytes(server.process.pid)
        result: T = await deferToThread(attack, server.port)
        told = await deferToThread(witness.stop)
        grown = resident_bytes(server.process.pid) - before
        sys.stdout.write(f"\n    {self.id().rpartition('.')[2]}: {told}; memory grew by {grown / _MIB:.1f} MiB\n")
        self.assertLess(grown, _GROWTH)
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)
        return result

    async def test_slowloris(self) -> None:
        """A thousand connections send a byte a second: each is closed when the time for a head is over."""
        server = await self._server(limits={"header_timeout": 3})

        def attack(port: int) -> list[float]:
            slow = [connected(port) for _ in range(_SLOW)]
            for connection in slow:
                connection.sendall(b"GET /sse?channel=demo:a HTTP/1.1\r\nX: ")
            return list(ended(slow, drip=b"x", limit=20.0))

        self.assertEqual(len(await self._beside(server, attack)), _SLOW)

    async def test_waiting(self) -> None:
        """Of a thousand connections that say nothing, so many stay as may wait, and who comes is served."""
        server = await self._server(limits={"max_waiting": 100, "header_timeout": 600})

        def attack(port: int) -> tuple[int, int]:
            silent = [connected(port) for _ in range(_SLOW)]
            closed = len(list(ended(silent, limit=2.0)))
            late = connected(port)
            late.sendall(get("/healthz", {}, Connection="close"))
            response = Response()
            while data := late.recv(65536):
                response.feed(data)
            for connection in (*silent, late):
                connection.close()
            return closed, response.status

        closed, status = await self._beside(server, attack)
        self.assertEqual((closed, status), (_SLOW - 100, 200))

    async def test_handshakes(self) -> None:
        """Of the handshakes of one address so many are let in as may be; another one is not meant."""
        server = await self._server(server={"trusted_proxies": "127.0.0.1"}, limits={"connections_per_ip": 50})

        def attack(port: int) -> tuple[Counter[int], int]:
            request = handshake("/ws", {"channel": "few:a"})
            connections, statuses = [], Counter[int]()
            for _ in range(1000):
                connection, status = open_websocket(port, _from(request, "203.0.113.7"))
                statuses[status] += 1
                connections.append(connection)
            other, status = open_websocket(port, _from(request, "203.0.113.8"))
            for connection in (*connections, other):
                connection.close()
            return statuses, status

        statuses, other = await self._beside(server, attack)
        self.assertEqual((statuses, other), (Counter({101: 50, 429: 950}), 101))

    async def test_never_reads(self) -> None:
        """A subscriber that never reads has 40 MB published to it: what waits for it has a bound."""
        server = await self._server()

        def attack(port: int) -> int:
            deaf, status = open_websocket(port, handshake("/ws", {"channel": "few:a"}), receive_buffer=4096)
            talker, _ = open_websocket(port, handshake("/ws", {}))
            message = frame(TEXT, json.dumps({"id": 1, "publish": {"channel": "few:a", "data": "x" * 40_000}}).encode())
            replies = 0
            frames = Frames()
            for number in range(1000):
                talker.sendall(message)
                while replies <= number:
                    replies += sum(opcode == TEXT for opcode, _ in frames.feed(talker.recv(65536)))
            for connection in (deaf, talker):
                connection.close()
            return status

        self.assertEqual(await self._beside(server, attack), 101)

    async def test_bomb(self) -> None:
        """A compressed message that would be a thousand times as large ends the connection, not the memory."""
        server = await self._server(websocket={"compression": "yes"})

        def attack(port: int) -> list[int]:
            deflater = zlib.compressobj(9, wbits=-15)
            bomb = deflater.compress(bytes(256 * _MIB)) + deflater.flush(zlib.Z_SYNC_FLUSH)
            bomb = bomb.removesuffix(b"\x00\x00\xff\xff")
            codes = []
            for _ in range(10):
                request = handshake("/ws", {}).replace(
                    b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
                )
                connection, _ = open_websocket(port, request)
                codes.append(_bombed(connection, bomb))
                connection.close()
            return codes

        self.assertEqual(await self._beside(server, attack), [1009] * 10)

    async def test_tiny(self) -> None:
        """What is tiny takes many times its size when it is read: of twenty megabytes of it little waits to be done."""
        server = await self._server()

        def attack(port: int) -> int:
            payload = b"[" + b"1," * 500_000 + b"1]"
            head = bytes([0x81, 0x80 | 127]) + len(payload).to_bytes(8, "big") + bytes(4)
            deaf = []
            for _ in range(20):
                connection, _status = open_websocket(port, handshake("/ws", {}), receive_buffer=4096)
                connection.sendall(head + payload)
                deaf.append(connection)
            waits = get("/poll", {"channel": "few:a"}, Expect="x")
            for _ in range(20):
                connection = connected(port)
                connection.sendall(waits + get("/nothing", {}, Expect="x") * 1000)
                deaf.append(connection)
            # When the last ones are answered, all are read.
            late, status = open_websocket(port, handshake("/ws", {}))
            for connection in (*deaf, late):
                connection.close()
            return status

        self.assertEqual(await self._beside(server, attack), 101)

    async def test_channels(self) -> None:
        """Ten thousand channels in one message: so many are followed as may be, and all others refused."""
        server = await self._server()

        def attack(port: int) -> tuple[Counter[str], list[int]]:
            commands = [{"id": n, "subscribe": {"channel": f"few:{n}"}} for n in range(1, _MANY + 1)]
            connection, _ = open_websocket(port, handshake("/ws", {}))
            payload = json.dumps(commands).encode()
            head = bytes([0x81, 0x80 | 127]) + len(payload).to_bytes(8, "big") + bytes(4)
            connection.sendall(head + payload)
            told: Counter[str] = Counter()
            frames = Frames()
            while told.total() < _MANY:
                for _, content in frames.feed(connection.recv(65536)):
                    reply = json.loads(content)
                    told[reply["error"]["name"] if "error" in reply else "subscribed"] += 1
            connection.close()
            return told, [_status(port, path, _MANY) for path in ("/sse", "/poll", "/ws")] + [
                _status(port, path, 101) for path in ("/sse", "/poll")
            ]

        told, statuses = await self._beside(server, attack)
        self.assertEqual(told, Counter({"subscribed": 100, "limit_exceeded": _MANY - 100}))
        self.assertEqual(statuses, [431, 431, 431, 429, 429])

    async def test_commands(self) -> None:
        """Who sends commands without end is told, and then closed."""
        server = await self._server(limits={"command_rate": 200})

        def attack(port: int) -> tuple[int, int]:
            connection, _ = open_websocket(port, handshake("/ws", {}))
            frames = Frames()
            refused, code = 0, 0
            begun = time.monotonic()
            ping = frame(TEXT, b'{"id":1,"ping":{}}') * 50
            while not code and time.monotonic() - begun < 30:
                connection.sendall(ping)
                for opcode, content in frames.feed(connection.recv(65536)):
                    if opcode == TEXT:
                        refused += b"limit_exceeded" in content and b'"error"' in content
                    else:
                        code = int.from_bytes(content[:2])
            connection.close()
            return refused, code

        refused, code = await self._beside(server, attack)
        self.assertEqual(code, 4005)
        self.assertGreaterEqual(refused, 2000)


def _from(request: bytes, address: str) -> bytes:
    """Return a request as a proxy passes it on."""
    return request.replace(b"\r\n\r\n", f"\r\nX-Forwarded-For: {address}\r\n\r\n".encode())


def _bombed(connection: socket.socket, bomb: bytes) -> int:
    """Send a compressed message; return the code that it is answered with."""
    head = bytes([0xC1, 0x80 | 127]) + len(bomb).to_bytes(8, "big") + bytes(4)
    connection.sendall(head + bomb)
    frames = Frames()
    while data := connection.recv(65536):
        for opcode, payload in frames.feed(data):
            if opcode == 8:
                return int.from_bytes(payload[:2])
    return 0


def _status(port: int, path: str, channels: int) -> int:
    """Ask for many channels; return the status."""
    query: dict[str, Any] = {"channel": ",".join(f"few:{n}" for n in range(channels))}
    request = handshake(path, query) if path == "/ws" else get(path, query)
    connection, status = open_websocket(port, request)
    connection.close()
    return status
