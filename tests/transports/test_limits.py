"""Tests of what one client, or one address, may have and do, on every transport; and of whose address it is."""

from __future__ import annotations

import json
from typing import Any

from rtpush.protocol.addresses import TrustedProxies
from rtpush.service.config import parse
from rtpush.transports.proxied import ProxiedFactory
from tests.transports.http2 import Http2Client
from tests.transports.serving import CONFIG, Client, ServedTestCase, Wire, target
from tests.transports.sockets import BINARY, HANDSHAKE, PING, PONG, TEXT, SocketTestCase, close_frame, frame
from tests.transports.test_tokens import TokenTestCase

_STAYING: list[tuple[str, dict[str, str]]] = [
    ("/ws?channel=demo:a", HANDSHAKE),
    ("/sse?channel=demo:a", {}),
    ("/poll?channel=demo:a&cursor=-", {}),
]


def behind(address: str) -> dict[str, str]:
    """Return the header by which a proxy names its client."""
    return {"X-Forwarded-For": address}


class PeerTests(SocketTestCase):
    """Whose address it is."""

    server = "allowed_origins = *\ntrusted_proxies = 127.0.0.1, 10.0.0.0/8"

    def peers(self) -> list[str]:
        """Return the addresses of the connections, as the server API shows them."""
        return [each["peer"] for each in self.call("connections")["connections"]]

    def test_forwarded(self) -> None:
        """A trusted proxy is believed, on every transport."""
        for path, headers in _STAYING:
            self.client().request(path, headers={**headers, **behind("198.51.100.1, 203.0.113.7, 10.0.0.2")})
        self.assertEqual(self.peers(), ["203.0.113.7"] * 3)

    def test_twice(self) -> None:
        """Several lines of the header are one list."""
        client = self.client()
        lines = "Host: x\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
        client.send(f"GET /sse?channel=demo:a HTTP/1.1\r\n{lines}".encode())
        self.assertEqual(self.peers(), ["203.0.113.7"])

    def test_strangers(self) -> None:
        """Nobody else is believed, nor is any other header."""
        self.serve(server="trusted_proxies = 10.0.0.0/8", sections=self.sections)
        self.client().request("/sse?channel=demo:a", headers=behind("203.0.113.7"))
        self.serve_none("Forwarded", "for=203.0.113.7")

    def serve_none(self, name: str, value: str) -> None:
        """Each address is that of the transport."""
        self.client().request("/sse?channel=demo:a", headers={name: value})
        self.assertEqual([peer.partition(":")[0] for peer in self.peers()], ["127.0.0.1"] * 2)

    def test_reload(self) -> None:
        """Who is trusted can be changed while the node runs."""
        self.node.reconfigure(
            [],
            limits=self.node.limits,
            backoff=self.node.backoff,
            heartbeat=30.0,
            heartbeat_grace=10.0,
            proxies=TrustedProxies(["unix"]),
        )
        self.assertFalse(self.node.proxies.trusts("127.0.0.1"))
        self.assertTrue(self.node.proxies.trusts("unix"))


