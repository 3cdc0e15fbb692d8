"""The balancers that we ship configurations for, as shipped, before two nodes."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet import reactor, tcp
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from rtpush.client import Client, ServerApi
from rtpush.client.web import Answer, DirectEndpoints, Web
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.lifecycle import State
from rtpush.protocol.message import Message
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import load, parse
from tests.support.haproxy import HAProxy
from tests.support.nginx import BalancingNginx
from tests.support.ports import reserved_port
from tests.support.processes import Process, program
from tests.support.server import Server
from tests.support.shipped import CONF
from tests.support.waiting import soon, until

_CHANNEL = "demo:a"

_CONFIG = """
[server]
listen = tcp:0:interface=127.0.0.1
node = {name}
[backoff]
base = 0.05
max = 0.1
jitter = 0.05
[api]
open = yes
[namespace:demo]
history_size = 100
publish = anyone
"""


async def _listen(test: TestCase, site: Site, port: int = 0) -> int:
    """Serve a site until the test ends; return its port."""
    listening: IListeningPort = reactor.listenTCP(port, site, interface="127.0.0.1")
    number = int(listening.getHost().port)

    def closed() -> bool:
        # The balancer keeps connections.
        left = [each for each in reactor.getReaders() if isinstance(each, tcp.Server) and each.getHost().port == number]
        for connection in left:
            connection.abortConnection()
        return not left

    test.addCleanup(until, closed, "the balancer's connections to end")
    test.addCleanup(listening.stopListening)
    return number


def _listens(port: int) -> bool:
    """Tell whether a port of 127.0.0.1 takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Node:
    """
    A node in this process, whose readiness a test can change.

    :ivar name: What it calls itself.
    :ivar port: Where it listens.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self._config = parse(_CONFIG.format(name=name))
        self._node = build_node(self._config, reactor)

    @classmethod
    async def start(cls, test: TestCase, name: str, port: int = 0) -> _Node:
        """Start one on a port of 127.0.0.1."""
        node = cls(name)
        node.port = await _listen(test, build_site(node._config, node._node, reactor), port)
        await node._node.start()
        test.addCleanup(node._node.stop)
        return node

    def be_ready(self, ready: bool) -> None:
        """Let ``/readyz`` say so; nothing else changes."""
        self._node.leaving = not ready

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._node.connections)


class _Stub(Resource):
    """
    A node that answers ``/readyz``, and remembers what else it was asked.

    :ivar requests: Those requests.
    :ivar mute: Whether it closes the connection instead of an answer.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.mute = False

    def render(self, request: Request) -> bytes:
        if request.path == b"/readyz":
            return b"{}"
        self.requests.append(request)
        if self.mute:
            channel: Any = request.channel
            channel.transport.abortConnection()
        return b"{}"


class _Follower:
    """
    A client of ours on one channel.

    :ivar received: The data of the messages that came.
    """

    def __init__(self, test: TestCase, url: str, transport: str) -> None:
        self.received: list[Any] = []
        self._client = Client(reactor, url, transports=[transport])
        test.addCleanup(self._client.close)
        self._client.subscribe(_CHANNEL, self._take)

    @property
    def is_open(self) -> bool:
        """Whether the server's first event has come through."""
        return self._client.state is State.OPEN

    def publish(self, data: Any) -> Deferred[Any]:
        """Publish by the connection that it follows with."""
        return self._client.publish(_CHANNEL, data)

    def _take(self, message: Message) -> None:
        self.received.append(json.loads(message.payload.data))


