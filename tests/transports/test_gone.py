"""Clients that go away: at every byte of what they send, and of what they get; nothing of them stays."""

from __future__ import annotations

import json
import os
import socket
import struct

from rtpush.registry.channel import Channel
from rtpush.registry.connection import Connection
from rtpush.registry.subscription import Subscription
from rtpush.transports.front import HttpConnection
from rtpush.transports.request import LeanRequest
from rtpush.transports.websocket import PushWebSocket
from tests.transports.loopback import LoopbackTestCase
from tests.transports.serving import instances_of, request_bytes, target
from tests.transports.sockets import (
    CONTINUATION,
    HANDSHAKE,
    PING,
    TEXT,
    SocketTestCase,
    close_frame,
    frame,
)

_PUBLISH = json.dumps({"channel": "demo:a", "data": "é"}).encode()

#: What clients send, each a whole conversation.
REQUESTS = {
    "get": request_bytes("/healthz"),
    "publish": request_bytes("/api/v1/publish", method="POST", body=_PUBLISH),
    "chunked": request_bytes("/emit", method="POST", headers={"Transfer-Encoding": "chunked"})
    + b'b\r\n{"ping":{}}\r\n0\r\n\r\n',
    "short poll": request_bytes("/poll?channel=demo:a,b&timeout=0"),
    "long poll": request_bytes("/poll?channel=demo:a,b") + request_bytes("/poll?channel=demo:a"),
    "stream": request_bytes("/sse?channel=demo:a,b&envelope=1&since=earliest"),
    "stream with more": request_bytes("/sse?channel=demo:a") + request_bytes("/healthz"),
    "bad": request_bytes("/sse?channel=unknown:a") + b"\xff\r\n\r\n",
    "websocket": request_bytes("/ws?channel=demo:a", headers=HANDSHAKE)
    + frame(TEXT, b'{"id":1,"subscribe":{"channel":"b"}}')
    + frame(TEXT, b'[{"id":2,"publish":{"channel":"demo:a"', fin=False)
    + frame(PING, b"x")
    + frame(CONTINUATION, b',"data":1}},{"id":3,"ping":{}}]')
    + close_frame(1000, b"bye"),
    "raw": request_bytes("/ws?channel=demo:a", headers={**HANDSHAKE, "Sec-WebSocket-Protocol": "rtpush.raw"})
    + frame(TEXT, b"hello")
    + frame(TEXT, b"not masked", masked=False),
}


class RequestTests(SocketTestCase):
    """At every byte of what is sent."""

    def test_every_byte(self) -> None:
        """Whatever part of a request has come, nothing of the client stays when it goes."""
        for name, data in REQUESTS.items():
            for cut in range(len(data) + 1):
                client = self.client()
                client.send(data[:cut])
                client.lose()
                self.assertEqual(self.node.connections, {}, (name, cut))
                self.assertEqual([each for each in self.node.channels.values() if len(each)], [], (name, cut))
            self.assert_nobody()
            self.assertEqual(self.call("presence", channel="demo:a"), {"connections": []})

    def test_every_byte_unread(self) -> None:
        """The same with a client that has read nothing of what came."""
        for name, data in REQUESTS.items():
            for cut in range(0, len(data) + 1, 3):
                client = self.client()
                client.wire.stick()
                client.send(data[:cut])
                client.lose()
                self.assertEqual(self.node.connections, {}, (name, cut))
            self.assert_nobody()

    def test_while_something_comes(self) -> None:
        """The same while messages come: those who stay get them all."""
        witness = self.socket(target("/ws", channel="c"))
        witness.heard()
        for n, cut in enumerate(range(0, 400, 7)):
            for data in REQUESTS.values():
                client = self.client()
                client.send(data.replace(b"demo:a", b"c")[:cut])
                self.call("publish", channel="c", data=n)
                client.wire.go()
            self.clock.advance(0)
        heard = [each["message"]["offset"] for each in witness.heard()]
        self.assertEqual(heard, list(range(1, len(heard) + 1)))
        self.assertEqual(len(heard), 58 * len(REQUESTS))

    def test_in_the_same_turn(self) -> None:
        """One that goes in the turn in which it would be answered disturbs nobody."""
        for path in ("/poll?channel=demo:a", "/sse?channel=demo:a", "/sse?channel=demo:a,b"):
            clients = [self.client() for _ in range(5)]
            for client in clients:
                client.request(path)
                client.take()
            # Not yet delivered, which the next turn does.
            self.client().wire.come(REQUESTS["publish"])
            clients[0].wire.go()
            clients[3].wire.go()
            self.clock.advance(0)
            self.assertEqual([bool(client.take()) for client in clients], [False, True, True, False, True], path)
            for client in clients:
                client.lose()
            self.assert_nobody()

    def test_before_it_is_cut_off(self) -> None:
        """One that goes after it was told to go is no error either."""
        for path in ("/ws?channel=demo:a", "/sse?channel=demo:a", "/poll?channel=demo:a"):
            client = self.client()
            client.request(path, headers=HANDSHAKE if path.startswith("/ws") else None)
            self.call("disconnect", channel="demo:a")
            client.lose()
            self.pump(10, 1)
            self.assert_nobody()

    def test_objects(self) -> None:
        """Nothing keeps what belonged to a client that is gone."""
        kinds = (Connection, Subscription, Channel, HttpConnection, LeanRequest, PushWebSocket)
        before = instances_of(*kinds)
        for n in range(20):
            for data in REQUESTS.values():
                client = self.client()
                client.send(data[: len(data) - n * n % 50])
                client.lose()
        del client
        self.pump(60, 1)
        self.assertEqual(instances_of(*kinds), before)


