"""Tests of what users test with."""

from __future__ import annotations

import json
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody

from rtpush.client import Client
from rtpush.errors import RtpushError
from rtpush.protocol.position import Position
from rtpush.testing import InMemoryServer


class _Collector(Protocol):
    """Takes the body of a response as it comes."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class _WebSocket(WebSocketClientProtocol):
    """Keeps the frames that it gets."""

    def onOpen(self) -> None:
        self.factory.opened = self
        self.frames: list[Any] = []

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.frames.append(json.loads(payload))


class InMemoryServerTests(SynchronousTestCase):
    """A server in memory."""

    def setUp(self) -> None:
        self.server = InMemoryServer()
        self.addCleanup(self.server.close)

    def request(self, path: str, method: bytes = b"GET") -> Any:
        """Make a request; return its response, whose body may still come."""
        response: Deferred[Any] = self.server.agent().request(method, f"http://memory{path}".encode())
        self.server.advance()
        return self.successResultOf(response)

    def test_example(self) -> None:
        """What the documentation of the module shows works, on each transport."""
        for transport in ("websocket", "sse", "longpoll"):
            got: list[Any] = []
            client = Client(self.server.clock, self.server.url, endpoints=self.server, transports=(transport,))
            client.subscribe("demo:prices", got.append)
            self.server.advance()
            self.server.publish("demo:prices", {"eur": 41.2})
            self.server.advance()
            self.assertEqual([message.data for message in got], [{"eur": 41.2}], transport)
            closed = client.close()
            self.server.advance(1)
            self.successResultOf(closed)

    def test_publish(self) -> None:
        """Publishing gives positions, none without history, and fails as it does over HTTP."""
        first = self.server.publish("demo:a", "text", event="greeting")
        second = self.server.publish("demo:a", b"\x00\x01")
        assert first is not None
        self.assertEqual(second, Position(first.epoch, 2))
        self.assertIsNone(self.server.publish("demo:a", 1, history=False))
        self.assertRaises(RtpushError, self.server.publish, "nowhere:a", 1)
        body = readBody(self.request("/poll?channel=demo:a&since=earliest"))
        self.server.advance()
        messages = json.loads(self.successResultOf(body))["messages"]
        self.assertEqual([message.get("data") for message in messages], ["text", None])
        self.assertEqual(messages[1]["data_b64"], "AAE=")

    def test_held_poll(self) -> None:
        """A poll is held as long as the clock stands, and ends at its timeout."""
        response = self.server.agent().request(b"GET", b"http://memory/poll?channel=demo:a&timeout=20")
        self.server.advance(10)
        self.assertNoResult(response)
        self.server.advance(10)
        body = readBody(self.successResultOf(response))
        self.server.advance()
        self.assertEqual(json.loads(self.successResultOf(body))["messages"], [])

    def test_stream(self) -> None:
        """A stream of events goes on, with heartbeats as time passes."""
        collector = _Collector()
        self.request("/sse?channel=demo:a").deliverBody(collector)
        self.server.publish("demo:a", {"n": 1})
        self.server.advance()
        self.assertIn(b'data: {"n":1}\n\n', collector.data)
        self.server.advance(31)
        self.assertTrue(collector.data.endswith(b":\n\n"), collector.data)

    def test_websocket(self) -> None:
        """Autobahn's own client connects by the endpoint."""
        factory = WebSocketClientFactory("ws://memory/ws?channel=demo:a", protocols=["rtpush.v1"])
        factory.setProtocolOptions(openHandshakeTimeout=0)
        factory.protocol = _WebSocket
        connected = self.server.endpoint().connect(factory)
        self.server.advance()
        self.successResultOf(connected)
        self.server.publish("demo:a", 7)
        self.server.advance()
        self.assertEqual([next(iter(frame)) for frame in factory.opened.frames], ["subscribed", "message"])
        self.assertEqual(len(self.server.node.connections), 1)

    def test_cut_and_restart(self) -> None:
        """A client goes on after a cut, and is told of the gap after a restart."""
        got: list[Any] = []
        gaps: list[Any] = []
        client = Client(self.server.clock, self.server.url, endpoints=self.server)
        client.subscribe("demo:a", got.append, on_gap=gaps.append)
        self.server.advance()
        self.server.publish("demo:a", 1)
        self.server.advance()
        self.server.network.cut()
        self.server.publish("demo:a", 2)
        self.server.advance(5)
        self.assertEqual([message.data for message in got], [1, 2])
        self.server.restart()
        self.server.advance(10)
        self.assertEqual(len(gaps), 1)
        self.server.publish("demo:a", 3)
        self.server.advance()
        self.assertEqual([message.data for message in got], [1, 2, 3])
        closed = client.close()
        self.server.advance(1)
        self.successResultOf(closed)
