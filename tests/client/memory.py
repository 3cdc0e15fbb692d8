"""A real node and its clients in one process, without sockets: connections are memory, and time is a Clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client import Client, ServerApi
from rtpush.protocol.message import Message
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import load
from rtpush.service.schema import Config
from rtpush.testing import Link
from rtpush.testing import Network as Direct

__all__ = ["MemoryTests", "Network"]

CONFIG = """
[server]
listen = tcp:8080:interface=127.0.0.1
node = memory
[api]
open = yes
[limits]
channels_per_connection = 20
page_messages = 50
[namespace:demo]
history_size = 1000
publish = anyone
presence = yes
join_leave = yes
[namespace:short]
history_size = 3
publish = anyone
[namespace:default]
history_size = 100
"""

_REFUSALS = {
    "refuse": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "busy": b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
}


class Network(Direct):
    """
    What is between clients and a server, and what of it is spoilt.

    :ivar obstacles: What happens to requests for a path: ``refuse``, ``busy`` (come back after 7 s), ``hold`` the
        response (as a proxy that buffers does), or ``mute`` it after its head (as one that passes only handshakes).
    :ivar loses: A packet with these bytes is lost, once.
    :ivar opened: How many connections were made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.obstacles: dict[str, str] = {}
        self.loses = b""
        self.opened = 0
        self._paths: WeakKeyDictionary[Link, str] = WeakKeyDictionary()

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect a client, and count it."""
        self.opened += not self.is_down
        return super().connect(factory)

    def pass_up(self, link: Link, data: bytes) -> bytes:
        """Pass a request on, or refuse it."""
        if data.startswith((b"GET ", b"POST ")):
            self._paths[link] = data.split(b" ", 2)[1].split(b"?")[0].decode()
        refusal = _REFUSALS.get(self._obstacle(link))
        if refusal is not None:
            link.answer(refusal)
            return b""
        return data

    def pass_down(self, link: Link, data: bytes) -> bytes:
        """Return what of a response comes through."""
        if self.loses and self.loses in data:
            self.loses = b""
            return b""
        match self._obstacle(link):
            case "hold":
                return b""
            case "mute":
                head, end, _ = data.partition(b"\r\n\r\n")
                return head + end if head.startswith(b"HTTP/") else b""
        return data

    def _obstacle(self, link: Link) -> str:
        return self.obstacles.get(self._paths.get(link, ""), "")


class MemoryTests(SynchronousTestCase):
    """Tests of clients against a node in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network()
        self.random = Random(4)
        path = Path(self.mktemp())
        path.write_text(CONFIG)
        self.config = load(str(path))
        self.start_server()
        self.clients: list[Client] = []
        self.addCleanup(self._end)

    def start_server(self) -> None:
        """Start a node, which knows nothing of one before it."""
        self.node = build_node(self.config, self.clock)
        self.network.site = build_site(self.config, self.node, self.clock)
        self.node.start()
        self.network.is_down = False

    def restart(self, config: Config) -> None:
        """Start another node in the place of this one."""
        self.stop_server()
        self.config = config
        self.start_server()

    def stop_server(self) -> None:
        """Stop the node, as if its machine had lost its power."""
        self.network.is_down = True
        self.network.cut()
        self.network.flush()
        self.successResultOf(self.node.stop())

    def client(self, *transports: str, **options: Any) -> Client:
        """Make a client."""
        client = Client(
            self.clock,
            "http://memory/",
            transports=transports or None,
            endpoints=self.network,
            random=self.random,
            **options,
        )
        self.clients.append(client)
        return client

    def api(self) -> ServerApi:
        """Make a client of the server API."""
        api = ServerApi(self.clock, "http://memory/", endpoints=self.network, random=self.random)
        self.addCleanup(lambda: self.wait(api.close()))
        return api

    def run_for(self, seconds: float = 0.0) -> None:
        """Let time pass, with all that happens in it."""
        self.network.run(self.clock, seconds)

    def wait(self, deferred: Deferred[Any], seconds: float = 0.0) -> Any:
        """Return a result that must be there after some time."""
        self.run_for(seconds)
        return self.successResultOf(deferred)

    def publish(self, channel: str, *data: Any) -> None:
        """Publish past the client that is tested."""
        api = self.api()
        for each in data:
            self.wait(api.publish(channel, each))
        self.wait(api.close())

    def _end(self) -> None:
        closing = [client.close() for client in self.clients]
        self.run_for(1)
        for each in closing:
            self.successResultOf(each)
        for link in self.network.links:
            link.cut()
        self.network.flush()
        self.successResultOf(self.node.stop())
        left = [call for call in self.clock.getDelayedCalls() if "rtpush.client" in str(call.func)]
        self.assertEqual(left, [], "timers of the client are left")


def collector() -> tuple[list[Any], Callable[[Message], None]]:
    """Return a list and a callback that puts the data of messages into it."""
    got: list[Any] = []
    return got, lambda message: got.append(message.data)