class PerAddressTests(SocketTestCase):
    """Few connections for each address, of all kinds together."""

    server = "trusted_proxies = 127.0.0.1"
    limits = "connections_per_ip = 3\nmax_connections = 5"

    def come(self, path: str, headers: dict[str, str], address: str) -> tuple[Client, int]:
        """Have a client come; return it, and the status that it got at once, if it was refused."""
        client = self.client()
        client.request(path, headers={**headers, **behind(address)})
        refused = client.wire.sent.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503"))
        return client, client.answer().status if refused else 0

    def test_kinds(self) -> None:
        """A WebSocket, a stream and a poll are three; a fourth is refused until one of them goes."""
        clients = [self.come(path, headers, "203.0.113.7") for path, headers in _STAYING]
        self.assertEqual([status for _, status in clients], [0, 0, 0])
        for path, headers in _STAYING:
            client, status = self.come(path, headers, "203.0.113.7")
            self.assertEqual(status, 429)
        for gone, _ in clients:
            gone.lose()
            again, status = self.come("/ws", HANDSHAKE, "203.0.113.7")
            self.assertEqual(status, 0)
            self.assertEqual(self.come("/ws", HANDSHAKE, "203.0.113.7")[1], 429)
            again.lose()
            self.assertEqual(self.come("/sse?channel=demo:a", {}, "203.0.113.7")[1], 0)
        self.assertEqual(self.node.counts.limited["connections_per_ip"], 6)

    def test_refusal(self) -> None:
        """The refusal says what it is, and when to come again."""
        for _ in range(3):
            self.come("/ws", HANDSHAKE, "2001:db8::1")
        client = self.client()
        answer = client.ask("/sse?channel=demo:a", headers=behind("2001:db8::2"))
        self.assertEqual((answer.status, answer.error), (429, "limit_exceeded"))
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_all(self) -> None:
        """When there are as many as may be, all others are told to come later."""
        for number in range(5):
            self.assertEqual(self.come("/ws", HANDSHAKE, f"203.0.113.{number}")[1], 0)
        for path, headers in _STAYING:
            self.assertEqual(self.come(path, headers, "203.0.113.99")[1], 503)
        self.assertEqual(len(self.node.connections), 5)
        self.assertEqual(self.ask("/healthz").status, 200)

    def test_local(self) -> None:
        """This machine is not limited: it may be a proxy that nobody has named."""
        for _ in range(5):
            self.socket()


class PerUserTests(TokenTestCase):
    """Few connections for each user of tokens."""

    limits = "connections_per_user = 2"

    def test_users(self) -> None:
        """On all transports together, also where the token comes with connect; when one goes, another may come."""
        token = self.token()
        stream = self.client()
        stream.request(target("/sse", channel="members:a", token=token))
        late = self.ws()
        late.say({"id": 1, "connect": {"token": token}})
        self.assertIn("connect", late.heard()[0])
        for path, headers in (("/sse", {}), ("/poll", {}), ("/ws", HANDSHAKE)):
            answer = self.ask(target(path, channel="members:a", token=token), headers=headers)
            self.assertEqual((answer.status, answer.error), (429, "limit_exceeded"), path)
        third = self.ws()
        third.say({"id": 1, "connect": {"token": token}})
        self.assertEqual(third.heard()[0]["error"]["name"], "limit_exceeded")
        self.assertEqual(self.node.counts.limited["connections_per_user"], 4)
        other = self.ws()
        other.say({"id": 1, "connect": {"token": self.token(sub="43")}})
        self.assertIn("connect", other.heard()[0])
        stream.lose()
        third.say({"id": 2, "connect": {"token": token}})
        self.assertIn("connect", third.heard()[0])
        for socket in (late, third, other):
            socket.lose()
        self.assertEqual((self.node.limiter._users, self.node.limiter._owners), ({}, {}))


class ArrivalTests(ServedTestCase):
    """Few new clients a second for each address."""

    server = "trusted_proxies = 127.0.0.1"
    limits = "connect_rate_per_ip = 1"

    def test_flood(self) -> None:
        """One address floods: it is refused before anything is done, and another one is not."""
        statuses = []
        for number in range(300):
            path, headers = _STAYING[number % 3]
            client = self.client()
            client.request(path.replace("&cursor=-", ""), headers={**headers, **behind("203.0.113.7")})
            statuses.append(bytes(client.wire.sent[9:12]))
            client.lose()
        self.assertEqual(statuses.count(b"429"), 295)
        self.assertEqual(self.node.counts.limited["connect_rate_per_ip"], 295)
        self.assertEqual(self.node.counts.turned_away, 0)
        answer = self.ask("/ws", headers={**HANDSHAKE, **behind("203.0.113.8")})
        self.assertEqual(answer.status, 101)


