"""Leaving and coming back: what becomes of clients and publishers when nodes end, and others take their place."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from random import Random, SystemRandom
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.followers import Got
from tests.support.haproxy import HAProxy
from tests.support.judge import faults_of
from tests.support.nodes import Cluster, Traffic
from tests.support.ports import reserved_port
from tests.support.redis import RedisServer
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until
from tests.support.wire import CLOSE, Frames, Response, frame, get, handshake

_CHANNEL = "demo:all"


class _Peer(Protocol):
    """
    A connection that a test writes to.

    :ivar response: The first answer on it.
    :ivar after: What came after that.
    :ivar gone: Has a result when it is closed.
    """

    transport: Any

    def __init__(self) -> None:
        self.response = Response()
        self.after = b""
        self.gone: Deferred[None] = Deferred()

    @classmethod
    async def connect(cls, test: TestCase, port: int, request: bytes) -> _Peer:
        """Connect, and begin a request."""
        peer = cls()
        test.addCleanup(peer.close)
        await soon(TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(lambda: peer)))
        peer.transport.write(request)
        return peer

    def dataReceived(self, data: bytes) -> None:
        self.after += data if self.response.complete else self.response.feed(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.gone.callback(None)

    def close(self) -> None:
        """Close it."""
        if self.connected:
            self.transport.abortConnection()

    async def answered(self) -> Response:
        """Wait for the answer, which is the last one: its connection ends."""
        await until(lambda: self.response.complete, "an answer", seen=lambda: str(self.response))
        await soon(self.gone)
        return self.response


def _call(name: str, **fields: Any) -> bytes:
    """Return a call of the server API."""
    body = json.dumps(fields).encode()
    head = f"POST /api/v1/{name} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class _BareStream(Protocol):
    """
    An ``EventSource`` of a browser: it comes back when the last ``retry`` says, and gives up at any answer but 200.

    :param position: Where it begins.
    """

    transport: Any

    def __init__(self, test: TestCase, port: int, channel: str, position: Any) -> None:
        self.log: list[Got] = []
        self.problem: object = None
        self.connections = 0
        self.position = position
        self._channel = channel
        self._retry = 0.0
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self._later: Any = None
        self._is_closed = False
        test.addCleanup(self.close)
        self._connect()

    def _connect(self) -> None:
        self._response, self._text = Response(), b""
        self._endpoint.connect(Factory.forProtocol(lambda: self)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.problem = failure

    def connectionMade(self) -> None:
        self.connections += 1
        self.transport.write(get("/sse", {"channel": self._channel}, Last_Event_ID=str(self.position)))

    def dataReceived(self, data: bytes) -> None:
        self._response.feed(data)
        if self._response.status not in (0, 200):
            self.problem = self._response.status
        *events, self._text = (self._text + self._response.body).split(b"\n\n")
        self._response.body = b""
        for event in events:
            fields = dict(line.split(": ", 1) for line in event.decode().splitlines() if not line.startswith(":"))
            self._retry = int(fields.get("retry", self._retry * 1000)) / 1000
            if "event" not in fields and "data" in fields:
                epoch, _, offset = fields["id"].partition(":")
                self.position = type(self.position)(epoch, int(offset))
                self.log.append(Got(self.position, json.loads(fields["data"])["n"]))
            elif fields.get("event") == "gap":
                self.problem = event
        if self._response.complete:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        if not self._is_closed:
            self._later = reactor.callLater(self._retry, self._connect)

    def close(self) -> None:
        """Connect no more."""
        self._is_closed = True
        if self._later is not None and self._later.active():
            self._later.cancel()
        if self.connected:
            self.transport.abortConnection()


@attrs.frozen
class _Balancer:
    """The balancer as publishers see it: like a server."""

    url: str


class RollingTests(TestCase):
    """Two nodes behind HAProxy are restarted, one after the other."""

    timeout = 90

    async def test_rolling_restart(self) -> None:
        """
        No publish fails, no message is lost or comes twice, and every client goes on, bare event streams too.

        All publishers and all clients, one of each transport on each node, go through the balancer.
        """
        seed = int(os.environ.get("RTPUSH_SEED") or SystemRandom().randrange(1 << 32))
        sys.stdout.write(f"(RTPUSH_SEED={seed}) ")
        redis = await RedisServer.start(self)
        ports = [reserved_port(self), reserved_port(self)]
        paths = [
            write_config(
                self,
                {
                    "server": {
                        "listen": f"tcp:{port}:interface=127.0.0.1",
                        "node": f"node{index}",
                        "drain_window": 3,
                        "drain_notice": 1,
                    },
                    "broker": {"engine": "redis"},
                    "redis": {"url": redis.url},
                },
            )
            for index, port in enumerate(ports, 1)
        ]
        nodes = await gatherResults([Deferred.fromCoroutine(Server.start_with(self, path)) for path in paths])
        haproxy = await HAProxy.start(self, ports)
        for name in ("node1", "node2"):
            await haproxy.becomes(name, "UP")
        traffic = Traffic(self, Cluster([_Balancer(haproxy.url)], haproxy), Random(seed), 8_000)  # type: ignore[list-item]
        await traffic.begin()
        streams = [
            _BareStream(self, haproxy.port, traffic.channel, traffic.acknowledged[0]) for _ in range(4)
        ]
        traffic.pace = 0.04

        async def restart() -> None:
            for index, path in enumerate(paths):
                nodes[index].process.signal(signal.SIGTERM)
                self.assertEqual(await soon(nodes[index].process.ended()), -signal.SIGTERM)
                nodes[index] = await Server.start_with(self, path)
                await haproxy.becomes(f"node{index + 1}", "UP")

        await gatherResults([Deferred.fromCoroutine(traffic.publish()), Deferred.fromCoroutine(restart())])
        await traffic.publish_last()
        await traffic.arrive()
        end = traffic.acknowledged[max(traffic.acknowledged)]
        await until(lambda: all(stream.position == end for stream in streams), "the bare streams to arrive")
        sys.stdout.write(f"({traffic}; bare streams: {sum(each.connections for each in streams)} connections) ")

        self.assertEqual([stream.problem for stream in streams if stream.problem is not None], [])
        self.assertEqual(traffic.refused, 0)
        logs: dict[str, Any] = {f"{each.transport} {index}": each.log for index, each in enumerate(traffic.followers)}
        logs |= {f"bare stream {index}": each.log for index, each in enumerate(streams)}
        self.assertEqual(faults_of(traffic.acknowledged, logs, lossless=True)[:10], [])
        self.assertEqual([each.transport for each in traffic.streams if each.connections < 2], [])
        self.assertTrue(all(stream.connections >= 2 for stream in streams))
        for node in nodes:
            self.assertNotIn(b"Traceback", node.process.out + node.process.err)


class LeavingTests(TestCase):
    """One node ends."""

    timeout = 60

    async def _pair(self, **server: object) -> list[Server]:
        """Return two nodes at one Redis, so that each has another one to send its clients to."""
        redis = await RedisServer.start(self)
        starting = [
            Deferred.fromCoroutine(
                Server.start(
                    self,
                    {
                        "server": {"node": name, **server},
                        "broker": {"engine": "redis"},
                        "redis": {"url": redis.url},
                    },
                )
            )
            for name in ("one", "two")
        ]
        nodes: list[Server] = await gatherResults(starting)

        async def know_each_other() -> bool:
            return all([len((await node.call("info"))["nodes"]) == 2 for node in nodes])

        await until(know_each_other, "the nodes to know each other")
        return nodes

    async def test_notice(self) -> None:
        """At first it only says that it is not ready: it still serves all, though with one answer a connection."""
        one, _ = await self._pair(drain_window=8, drain_notice=4)
        stream = await _Peer.connect(self, one.port, get("/sse", {"channel": _CHANNEL}))
        idle = await _Peer.connect(self, one.port, get("/healthz", {}))
        await until(lambda: idle.response.complete, "an answer")
        one.process.signal(signal.SIGTERM)

        async def is_leaving() -> bool:
            ready = await _Peer.connect(self, one.port, get("/readyz", {}))
            await until(lambda: ready.response.complete, "an answer")
            return ready.response.status == 503

        await until(is_leaving, "it to be no longer ready")
        answer = await (await _Peer.connect(self, one.port, _call("publish", channel=_CHANNEL, data=1))).answered()
        self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
        late = await _Peer.connect(self, one.port, get("/sse", {"channel": _CHANNEL}))
        await until(lambda: b"event: open" in late.response.body, "a stream to open")
        self.assertFalse(stream.response.complete)
        for each in (stream, late, idle):
            await soon(each.gone)
        for each in (stream, late):
            self.assertTrue(each.response.complete)
            self.assertIn(b"event: disconnect", each.response.body)
            self.assertIn(b"retry: ", each.response.body.rpartition(b"\n\nid")[2] or each.response.body)
        self.assertEqual(await soon(one.process.ended()), -signal.SIGTERM, one.process)
        self.assertNotIn(b"Traceback", one.process.out + one.process.err)

    async def test_backlog(self) -> None:
        """Who waits to be accepted when it is told to end is served."""
        server = await Server.start(self, {"server": {"drain_window": 10}})
        await server.call("info")
        server.process.signal(signal.SIGSTOP)
        peers = [await _Peer.connect(self, server.port, get("/healthz", {})) for _ in range(50)]
        peers += [await _Peer.connect(self, server.port, _call("publish", channel=_CHANNEL, data=1)) for _ in range(50)]
        server.process.signal(signal.SIGTERM)
        server.process.signal(signal.SIGCONT)
        await soon(server.process.ended())
        self.assertEqual(Counter(peer.response.status for peer in peers), {200: 100}, server.process)

    async def test_half_a_request(self) -> None:
        """A request whose half is there is read to its end, and answered."""
        server = await Server.start(self, {"server": {"drain_window": 10}})
        request = _call("publish", channel=_CHANNEL, data="x")
        peer = await _Peer.connect(self, server.port, request[:-5])
        waiting = await _Peer.connect(self, server.port, handshake("/ws", {"channel": _CHANNEL}))
        await until(lambda: waiting.response.status, "a WebSocket")
        server.process.signal(signal.SIGTERM)
        await until(lambda: b"disconnect" in waiting.after, "the end to begin")
        peer.transport.write(request[-5:])
        answer = await peer.answered()
        self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
        waiting.close()
        await soon(server.process.ended())

    async def test_refused_soon(self) -> None:
        """Without another node to go to, connections are refused at once, so that those who come can be told apart."""
        server = await Server.start(self, {"server": {"drain_window": 20}})
        held = await _Peer.connect(self, server.port, handshake("/ws", {"channel": _CHANNEL}))
        await until(lambda: held.response.status, "a WebSocket")
        server.process.signal(signal.SIGTERM)
        await until(lambda: b"disconnect" in held.after, "it to be told")
        # Whoever comes now comes to the next process, which can listen already.
        next_one = await Server.start(
            self, {"server": {"listen": f"tcp:{server.port}:interface=127.0.0.1", "node": "next"}}
        )
        self.assertEqual((await next_one.call("info"))["nodes"][0]["node"], "next")
        held.close()
        await soon(server.process.ended())

    async def _busy(self) -> tuple[Server, _Peer]:
        """Return a server that has a request which takes longer than the test, and that has much time to end."""
        redis = await RedisServer.start(self)
        server = await Server.start(
            self,
            {
                "server": {"drain_window": 300},
                "broker": {"engine": "redis"},
                "redis": {"url": redis.url, "timeout": 60},
            },
        )
        await until(lambda: _is_ready(self, server), "it to be ready")
        redis.pause()
        self.addCleanup(redis.resume)
        peer = await _Peer.connect(self, server.port, _call("publish", channel=_CHANNEL, data=1))
        told = await _Peer.connect(self, server.port, get("/healthz", {}))
        await until(lambda: told.response.complete, "both requests to be read")
        return server, peer

    async def _second_signal(self, first: signal.Signals, second: signal.Signals) -> None:
        server, peer = await self._busy()
        server.process.signal(first)
        await until(lambda: not _listens(server.port), "it to stop listening", every=0.01)
        self.assertFalse(peer.gone.called)
        server.process.signal(second)
        self.assertEqual(await soon(server.process.ended()), -first, server.process)
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)

    async def test_second_sigterm(self) -> None:
        """A second SIGTERM ends it at once, whatever there is to wait for."""
        await self._second_signal(signal.SIGTERM, signal.SIGTERM)

    async def test_ctrl_c_after_sigterm(self) -> None:
        """So does Ctrl-C."""
        await self._second_signal(signal.SIGTERM, signal.SIGINT)

    async def test_ctrl_c(self) -> None:
        """Ctrl-C ends it in haste, but in good order: clients are told to come back soon."""
        server = await Server.start(self, {"server": {"drain_window": 300, "drain_notice": 200}})
        websocket = await _Peer.connect(self, server.port, handshake("/ws", {"channel": _CHANNEL}))
        await until(lambda: websocket.response.status, "a WebSocket")
        server.process.signal(signal.SIGINT)
        self.assertEqual(await soon(server.process.ended()), -signal.SIGINT, server.process)
        *pushes, (opcode, closing) = Frames().feed(websocket.after)
        self.assertEqual((opcode, int.from_bytes(closing[:2], "big")), (CLOSE, 1012))
        after = json.loads(pushes[-1][1])["disconnect"]["after"]
        self.assertLess(after, 0.5)

    async def test_closed_at_once(self) -> None:
        """It ends as soon as the last client has gone, however much time it has."""
        one, two = await self._pair(drain_window=300, drain_notice=0)
        websocket = await _Peer.connect(self, one.port, handshake("/ws", {"channel": _CHANNEL}))
        await until(lambda: websocket.response.status, "a WebSocket")
        one.process.signal(signal.SIGTERM)
        await until(lambda: any(op == CLOSE for op, _ in Frames().feed(websocket.after)), "it to be told")
        websocket.transport.write(frame(CLOSE, (1000).to_bytes(2, "big")))
        self.assertEqual(await soon(one.process.ended()), -signal.SIGTERM, one.process)
        self.assertEqual((await two.call("info"))["nodes"][0]["leaving"], False)


async def _is_ready(test: TestCase, server: Server) -> bool:
    peer = await _Peer.connect(test, server.port, get("/readyz", {}, Connection="close"))
    return (await peer.answered()).status == 200


def _listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    state = f":{port:04X} 00000000:0000 0A "
    with open("/proc/net/tcp") as table:
        return any(state in line for line in table)