class AnswerTests(LoopbackTestCase):
    """At every byte of what comes, over real sockets."""

    async def test_every_byte(self) -> None:
        """However much of an answer a client has read, nothing of it stays when it goes, with or without a reset."""
        for name, last in (
            ("publish", b'"offset"'),
            ("short poll", b'"recovered"'),
            ("stream", b'"recovered":true}\n\n'),
            # These two are ended by the server.
            ("websocket", b"\0" * 20),
            ("bad", b"\0" * 20),
        ):
            data = REQUESTS[name].replace(b"&since=earliest", b"").replace(b'"demo:a"', b'"demo:b"')
            client = await self.connect()
            client.transport.write(data)
            await client.until_received(last)
            whole = len(client.received)
            client.reset()
            self.assertGreater(whole, 50)
            for size in range(whole + 1):
                client = await self.connect()
                client.transport.write(data)
                await client.until(lambda size=size, client=client: len(client.received) >= size or client.lost)
                if size % 2:
                    client.reset()
                else:
                    client.transport.loseConnection()
                await client.until_lost()
            await self.nobody()

    async def test_while_messages_come(self) -> None:
        """The same at any byte of a stream of messages, on which those who stay get everything."""
        witness = await self.connect()
        witness.transport.write(request_bytes("/sse?channel=none:a"))
        await witness.until_received(b"event: open")
        count = 0
        for n in range(60):
            client = await self.connect()
            path = ("/sse?channel=none:a", "/poll?channel=none:a", "/ws?channel=none:a")[n % 3]
            client.transport.write(request_bytes(path, headers=HANDSHAKE if n % 3 == 2 else None))
            await self.settle(lambda: len(self.node.connections) >= 2)
            publisher = await self.connect()
            body = json.dumps({"messages": [{"channel": "none:a", "data": "x" * 500}] * 10}).encode()
            publisher.transport.write(request_bytes("/api/v1/publish_batch", method="POST", body=body))
            count += 10
            await client.until(lambda n=n, client=client: len(client.received) > 100 + n * 97 % 5000 or client.lost)
            client.reset()
            await publisher.until_received(b'"responses"')
            publisher.transport.loseConnection()
            await publisher.until_lost()
            await client.until_lost()
            await self.settle(lambda: len(self.node.connections) == 1)
        await witness.until(lambda: witness.received.count(b"\ndata: ") >= count)
        self.assertEqual(witness.received.count(b"\ndata: xxx"), count)
        witness.transport.loseConnection()
        await witness.until_lost()
        await self.nobody()


class ManyTests(LoopbackTestCase):
    """Very many clients."""

    async def test_five_thousand(self) -> None:
        """Five thousand connections, opened and dropped in every way, leave no object and no file descriptor."""
        kinds = (Connection, Subscription, Channel, HttpConnection, LeanRequest, PushWebSocket)
        requests = [data.replace(b"&since=earliest", b"") for data in REQUESTS.values()]

        async def wave(size: int) -> None:
            self.channels.clear()
            clients = []
            for n in range(size):
                # The kernel connects them, a few at a time, before the node knows of them.
                clients.append(socket.create_connection(("127.0.0.1", self.port)))
                clients[-1].sendall(requests[n % len(requests)])
                if n % 40 == 39:
                    await self.settle(lambda n=n: len(self.channels) == n + 1)
            for n, client in enumerate(clients):
                if n % 3 == 0:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            await self.settle(lambda: not any(each.transport.connected for each in self.channels))
            self.channels.clear()
            await self.nobody()

        await wave(200)
        before, descriptors = instances_of(*kinds), len(os.listdir("/proc/self/fd"))
        for _ in range(25):
            await wave(200)
        self.assertEqual(instances_of(*kinds), before)
        self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)