class TalkTests(SocketTestCase):
    """Few commands a second."""

    server = "trusted_proxies = 127.0.0.1"
    limits = "command_rate = 4\npublish_rate = 2"

    def test_commands(self) -> None:
        """What is too much is not done, and told by its id; the rest is."""
        socket = self.socket()
        socket.say([{"id": number, "ping": {}} for number in range(1, 31)])
        replies = socket.heard()
        self.assertEqual([reply["id"] for reply in replies], list(range(1, 31)))
        self.assertEqual(sum("ping" in reply for reply in replies), 20)
        error = replies[-1]["error"]
        self.assertEqual((error["code"], error["name"], error["temporary"]), (111, "limit_exceeded", True))
        self.clock.advance(1)
        self.assertEqual(socket.do("ping"), {})
        self.assertEqual(self.node.counts.refusals["limit_exceeded"], 10)

    def test_publishes(self) -> None:
        """Fewer of them may publish."""
        socket = self.socket()
        socket.say([{"id": n, "publish": {"channel": "demo:a", "data": n}} for n in range(15)])
        self.assertEqual(sum("publish" in reply for reply in socket.heard()), 10)
        self.assertEqual(len(self.call("history", channel="demo:a")["messages"]), 10)
        self.assertEqual(socket.do("ping"), {})
        self.assertEqual(socket.do("publish", channel="demo:a", data=1), "limit_exceeded")

    def test_garbage(self) -> None:
        """What is no command counts too."""
        socket = self.socket()
        for number in range(30):
            socket.send(frame(TEXT, b"}") if number % 2 else frame(BINARY, b"x"))
        self.assertEqual(
            [reply["error"]["name"] for reply in socket.heard()], ["bad_request"] * 20 + ["limit_exceeded"] * 10
        )

    def test_pings(self) -> None:
        """So do pings."""
        socket = self.socket()
        for _ in range(22):
            socket.send(frame(PING, b"x"))
        replies = socket.frames()
        self.assertEqual([each.opcode for each in replies], [PONG] * 20 + [TEXT] * 2)
        self.assertEqual(json.loads(replies[-1].payload)["error"]["name"], "limit_exceeded")

    def test_abuse(self) -> None:
        """Who goes on all the same is closed, with a code and a time to come back."""
        socket = self.socket()
        socket.say([{"ping": {}} for _ in range(100)])
        *others, farewell, closing = socket.frames()
        told = json.loads(farewell.payload)["disconnect"]
        self.assertEqual((told["code"], told["reason"], told["reconnect"]), (4005, "limit_exceeded", True))
        self.assertGreaterEqual(told["after"], self.node.backoff.maximum)
        self.assertEqual((closing.code, closing.reason), (4005, "limit_exceeded"))
        self.assertEqual(len(others), 40)

    def test_raw(self) -> None:
        """On rtpush.raw there is no way to tell but the close code."""
        socket = self.socket("/ws?channel=none:a", protocol="rtpush.raw")
        for _ in range(11):
            socket.send(frame(TEXT, b"x"))
        self.assertEqual(self.closing(socket), (4005, "limit_exceeded"))
        self.assertEqual(self.node.counts.published["websocket"], 10)

    def test_others(self) -> None:
        """One who talks too much takes nothing from another."""
        one, two = self.socket(), self.socket()
        for _ in range(30):
            one.say({"ping": {}})
        self.assertEqual(two.do("ping"), {})

    def test_nothing_kept(self) -> None:
        """Nothing is kept for those who are silent, nor for those who are gone."""
        sockets = [self.socket() for _ in range(5)]
        self.assertEqual(len(self.node.limiter._talks), 0)
        sockets[0].say({"ping": {}})
        self.assertEqual(len(self.node.limiter._talks), 1)
        sockets[0].lose()
        self.assertEqual(len(self.node.limiter._talks), 0)


