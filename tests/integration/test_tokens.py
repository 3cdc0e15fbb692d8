"""Tokens with real processes: what one node takes back is taken back on all, and keys change while all goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from rtpush.client import Client
from rtpush.client.negotiation import TRANSPORTS
from rtpush.protocol.lifecycle import State
from tests.auth.makers import SECRET, oct_token
from tests.support.redis import RedisServer
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until

_OTHER = b"fedcba9876543210" * 4


def _token(secret: bytes = SECRET, key: str = "hs", **claims: Any) -> str:
    now = time.time()
    made = {"sub": "42", "iat": now - 1, "exp": now + 600, "channels": {"rights:*": ["subscribe", "publish"]}, **claims}
    return oct_token({"alg": "HS256", "kid": key}, made, secret).decode()


_CONFIG: dict[str, dict[str, object]] = {
    "auth": {"keys": f"\nhs HS256 {SECRET.decode()}"},
    "namespace:rights": {"history_size": 100, "subscribe": "token", "publish": "token", "presence": "yes"},
}


class _Test(TestCase):
    timeout = 90

    def client(self, server: Server, transport: str, token: str) -> Client:
        """Connect a client that follows a channel."""
        client = Client(reactor, server.url, transports=[transport], token=token, direction="rare")
        self.addCleanup(client.close)
        client.subscribe("rights:a", lambda message: None)
        return client


class NodeTests(_Test):
    """Nodes that are one by Redis."""

    async def _node(self, name: str) -> Server:
        changes: dict[str, dict[str, object]] = {
            **_CONFIG,
            "server": {"node": name},
            "broker": {"engine": "redis"},
            "redis": {"url": self.redis.url},
            "log": {"level": "debug"},
        }
        return await Server.start(self, changes)

    def test_revocation(self) -> Deferred[None]:
        """Clients on another node are ended at once; no node takes the token then, nor one that comes later."""
        return Deferred.fromCoroutine(self._test_revocation())

    async def _test_revocation(self) -> None:
        self.redis = await RedisServer.start(self, "--appendonly", "yes")
        one, other = await self._node("one"), await self._node("other")
        token = _token()
        clients = [self.client(other, transport, token) for transport in TRANSPORTS]
        stays = self.client(other, "websocket", _token(sub="43"))
        await until(lambda: all(each.state is State.OPEN for each in (*clients, stays)), "the clients to be there")
        answer = await one.call("disconnect", user="nobody")
        self.assertEqual(answer, {"disconnected": 0})
        await one.call("revoke", user="42")
        # A short poll hears of it with its next one.
        await until(lambda: all(each.state is State.CLOSED for each in clients[:3]), "the clients to be ended", 5)
        self.assertIs(stays.state, State.OPEN)
        listed = (await other.call("connections", user="43"))["connections"]
        self.assertEqual([(each["user"], each["node"]) for each in listed], [("43", "other")])
        await soon(stays.close())
        # Neither a node that comes later takes the token, nor one after all have gone.
        for server in (one, other):
            server.process.signal(signal.SIGKILL)
            await soon(server.process.ended())
        third = await self._node("third")
        self.assertEqual([each["user"] for each in (await self._listed(third))], ["42"])
        refused = self.client(third, "websocket", token)
        await until(lambda: refused.state is State.CLOSED, "the client to be refused")
        self.assertIn("taken back", refused.status.reason)
        for server in (one, other, third):
            said = server.process.out + server.process.err
            self.assertNotIn(token.rpartition(".")[2].encode(), said)

    async def _listed(self, server: Server) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await until(lambda: self._all(server), "what was taken back")
        return found

    async def _all(self, server: Server) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await server.call("revocations"))["revocations"]
        return found

    def test_presence(self) -> Deferred[None]:
        """Whose connections they are, and what they say, is the same on all nodes."""
        return Deferred.fromCoroutine(self._test_presence())

    async def _test_presence(self) -> None:
        self.redis = await RedisServer.start(self)
        one, other = await self._node("one"), await self._node("other")
        self.client(other, "websocket", _token(sub="Ann: a b/%20é", info={"n": 1}))

        async def there() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await one.call("presence", channel="rights:a"))["connections"]
            return found

        [entry] = await until(there, "the client to be there")
        self.assertEqual((entry["user"], entry["transport"], entry["info"]), ("Ann: a b/%20é", "websocket", {"n": 1}))
        self.assertEqual(await one.call("disconnect", user="Ann: a b/%20é"), {"disconnected": 1})


class KeyTests(_Test):
    """Keys that change by SIGHUP."""

    def test_rotation(self) -> Deferred[None]:
        """A new key is good after it, the old one no longer; nobody is dropped for it."""
        return Deferred.fromCoroutine(self._test_rotation())

    async def _test_rotation(self) -> None:
        path = write_config(self, _CONFIG)
        server = await Server.start_with(self, path)
        clients = [self.client(server, transport, _token()) for transport in TRANSPORTS[:2]]
        await until(lambda: all(each.state is State.OPEN for each in clients), "the clients to be there")
        changes: list[Any] = []
        for each in clients:
            each.on_status(changes.append)
        text = Path(path).read_text()
        Path(path).write_text(text.replace(f"hs HS256 {SECRET.decode()}", f"new HS256 {_OTHER.decode()}"))
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"reload|configuration")
        new = self.client(server, "websocket", _token(_OTHER, "new"))
        await until(lambda: new.state is State.OPEN, "one with a token of the new key")
        old = self.client(server, "websocket", _token())
        await until(lambda: old.state is State.CLOSED, "one with a token of the old key to be refused")
        await server.call("publish", channel="rights:a", data=1)
        self.assertEqual(changes, [])
