"""The clients for Node and for Python behind a real proxy, led through the same networks as the browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, TestCase

import rtpush
from rtpush.client import Client, Status
from rtpush.protocol.message import Message
from rtpush.protocol.pushes import GapPush
from tests.support.journey import MESSAGES, Journey, View
from tests.support.nginx import Nginx
from tests.support.processes import Process, program
from tests.support.server import Server
from tests.support.waiting import until

_CHANNEL = "demo:numbers"
_DRIVER = Path(__file__).with_name("follow.mjs")
_MODULE = Path(rtpush.__file__).parent / "static" / "client" / "rtpush.js"


class _ClientTests(TestCase):
    """What the tests of all clients have in common."""

    timeout = 150

    def assert_arrived(self, numbers: Sequence[int], by: Sequence[str | None], *, best: str) -> None:
        """Check that every message has come once and in order: first and last by the best transport, some by others."""
        self.assertEqual(list(numbers), list(range(1, MESSAGES + 1)))
        self.assertEqual((by[0], by[-1]), (best, best))
        self.assertEqual(set(by), {best, "sse", "longpoll"})


class NodeTests(_ClientTests):
    """The JavaScript client in Node."""

    async def _travel(self, best: str, *flags: str) -> None:
        node = program("node")
        if subprocess.run([node, *flags, "-e", "0"], capture_output=True, check=False).returncode != 0:
            raise SkipTest(f"node does not know {' '.join(flags)}")
        server = await Server.start(self)
        nginx = await Nginx.start(self, server.port)
        options = json.dumps({"climbAfter": 0.25, "openTimeout": 1.5})
        command = [node, *flags, str(_DRIVER), _MODULE.as_uri(), nginx.network_url, _CHANNEL, options]
        process = Process(self, command)

        def said(name: str) -> list[Any]:
            # The last line may not be there in full.
            lines = process.out[: process.out.rfind(b"\n") + 1].splitlines()
            return [event for event in map(json.loads, lines) if name in event]

        async def look() -> View:
            if process.code is not None:
                raise AssertionError(f"the client has ended: {process}")
            return View([event["transport"] for event in said("transport")], len(said("n")))

        await until(lambda: server.subscribers(_CHANNEL), "the client to subscribe", seen=lambda: str(process))
        await Journey(server, nginx, _CHANNEL, look, best).travel()
        messages = said("n")
        self.assert_arrived([event["n"] for event in messages], [event["by"] for event in messages], best=best)
        self.assertEqual([*said("gap"), *said("unsubscribed"), *said("closed")], [])

    async def test_without_websocket(self) -> None:
        """Where Node has no WebSocket, SSE is the best that there is; nothing is lost, doubled or out of order."""
        await self._travel("sse", "--no-experimental-websocket")

    async def test_with_websocket(self) -> None:
        """With Node's own WebSocket it goes down from there and up again; nothing is lost, doubled or out of order."""
        await self._travel("websocket", "--experimental-websocket")


class PythonTests(_ClientTests):
    """The Python client."""

    async def test_all_transports(self) -> None:
        """It goes down from WebSocket and up again; nothing is lost, doubled or out of order."""
        server = await Server.start(self)
        nginx = await Nginx.start(self, server.port)
        client = Client(reactor, nginx.network_url, open_timeout=1.5, climb_after=0.25)
        self.addCleanup(client.close)
        transports: list[str | None] = []
        numbers: list[int] = []
        by: list[str | None] = []
        gaps: list[GapPush] = []

        def changed(status: Status) -> None:
            if not transports or transports[-1] != status.transport:
                transports.append(status.transport)

        def received(message: Message) -> None:
            numbers.append(json.loads(message.payload.data)["n"])
            by.append(client.transport)

        async def look() -> View:
            return View(transports, len(numbers))

        client.on_status(changed)
        client.subscribe(_CHANNEL, received, on_gap=gaps.append)
        await until(lambda: server.subscribers(_CHANNEL), "the client to subscribe")
        await Journey(server, nginx, _CHANNEL, look, "websocket").travel()
        self.assert_arrived(numbers, by, best="websocket")
        self.assertEqual(gaps, [])