class SliceTests(SocketTestCase):
    """Very many commands that come at once are not done at once."""

    def come(self, socket: Any, data: bytes) -> list[Any]:
        """Have bytes come, without a turn of the reactor; return what was answered."""
        socket.client.wire.come(data)
        return list(socket.heard())

    def commands(self, count: int) -> list[Any]:
        """Return commands."""
        return [{"id": number, "ping": {}} for number in range(1, count + 1)]

    def test_array(self) -> None:
        """A few hundred in a turn, in their order; nothing is read until all are done."""
        socket = self.socket()
        replies = self.come(socket, frame(TEXT, json.dumps(self.commands(1000)).encode()))
        self.assertEqual((len(replies), socket.client.wire.reads), (250, False))
        socket.client.wire.come(frame(TEXT, b'{"id":2000,"ping":{}}'))
        self.clock.pump([0, 0])
        replies += socket.heard()
        self.assertEqual([reply["id"] for reply in replies], [*range(1, 1001), 2000])
        self.assertTrue(socket.client.wire.reads)

    def test_messages(self) -> None:
        """So it is with many messages in one segment."""
        socket = self.socket()
        replies = self.come(socket, b"".join(frame(TEXT, json.dumps(each).encode()) for each in self.commands(600)))
        # To see that a message is over takes as much as a command.
        self.assertEqual((len(replies), socket.client.wire.reads), (125, False))
        self.clock.pump([0, 0])
        replies += socket.heard()
        self.assertEqual([reply["id"] for reply in replies], list(range(1, 601)))
        self.assertTrue(socket.client.wire.reads)

    def test_gone(self) -> None:
        """Who goes meanwhile, or is closed, gets no more, and nothing is left."""
        for end in ("lose", "disconnect"):
            socket = self.socket()
            self.come(socket, frame(TEXT, json.dumps(self.commands(1000)).encode()))
            if end == "lose":
                socket.lose()
            else:
                self.call("disconnect", connection=next(iter(self.node.connections)))
                self.clock.advance(0)
                self.assertTrue(socket.client.wire.reads)
                socket.send(close_frame(4500))
            self.clock.pump([0, 0])
            self.assert_nobody()

    def test_held(self) -> None:
        """A client that does not read either has its commands done when it does."""
        socket = self.socket()
        socket.client.wire.stick()
        replies = self.come(socket, frame(TEXT, json.dumps(self.commands(1000)).encode()))
        self.clock.pump([0] * 5)
        self.assertLess(len(replies) + len(socket.heard()), 1000)
        socket.client.wire.drain()
        self.clock.pump([0] * 10)
        replies += socket.heard()
        self.assertEqual(socket.do("ping"), {})
        self.assertTrue(socket.client.wire.reads)


class TalkOfAnAddressTests(SocketTestCase):
    """Few commands and requests a second of an address."""

    server = "trusted_proxies = 127.0.0.1"
    limits = "command_rate_per_ip = 4\npublish_rate_per_ip = 2"

    def emit(self, address: str, *commands: Any) -> Any:
        """Send commands by a request; return the answer."""
        return self.ask("/emit", method="POST", body=json.dumps(list(commands)).encode(), headers=behind(address))

    def test_together(self) -> None:
        """WebSockets, requests and polls of an address count together."""
        one = self.socket(headers=behind("203.0.113.7"))
        one.say([{"id": 1, "ping": {}} for _ in range(9)])
        self.assertEqual(sum("ping" in reply for reply in one.heard()), 9)
        # To come is a request, and so is this.
        replies = self.emit("203.0.113.7", *[{"ping": {}}] * 4).json
        self.assertEqual([list(reply) for reply in replies], [["ping"]] * 4)
        for expected in [200] * 5 + [429] * 3:
            answer = self.ask(target("/poll", channel="demo:a", timeout=0), headers=behind("203.0.113.7"))
            self.assertEqual(answer.status, expected)
        self.assertEqual(one.do("ping"), "limit_exceeded")
        self.assertEqual(self.emit("203.0.113.7", {"ping": {}}).error, "limit_exceeded")
        self.assertEqual(self.emit("203.0.113.8", {"ping": {}}).json, [{"ping": {}}])

    def test_emit(self) -> None:
        """A request with one command is answered by the status of its error."""
        publish = {"publish": {"channel": "demo:a", "data": 1}}
        self.emit("203.0.113.7", *[publish] * 10)
        answer = self.ask(
            "/emit", method="POST", body=json.dumps(publish).encode(), headers=behind("203.0.113.7")
        )
        self.assertEqual((answer.status, answer.error), (429, "limit_exceeded"))
        self.assertEqual(len(self.call("history", channel="demo:a")["messages"]), 10)