class _BalancerTests(TestCase):
    """What the tests of all balancers have in common."""

    timeout = 60

    async def balance(self, *ports: int) -> str:
        """Start the balancer before nodes; return its URL."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Start two nodes in this process, and the balancer."""
        self.nodes = [await _Node.start(self, "one"), await _Node.start(self, "two")]
        self.use(await self.balance(*(node.port for node in self.nodes)))

    def use(self, url: str) -> None:
        """Take a URL for that of the balancer."""
        self.url = url
        self.web = Web(reactor, DirectEndpoints(reactor, 5.0), {})
        self.addCleanup(self.web.close)
        self.api = self.api_of(url)

    def api_of(self, url: str) -> ServerApi:
        """Return the server API at a URL."""
        api = ServerApi(reactor, url)
        self.addCleanup(api.close)
        return api

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Deferred[Answer]:
        """Make a request through the balancer."""
        return self.web.request("GET", self.url + path, 15.0, headers)

    async def serving(self) -> str:
        """Ask which node answers the next call."""
        info = await self.api.info()
        name: str = info["nodes"][0]["node"]
        return name

    async def follow(self, transport: str) -> _Follower:
        """Follow the channel through the balancer."""
        follower = _Follower(self, self.url, transport)
        await until(lambda: follower.is_open, f"{transport} to open")
        return follower

    def publish(self, data: Any) -> Deferred[Any]:
        """Publish by the server API through the balancer."""
        return self.api.publish(_CHANNEL, data)

    async def positions(self) -> dict[str, str]:
        """Publish to each node by itself; return which node the epoch of the channel is of."""
        nodes = {}
        for node in self.nodes:
            position = await self.api_of(f"http://127.0.0.1:{node.port}/").publish(_CHANNEL, {"node": node.name})
            assert position is not None
            nodes[position.epoch] = node.name
        return nodes

    async def poll(self, jar: dict[str, str] | None = None, timeout: float = 0.3) -> str:
        """Poll, with a cookie jar if one is given; return the epoch of the node that has answered."""
        cookies = "; ".join(f"{name}={value}" for name, value in (jar or {}).items())
        headers = {"Cookie": cookies} if cookies else {}
        answer = await self.get(f"poll?channel={_CHANNEL}&timeout={timeout:g}", headers)
        self.assertEqual(answer.status, 200, answer)
        for line in answer.headers.getRawHeaders("set-cookie", ()):
            name, _, value = line.partition(";")[0].partition("=")
            self.assertIsNotNone(jar, line)
            assert jar is not None
            jar[name] = value
        epoch: str = json.loads(answer.body)["cursor"].partition(":")[0]
        return epoch

    async def assert_unavailable(self) -> None:
        """Check that the balancer says in the protocol's words that there is no node, and when to come back."""
        answer = await self.get("negotiate")
        self.assertEqual(answer.status, 503, answer)
        self.assertEqual(answer.headers.getRawHeaders("content-type"), ["application/json"])
        self.assertGreater(answer.retry_after or 0, 0)
        error = await self.assertFailure(self.api.info(), RtpushError)
        self.assertIs(error.kind, ErrorCode.UNAVAILABLE)


