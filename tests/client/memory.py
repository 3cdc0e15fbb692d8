"""A real node and its clients in one process, without sockets: connections are memory, and time is a Clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from rtpush.client import Client, ServerApi
from rtpush.protocol.message import Message
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import load
from rtpush.service.schema import Config

__all__ = ["Link", "MemoryTests", "Network"]

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
_ADDRESS = IPv4Address("TCP", "127.0.0.1", 8080)


class Link:
    """
    One connection.

    :ivar path: That of the last request on it.
    """

    def __init__(self, network: Network, client: Any, server: Any) -> None:
        self.path = ""
        self._network = network
        self._client = FakeTransport(client, False, hostAddress=_ADDRESS, peerAddress=_ADDRESS)
        self._server = FakeTransport(server, True, hostAddress=_ADDRESS, peerAddress=_ADDRESS)
        self._held = b""
        client.makeConnection(self._client)
        server.makeConnection(self._server)

    @property
    def is_dead(self) -> bool:
        """Whether both ends have heard that it is gone."""
        return bool(self._client.disconnected and self._server.disconnected)

    def flush(self) -> bool:
        """Carry what there is to carry, and tell whether there was anything."""
        up, down = self._client.getOutBuffer(), self._server.getOutBuffer()
        if up and not self._server.disconnected:
            if up.startswith((b"GET ", b"POST ")):
                self.path = up.split(b" ", 2)[1].split(b"?")[0].decode()
            refusal = _REFUSALS.get(self._network.obstacles.get(self.path, ""))
            if refusal is not None:
                self._client.protocol.dataReceived(refusal)
            else:
                self._server.protocol.dataReceived(up)
        if down and not self._client.disconnected:
            passed = self._network.pass_down(self, down)
            if passed:
                self._client.protocol.dataReceived(passed)
        ended = False
        for one, other in ((self._client, self._server), (self._server, self._client)):
            if one.disconnecting and not one.stream and not one.disconnected:
                ended = True
                one.disconnected = True
                one.protocol.connectionLost(Failure(ConnectionLost()))
                if not other.disconnected:
                    other.disconnecting = True
                    other.stream = []
        return bool(up or down or ended)

    def cut(self) -> None:
        """Cut it: what is on its way is lost."""
        for end in (self._client, self._server):
            end.stream = []
            end.disconnecting = True


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, network: Network) -> None:
        self._network = network

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        return self._network.connect(factory)


@implementer(IAgentEndpointFactory)
class Network:
    """
    What is between clients and a server.

    :ivar is_down: Whether connections are refused.
    :ivar obstacles: What happens to requests for a path: ``refuse``, ``busy`` (come back after 7 s), ``hold`` the
        response (as a proxy that buffers does), or ``mute`` it after its head (as one that passes only handshakes).
    :ivar loses: A packet with these bytes is lost, once.
    :ivar opened: How many connections were made.
    """

    def __init__(self) -> None:
        self.site: Any = None
        self.is_down = False
        self.obstacles: dict[str, str] = {}
        self.loses = b""
        self.links: list[Link] = []
        self.opened = 0

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return an endpoint: all of them lead to the one server."""
        return _Endpoint(self)

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect a client, or refuse to."""
        if self.is_down:
            return fail(Refused())
        self.opened += 1
        client = factory.buildProtocol(_ADDRESS)
        self.links.append(Link(self, client, self.site.buildProtocol(_ADDRESS)))
        return succeed(client)

    def pass_down(self, link: Link, data: bytes) -> bytes:
        """Return what of a response comes through."""
        if self.loses and self.loses in data:
            self.loses = b""
            return b""
        match self.obstacles.get(link.path):
            case "hold":
                return b""
            case "mute":
                head, end, _ = data.partition(b"\r\n\r\n")
                return head + end if head.startswith(b"HTTP/") else b""
        return data

    def flush(self) -> bool:
        """Carry everything, and tell whether there was anything."""
        moved = [link.flush() for link in self.links]
        self.links = [link for link in self.links if not link.is_dead]
        return any(moved)

    def cut(self) -> None:
        """Cut all connections."""
        for link in self.links:
            link.cut()


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
        end = self.clock.seconds() + seconds
        for _ in range(100_000):
            if self.network.flush():
                continue
            due = [call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= end]
            if not due:
                break
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
        else:
            self.fail("it does not come to rest")
        self.clock.advance(max(0.0, end - self.clock.seconds()))
        self.network.flush()

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
    return got, lambda message: got.append(message.payload.as_object())