class RequestsOfAnAddressTests(ServedTestCase):
    """Few requests a second of an address, whatever they ask for."""

    server = "trusted_proxies = 127.0.0.1\nallowed_origins = https://friend.example\ndemo = yes"
    limits = "command_rate_per_ip = 4"
    sections = "[api]\nkeys = 0123456789abcdef"

    def statuses(self, path: str, headers: dict[str, str] | None = None, **request: Any) -> set[int]:
        """Ask much too often; return the statuses of the first 20 answers, and of what comes after."""
        self.clock.advance(100)
        asked = [self.ask(path, headers=behind("203.0.113.7") | (headers or {}), **request) for _ in range(25)]
        self.assertEqual({answer.status for answer in asked[20:]}, {429}, path)
        self.assertEqual({answer.error for answer in asked[20:]}, {"limit_exceeded"}, path)
        return {answer.status for answer in asked[:20]}

    def test_all(self) -> None:
        """Pages, files, what is not there, what is refused, and calls without a key: all of them."""
        later = {"If-Modified-Since": "Wed, 01 Jan 2098 00:00:00 GMT"}
        for path, headers, method, status in (
            ("/negotiate", {}, "GET", 200),
            ("/negotiate", {"Origin": "https://evil.example"}, "GET", 403),
            ("/negotiate?direction=up", {}, "GET", 400),
            ("/poll?channel=none", {}, "OPTIONS", 204),
            ("/nothing/here", {}, "GET", 404),
            ("/client/rtpush.js", later, "GET", 304),
            ("/client/nothing", {}, "GET", 404),
            ("/client/%ff", {}, "GET", 404),
            ("/demo/", later, "GET", 304),
            ("/emit", {}, "POST", 400),
            ("/api/v1/info", {}, "POST", 401),
            ("/api/v1/info", {"X-API-Key": "wrong"}, "POST", 401),
            ("/metrics", {}, "GET", 401),
            ("/admin/login", {}, "POST", 403),
        ):
            self.assertEqual(self.statuses(path, headers, method=method), {status}, path)
        self.assertEqual(self.node.counts.limited["command_rate_per_ip"], 14 * 5)

    def test_page(self) -> None:
        """A page that may use this server can read that it was refused."""
        self.statuses("/negotiate")
        origin = {"Origin": "https://friend.example"}
        answer = self.ask("/negotiate", headers=behind("203.0.113.7") | origin)
        self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (429, origin["Origin"]))
        self.assertGreater(int(answer.headers["retry-after"]), 0)

    def test_free(self) -> None:
        """Backends with a key, balancers, and other addresses are not meant."""
        self.statuses("/negotiate")
        key = {"X-API-Key": "0123456789abcdef"}
        for path, headers, method in (
            ("/api/v1/info", key, "POST"),
            ("/metrics", key, "GET"),
            ("/healthz", {}, "GET"),
            ("/readyz", {}, "GET"),
        ):
            for _ in range(30):
                answer = self.ask(path, headers=behind("203.0.113.7") | headers, method=method)
                self.assertEqual(answer.status, 200, path)
        self.assertEqual(self.ask("/negotiate", headers=behind("203.0.113.8")).status, 200)

    def test_off(self) -> None:
        """Without the limit nothing is asked, and it can be set while the node runs."""
        self.serve(server=self.server)
        self.assertIsNone(self.site.heed)


