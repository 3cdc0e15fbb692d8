"""Clients with tokens for single channels that end again and again, with real servers: Node, and Python."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

import rtpush
from rtpush.client import Client
from rtpush.client.negotiation import TRANSPORTS
from tests.auth.makers import SECRET, oct_token
from tests.support.processes import Process, program
from tests.support.server import Server
from tests.support.waiting import until

_DRIVER = Path(__file__).with_name("channel_tokens.mjs")
_MODULE = Path(rtpush.__file__).parent / "static" / "client" / "rtpush.js"

_CONFIG: dict[str, dict[str, object]] = {
    "auth": {"keys": f"\nhs HS256 {SECRET.decode()}", "leeway": 0},
    "namespace:rights": {"history_size": 1000, "subscribe": "token", "publish": "token"},
}

#: For how many seconds a token is good.
_LASTS = 3

#: How many a client must have needed.
_TOKENS = 4


class _Follower:
    """
    What one client has told.

    :param asked: How many tokens it has needed.
    :param got: All messages.
    :param seen: What it looks like, for the report of a failure.
    """

    def __init__(self, channel: str, asked: Callable[[], int], got: Callable[[], list[Any]], seen: Callable[[], str]):
        self.channel = channel
        self.asked = asked
        self.seen = seen
        self._got = got

    @property
    def numbers(self) -> list[int]:
        """The messages of the test, in the order in which they came."""
        return [each for each in self._got() if isinstance(each, int)]

    def has(self, count: int) -> bool:
        """Tell whether so many have come."""
        return len(self.numbers) >= count

    @property
    def echoes(self) -> list[str]:
        """What it has published itself, and got back."""
        return [each for each in self._got() if isinstance(each, str)]


class ChannelTokenTests(TestCase):
    """A token is replaced before or when it ends; nothing is lost, doubled or out of order."""

    timeout = 120

    async def _last(self, server: Server, followers: list[_Follower]) -> None:
        """Publish until each client has needed several tokens, and see that all came."""
        for follower in followers:
            await until(lambda each=follower: server.subscribers(each.channel), "to subscribe", seen=follower.seen)
        count = 0
        while min(follower.asked() for follower in followers) < _TOKENS:
            count += 1
            for follower in followers:
                await server.publish(follower.channel, [count])
                await until(partial(follower.has, count), f"message {count}", seen=follower.seen)
        for follower in followers:
            await until(lambda each=follower: len(each.echoes) >= count, "all echoes", seen=follower.seen)
            self.assertEqual(follower.numbers, list(range(1, count + 1)))
            self.assertEqual(follower.echoes, [f"echo {number}" for number in range(1, count + 1)])

    async def test_node(self) -> None:
        """The JavaScript client, in Node."""
        node = program("node")
        flag = "--experimental-websocket"
        knows = subprocess.run([node, flag, "-e", "0"], capture_output=True, check=False).returncode == 0
        server = await Server.start(self, _CONFIG)

        def follow(transport: str) -> _Follower:
            channel = f"rights:{transport}"
            command = [node, *([flag] if knows else []), str(_DRIVER), _MODULE.as_uri(), server.url, channel]
            process = Process(self, [*command, transport, SECRET.decode(), str(_LASTS)])

            def said(name: str) -> list[Any]:
                # The last line may not be there in full.
                lines = process.out[: process.out.rfind(b"\n") + 1].splitlines()
                events = [json.loads(line) for line in lines]
                self.assertEqual([event for event in events if "bad" in event], [])
                return [event[name] for event in events if name in event]

            return _Follower(channel, lambda: len(said("asked")), lambda: said("n"), lambda: str(process))

        names = [name for name in TRANSPORTS if knows or name != "websocket"]
        await self._last(server, [follow(name) for name in names if name != "shortpoll"])

    async def test_python(self) -> None:
        """The Python client."""
        server = await Server.start(self, _CONFIG)

        def follow(transport: str) -> _Follower:
            channel = f"rights:{transport}"
            asked: list[str] = []
            got: list[Any] = []
            bad: list[Any] = []

            def token() -> str:
                now = time.time()
                claims = {"iat": int(now), "exp": now + _LASTS, "channel": channel, "actions": ["subscribe", "publish"]}
                asked.append(oct_token({"alg": "HS256", "kid": "hs"}, claims, SECRET).decode())
                return asked[-1]

            def received(message: Any) -> None:
                got.append(message.data)
                if isinstance(message.data, int):
                    client.publish(channel, f"echo {message.data}").addErrback(bad.append)

            client = Client(reactor, server.url, transports=[transport])
            self.addCleanup(client.close)
            client.subscribe(channel, received, token=token, on_gap=bad.append, on_end=bad.append)

            def seen() -> str:
                self.assertEqual(bad, [])
                return f"{client.status} {got[-3:]}"

            return _Follower(channel, lambda: len(asked), lambda: got, seen)

        await self._last(server, [follow(name) for name in TRANSPORTS[:3]])
