"""A server and an application, each as they are in earnest."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from rtpush.client import Client
from rtpush.client.negotiation import TRANSPORTS
from tests.hooks.backends import Backend, is_signed_with
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until
from tests.support.wire import CLOSE, TEXT, Frames, Response, frame, get, handshake

_SECRET, _NEW_SECRET = "old-0123456789-0123456789-0123456789", "new-0123456789-0123456789-0123456789"

_ANN = {
    "user": "ann",
    "info": {"name": "Ann"},
    "channels": {"room:*": ["subscribe", "publish", "presence"]},
    "data": {"welcome": "Ann"},
}


class _Peer(Protocol):
    """
    A connection to the server.

    :ivar response: What was answered.
    :ivar said: What came on it as a WebSocket.
    :ivar code: The code that it was closed with.
    """

    transport: Any

    def __init__(self, request: bytes) -> None:
        self.response = Response()
        self.said: list[Any] = []
        self.code = 0
        self._frames = Frames()
        self._request = request

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if not self.response.complete:
            data = self.response.feed(data)
        for opcode, payload in self._frames.feed(data):
            if opcode == TEXT:
                self.said.append(json.loads(payload))
            elif opcode == CLOSE:
                self.code = int.from_bytes(payload[:2], "big")

    def say(self, *commands: Any) -> None:
        """Send commands in one frame."""
        self.transport.write(frame(TEXT, json.dumps(commands).encode()))

    def leave(self) -> None:
        """Go away."""
        if self.connected:
            self.transport.abortConnection()


class ServedTests(TestCase):
    """The whole way."""

    timeout = 90

    def config(self, backend: Backend, **settings: object) -> dict[str, Mapping[str, object]]:
        """Return a configuration that asks an application."""
        hooks = {"url": backend.url, "secrets": _SECRET, "pause": 0.3, "failures": 3, **settings}
        return {
            "hooks": hooks,
            "log": {"level": "debug"},
            "namespace:room": {
                "history_size": 100,
                "subscribe": "token",
                "publish": "token",
                "presence": "yes",
            },
        }

    async def serve(self, answer: Any = None, **settings: object) -> tuple[Server, Backend]:
        """Start an application and a server."""
        backend = Backend(self, answer or (lambda said: _ANN if said["event"] == "connect" else {}))
        return await Server.start(self, self.config(backend, **settings)), backend

    async def peer(self, server: Server, request: bytes) -> _Peer:
        """Send a request, and wait for an answer."""
        peer = _Peer(request)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
        await soon(endpoint.connect(Factory.forProtocol(lambda: peer)))
        self.addCleanup(peer.leave)
        await until(lambda: peer.response.status, "an answer")
        return peer

    async def poll(self, server: Server, cookie: str = "session=ann") -> tuple[int, Any]:
        """Poll once, and return the status and the answer."""
        request = get("/poll", {"channel": "room:a", "timeout": "0"}, Cookie=cookie, X_Private="private-header")
        peer = await self.peer(server, request)
        await until(lambda: peer.response.complete, "the whole answer")
        peer.leave()
        return peer.response.status, json.loads(peer.response.body)

    async def follow(self, server: Server, transport: str) -> None:
        """Have a client of ours hear what it says itself."""
        got: list[Any] = []
        client = Client(reactor, server.url, transports=[transport], direction="rare")
        self.addCleanup(client.close)
        client.subscribe("room:a", lambda message: got.append(message.data))
        await until(lambda: client.transport == transport, f"{transport} to be in use")
        await soon(client.publish("room:a", transport))
        await until(lambda: got[-1:] == [transport], f"the message over {transport}")
        client.close()

    async def test_clients(self) -> None:
        """Our client, without a token, follows and publishes by what the application has given, on each transport."""
        server, backend = await self.serve()
        for transport in TRANSPORTS:
            await self.follow(server, transport)
        for headers, body in zip(backend.headers, backend.bodies, strict=True):
            self.assertEqual(is_signed_with(_SECRET.encode(), headers, body), [True])
            self.assertEqual(is_signed_with(_NEW_SECRET.encode(), headers, body), [False])
        ids = [headers["webhook-id"] for headers in backend.headers]
        self.assertEqual(len(set(ids)), len(ids))
        self.assertEqual(ids, [said["id"] for said in backend.said])
        await until(lambda: backend.events().count("disconnect") == 2, "the news of two who have left")
        self.assertEqual({said["user"] for said in backend.said if said["event"] == "disconnect"}, {"ann"})

    async def test_away(self) -> None:
        """When the application is away clients hear it; it is left alone for a while; all is well when it is back."""
        server, backend = await self.serve()
        self.assertEqual((await self.poll(server))[0], 200)
        await backend.close()
        for n in range(5):
            status, body = await self.poll(server, f"session={n}")
            self.assertEqual((status, body["error"]["name"]), (503, "unavailable"))
        self.assertEqual((await self.poll(server))[0], 200, "it is remembered")
        metrics = await self.peer(server, get("/metrics", {}))
        await until(lambda: metrics.response.complete, "the metrics")
        text = metrics.response.body.decode()
        self.assertIn('rtpush_hook_requests_total{event="connect",outcome="failed",worker="1"} 3', text)
        self.assertIn('rtpush_hook_requests_total{event="connect",outcome="skipped",worker="1"} 2', text)
        self.assertIn('rtpush_hook_breaker_open{worker="1"} 1', text)
        backend.listen()

        async def is_back() -> bool:
            return (await self.poll(server, "session=new"))[0] == 200

        await until(is_back, "it to be asked again")
        await server.process.says(b"the application answers again")

    async def test_slow(self) -> None:
        """One who waits too long hears it; others are served meanwhile; nothing is left of those who went away."""
        answers: list[Deferred[Any]] = []

        def answer(said: Any) -> Any:
            if said.get("headers", {}).get("cookie") == "slow=1":
                answers.append(Deferred())
                return answers[-1]
            return _ANN if said["event"] == "connect" else {}

        server, backend = await self.serve(answer, timeout=1, failures=100)
        slow = [get(path, {"channel": "room:a"}, Cookie="slow=1") for path in ("/sse", "/poll")]
        gone = [_Peer(request) for request in slow]
        for each in gone:
            await soon(
                TCP4ClientEndpoint(reactor, "127.0.0.1", server.port).connect(Factory.forProtocol(lambda e=each: e))
            )
        await until(lambda: len(answers) == 2, "both to be asked about")
        for each in gone:
            each.leave()
        self.assertEqual((await self.poll(server))[0], 200)
        self.assertEqual((await self.poll(server, "slow=1"))[1]["error"]["name"], "unavailable")
        for each in answers:
            each.callback(None)
        self.assertEqual((await server.call("connections"))["total"], 0)
        await server.process.says(b"no answer within 1 seconds")

    async def test_many(self) -> None:
        """Many at once are asked about a few at a time."""
        pending: list[Deferred[Any]] = []
        most: list[int] = []

        def answer(said: Any) -> Any:
            waiting: Deferred[Any] = Deferred()
            pending.append(waiting)
            most.append(len(pending))
            reactor.callLater(0, lambda: (pending.remove(waiting), waiting.callback(None)))
            return waiting

        server, backend = await self.serve(answer, max_in_flight=4, timeout=20)
        requests = [get("/poll", {"channel": "demo:a", "timeout": "0"}, Cookie=f"n={n}") for n in range(40)]
        peers = await gatherResults([Deferred.fromCoroutine(self.peer(server, each)) for each in requests])
        self.assertEqual({peer.response.status for peer in peers}, {200})
        self.assertEqual(backend.events().count("connect"), 40)
        self.assertLessEqual(max(most), 4)

    async def test_websocket(self) -> None:
        """A WebSocket that is not let in is told and closed; one that is, is told all; its end is told once."""
        server, backend = await self.serve(lambda said: (403, b"<h1>no</h1>"))
        peer = await self.peer(server, handshake("/ws", {}))
        peer.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "room:a"}})
        await until(lambda: peer.code, "the end")
        self.assertEqual((peer.said[0]["error"]["name"], peer.code), ("permission_denied", 4503))
        backend.answer = lambda said: _ANN if said["event"] == "connect" else {}
        peer = await self.peer(server, handshake("/ws", {}))
        peer.say({"id": 1, "connect": {"data": {"secret": "s3cr3t"}}}, {"id": 2, "subscribe": {"channel": "room:a"}})
        await until(lambda: len(peer.said) == 2, "both replies")
        self.assertEqual(peer.said[0]["connect"]["data"], {"welcome": "Ann"})
        peer.leave()
        await until(lambda: "disconnect" in backend.events(), "the news")
        self.assertEqual(backend.events(), ["connect", "connect", "subscribe", "disconnect"])
        self.assertEqual(backend.said[1]["data"], {"secret": "s3cr3t"})

    async def test_log(self) -> None:
        """The log has none of what was said, answered or used as a secret, also when all goes wrong."""
        server, backend = await self.serve(lambda said: (200, b'{"private-answer": 1}'))
        await self.poll(server, "session=private-cookie")
        backend.answer = lambda said: (500, b"private-answer")
        await self.poll(server, "session=private-cookie")
        await server.process.says(b"the status is 500")
        log = server.process.out + server.process.err
        for text in (b"private-cookie", b"private-header", b"private-answer", _SECRET.encode()):
            self.assertNotIn(text, log.replace(b"unknown field `private-answer`", b""))

    async def test_reload(self) -> None:
        """Secrets are rotated, and the application replaced or left out, without anybody being dropped."""
        backend = Backend(self, lambda said: _ANN if said["event"] == "connect" else {})
        path = write_config(self, self.config(backend))
        server = await Server.start_with(self, path)
        peer = await self.peer(server, handshake("/ws", {}))
        peer.say({"id": 1, "subscribe": {"channel": "room:a"}})
        await until(lambda: peer.said, "the reply")

        async def reload(times: int, changes: Mapping[str, Mapping[str, object]]) -> None:
            os.replace(write_config(self, changes), path)
            server.process.signal(signal.SIGHUP)
            await server.process.says(b"(?s)" + b".*".join([b"configuration was read again"] * times))

        await reload(1, self.config(backend, secrets=f"\n{_NEW_SECRET}\n{_SECRET}"))
        peer.say({"id": 2, "publish": {"channel": "room:a", "data": 1}})
        await until(lambda: len(peer.said) >= 3, "the reply")
        headers, body = backend.headers[-1], backend.bodies[-1]
        self.assertEqual(is_signed_with(_NEW_SECRET.encode(), headers, body), [True, False])
        self.assertEqual(is_signed_with(_SECRET.encode(), headers, body), [False, True])
        asked = len(backend.said)
        await reload(2, {name: keys for name, keys in self.config(backend).items() if name != "hooks"})
        peer.say({"id": 3, "publish": {"channel": "room:a", "data": 2}})
        await until(lambda: any(each.get("id") == 3 for each in peer.said), "the reply")
        self.assertIn("publish", next(each for each in peer.said if each.get("id") == 3))
        self.assertEqual(len(backend.said), asked)

    async def test_end(self) -> None:
        """A server that ends tells of those who are there."""
        server, backend = await self.serve()
        peer = await self.peer(server, handshake("/ws", {}))
        peer.say({"id": 1, "connect": {}})
        await until(lambda: peer.said, "the reply")
        server.process.signal(signal.SIGTERM)
        await soon(server.process.ended())
        self.assertEqual([said["code"] for said in backend.said if said["event"] == "disconnect"], [1012])