class PollsTests(TokenTestCase):
    """Few polls at once for each client."""

    server = "trusted_proxies = 127.0.0.1"
    limits = "polls_per_client = 2"

    def poll(self, address: str, **query: Any) -> Client:
        """Have a poll come."""
        client = self.client()
        client.request(target("/poll", channel="free:a", cursor="-", **query), headers=behind(address))
        return client

    def test_user(self) -> None:
        """Those of a user count together, wherever they come from; when one is over, another may come."""
        token = self.token()
        waiting = [self.poll(f"203.0.113.{number}", token=token) for number in (1, 2)]
        third = self.poll("203.0.113.3", token=token)
        self.assertEqual((third.answer().error, waiting[0].take()), ("limit_exceeded", b""))
        self.assertEqual(self.node.counts.limited["polls_per_client"], 1)
        waiting[0].lose()
        self.assertEqual(self.poll("203.0.113.3", token=token).take(), b"")
        self.assertEqual(self.poll("203.0.113.1", token=self.token(sub="43")).take(), b"")
        # A stream is no poll.
        stream = self.client()
        stream.request(target("/sse", channel="free:a", token=token))
        self.assertEqual(stream.answer().status, 200)

    def test_address(self) -> None:
        """Those of an address whose clients have no token count together; those of this machine do not."""
        waiting = [self.poll("203.0.113.1") for _ in range(2)]
        self.assertEqual(self.poll("203.0.113.1").answer().status, 429)
        self.assertEqual(self.poll("203.0.113.2").take(), b"")
        self.publish("free:a", 1)
        self.assertEqual([client.answer().status for client in waiting], [200, 200])
        self.assertEqual(self.poll("203.0.113.1").take(), b"")
        for _ in range(5):
            self.assertEqual(self.poll("127.0.0.1").take(), b"")
        self.publish("free:a", 2)
        limiter = self.node.limiter
        self.assertEqual((limiter._polls, limiter._pollers), ({}, {}))


class LengthTests(ServedTestCase):
    """URLs, heads and names of channels."""

    limits = "url_bytes = 1000\nheader_bytes = 2048\nchannel_name_bytes = 40"

    def test_url(self) -> None:
        """A long URL is refused, with the code of that, for whatever it asks."""
        for path in ("/poll", "/sse", "/ws", "/emit", "/nothing", "/client/x", "/admin/x", "/api/v1/info", "/healthz"):
            for size, status in ((1001, 414), (1000, 0)):
                answer = self.ask(path + "?" + "x" * (size - len(path) - 1))
                if status:
                    self.assertEqual((answer.status, answer.error), (414, "url_too_long"), path)
                else:
                    self.assertNotEqual(answer.status, 414, path)
        self.assertEqual(self.node.counts.limited["url_bytes"], 9)

    def test_unreadable(self) -> None:
        """What cannot be read is answered as anything else is, and counted."""
        for request, status, name in (
            (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 2048 + b"\r\n\r\n", 431, "head_too_large"),
            (b"GET /healthz HTTP/1.1\r\nX y: z\r\n\r\n", 400, "bad_request"),
            (b"GET /" + b"x" * 3000, 431, "head_too_large"),
        ):
            client = self.client()
            client.send(request)
            answer = client.answer()
            self.assertEqual((answer.status, answer.error), (status, name))
            self.assertEqual(answer.headers["connection"], "close")
            self.assertTrue(client.closed)
        self.assertEqual(self.node.counts.limited["header_bytes"], 2)
        self.assertEqual(self.node.counts.refusals["head_too_large"], 2)

    def test_late(self) -> None:
        """A head that does not come in its time is counted; a connection that has nothing to say is not."""
        slow, silent = self.client(), self.client()
        slow.send(b"GET /he")
        self.pump(25)
        self.assertTrue(slow.closed and silent.closed)
        self.assertEqual(self.node.counts.limited["header_timeout"], 1)

    def test_name(self) -> None:
        """A channel with a long name is none, for clients and backends; clients can know what is long."""
        long = "demo:" + "x" * 36
        self.assertEqual(self.ask(target("/poll", channel=long, timeout=0)).error, "bad_channel")
        self.assertEqual(self.ask(target("/poll", channel=long[:-1], timeout=0)).status, 200)
        body = json.dumps({"channel": long, "data": 1}).encode()
        self.assertEqual(self.ask("/api/v1/publish", method="POST", body=body).error, "bad_channel")
        self.assertEqual(self.ask("/negotiate").json["limits"]["channel_name_bytes"], 40)


