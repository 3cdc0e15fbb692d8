"""Clients whose connections are cut at random points, again and again, while many messages are published."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from rtpush.client import Client
from rtpush.protocol.message import Message
from tests.support.cutting import MOST, CuttingProxy
from tests.support.server import Server
from tests.support.waiting import until
from tests.support.wire import BINARY, PING, PONG, TEXT, Frames, Response, frame, get, handshake

_CHANNEL = "demo:cuts"
_MESSAGES = 10_000
_CUTS = 200

#: So that a cut is more often in a message than between two.
_PADDING = "x" * 40

#: How many messages publishing may be ahead of the cuts: more than a connection carries before it is cut.
_AHEAD = 2 * MOST // len(_PADDING)

#: So that the last cut does not wait for messages after the last.
_MESSAGES_A_CUT = (_MESSAGES - _AHEAD) // _CUTS


class _Follower:
    """
    A client that comes back at once, from where it was, whenever it is cut.

    :ivar cursor: Where it is.
    :ivar numbers: What it got.
    :ivar problem: What it got that it should not.
    """

    def __init__(self, port: int, cursor: str, random: Random, protocol: Callable[[_Follower], Protocol]) -> None:
        self.cursor = cursor
        self.random = random
        self.numbers: list[int] = []
        self.problem: object = None
        self.connection: Any = None
        self._protocol = protocol
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self._ended = False

    def connect(self) -> None:
        """Connect, from now on always again."""
        if not self._ended:
            self._endpoint.connect(Factory.forProtocol(lambda: self._protocol(self))).addErrback(self._not_connected)

    def close(self) -> None:
        """Connect no more."""
        self._ended = True
        if self.connection is not None:
            self.connection.abortConnection()

    def got(self, cursor: str, data: Any) -> None:
        """Take a message."""
        self.cursor = cursor
        self.numbers.append(data["n"])

    def _not_connected(self, failure: Failure) -> None:
        if not self._ended:
            self.problem = failure.value


class _Following(Protocol):
    """One connection of a follower."""

    transport: Any

    def __init__(self, follower: _Follower) -> None:
        self.follower = follower
        self.response = Response()

    def connectionMade(self) -> None:
        self.follower.connection = self.transport
        self.transport.write(self.request())

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.follower.connection = None
        self.follower.connect()

    def dataReceived(self, data: bytes) -> None:
        try:
            self.take(data)
        except Exception as error:
            self.follower.problem = error
            raise

    def request(self) -> bytes:
        """Return what to begin with."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Take what came."""
        raise NotImplementedError

    def must(self, truth: object, what: object) -> None:
        """Note a problem if something is not as it must be."""
        if not truth:
            self.follower.problem = what


class _WebSocket(_Following):
    """``rtpush.v1``: now and then the query subscribes, else a command."""

    def __init__(self, follower: _Follower) -> None:
        super().__init__(follower)
        self._frames = Frames()
        self._by_query = follower.random.random() < 0.5

    def request(self) -> bytes:
        query = {"channel": _CHANNEL, "cursor": self.follower.cursor} if self._by_query else {}
        return handshake("/ws", query)

    def take(self, data: bytes) -> None:
        if not self.response.complete:
            data = self.response.feed(data)
            if not self.response.complete:
                return
            self.must(self.response.status == 101, self.response)
            if not self._by_query:
                subscribe = {"channel": _CHANNEL, "cursor": self.follower.cursor}
                self.transport.write(frame(TEXT, json.dumps({"id": 1, "subscribe": subscribe}).encode()))
        for opcode, payload in self._frames.feed(data):
            if opcode == PING:
                self.transport.write(frame(PONG, payload))
            else:
                self.take_payload(opcode, payload)

    def take_payload(self, opcode: int, payload: bytes) -> None:
        """Take a frame that is not a ping."""
        self.must(opcode == TEXT, (opcode, payload))
        push = json.loads(payload)
        if "message" in push:
            message = push["message"]
            self.follower.got(f"{message['epoch']}:{message['offset']}", message["data"])
        else:
            told = push.get("subscribed") or push.get("subscribe")
            self.must(told and told["recovered"] is True, push)
            self.must(told and f"{told['epoch']}:{told['offset']}" == self.follower.cursor, push)


