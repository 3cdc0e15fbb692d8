"""Clients whose connections are cut at random points, again and again, while many messages are published."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from random import Random, SystemRandom

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from rtpush.client import Client
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from tests.support.cutting import MOST, CuttingProxy
from tests.support.followers import Follower
from tests.support.server import Server
from tests.support.waiting import until

_CHANNEL = "demo:cuts"
_MESSAGES = 10_000
_CUTS = 200

#: So that a cut is more often in a message than between two.
_PADDING = "x" * 40

#: How many messages publishing may be ahead of the cuts: more than a connection carries before it is cut.
_AHEAD = 2 * MOST // len(_PADDING)

#: So that the last cut does not wait for messages after the last.
_MESSAGES_A_CUT = (_MESSAGES - _AHEAD) // _CUTS


class _CutTests(TestCase):
    """What all these tests have in common."""

    timeout = 90

    async def setUp(self) -> None:
        """Start a server, and the proxy that cuts; the seed tells where it cuts."""
        seed = int(os.environ.get("RTPUSH_SEED") or SystemRandom().randrange(1 << 32))
        sys.stdout.write(f"(RTPUSH_SEED={seed}) ")
        self.random = Random(seed)
        self.published = 0
        #: What the client got so far.
        self.numbers: list[int] = []
        #: Tells what went wrong with the client so far, if anything did.
        self.problem: Callable[[], object] = lambda: None
        self.server = await Server.start(self, {"backoff": {"base": 0.001, "max": 0.001, "jitter": 0.02}})
        self.proxy = CuttingProxy(self.server.port, self.random, self._may_cut)
        await self.proxy.start(self)

    def _may_cut(self) -> bool:
        """Spread the cuts over all of the publishing."""
        return self.proxy.cuts < _CUTS and self.proxy.cuts * _MESSAGES_A_CUT <= self.published

    def _progress(self) -> str:
        return f"{self.published} published, {self.proxy.cuts} cuts"

    async def begin(self) -> Position:
        """
        Publish one message, after which the clients begin, and return its position.

        One that is cut before it knows where it is could not know what it missed.
        """
        [first] = await self.server.publish(_CHANNEL, [{"n": 0}])
        return Position(first["epoch"], first["offset"])

    async def publish(self) -> None:
        """Publish everything, in calls of many sizes, as fast as the cuts keep up."""

        def has_room() -> bool:
            self.assertIsNone(self.problem())
            if self.proxy.cuts >= _CUTS or self.published < self.proxy.cuts * _MESSAGES_A_CUT + _AHEAD:
                return True
            if len(self.numbers) == self.published:
                # Nothing more would come to cut: so it is cut while it waits.
                self.proxy.cut()
            return False

        while self.published < _MESSAGES:
            await until(has_room, "a cut", every=0.001, seen=self._progress)
            end = min(self.published + self.random.randrange(1, 40), _MESSAGES)
            numbers = range(self.published + 1, end + 1)
            self.published = end
            await self.server.publish(_CHANNEL, [{"n": number, "padding": _PADDING} for number in numbers])

    async def arrive(self) -> None:
        """Wait until everything has come that was published, and see that it has come once and in order."""

        def all_are_there() -> bool:
            self.assertIsNone(self.problem())
            return len(self.numbers) >= _MESSAGES

        await until(all_are_there, "all messages", seen=lambda: f"{len(self.numbers)} have come")
        self.assertEqual(self.numbers, list(range(1, _MESSAGES + 1)))
        self.assertGreaterEqual(self.proxy.cuts, _CUTS)


class BareClientTests(_CutTests):
    """With clients of a few lines, each of which does just what the protocol says."""

    async def _follow(self, transport: str) -> None:
        follower = Follower(self, self.proxy.port, transport, _CHANNEL, await self.begin(), self.random)
        self.problem = lambda: follower.problem or follower.gaps or follower.refusals or None
        self.numbers = follower.numbers
        await self.publish()
        await self.arrive()

    async def test_websocket(self) -> None:
        """WebSocket: nothing is lost, doubled or out of order."""
        await self._follow("websocket")

    async def test_raw_websocket(self) -> None:
        """WebSocket with payloads alone: nothing is lost, doubled or out of order."""
        await self._follow("raw websocket")

    async def test_sse(self) -> None:
        """SSE: nothing is lost, doubled or out of order."""
        await self._follow("sse")

    async def test_longpoll(self) -> None:
        """Long polling: nothing is lost, doubled or out of order."""
        await self._follow("longpoll")

    async def test_shortpoll(self) -> None:
        """Short polling: nothing is lost, doubled or out of order."""
        await self._follow("shortpoll")


class PythonClientTests(_CutTests):
    """With the Python client. Its short polls are too far between to be cut so often."""

    async def _follow(self, transport: str) -> None:
        url = f"http://127.0.0.1:{self.proxy.port}/"
        client = Client(reactor, url, transports=[transport])
        self.addCleanup(client.close)
        problems: list[object] = []

        def received(message: Message) -> None:
            self.numbers.append(json.loads(message.payload.data)["n"])

        self.problem = lambda: problems or None
        begin = await self.begin()
        client.subscribe(_CHANNEL, received, position=begin, on_gap=problems.append, on_end=problems.append)
        await self.publish()
        await self.arrive()

    async def test_websocket(self) -> None:
        """WebSocket: nothing is lost, doubled or out of order."""
        await self._follow("websocket")

    async def test_sse(self) -> None:
        """SSE: nothing is lost, doubled or out of order."""
        await self._follow("sse")

    async def test_longpoll(self) -> None:
        """Long polling: nothing is lost, doubled or out of order."""
        await self._follow("longpoll")