class WaitingTests(ServedTestCase):
    """Few connections may wait for a request."""

    limits = "max_waiting = 10\nheader_timeout = 20\nheader_bytes = 2048"

    def test_slow(self) -> None:
        """Who says a byte now and then goes first when others come; who has a stream stays, and all are answered."""
        stream = self.client()
        stream.request("/sse?channel=demo:a")
        slow = [self.client() for _ in range(10)]
        for number in range(10):
            for client in slow:
                if not client.closed:
                    client.send(b"G")
            self.assertEqual(self.client().ask("/healthz").status, 200)
            self.assertEqual(sum(client.closed for client in slow), number + 1)
        self.assertFalse(stream.closed)
        self.assertEqual(self.node.counts.limited["max_waiting"], 10)

    def test_bound(self) -> None:
        """However many come, so many wait, and the others are closed, the oldest first."""
        clients = [self.client() for _ in range(100)]
        self.clock.advance(0)
        self.assertEqual([client.closed for client in clients], [True] * 90 + [False] * 10)
        self.assertEqual(clients[-1].ask("/healthz").status, 200)
        self.assertEqual(self.node.counts.limited["max_waiting"], 90)

    def test_head(self) -> None:
        """A head that is too large is answered by 431, in one piece or in many, and by its URL or its fields."""
        for request in (
            b"GET /healthz?" + b"x" * 2048 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2048 + b"\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 400 + b"\r\n",
            b"GET /" + b"x" * 3000,
        ):
            for size in (len(request), 100):
                client = self.client()
                for start in range(0, len(request), size):
                    client.send(request[start : start + size])
                self.assertTrue(client.wire.sent.startswith(b"HTTP/1.1 431 "), (request[:20], size, client.wire.sent))
                self.assertTrue(client.closed)
        client = self.client()
        self.assertEqual(client.ask("/healthz?" + "x" * 1500).status, 200)


class ProxiedTests(ServedTestCase):
    """Proxies that announce their clients before anything else."""

    server = "trusted_proxies = 127.0.0.1, 10.0.0.1"

    def setUp(self) -> None:
        super().setUp()
        self.factory = ProxiedFactory(self.site, lambda: self.node.proxies, self.clock)

    def proxied(self) -> Client:
        """Connect a client by a proxy."""
        return Client(self.clock, self.factory, next(self._ports))

    def peers(self) -> list[str]:
        """Return the addresses of the connections, as the server API shows them."""
        return [each["peer"] for each in self.call("connections")["connections"]]

    def test_announced(self) -> None:
        """The client is who was announced, in one piece with the request or in many, on every transport."""
        head = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
        for path, headers in _STAYING:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            request = head + f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
            for size in (1, len(request)):
                client = self.proxied()
                for start in range(0, len(request), size):
                    client.send(request[start : start + size])
        self.assertEqual(self.peers(), ["203.0.113.7"] * 6)

    def test_chain(self) -> None:
        """If who was announced is a trusted proxy too, what it says is believed."""
        for announced, client in (("10.0.0.1", "198.51.100.1"), ("203.0.113.7", "203.0.113.7")):
            proxied = self.proxied()
            proxied.send(f"PROXY TCP4 {announced} 192.0.2.1 4711 443\r\n".encode())
            proxied.request("/sse?channel=demo:a", headers=behind("198.51.100.1"))
            self.assertEqual(self.peers(), [client])
            proxied.lose()

    def test_unknown(self) -> None:
        """A proxy that speaks for itself, as in its checks, is who it is."""
        proxied = self.proxied()
        proxied.send(b"PROXY UNKNOWN\r\n")
        self.assertEqual(proxied.ask("/readyz").status, 200)

    def test_bad(self) -> None:
        """Without the header nothing is answered; nor when it does not come."""
        for data in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00", b""):
            proxied = self.proxied()
            proxied.send(data)
            self.pump(6)
            self.assertEqual((proxied.closed, bytes(proxied.wire.sent)), (True, b""))
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.getTime() > 1e9], [])

    def test_strangers(self) -> None:
        """Who is no trusted proxy is not even heard."""
        self.serve(server="trusted_proxies = 10.0.0.1", sections=self.sections)
        self.assertIsNone(self.factory.buildProtocol(Wire(self.clock, 1).getPeer()))

    def test_configuration(self) -> None:
        """Such an address needs to know whom to trust."""
        text = CONFIG.format(echo="", server="", limits="", sections="").replace("listen = tcp", "listen = haproxy:tcp")
        with self.assertRaisesRegex(Exception, "trusted_proxies: expected the proxies that connect"):
            parse(text)
        made = parse(text.replace("node =", "trusted_proxies = 10.0.0.0/8\nnode ="))
        self.assertEqual(made.server.listen, ("haproxy:tcp:0:interface=127.0.0.1",))


