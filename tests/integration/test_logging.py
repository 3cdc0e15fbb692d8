"""The log of a real process: what is in it, and what never is."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.server import Server, write_config
from tests.support.waiting import soon, until
from tests.support.wire import TEXT, frame, get, handshake

_SECRET = "s3cr3t"
_KEY = f"{_SECRET}-key-of-the-server-api"
_DEBUG = {"log": {"format": "json", "level": "debug"}, "api": {"open": "no", "keys": _KEY}}

_JSON = {"Content-Type": "application/json"}


class _Client(Protocol):
    """
    Sends what it is told to, and takes what comes.

    :ivar got: What came.
    :ivar gone: Fires when it is gone.
    """

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.gone.callback(None)


def _post(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    fields = {"Host": "x", "Content-Length": str(len(body)), **_JSON, **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class LogTests(TestCase):
    """A server that logs all there is, as JSON."""

    timeout = 60

    async def _send(self, data: bytes, *more: bytes, expected: bytes = b"") -> bytes:
        """Send something on a connection of its own, wait for what is expected, and end it."""
        client = _Client()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.server.port)
        await soon(endpoint.connect(Factory.forProtocol(lambda: client)))
        client.transport.write(data)
        for each in more:
            client.transport.write(each)
        if expected:
            await until(lambda: expected in client.got, expected.decode(), seen=lambda: str(client.got))
        client.transport.abortConnection()
        await soon(client.gone)
        return client.got

    async def _lines(self) -> list[dict[str, Any]]:
        await self.server.process.stop()
        self.assertEqual(self.server.process.err, b"")
        return [json.loads(line) for line in self.server.process.out.splitlines()]

    async def test_no_secrets(self) -> None:
        """No key, no token and no payload is in any line, whatever is done with them, right or wrong."""
        self.server = await Server.start_with(self, write_config(self, _DEBUG))
        key = {"X-API-Key": _KEY}
        bearer = {"Authorization": f"Bearer {_SECRET}-token", "Cookie": f"a={_SECRET}"}
        message = {"channel": "demo:a", "data": f"{_SECRET}-payload"}
        body = json.dumps(message).encode()
        query = {"channel": "demo:a", "token": f"{_SECRET}-token", "timeout": "0"}
        told = b"HTTP/1.1 "
        for data in (
            _post("/api/v1/publish", body, key),
            _post("/api/v1/publish", body, bearer),
            _post("/api/v1/publish", body + b"}", key),
            _post("/emit", json.dumps({"publish": message}).encode(), bearer),
            _post("/emit", body, bearer),
            _post(f"/api/v1/{_SECRET}", body, bearer),
            get("/poll", query),
            get("/poll", {**query, "cursor": f"{_SECRET}!"}),
            get("/sse", query),
            get("/metrics", {"workers": _SECRET}),
            get("/demo/", {"token": _SECRET}),
            get("/demo/nothing", {"token": _SECRET}),
            get("/ws", {"token": _SECRET}),
            f"{_SECRET} / HTTP/1.1\r\nAuthorization: {_SECRET}\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nX-API-Key : {_SECRET}\r\n\r\n".encode(),
        ):
            await self._send(data, expected=told)
        commands = (
            {"id": 1, "connect": {"token": f"{_SECRET}-token"}},
            {"id": 2, "publish": message},
            {"id": 3, "subscribe": {"channel": _SECRET}},
            {"id": 4, "subscribe": {"channel": "demo:a", "since": "earliest"}},
        )
        frames = [frame(TEXT, json.dumps(command).encode()) for command in commands]
        await self._send(handshake("/ws", {"token": _SECRET}), *frames, expected=b'"message"')
        for bad in (frame(TEXT, _SECRET.encode()), frame(TEXT, b"\xff" + _SECRET.encode()), _SECRET.encode() * 100):
            await self._send(handshake("/ws", {}), bad, expected=b"101")
        await self._send(handshake("/ws", {"channel": "demo:a", "token": _SECRET}), frames[1], expected=b"101")
        lines = await self._lines()
        self.assertTrue(any(line["level"] == "debug" for line in lines), lines)
        out = self.server.process.out
        for secret in (_SECRET.encode(), base64.b64encode(_SECRET.encode())[:-3], _SECRET.encode().hex().encode()):
            self.assertNotIn(secret, out)

    async def test_ids(self) -> None:
        """What is about a connection has its id: the one that the client was told."""
        self.server = await Server.start_with(self, write_config(self, _DEBUG))
        connect = frame(TEXT, b'{"id":1,"connect":{}}')
        got = await self._send(handshake("/ws", {}), connect, b"\xff" * 20, expected=b"RSV")
        found = re.search(rb'"connection":"([^"]+)"', got)
        assert found is not None
        about = [line for line in await self._lines() if "WebSocket" in line["message"]]
        self.assertTrue(about)
        self.assertEqual({line["connection"] for line in about}, {found[1].decode()})

    async def test_flood(self) -> None:
        """A stranger who does the same thing again and again fills no log; one thing more is still logged."""
        self.server = await Server.start_with(self, write_config(self, _DEBUG))
        for _ in range(40):
            await self._send(handshake("/ws", {}), b"\xff" * 20, expected=b"101")
        about = [line for line in await self._lines() if "WebSocket" in line["message"]]
        self.assertEqual(len(about), 20)
