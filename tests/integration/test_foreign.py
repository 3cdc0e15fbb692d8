"""Publishing through Redis without us: redis-cli, and a client in another language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, TestCase

from rtpush.client import Client
from rtpush.protocol.message import Message
from tests.support.processes import Process, program
from tests.support.redis import RedisServer
from tests.support.server import Server
from tests.support.waiting import soon, until

#: Where Debian keeps the modules of Node.
_MODULES = Path("/usr/share/nodejs")

_PUBLISH = Path(__file__).with_name("publish.cjs")


class ForeignTests(TestCase):
    """A node, and one who follows a channel there."""

    timeout = 60

    async def setUp(self) -> None:
        """Start a Redis and a node, and follow a channel."""
        self.redis = await RedisServer.start(self)
        changes: dict[str, dict[str, object]] = {
            "broker": {"engine": "redis"},
            "redis": {"url": self.redis.url},
            "namespace:demo": {"history_size": 1000},
            "limits": {"message_bytes": 1000, "request_bytes": 10_000},
        }
        self.server = await Server.start(self, changes)
        self.messages: list[Message] = []
        client = Client(reactor, self.server.url)
        self.addCleanup(client.close)
        client.subscribe("demo:f", self.messages.append)

        async def follows() -> bool:
            return await self.server.subscribers("demo:f") == 1

        await until(follows, "the subscription", seen=lambda: str(self.server.process))

    async def cli(self, *arguments: str) -> str:
        """Run redis-cli; return what it prints."""
        command = [program("redis-cli"), "-p", str(self.redis.port), *arguments]
        process = Process(self, command)
        self.assertEqual(await soon(process.ended()), 0, process)
        return process.out.decode().rstrip("\n")

    async def got(self, count: int) -> list[tuple[Any, str | None]]:
        """Wait for messages; return their data and events."""
        await until(lambda: len(self.messages) >= count, f"{count} messages", seen=lambda: str(self.messages))
        return [(message.data, message.event) for message in self.messages]

    async def test_redis_cli(self) -> None:
        """FCALL and EVALSHA publish, with all that a message may have."""
        first = await self.cli("FCALL", "rtpush_publish", "1", "demo:f", '{"n": 1}')
        epoch, offset = first.split(":")
        self.assertEqual(offset, "1")
        self.assertEqual(await self.cli("FCALL", "rtpush_publish", "1", "demo:f", "hello", "event", "e"), f"{epoch}:2")
        self.assertEqual(await self.cli("FCALL", "rtpush_publish", "1", "demo:f", "42", "kind", "text"), f"{epoch}:3")
        self.assertEqual(await self.cli("FCALL", "rtpush_publish", "1", "demo:f", "1", "history", "no"), "")
        sha = await self.cli("HGET", "rtpush:scripts", "publish")
        self.assertEqual(await self.cli("EVALSHA", sha, "1", "demo:f", "[]", "key", "k"), f"{epoch}:4")
        self.assertEqual(await self.cli("EVALSHA", sha, "1", "demo:f", "[]", "key", "k"), f"{epoch}:4")
        self.assertEqual(
            await self.got(5), [({"n": 1}, None), ("hello", "e"), ("42", None), (1, None), ([], None)]
        )
        history = await self.server.call("history", channel="demo:f")
        self.assertEqual([message["data"] for message in history["messages"]], [{"n": 1}, "hello", "42", []])

    async def test_mistakes(self) -> None:
        """What cannot be published is refused, in the words of the HTTP API."""
        for arguments, said in (
            (("1", "nowhere:f", "1"), "unknown_channel"),
            (("1", "demo:a b", "1"), "bad_channel"),
            (("1", "demo:a\\b", "1"), "bad_channel"),
            (("1", "demo:" + "x" * 251, "1"), "bad_channel"),
            (("1", "demo:f", "x" * 1001), "message_too_large"),
            (("1", "demo:f", "1", "kind", "xml"), "bad_request"),
            (("1", "demo:f", "1", "color", "red"), "bad_request"),
            (("1", "demo:f", "1", "event"), "expected one key"),
            (("1", "demo:f", "1", "event", "open"), "bad_request"),
            (("1", "demo:f", "1", "event", "a\nb"), "bad_request"),
            (("1", "demo:f", "1", "history", "maybe"), "bad_request"),
            (("1", "demo:f", "1", "key", "k" * 129), "bad_request"),
            (("1", "demo:f"), "expected one key"),
            (("2", "demo:f", "demo:g", "1"), "expected one key"),
        ):
            with self.subTest(arguments=arguments):
                self.assertIn(said, await self.cli("FCALL", "rtpush_publish", *arguments))
        await self.cli("FCALL", "rtpush_publish", "1", "demo:f", '"well"')
        self.assertEqual(await self.got(1), [("well", None)])

    async def test_node(self) -> None:
        """The client of Node publishes, and many calls at once are in order."""
        if not (_MODULES / "redis").exists():
            raise SkipTest("node-redis is missing")
        command = [program("node"), str(_PUBLISH), self.redis.url, "demo:f", "100"]
        process = Process(self, command, env={"NODE_PATH": str(_MODULES)})
        self.assertEqual(await soon(process.ended()), 0, process)
        told = json.loads(process.out)
        epoch = told["once"].split(":")[0]
        self.assertEqual(told["positions"], [f"{epoch}:{offset}" for offset in range(1, 101)])
        self.assertEqual((told["once"], told["again"]), (f"{epoch}:101", f"{epoch}:101"))
        expected = [({"n": number}, None) for number in range(1, 101)]
        self.assertEqual(await self.got(101), [*expected, ("only once", "greeting")])