class IncomingTests(SocketTestCase):
    """Requests and messages that do not come to their end, from very many connections."""

    limits = "incoming_bytes = 600000"

    def begin(self, size: int = 250_000) -> Client:
        """Send all of a request but its last byte."""
        client = self.client()
        client.send(b"POST /emit HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (size + 1))
        for start in range(0, size, 50_000):
            client.send(b" " * min(50_000, size - start))
        return client

    def test_requests(self) -> None:
        """The one that is silent for the longest time is told, and closed; nothing of it stays."""
        first, second, third = self.begin(), self.begin(), self.begin()
        answer = first.answer()
        self.assertEqual((answer.status, answer.error), (503, "unavailable"))
        self.assertTrue(first.closed)
        self.assertEqual(self.node.incoming.total, 500_000)
        for client in (second, third):
            client.send(b"x")
            self.assertEqual(client.answer().status, 400)
        self.assertEqual((self.node.incoming.total, self.node.counts.limited["incoming_bytes"]), (0, 1))
        self.assertEqual(self.ask("/healthz").status, 200)

    def test_gone(self) -> None:
        """Who goes in the middle holds nothing any more, nor does one whose request is too large to be taken."""
        client = self.begin()
        self.assertEqual(self.node.incoming.total, 250_000)
        client.lose()
        self.assertEqual(self.node.incoming.total, 0)
        self.begin(270_000)
        self.assertEqual(self.node.incoming.total, 0)

    def test_http2(self) -> None:
        """The streams of a connection count together."""
        first, second = (Http2Client(self) for _ in range(2))
        for client in (first, second):
            for _ in range(2):
                id_ = client.ask("/emit", b"", method="POST", is_all=False)
                for _ in range(6):
                    client.machine.send_data(id_, b" " * 5_000)
                    client.flush()
        self.assertEqual(self.node.incoming.total, 120_000)
        self.begin()
        self.begin()
        first.look()
        second.look()
        self.assertIsNotNone(first.goaway)
        self.assertIsNone(second.goaway)
        self.assertEqual(self.node.incoming.total, 560_000)
        second.wire.protocol.connectionLost(None)
        self.assertEqual(self.node.incoming.total, 500_000)

    def test_messages(self) -> None:
        """A WebSocket message counts by what has come of it, however it is cut; and no longer when it is complete."""
        complete, whole, cut = (self.socket() for _ in range(3))
        message = frame(TEXT, b" " * 240_000)
        for socket in (complete, whole):
            socket.send(message[:-1])
        self.assertEqual(self.node.incoming.total, 2 * (len(message) - 1))
        complete.send(message[-1:])
        self.assertEqual(self.node.incoming.total, len(message) - 1)
        pieces = [frame(0 if number else TEXT, b" " * 30_000, fin=False) for number in range(8)]
        for piece in pieces:
            cut.send(piece)
        self.assertEqual(self.node.incoming.total, len(message) - 1 + sum(map(len, pieces)))
        self.begin()
        self.assertEqual(self.closing(whole)[0], 1013)
        self.assertEqual(cut.frames(), [])
        cut.lose()
        self.assertEqual(self.node.incoming.total, 250_000)
