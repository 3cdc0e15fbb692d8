"""
What you need to test your own code against rtpush: a whole server in memory, without sockets and without waiting.

.. code-block:: python

    class PriceTests(SynchronousTestCase):
        def test_price(self):
            server = InMemoryServer()
            self.addCleanup(server.close)
            got = []
            client = Client(server.clock, server.url, endpoints=server)
            client.subscribe("demo:prices", got.append)
            server.advance()
            server.publish("demo:prices", {"eur": 41.2})
            server.advance()
            self.assertEqual([message.data for message in got], [{"eur": 41.2}])

The server is the real one: its resources, its registry, its memory engine. Only the transports are memory, and time is
a :class:`twisted.internet.task.Clock`, which moves when the test says so.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from rtpush.protocol.channel import Access
from rtpush.protocol.commands import Publication, json_payload
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.position import Position
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import parse

__all__ = ["DEFAULT_CONFIG", "InMemoryServer", "Link", "Network"]

#: The configuration of a server that was given none: everything open, as for development.
DEFAULT_CONFIG = """
[server]
listen = tcp:8080:interface=127.0.0.1
node = memory
echo = yes
allowed_origins = *
[api]
open = yes
[namespace:demo]
history_size = 1000
history_ttl = 3600
publish = anyone
presence = yes
join_leave = yes
[namespace:default]
history_size = 100
"""

_ADDRESS = IPv4Address("TCP", "127.0.0.1", 8080)

#: How often something may happen before a test that does not come to rest is told so.
_MAX_STEPS = 100_000


class Link:
    """One connection between a client and the server."""

    def __init__(self, network: Network, client: Any, server: Any) -> None:
        self._network = network
        self._client = FakeTransport(client, False, hostAddress=_ADDRESS, peerAddress=_ADDRESS)
        self._server = FakeTransport(server, True, hostAddress=_ADDRESS, peerAddress=_ADDRESS)
        client.makeConnection(self._client)
        server.makeConnection(self._server)

    @property
    def is_dead(self) -> bool:
        """Whether both ends have heard that it is gone."""
        return bool(self._client.disconnected and self._server.disconnected)

    def flush(self) -> bool:
        """Carry what there is to carry, and tell whether there was anything."""
        up, down = self._client.getOutBuffer(), self._server.getOutBuffer()
        if up and not self._server.disconnected and (passed := self._network.pass_up(self, up)):
            self._server.protocol.dataReceived(passed)
        if down and not self._client.disconnected and (passed := self._network.pass_down(self, down)):
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

    def answer(self, data: bytes) -> None:
        """Give the client bytes that are not from the server: as a proxy between them would."""
        self._client.protocol.dataReceived(data)

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
    What is between clients and one server. Subclasses that override :meth:`pass_up` or :meth:`pass_down` spoil it.

    :ivar site: The factory of the server's protocols.
    :ivar is_down: Whether connections are refused.
    :ivar links: The connections that there are.
    """

    def __init__(self, site: Any = None) -> None:
        self.site = site
        self.is_down = False
        self.links: list[Link] = []

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return an endpoint, for any address: all of them lead to the one server."""
        return _Endpoint(self)

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect a client, or refuse to."""
        if self.is_down:
            return fail(Refused())
        client = factory.buildProtocol(_ADDRESS)
        self.links.append(Link(self, client, self.site.buildProtocol(_ADDRESS)))
        return succeed(client)

    def pass_up(self, link: Link, data: bytes) -> bytes:
        """Return what of a client's bytes reaches the server."""
        return data

    def pass_down(self, link: Link, data: bytes) -> bytes:
        """Return what of the server's bytes reaches a client."""
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

    def run(self, clock: Clock, seconds: float = 0.0) -> None:
        """
        Let time pass, with all that happens in it.

        :raises AssertionError: if client and server go on talking without an end. (What calls itself again by
            ``callLater(0)`` is not seen: the clock itself does not come back from that.)
        """
        end = clock.seconds() + seconds
        for _ in range(_MAX_STEPS):
            if self.flush():
                continue
            due = [call.getTime() for call in clock.getDelayedCalls() if call.getTime() <= end]
            if not due:
                break
            clock.advance(max(0.0, min(due) - clock.seconds()))
        else:
            raise AssertionError(f"something still happens after {_MAX_STEPS} steps")
        clock.advance(max(0.0, end - clock.seconds()))
        self.flush()


@implementer(IAgentEndpointFactory)
class InMemoryServer:
    """
    A server in memory.

    It is the ``endpoints`` of a :class:`rtpush.client.Client`; :meth:`agent` is for code that makes HTTP requests, and
    :meth:`endpoint` for any other client, such as Autobahn's.

    :param config: The text of a configuration file; its addresses are not listened on.
    :ivar clock: The server's time; give it to clients as their reactor.
    :ivar node: The node, to look into.
    :ivar network: What is between: it can be cut.
    :ivar url: An address for clients; any other does as well.
    """

    url = "http://memory/"

    def __init__(self, config: str = DEFAULT_CONFIG, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._config = parse(config)
        self.network = Network()
        self._start()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return an endpoint that leads here."""
        return self.network.endpointForURI(uri)

    def endpoint(self) -> IStreamClientEndpoint:
        """Return an endpoint that leads here."""
        return _Endpoint(self.network)

    def agent(self) -> IAgent:
        """Return an agent whose requests are answered here; let time pass with :meth:`advance`."""
        agent: IAgent = Agent.usingEndpointFactory(self.clock, self)
        return agent

    def publish(
        self, channel: str, data: Any, *, event: str | None = None, history: bool = True
    ) -> Position | None:
        """
        Publish as a backend does.

        :param data: Bytes are a binary payload; anything else is what JSON can hold.
        :returns: The position, or nothing for a message without history.
        :raises rtpush.errors.RtpushError: if it cannot be published.
        """
        payload = Payload(data, Kind.BINARY) if isinstance(data, bytes) else json_payload(msgspec.json.encode(data))
        results: list[Any] = []
        published = self.node.publish(Publication(channel, payload, event, history=history), Access.SERVER)
        published.addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        position: Position | None = result
        return position

    def advance(self, seconds: float = 0.0) -> None:
        """
        Let time pass, and everything happen that is due in it, until all is at rest.

        :raises AssertionError: if client and server go on talking without an end.
        """
        self.network.run(self.clock, seconds)

    def restart(self) -> None:
        """Cut all connections and begin anew, with no memory of channels: as after a crash."""
        self.close()
        self._start()

    def close(self) -> None:
        """Cut all connections, and stop."""
        self.network.is_down = True
        self.network.cut()
        self.network.flush()
        self.node.stop()
        self.network.site.stopFactory()

    def _start(self) -> None:
        began = time.time() - self.clock.seconds()
        self.node = build_node(self._config, self.clock, lambda: began + self.clock.seconds())
        self.network.site = build_site(self._config, self.node, self.clock)
        self.network.site.startFactory()
        self.node.start()
        self.network.is_down = False
