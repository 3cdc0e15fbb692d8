"""A real rtpush with the server API at an address of its own, and an address for proxies."""

from __future__ import annotations

import json
import re
import signal
import urllib.error
import urllib.request
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.redis import RedisServer
from tests.support.server import twistd, write_config
from tests.support.waiting import pause, soon, until


class _Raw(Protocol):
    """Collects what comes, until the end."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(self.received)


class ApiPortTests(TestCase):
    """What is where."""

    timeout = 90

    async def _ports(self, workers: int, **more: Any) -> tuple[Any, list[int]]:
        """Start a server; return it, and its ports in the order of its addresses."""
        changes: dict[str, dict[str, object]] = {
            "server": {
                "listen": "tcp:0:interface=127.0.0.1\n  haproxy:tcp:0:interface=127.0.0.1",
                "trusted_proxies": "127.0.0.1",
                "workers": workers,
            },
            "api": {"listen": "tcp:0:interface=127.0.0.1:backlog=9"},
            **more,
        }
        process = twistd(self, "--config", write_config(self, changes))
        pattern = re.compile(rb"listening on .* port=(\d+)")
        await until(lambda: len(pattern.findall(process.out + process.err)) >= 3, "its addresses")
        return process, [int(port) for port in pattern.findall(process.out + process.err)[:3]]

    async def _status(self, port: int, path: str, body: bytes | None = None) -> int:
        def ask() -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        return int(await deferToThread(ask))

    async def _check(self, ports: list[int]) -> None:
        public, proxied, api = ports
        while await self._status(api, "/readyz") != 200:
            await pause(0.1)
        body = json.dumps({"channel": "demo:a", "data": 1}).encode()
        for path, sent in (("/api/v1/publish", body), ("/metrics", None), ("/admin/", None)):
            self.assertEqual(await self._status(public, path, sent), 404, path)
            self.assertEqual(await self._status(api, path, sent), 200, path)
        self.assertEqual(await self._status(public, "/healthz"), 200)
        self.assertEqual(await self._status(api, "/poll?channel=demo:a"), 404)
        raw = _Raw()
        await soon(connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", proxied), raw))
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        raw.transport.write(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n" + request)
        self.assertTrue((await soon(raw.ended)).startswith(b"HTTP/1.1 200 OK"))
        raw = _Raw()
        await soon(connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", proxied), raw))
        raw.transport.write(request)
        self.assertEqual(await soon(raw.ended), b"")

    async def test_one(self) -> None:
        """One process."""
        process, ports = await self._ports(1)
        await self._check(ports)
        process.signal(signal.SIGTERM)
        await soon(process.ended())

    async def test_workers(self) -> None:
        """Several, which have the sockets from their parent."""
        redis = await RedisServer.start(self)
        process, ports = await self._ports(2, broker={"engine": "redis"}, redis={"url": redis.url})
        await self._check(ports)
        process.signal(signal.SIGTERM)
        await soon(process.ended())
