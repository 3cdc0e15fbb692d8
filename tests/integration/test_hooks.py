"""Clients of a real server that asks a real application: Node, and Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

import rtpush
from rtpush.client import Client, ServerEnded
from rtpush.client.negotiation import TRANSPORTS
from rtpush.protocol.lifecycle import State
from tests.hooks.backends import Backend
from tests.support.processes import Process, program
from tests.support.server import Server
from tests.support.waiting import soon, until

_DRIVER = Path(__file__).with_name("hooked.mjs")
_MODULE = Path(rtpush.__file__).parent / "static" / "client" / "rtpush.js"
_ANN = {"user": "ann", "channels": {"room:*": ["subscribe", "publish"]}, "data": {"welcome": "Ann"}}


def _answer(question: Any) -> Any:
    """What the application says: a WebSocket of Node has no headers, so that says who it is in ``connect``."""
    said = question.get("data") if question["event"] == "connect" else None
    cookie = said["cookie"] if said else question.get("headers", {}).get("cookie")
    match question["event"]:
        case "connect":
            return _ANN if cookie == "session=ann" else {"deny": {"message": "log in first"}}
        case "subscribe":
            return {"data": {"topic": question["channel"]}}
        case "publish":
            return {"data": "****"}
    return {}


class HookTests(TestCase):
    """What the application says is heard, on each transport; who is not let in does not come back."""

    timeout = 90

    async def serve(self) -> tuple[Server, Backend]:
        """Start an application and a server."""
        backend = Backend(self, _answer)
        hooks = {"url": backend.url, "secrets": "a-secret-of-32-characters-or-more-7c1f"}
        room = {"history_size": 100, "subscribe": "token", "publish": "token"}
        return await Server.start(self, {"hooks": hooks, "namespace:room": room}), backend

    async def test_node(self) -> None:
        """The JavaScript client, in Node."""
        node, flag = program("node"), "--experimental-websocket"
        knows = subprocess.run([node, flag, "-e", "0"], capture_output=True, check=False).returncode == 0
        server, backend = await self.serve()

        def follow(transport: str, cookie: str) -> Process:
            command = [node, *([flag] if knows else []), str(_DRIVER), _MODULE.as_uri(), server.url]
            return Process(self, [*command, f"room:{transport}", transport, cookie])

        def said(process: Process, name: str) -> list[Any]:
            # The last line may not be there in full.
            lines = process.out[: process.out.rfind(b"\n") + 1].splitlines()
            return [event[name] for event in map(json.loads, lines) if name in event]

        for transport in [name for name in TRANSPORTS[:3] if knows or name != "websocket"]:
            let_in = follow(transport, "session=ann")
            await until(lambda p=let_in: said(p, "message"), f"{transport}: the message", seen=lambda p=let_in: str(p))
            self.assertIn({"welcome": "Ann"}, said(let_in, "connected"))
            self.assertIn({"topic": f"room:{transport}"}, said(let_in, "subscribed"))
            self.assertEqual(said(let_in, "message"), ["****"])
            kept_out = follow(transport, "session=eve")
            await until(
                lambda p=kept_out: "closed" in said(p, "state"), f"{transport}: the end", seen=lambda p=kept_out: str(p)
            )
            self.assertIn("log in first", said(kept_out, "error")[-1])
            self.assertEqual((said(kept_out, "code")[-1], said(kept_out, "connected")), (102, []))

    async def test_python(self) -> None:
        """The Python client."""
        server, _ = await self.serve()
        for transport in TRANSPORTS[:3]:
            channel = f"room:{transport}"
            heard: list[Any] = []

            def make(session: str, name: str = transport) -> Client:
                headers = {"cookie": f"session={session}"}
                client = Client(reactor, server.url, transports=[name], headers=headers)
                self.addCleanup(client.close)
                return client

            client = make("ann")
            client.on_data(heard.append)
            subscription = client.subscribe(
                channel, lambda message, to=heard: to.append(message.data), on_data=heard.append
            )
            await soon(subscription.when_live())
            await soon(client.publish(channel, "darn"))
            await until(lambda got=heard: "****" in got, f"{transport}: the message")
            self.assertIn({"welcome": "Ann"}, heard)
            self.assertIn({"topic": channel}, heard)
            self.assertEqual((client.data, heard.count("****")), ({"welcome": "Ann"}, 1))
            ends: list[Exception] = []
            kept_out = make("eve")
            kept_out.subscribe(channel, bool, on_end=ends.append)
            await until(lambda c=kept_out: c.state is State.CLOSED, f"{transport}: the end")
            [end] = ends
            assert isinstance(end, ServerEnded)
            self.assertEqual((end.code, end.reason), (4503, f"{transport}: log in first"))
