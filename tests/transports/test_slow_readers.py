"""
Readers that stop, on real sockets: what the node holds for them is bounded, and when they read again they get what the
policy of the namespace says.
"""

from __future__ import annotations

import json
import socket
import ssl as ssl_module
import tempfile
from collections.abc import Callable
from typing import Any

import attrs
from OpenSSL import crypto
from twisted.internet import reactor
from twisted.internet.ssl import KeyPair
from twisted.internet.task import deferLater

from rtpush.protocol.channel import Access
from rtpush.protocol.commands import Publication
from rtpush.protocol.message import Kind, Payload
from rtpush.registry.subscription import Stage
from tests.transports.loopback import LoopbackTestCase
from tests.transports.serving import events_of
from tests.transports.sockets import CLOSE, HANDSHAKE, PING, TEXT, frame, frames_of

#: The payload of a message begins with its number.
_SIZE = 50_000

#: What a node may hold for a connection: its queue, the buffer of the transport, and a batch or answer for each of the
#: two that may have come when there was still a little room.
_MOST = 1048576 + 65536 + 2 * 300_000

#: The largest reply to a command: as much as may wait.
_REPLY = 1048576

#: More than fits into all buffers of the system.
_VERY_MANY = 2000


class StoppingClient:
    """A client on a socket with little room, whose methods block: they are called in threads."""

    def __init__(self, port: int, tls: bool) -> None:
        self._socket: Any = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", port))
        if tls:
            context = ssl_module.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl_module.CERT_NONE
            self._socket = context.wrap_socket(self._socket)
        self.received = b""

    def ask(self, path: str, headers: dict[str, str] | None = None, times: int = 1) -> None:
        """Send a request, several times if wanted."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.send(f"GET {path} HTTP/1.1\r\nHost: node.example\r\n{lines}\r\n".encode() * times)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def read_until(self, enough: Callable[[bytes], bool]) -> bytes:
        """Read until there is enough, or the end."""
        pieces = [self.received]
        while not enough(b"".join(pieces[-3:])):
            data = self._socket.recv(1 << 20)
            if not data:
                break
            pieces.append(data)
        self.received = b"".join(pieces)
        return self.received

    def close(self) -> None:
        """Go."""
        self._socket.close()


@attrs.frozen
class Told:
    """
    What a client was told, in its order.

    :ivar numbers: Those of the messages.
    :ivar gaps: The offset and reason of each gap, and how many messages came before it.
    """

    numbers: list[int]
    gaps: list[tuple[int, str, int]]


def told_by_frames(data: bytes) -> Told:
    """Read the frames of a WebSocket, after its handshake."""
    told = Told([], [])
    found, _ = frames_of(data.partition(b"\r\n\r\n")[2])
    for each in found:
        if each.opcode == TEXT:
            _take(told, *next(iter(json.loads(each.payload).items())))
    return told


def told_by_events(data: bytes) -> Told:
    """Read an event stream with envelopes, after its head."""
    told = Told([], [])
    body = b""
    rest = data.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    for each in events_of(body[: body.rfind(b"\n\n") + 2]):
        _take(told, each.name, json.loads(each.data))
    return told


def _take(told: Told, name: str, content: Any) -> None:
    if name == "message":
        told.numbers.append(int(content["data"][:6]))
    elif name == "gap":
        told.gaps.append((content["offset"], content["reason"], len(told.numbers)))


class SlowReaderTests(LoopbackTestCase):
    """One who stops to read."""

    sections = (
        "[api]\nopen = yes\n[namespace:strict]\nhistory_size = 1000\nslow_reader = disconnect\n"
        "[namespace:latest]\nhistory_size = 10\nslow_reader = latest\n[namespace:much]\nhistory_size = 5000"
    )
    tls = False

    async def open(self, path: str, headers: dict[str, str] | None = None, times: int = 1) -> StoppingClient:
        """Connect a client, which asks for something and then reads nothing."""
        client = await self.in_thread(StoppingClient, self.port, self.tls)
        self.addCleanup(client.close)
        await self.in_thread(client.ask, path, headers, times)
        return client

    async def publish(self, channel: str, first: int, until: Callable[[], bool], most: int = _VERY_MANY) -> int:
        """Publish messages until something is so; return the number of the last one."""
        for number in range(first, first + most):
            payload = Payload(b"%06d" % number + b"x" * _SIZE, Kind.TEXT)
            await self.node.publish(Publication(channel, payload), Access.SERVER)
            await deferLater(reactor, 0)
            self.check_bound()
            if until():
                return number
        return first + most - 1

    def check_bound(self, most: int = _MOST) -> None:
        """See that no connection holds more than it may, wherever it may hold it."""
        for connection in self.node.connections.values():
            self.assertLessEqual(connection.queued, 1048576)
        for channel in self.channels:
            held, transport = 0, channel.transport
            while transport is not None:
                held += getattr(transport, "_size", 0)
                held += sum(map(len, getattr(transport, "_appSendBuffer", ())))
                held += sum(map(len, getattr(getattr(transport, "_aggregator", None), "_buffer", ())))
                transport = getattr(transport, "transport", None)
            queued = sum(connection.queued for connection in self.node.connections.values())
            self.assertLessEqual(held + queued, most)

    async def stall(self, client: StoppingClient, channel: str) -> int:
        """Publish until the client has stalled, and then some more; return the number of the last message."""
        await self.settle(lambda: channel in self.node.channels and bool(self.node.channels[channel].live))
        (subscription,) = self.node.channels[channel].subscriptions()
        last = await self.publish(channel, 1, lambda: subscription.awaits_room)
        self.assertTrue(subscription.awaits_room, "it has never stalled")
        return await self.publish(channel, last + 1, lambda: False, 60)

    async def resumed(self, client: StoppingClient, channel: str, last: int) -> bytes:
        """Have the client read until a message has come that is published when it is live again."""
        reading = self.in_thread(client.read_until, lambda data: b"%06d" % (last + 1) in data and data[-1:] != b"x")
        (subscription,) = self.node.channels[channel].subscriptions()
        await self.settle(lambda: subscription.stage is Stage.LIVE and not subscription.connection.paused)
        payload = Payload(b"%06d" % (last + 1), Kind.TEXT)
        await self.node.publish(Publication(channel, payload), Access.SERVER)
        data: bytes = await reading
        return data

    async def test_websocket(self) -> None:
        """A WebSocket goes on from history, and misses nothing."""
        client = await self.open("/ws?channel=much:a", HANDSHAKE)
        last = await self.stall(client, "much:a")
        told = told_by_frames(await self.resumed(client, "much:a", last))
        self.assertEqual(told, Told(list(range(1, last + 2)), []))

    async def test_burst(self) -> None:
        """What comes in one turn and is more than the queue holds is no more than that to one who does not read."""
        client = await self.open("/ws?channel=much:a", HANDSHAKE)
        await self.settle(lambda: "much:a" in self.node.channels and bool(self.node.channels["much:a"].live))
        for number in range(1, 301):
            payload = Payload(b"%06d" % number + b"x" * _SIZE, Kind.TEXT)
            self.successResultOf(self.node.publish(Publication("much:a", payload), Access.SERVER))
        for _ in range(3):
            await deferLater(reactor, 0)
            self.check_bound()
        told = told_by_frames(await self.resumed(client, "much:a", 300))
        self.assertEqual(told, Told(list(range(1, 302)), []))

    async def test_event_stream(self) -> None:
        """So does an event stream."""
        client = await self.open("/sse?channel=much:a&envelope=1")
        last = await self.stall(client, "much:a")
        told = told_by_events(await self.resumed(client, "much:a", last))
        self.assertEqual(told, Told(list(range(1, last + 2)), []))

    async def test_gap(self) -> None:
        """Where history does not hold what was missed, there is a gap in the place of that."""
        client = await self.open("/ws?channel=none:a", HANDSHAKE)
        last = await self.stall(client, "none:a")
        told = told_by_frames(await self.resumed(client, "none:a", last))
        count = len(told.numbers) - 1
        self.assertEqual(told, Told([*range(1, count + 1), last + 1], [(last, "history_lost", count)]))
        self.assertLess(count, last)

    async def test_latest(self) -> None:
        """Where only the newest counts, that comes alone, after a gap; nothing was queued meanwhile."""
        for path, tell in (("/ws?", told_by_frames), ("/sse?envelope=1&", told_by_events)):
            name = "latest:" + path[1]
            client = await self.open(f"{path}channel={name}", HANDSHAKE if "ws" in path else None)
            last = await self.stall(client, name)
            self.assertEqual([connection.queued for connection in self.node.connections.values()], [0])
            told = tell(await self.resumed(client, name, last))
            count = len(told.numbers) - 2
            self.assertEqual(told, Told([*range(1, count + 1), last, last + 1], [(last - 1, "skipped", count)]))
            self.assertLess(count, last - 1)
            client.close()
            await self.nobody()

    async def test_disconnect(self) -> None:
        """Where the namespace says so, it is told to go, and the node holds nothing for it any more."""
        client = await self.open("/ws?channel=strict:a", HANDSHAKE)
        await self.settle(lambda: "strict:a" in self.node.channels)
        last = await self.publish("strict:a", 1, lambda: not self.node.channels["strict:a"].subscriptions())
        self.assertEqual(self.node.counts.slow_readers, {"disconnect": 1})
        data = await self.in_thread(client.read_until, lambda data: b"slow_reader" in data)
        found, _ = frames_of(data.partition(b"\r\n\r\n")[2])
        self.assertEqual((found[-1].opcode, found[-1].code, found[-1].reason), (CLOSE, 4000, "slow_reader"))
        numbers = told_by_frames(data).numbers
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertLess(len(numbers), last)
        client.close()
        await self.nobody()

    async def test_answers_that_are_not_read(self) -> None:
        """Of requests whose answers are not read, no more are answered than fit, until they are."""
        await self.publish("much:a", 1, lambda: False, 30)
        path = "/poll?channel=much:a&since=earliest"
        client = await self.open(path, times=200)
        done = 0
        while done < self.node.counts.transports["longpoll"].accepted:
            done = self.node.counts.transports["longpoll"].accepted
            for _ in range(20):
                await deferLater(reactor, 0)
                self.check_bound()
        self.assertLess(done, 100)
        ending = b'"data":"%06d' % 1
        reading = self.in_thread(client.read_until, lambda data: False)
        await self.settle(lambda: self.node.counts.transports["longpoll"].accepted == 200)
        self.check_bound()
        await self.settle(lambda: self.node.counts.transports["longpoll"].present == 0)
        await self.in_thread(client.send, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertEqual((await reading).count(ending), 200)

    async def test_replies_that_are_not_read(self) -> None:
        """The same for commands of a WebSocket, and its pings: they are read no more."""
        await self.publish("much:a", 1, lambda: False, 100)
        for data in (frame(TEXT, b'{"id":1,"history":{"channel":"much:a"}}'), frame(PING, b"x" * 125) * 200):
            client = await self.open("/ws", HANDSHAKE)
            await self.settle(lambda: bool(self.node.connections))
            (connection,) = self.node.connections.values()
            for _ in range(2000):
                if connection.paused:
                    break
                await self.in_thread(client.send, data)
                await deferLater(reactor, 0)
                # One may have come when there was still a little room.
                self.check_bound(_MOST + _REPLY)
            self.assertTrue(connection.paused)
            client.close()
            await self.nobody()


class TlsSlowReaderTests(SlowReaderTests):
    """The same over TLS, which has buffers of its own."""

    tls = True

    async def setUp(self) -> None:
        """Listen with a certificate."""
        certificate = KeyPair.generate(size=2048).selfSignedCert(1, CN="localhost")
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(certificate.dumpPEM() + certificate.privateKey.dump(crypto.FILETYPE_PEM))
            file.flush()
            self.endpoint = f"ssl:0:interface=127.0.0.1:privateKey={file.name}"
            await super().setUp()