class _CommonTests:
    """What is the same with every balancer. The methods of :class:`_BalancerTests` are there too."""

    async def test_every_transport(self: Any) -> None:
        """Every transport opens, gets every message once and in order, and publishes."""
        node = await _Node.start(self, "one")
        self.use(await self.balance(node.port))
        followers = [await self.follow(transport) for transport in ("websocket", "sse", "longpoll")]
        everything = []
        for number, publish in enumerate([*(follower.publish for follower in followers), self.publish]):
            everything.append({"n": number})
            await soon(publish(everything[-1]))
        for follower in followers:
            await until(lambda follower=follower: len(follower.received) >= len(everything), "the last message")
            self.assertEqual(follower.received, everything)

    async def test_spreads(self: Any) -> None:
        """Streams go to the node with the fewest."""
        await self.begin()
        for _ in range(3):
            await self.follow("websocket")
            await self.follow("sse")
        self.assertEqual([node.clients for node in self.nodes], [3, 3])

    async def test_sticky(self: Any) -> None:
        """Long polls with cookies stay on one node; those without are answered by any; short polls get no cookie."""
        await self.begin()
        nodes = await self.positions()
        jar: dict[str, str] = {}
        first = await self.poll(jar)
        self.assertEqual(list(jar), ["rtpush"])
        given = dict(jar)
        self.assertEqual({await self.poll(jar) for _ in range(8)}, {first})
        self.assertEqual(jar, given)
        await self.poll(timeout=0)
        answered = set()

        async def both_have_answered() -> bool:
            answered.add(await self.poll({}))
            return len(answered) == 2

        await until(both_have_answered, "both nodes to answer polls without cookies")
        self.assertEqual(answered, set(nodes))

    async def test_what_nodes_see(self: Any) -> None:
        """Nodes get HTTP/1.1, the host as it came, and the address of the client instead of what it says of itself."""
        stub = _Stub()
        self.use(await self.balance(await _listen(self, Site(stub))))
        stub.requests.clear()
        await self.get("x?y=%2F", {"Host": "push.example.com", "X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "z"})
        [request] = stub.requests
        self.assertEqual((request.clientproto, request.uri), (b"HTTP/1.1", b"/x?y=%2F"))
        self.assertEqual(
            [request.requestHeaders.getRawHeaders(name) for name in ("host", "x-forwarded-for", "x-forwarded-proto")],
            [["push.example.com"], ["127.0.0.1"], ["http"]],
        )

    async def test_publish_is_not_repeated(self: Any) -> None:
        """A publish that a node has got, but not answered, is not sent to another: it may have been done."""
        stubs = [_Stub(), _Stub()]
        self.use(await self.balance(*[await _listen(self, Site(stub)) for stub in stubs]))
        for stub in stubs:
            stub.requests.clear()
            stub.mute = True
        answer = await self.web.request("POST", self.url + "api/v1/publish", 15.0, body=b"{}")
        self.assertIn(answer.status, (502, 503))
        self.assertEqual(sum(len(stub.requests) for stub in stubs), 1)

    async def test_none_is_there(self: Any) -> None:
        """Without any node it is said when to come back; the first that starts is found."""
        ports = [reserved_port(self), reserved_port(self)]
        self.use(await self.balance(*ports))
        await self.assert_unavailable()
        await _Node.start(self, "one", ports[0])

        async def is_served() -> bool:
            return (await self.get("negotiate")).status == 200

        await until(is_served, "the node to be found")

    async def test_ends(self: Any) -> None:
        """A node is told to end: from when it does not listen no call fails, and its clients move to the other."""
        await self._move(signal.SIGTERM)

    async def test_killed(self: Any) -> None:
        """The same for a node that is killed."""
        await self._move(signal.SIGKILL)

    async def _move(self: Any, end: signal.Signals) -> None:
        backoff = {"base": 0.05, "max": 0.1, "jitter": 0.05}
        starting = [
            Deferred.fromCoroutine(Server.start(self, {"server": {"node": name}, "backoff": backoff}))
            for name in ("one", "two")
        ]
        one, two = await gatherResults(starting)
        self.use(await self.balance(one.port, two.port))
        transports = ("websocket", "websocket", "sse", "sse", "longpoll", "longpoll")
        followers = [await self.follow(transport) for transport in transports]
        self.assertGreater(await one.subscribers(_CHANNEL), 0)

        one.process.signal(end)
        # What is on its way to it at this moment may be lost, for a balancer does not send that again.
        await until(lambda: not _listens(one.port), "the node to stop listening", every=0.001)
        names = []

        async def all_are_there() -> bool:
            names.append(await self.serving())
            # One more connection each time, which has not been used before.
            info = await self.api_of(self.url).info()
            names.append(info["nodes"][0]["node"])
            return bool(await two.subscribers(_CHANNEL) == len(followers))

        await until(all_are_there, "all clients to move", seen=lambda: str(names[-10:]))
        await soon(one.process.ended())
        self.assertEqual([await self.serving() for _ in range(6)], ["two"] * 6)
        await two.publish(_CHANNEL, [{"after": 1}])
        for follower in followers:
            await until(lambda follower=follower: {"after": 1} in follower.received, "the message after the move")


class HAProxyTests(_CommonTests, _BalancerTests):
    """HAProxy, with ``conf/haproxy.cfg``."""

    async def balance(self, *ports: int) -> str:
        self.haproxy = await HAProxy.start(self, ports)
        return self.haproxy.url

    async def test_configuration_is_good(self) -> None:
        """HAProxy has nothing to say against it as it is shipped."""
        process = Process(self, [program("haproxy"), "-c", "-V", "-f", str(CONF / "haproxy.cfg")])
        self.assertEqual(await soon(process.ended()), 0, process)
        self.assertEqual((process.out, process.err), (b"Configuration file is valid\n", b""))

    async def test_not_ready(self) -> None:
        """
        A node whose ``/readyz`` says 503 keeps its clients and gets no new ones; polls with its cookie move.

        When none is ready that is said; when they are ready again they are used again.
        """
        await self.begin()
        nodes = await self.positions()
        one, two = self.nodes
        followers = [await self.follow(transport) for transport in ("websocket", "websocket", "sse", "sse")]
        self.assertEqual((one.clients, two.clients), (2, 2))
        jar: dict[str, str] = {}
        await until(lambda: Deferred.fromCoroutine(self._polls_at("one", jar, nodes)), "a poll at the first node")

        one.be_ready(False)
        await self.haproxy.becomes("node1", "DOWN")
        self.assertEqual([await self.serving() for _ in range(6)], ["two"] * 6)
        self.assertEqual({nodes[await self.poll(jar)] for _ in range(4)}, {"two"})
        await self.follow("websocket")
        self.assertEqual((one.clients, two.clients), (2, 3))
        await self._assert_all_hear(followers)

        two.be_ready(False)
        await self.haproxy.becomes("node2", "DOWN")
        await self.assert_unavailable()
        await self._assert_all_hear(followers)

        for node in self.nodes:
            node.be_ready(True)
        await self.haproxy.becomes("node1", "UP")
        await self.haproxy.becomes("node2", "UP")
        self.assertIn(await self.serving(), ("one", "two"))
        self.assertEqual((one.clients, two.clients), (2, 3))

    async def test_taken_out_by_hand(self) -> None:
        """``drain`` lets no new clients in but those who poll with a cookie, ``maint`` nobody; ``ready`` ends it."""
        await self.begin()
        nodes = await self.positions()
        one, two = self.nodes
        followers = [await self.follow("websocket"), await self.follow("websocket")]
        jar: dict[str, str] = {}
        await until(lambda: Deferred.fromCoroutine(self._polls_at("one", jar, nodes)), "a poll at the first node")

        await self.haproxy.command("set server nodes/node1 state drain")
        await self.haproxy.becomes("node1", "DRAIN")
        self.assertEqual([await self.serving() for _ in range(6)], ["two"] * 6)
        self.assertEqual(nodes[await self.poll(jar)], "one")
        await self.follow("sse")
        self.assertEqual((one.clients, two.clients), (1, 2))

        await self.haproxy.command("set server nodes/node1 state maint")
        self.assertEqual({nodes[await self.poll(jar)] for _ in range(4)}, {"two"})
        await self._assert_all_hear(followers)

        await self.haproxy.command("set server nodes/node1 state ready")
        await self.haproxy.becomes("node1", "UP")

    async def _polls_at(self, name: str, jar: dict[str, str], nodes: Mapping[str, str]) -> bool:
        """Fill a jar with the cookie that a poll gets; tell whether that was at a certain node."""
        jar.clear()
        return nodes[await self.poll(jar)] == name

    async def _assert_all_hear(self, followers: Sequence[_Follower]) -> None:
        """Check that the connections still carry, those to nodes that get no new ones too."""
        before = [len(follower.received) for follower in followers]
        await self.positions()
        await until(
            lambda: all(len(follower.received) > count for follower, count in zip(followers, before, strict=True)),
            "all to get a message",
        )


class NginxTests(_CommonTests, _BalancerTests):
    """nginx, with ``conf/nginx.conf``."""

    async def balance(self, *ports: int) -> str:
        self.nginx = await BalancingNginx.start(self, ports)
        return self.nginx.url

    async def test_configuration_is_good(self) -> None:
        """nginx has nothing to say against it."""
        await self.begin()
        said = [line.rpartition(" ")[2] for line in (await self.nginx.check()).splitlines()]
        self.assertEqual(said, ["ok", "successful"])

    async def test_taken_out_by_hand(self) -> None:
        """A node that is marked as down gets no new clients after a reload, and keeps those that it has."""
        await self.begin()
        one, two = self.nodes
        followers = [await self.follow("websocket"), await self.follow("sse")]
        self.assertEqual((one.clients, two.clients), (1, 1))
        await self.nginx.take_out(one.port)
        self.assertEqual([await self.serving() for _ in range(6)], ["two"] * 6)
        await self.follow("websocket")
        self.assertEqual((one.clients, two.clients), (1, 2))
        await self.positions()
        for follower in followers:
            await until(lambda follower=follower: follower.received, "the message on the old connection")


class TimeTests(TestCase):
    """What decides about time in the configurations, and cannot be seen without a clock."""

    def _seconds(self, name: str, pattern: str) -> list[float]:
        found = re.findall(pattern, (CONF / name).read_text(), re.MULTILINE)
        self.assertTrue(found, f"{pattern} in {name}")
        return [float(each) for each in found]

    def test_longer_than_nodes_are_silent(self) -> None:
        """Balancers are more patient than the longest poll and the longest time without a heartbeat."""
        node = load(str(CONF / "prod.ini"))
        silent = max(node.poll.max_timeout, node.server.heartbeat + node.server.heartbeat_grace)
        patience = self._seconds("haproxy.cfg", r"^ *timeout (?:client|server|tunnel) +(\d+)s$")
        self.assertEqual(len(patience), 3)
        patience += self._seconds("nginx.conf", r"^ *proxy_(?:read|send)_timeout (\d+)s;$")
        self.assertEqual(len(patience), 5)
        self.assertGreater(min(patience), 1.25 * silent)

    def test_events_are_not_held_back(self) -> None:
        """HAProxy does not let the kernel wait for more before an event goes out."""
        self.assertRegex((CONF / "haproxy.cfg").read_text(), r"(?m)^ *option http-no-delay$")