class _RawWebSocket(_WebSocket):
    """``rtpush.raw``: it counts by itself how far it is."""

    def request(self) -> bytes:
        self._by_query = True
        return handshake("/ws", {"channel": _CHANNEL, "cursor": self.follower.cursor}, "rtpush.raw")

    def take_payload(self, opcode: int, payload: bytes) -> None:
        self.must(opcode in (TEXT, BINARY), (opcode, payload))
        epoch, _, offset = self.follower.cursor.partition(":")
        self.follower.got(f"{epoch}:{int(offset) + 1}", json.loads(payload))


class _EventStream(_Following):
    """SSE, with the payloads alone."""

    def __init__(self, follower: _Follower) -> None:
        super().__init__(follower)
        self._text = b""

    def request(self) -> bytes:
        if self.follower.random.random() < 0.5:
            return get("/sse", {"channel": _CHANNEL}, Last_Event_ID=self.follower.cursor)
        return get("/sse", {"channel": _CHANNEL, "cursor": self.follower.cursor})

    def take(self, data: bytes) -> None:
        self.response.feed(data)
        self.must(self.response.status in (0, 200), self.response)
        *events, self._text = (self._text + self.response.body).split(b"\n\n")
        self.response.body = b""
        for event in events:
            fields = dict(line.split(": ", 1) for line in event.decode().splitlines() if not line.startswith(":"))
            if fields.get("event") == "open":
                told = json.loads(fields["data"])
                self.must(told["recovered"] is True and told["cursor"] == self.follower.cursor, event)
            elif "data" in fields:
                self.must("event" not in fields, event)
                self.follower.got(fields["id"], json.loads(fields["data"]))


class _Poll(_Following):
    """Polls, on one connection as long as that lasts."""

    timeout: ClassVar[int]

    def request(self) -> bytes:
        query = {"channel": _CHANNEL, "cursor": self.follower.cursor, "timeout": str(self.timeout)}
        return get("/poll", query, If_None_Match=f'"{self.follower.cursor}"')

    def take(self, data: bytes) -> None:
        self.response.feed(data)
        if not self.response.complete:
            return
        response, self.response = self.response, Response()
        if response.status == 304:
            # Nothing is new, so there is time.
            reactor.callLater(0.01, self.transport.write, self.request())
            return
        self.must(response.status == 200, response)
        answer = json.loads(response.body)
        self.must(answer["recovered"] is True, answer)
        for message in answer["messages"]:
            self.follower.got(f"{message['epoch']}:{message['offset']}", message["data"])
        self.must(answer["cursor"] == self.follower.cursor, (answer["cursor"], self.follower.cursor))
        self.transport.write(self.request())


class _LongPoll(_Poll):
    timeout = 20


class _ShortPoll(_Poll):
    timeout = 0


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

    async def begin(self) -> str:
        """
        Publish one message, after which the clients begin, and return its position.

        One that is cut before it knows where it is could not know what it missed.
        """
        [first] = await self.server.publish(_CHANNEL, [{"n": 0}])
        return "{epoch}:{offset}".format_map(first)

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

    async def _follow(self, protocol: Callable[[_Follower], Protocol]) -> None:
        follower = _Follower(self.proxy.port, await self.begin(), self.random, protocol)
        self.addCleanup(follower.close)
        follower.connect()
        self.problem = lambda: follower.problem
        self.numbers = follower.numbers
        await self.publish()
        await self.arrive()

    async def test_websocket(self) -> None:
        """WebSocket: nothing is lost, doubled or out of order."""
        await self._follow(_WebSocket)

    async def test_raw_websocket(self) -> None:
        """WebSocket with payloads alone: nothing is lost, doubled or out of order."""
        await self._follow(_RawWebSocket)

    async def test_sse(self) -> None:
        """SSE: nothing is lost, doubled or out of order."""
        await self._follow(_EventStream)

    async def test_longpoll(self) -> None:
        """Long polling: nothing is lost, doubled or out of order."""
        await self._follow(_LongPoll)

    async def test_shortpoll(self) -> None:
        """Short polling: nothing is lost, doubled or out of order."""
        await self._follow(_ShortPoll)


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
