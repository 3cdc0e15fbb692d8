"""The application is asked, on every transport."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from rtpush.hooks.application import Application
from rtpush.hooks.settings import HookSettings
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.guests import Guest
from tests.auth.makers import SECRET, hs
from tests.hooks.fakes import FakeBackend
from tests.transports.serving import events_of, instances_of, target
from tests.transports.sockets import CLOSE, HANDSHAKE, TEXT, SocketTestCase, WebSocket, close_frame, frame

_SECTIONS = f"""
[api]
open = yes
[auth]
keys = hs HS256 {SECRET.decode()}
[namespace:room]
anonymous = yes
subscribe = token
publish = token
history_size = 10
presence = yes
[namespace:free]
anonymous = yes
history_size = 10
publish = anyone
presence = yes
[namespace:cached]
anonymous = yes
poll_max_age = 9
[namespace:quiet]
anonymous = yes
publish = anyone
hooks = no
"""

_ANN = {
    "user": "ann",
    "info": {"name": "Ann"},
    "channels": {"room:*": ["subscribe", "publish", "presence"]},
    "data": {"welcome": "Ann"},
}
_SUBSCRIBE = {"id": 1, "subscribe": {"channel": "free:a"}}
_PUBLISH = {"id": 2, "publish": {"channel": "free:a", "data": 1}}
_COOKIE = {"Cookie": "session=ann", "X-Other": "1"}


class HookTestCase(SocketTestCase):
    """A node that asks an application, which says yes if nothing else is said."""

    server = "allowed_origins = https://friend.example"
    sections = _SECTIONS

    def setUp(self) -> None:
        super().setUp()
        self.backend = FakeBackend(connect={}, subscribe={}, publish={}, disconnect={})
        self.hook()

    def hook(self, **settings: Any) -> None:
        """Have the node ask, with these settings."""
        made = HookSettings(url="http://app.example/", **settings)
        self.node.hooks = Application(
            made,
            self.backend,
            self.clock,
            node="test-node",
            now=self.clock.seconds,
            chance=lambda: 0.5,
            counts=self.node.counts.hooks,
        )
        self.node.revoking.start()

    def ws(self, **query: Any) -> WebSocket:
        """Open a WebSocket with a cookie."""
        return self.socket(target("/ws", **query), protocol="rtpush.v1", headers=_COOKIE)

    def sse(self, **query: Any) -> Any:
        """Open a stream with a cookie."""
        client = self.client()
        client.request(target("/sse", **{"channel": "free:a", **query}), headers=_COOKIE)
        return client

    def poll(self, **query: Any) -> Any:
        """Poll with a cookie; what comes is the answer, as far as it is there."""
        return self.ask(target("/poll", **{"channel": "free:a", "timeout": 0, **query}), headers=_COOKIE)

    def emit(self, *commands: Any, **headers: str) -> Any:
        """Do commands by a request."""
        body = json.dumps(commands[0] if len(commands) == 1 else commands).encode()
        return self.ask("/emit", method="POST", body=body, headers=_COOKIE | headers)

    def token(self, **claims: Any) -> str:
        """Make a good token."""
        now = self.clock.seconds()
        return hs(**{"sub": "ann", "iat": now, "exp": now + 1000, **claims}).decode()


class ConnectTests(HookTestCase):
    """Whether a client may come in."""

    def test_asked(self) -> None:
        """What the application hears: who it is, as far as that is known, and the headers that it wants."""
        socket = self.ws(info='{"a":1}')
        self.assertEqual(self.backend.asked, [])
        socket.say({"id": 1, "connect": {"info": {"device": "phone"}, "data": {"session": 5}}})
        [reply] = socket.heard()
        [asked] = self.backend.of("connect")
        self.assertEqual(
            {name: value for name, value in asked.items() if name not in ("id", "time")},
            {
                "event": "connect",
                "node": "test-node",
                "transport": "websocket",
                "connection": reply["connect"]["connection"],
                "address": "127.0.0.1",
                "headers": {"cookie": "session=ann"},
                "info": {"device": "phone"},
                "data": {"session": 5},
            },
        )
        self.assertEqual(asked["id"], self.backend.asked[0].headers["webhook-id"])
        self.assertEqual(asked["time"], self.clock.seconds())

    def test_asked_elsewhere(self) -> None:
        """The same on the other transports, whose connections have the id that was told."""
        stream = self.sse(info='{"device":"tv"}')
        stream.answer()
        opened = stream.wire.sent.partition(b'"connection":"')[2][:16].decode()
        self.poll()
        asked = self.backend.of("connect")
        self.assertEqual(asked[0]["connection"], opened)
        self.assertEqual((asked[0]["transport"], asked[0]["info"]), ("sse", {"device": "tv"}))
        self.assertEqual(asked[0]["headers"], {"cookie": "session=ann"})

    def test_given(self) -> None:
        """What it gives counts as what a token grants, on every transport: so no token is needed."""
        self.backend.answers["connect"] = _ANN
        socket = self.ws()
        reply = socket.do("connect")
        self.assertEqual(reply["data"], {"welcome": "Ann"})
        self.assertIn("epoch", socket.do("subscribe", channel="room:a"))
        self.assertEqual(socket.do("subscribe", channel="private:a"), "permission_denied")
        [present] = socket.do("presence", channel="room:a")["connections"]
        self.assertEqual((present["user"], present["info"]), ("ann", {"name": "Ann"}))
        self.assertIn("offset", self.emit({"publish": {"channel": "room:a", "data": 1}}).json["publish"])
        self.assertEqual(self.poll(channel="room:a").status, 200)
        stream = self.sse(channel="room:a")
        self.assertEqual(stream.answer().status, 200)
        raw = self.socket("/ws?channel=room:a", protocol="rtpush.raw", headers=_COOKIE)
        raw.send(frame(TEXT, b"hello"))
        self.assertEqual(raw.frames()[-1].payload, b"hello")
        users = {each.get("user") for each in self.call("connections", channel="room:a")["connections"]}
        self.assertEqual(users, {"ann"})

    def test_without(self) -> None:
        """A yes alone gives nothing: what needs a token is not permitted."""
        self.assertEqual(self.poll(channel="room:a").error, "unauthorized")
        self.assertEqual(self.ws().do("subscribe", channel="room:a"), "unauthorized")
        self.assertEqual(self.emit({"publish": {"channel": "room:a", "data": 1}}).error, "unauthorized")

    def test_initial_data(self) -> None:
        """What it says to the client is in the reply, the first event, and the answer to the first poll."""
        self.backend.answers |= {"connect": {"data": [1]}, "subscribe": {"data": {"members": 3}}}
        socket = self.ws()
        self.assertEqual(socket.do("connect")["data"], [1])
        self.assertEqual(socket.do("subscribe", channel="free:a")["data"], {"members": 3})
        [pushed] = self.ws(channel="free:a").heard()
        self.assertEqual(pushed["subscribed"]["data"], {"members": 3})
        stream = self.sse()
        opening = list(events_of(stream.answer().body))[0].json
        expected = {"data": [1], "channel_data": {"free:a": {"members": 3}}}
        self.assertEqual({name: opening[name] for name in expected}, expected)
        for timeout in (0, 30):
            first = self.poll(timeout=timeout).json
            self.assertEqual(first, {"messages": [], "cursor": first["cursor"], "recovered": True, **expected})
            if not timeout:
                self.assertNotIn("data", self.poll(cursor=first["cursor"]).json)
        other = self.poll(channel=["free:a", "free:b"], cursor=f"{first['cursor']},-", timeout=30).json
        self.assertEqual((other["data"], sorted(other["channel_data"])), ([1], ["free:a", "free:b"]))
        gone = self.poll(channel=["free:a", "free:b"], cursor="gone:7,-").json
        self.assertEqual((gone["recovered"], gone["data"]), (False, [1]))
        self.publish("free:a", "x")
        first = self.poll(since="earliest").json
        self.assertEqual(([each["data"] for each in first["messages"]], first["data"]), (["x"], [1]))

    def test_msgpack(self) -> None:
        """Also in msgpack."""
        self.backend.answers["connect"] = {"data": {"n": 1}}
        socket = self.socket("/ws", protocol="rtpush.v1.msgpack", headers=_COOKIE)
        socket.send(frame(2, msgspec.msgpack.encode({"id": 1, "connect": {"data": {"k": b"\1"}}})))
        [reply] = socket.unpacked()
        self.assertEqual(reply["connect"]["data"], {"n": 1})

    def test_denied(self) -> None:
        """A no is an error with the application's words; a WebSocket is closed and does not come back."""
        self.backend.answers["connect"] = {"deny": {"message": "log in first"}}
        for command in ({"connect": {}}, {"subscribe": {"channel": "free:a"}}, {"ping": {}}):
            socket = self.ws()
            socket.say([{"id": 5, **command}, {"id": 6, "ping": {}}])
            [reply, told, closing] = socket.frames()
            error = json.loads(reply.payload)
            self.assertEqual((error["id"], error["error"]["message"]), (5, "log in first"))
            self.assertFalse(json.loads(told.payload)["disconnect"]["reconnect"])
            self.assertEqual((closing.code, closing.reason), (4503, "permission_denied"))
        for answer in (
            self.poll(),
            self.poll(timeout=30),
            self.sse().answer(),
            self.emit({"ping": {}}),
            self.ask("/ws?channel=free:a", headers=HANDSHAKE | _COOKIE),
            self.ask("/ws?channel=free:a", headers=HANDSHAKE | _COOKIE | {"Sec-WebSocket-Protocol": "rtpush.raw"}),
        ):
            self.assertEqual((answer.status, answer.error), (403, "permission_denied"))
            self.assertEqual(answer.json["error"]["message"], "log in first")
        self.assertEqual(self.backend.of("disconnect"), [])
        self.assertEqual(self.backend.of("subscribe"), [])

    def test_codes(self) -> None:
        """A status of 401 is one; codes of ours have their meaning, and those of disconnects are close codes."""
        for answer, status, name, code in (
            ((401, b""), 401, "unauthorized", 4503),
            ({"deny": {"code": 111}}, 429, "limit_exceeded", 4005),
            ({"deny": {"code": 112}}, 503, "unavailable", 1013),
            ({"deny": {"code": 4403, "message": "later"}}, 403, "permission_denied", 4403),
            ({"deny": {"code": 4801}}, 403, "permission_denied", 4801),
            ({"deny": {"code": 7}}, 403, "permission_denied", 4503),
        ):
            self.backend.answers["connect"] = answer
            refused = self.poll()
            self.assertEqual((refused.status, refused.error), (status, name))
            socket = self.ws()
            socket.say({"connect": {}})
            self.assertEqual(socket.frames()[-1].code, code)

    def test_failed(self) -> None:
        """No good answer is none: clients come back later."""
        for answer in ((500, {}), b"{", {"oops": 1}, OSError("away"), {"user": 1}):
            self.hook()
            self.backend.answers["connect"] = answer
            socket = self.ws()
            socket.say({"id": 1, "connect": {}})
            reply, _, closing = socket.frames()
            self.assertEqual(json.loads(reply.payload)["error"]["name"], "unavailable")
            self.assertEqual((closing.code, closing.reason), (1013, "unavailable"))
            for refused in (self.poll(), self.sse().answer(), self.emit({"ping": {}})):
                self.assertEqual((refused.status, refused.error), (503, "unavailable"))
                self.assertIn("retry-after", refused.headers)

    def test_failed_allow(self) -> None:
        """Where that is to mean yes, it is a yes that gives nothing."""
        self.hook(on_failure="allow")
        self.backend.answers |= dict.fromkeys(("connect", "subscribe", "publish"), (500, b"oops"))
        socket = self.ws()
        self.assertIn("epoch", socket.do("subscribe", channel="free:a"))
        self.assertIn("offset", socket.do("publish", channel="free:a", data=1))
        self.assertEqual(socket.do("subscribe", channel="room:a"), "unauthorized")
        self.assertEqual(self.poll().status, 200)

    def test_slow(self) -> None:
        """While it is asked the client waits; what it says meanwhile is done after that, in order."""
        del self.backend.answers["connect"]
        socket = self.ws()
        socket.say([_SUBSCRIBE, _PUBLISH])
        socket.say({"id": 3, "ping": {}})
        self.assertEqual((socket.heard(), self.backend.events()), ([], ["connect"]))
        self.backend.waiting()[0].answer({})
        self.clock.pump([0.0] * 4)
        names = [next(name for name in each if name != "id") for each in socket.heard()]
        self.assertEqual(sorted(names), ["message", "ping", "publish", "subscribe"])
        stream, poll = self.sse(), self.client()
        poll.request("/poll?channel=free:a&timeout=0", headers={"Cookie": "session=b"})
        self.assertEqual((stream.take(), poll.take()), (b"", b""))
        for each in self.backend.waiting():
            each.answer({})
        self.assertEqual((stream.answer().status, poll.answer().status), (200, 200))

    def test_timeout(self) -> None:
        """It is not waited for longer than it may take."""
        del self.backend.answers["connect"]
        socket, stream = self.ws(), self.sse()
        socket.say({"id": 1, "connect": {}})
        self.clock.advance(2)
        self.assertEqual(socket.frames()[-1].code, 1013)
        self.assertEqual(stream.answer().status, 503)

    def test_gone(self) -> None:
        """Who goes away meanwhile leaves nothing; the application, which has said yes, hears of it."""
        before = instances_of(Guest, Connection)
        del self.backend.answers["connect"]
        socket = self.ws()
        socket.say([_SUBSCRIBE, _PUBLISH])
        clients = [self.client() for _ in range(3)]
        clients[0].request("/sse?channel=free:a")
        clients[1].request("/poll?channel=free:a")
        clients[2].request("/ws?channel=free:a", headers=HANDSHAKE)
        socket.lose()
        for client in clients:
            client.lose()
        for each in self.backend.waiting():
            each.answer({"user": "ann"})
        self.assert_nobody()
        self.assertEqual(self.backend.events(), ["connect"] * 4 + ["disconnect"] * 3)
        self.assertEqual({each["code"] for each in self.backend.of("disconnect")}, {1006})
        self.assertEqual([each for each in self.node.deadlines if isinstance(each, Credentials)], [])
        self.backend.asked.clear()
        del socket, client, clients, each
        self.assertEqual(instances_of(Guest, Connection), before)

    def test_strange_pages(self) -> None:
        """Where the pages of all may connect, those of others come without the cookies of their visitors."""
        self.serve(server="allowed_origins = *", sections=_SECTIONS)
        self.hook()
        for origin, headers in (
            ("http://node.example", {"cookie": "session=ann", "x-other": "1"}),
            ("http://evil.example", {"x-other": "1"}),
            ("null", {"x-other": "1"}),
        ):
            self.hook(headers=("cookie", "x-other"))
            self.ask("/poll?channel=free:a&timeout=0", headers=_COOKIE | {"Origin": origin})
            self.assertEqual(self.backend.of("connect")[-1]["headers"], headers)
            socket = self.socket("/ws", headers=_COOKIE | {"Origin": origin})
            socket.do("connect")
            self.assertEqual(self.backend.of("connect")[-1]["headers"], headers)

    def test_head(self) -> None:
        """Who asks for a head does not stay, and the application hears it."""
        self.client().request("/sse?channel=free:a", method="HEAD", headers=_COOKIE)
        self.assertEqual(self.backend.events(), ["connect", "disconnect"])
        self.assert_nobody()

    def test_again(self) -> None:
        """Another ``connect`` on the same WebSocket asks nothing, and what was said is not said again."""
        self.backend.answers["connect"] = _ANN
        socket = self.ws()
        self.assertEqual(socket.do("connect")["data"], {"welcome": "Ann"})
        self.assertNotIn("data", socket.do("connect"))
        first = self.ws(channel="free:a")
        self.assertEqual(first.do("connect")["data"], {"welcome": "Ann"})
        self.assertEqual(self.backend.events(), ["connect", "connect", "subscribe"])

    def test_own_checks_first(self) -> None:
        """What we refuse ourselves is never asked."""
        socket = self.ws()
        socket.say({"id": 1, "connect": {"token": "bad"}})
        self.assertEqual(socket.heard()[0]["error"]["name"], "invalid_token")
        for answer in (
            self.poll(token="bad"),
            self.ask("/sse?channel=free:a&token=bad"),
            self.ask("/sse?channel=free:a", headers={"Origin": "https://evil.example"}),
            self.ask("/sse?channel=free:a&info=%7B"),
            self.ask("/poll"),
        ):
            self.assertGreaterEqual(answer.status, 400)
        self.assertEqual(self.backend.asked, [])
        socket.do("connect")
        for channel in ("nowhere:a", "private:a", "room:a", "bad name"):
            self.assertIsInstance(socket.do("subscribe", channel=channel), str)
            self.assertIsInstance(socket.do("publish", channel=channel, data=1), str)
        self.assertEqual(self.backend.events(), ["connect"])


class TogetherTests(HookTestCase):
    """Tokens and the application's word together."""

    def test_added(self) -> None:
        """What both permit is permitted; the user is the one that either names."""
        self.backend.answers["connect"] = {"channels": {"room:b": ["subscribe"]}, "info": {"by": "app"}}
        token = self.token(channels={"room:a": ["subscribe", "presence"]}, info={"by": "token"})
        socket = self.ws()
        socket.say({"id": 1, "connect": {"token": token}})
        socket.heard()
        self.assertEqual(self.backend.of("connect")[0]["user"], "ann")
        for channel in ("room:a", "room:b"):
            self.assertIn("epoch", socket.do("subscribe", channel=channel))
            self.assertEqual(self.poll(channel=channel, token=token).status, 200)
        self.assertEqual(socket.do("subscribe", channel="room:c"), "permission_denied")
        [present] = socket.do("presence", channel="room:a")["connections"]
        self.assertEqual((present["user"], present["info"]), ("ann", {"by": "app"}))

    def test_same_user(self) -> None:
        """If both name one it is the same; else nobody comes in, and the application hears that."""
        self.backend.answers["connect"] = {"user": "bob"}
        socket = self.ws()
        socket.say({"id": 1, "connect": {"token": self.token()}})
        self.assertEqual(json.loads(socket.frames()[0].payload)["error"]["name"], "permission_denied")
        self.assertEqual(self.poll(token=self.token()).error, "permission_denied")
        self.assertEqual(self.backend.events(), ["connect", "disconnect", "connect"])
        socket = self.ws()
        socket.say({"id": 1, "connect": {"token": self.token(sub="bob")}})
        self.assertIn("connect", socket.heard()[0])

    def test_refresh(self) -> None:
        """A new token replaces the old one, and not what the application has given."""
        self.backend.answers["connect"] = {"channels": {"room:b": ["subscribe"]}}
        socket = self.ws()
        socket.say({"id": 1, "connect": {"token": self.token(channels={"room:a": ["subscribe"]})}})
        for channel in ("room:a", "room:b"):
            socket.do("subscribe", channel=channel)
        socket.say({"id": 2, "refresh": {"token": self.token()}})
        ended = [each["unsubscribed"]["channel"] for each in socket.heard() if "unsubscribed" in each]
        self.assertEqual(ended, ["room:a"])
        self.assertEqual(self.backend.events().count("connect"), 1)

    def test_channel_tokens(self) -> None:
        """A token for a channel is for the user that the application has named."""
        self.backend.answers["connect"] = {"user": "ann"}
        mine, other = self.token(channel="room:a"), self.token(channel="room:a", sub="bob")
        self.assertEqual(self.poll(channel="room:a", channel_token=mine).status, 200)
        self.assertEqual(self.poll(channel="room:a", channel_token=other).error, "permission_denied")
        socket = self.ws()
        self.assertEqual(socket.do("subscribe", channel="room:a", token=other), "permission_denied")
        self.assertIn("epoch", socket.do("subscribe", channel="room:a", token=mine))

    def test_expires(self) -> None:
        """What it gives has an end: then the client comes back, and is asked about again."""
        self.backend.answers["connect"] = {"user": "ann", "expires": self.clock.seconds() + 100}
        token = self.token()
        stream, both, poll = self.sse(), self.sse(token=token), self.client()
        poll.request(f"/poll?channel=free:a&timeout=60&cursor={self.now('free:a')}", headers=_COOKIE)
        for each in (stream, both):
            each.answer()
        self.pump(60, 1)
        poll.answer()
        poll.request(f"/poll?channel=free:a&timeout=60&cursor={self.now('free:a')}", headers=_COOKIE)
        self.pump(39, 1)
        self.assertNotIn(b"token_expiring", stream.take() + both.take())
        self.pump(2, 1)
        for each in (stream, both):
            self.assertIn(b'"code":4003', each.take())
        self.assertEqual(poll.answer().json["disconnect"]["code"], 4003)
        self.assertEqual([each["code"] for each in self.backend.of("disconnect")], [4003, 4003])
        self.assertEqual(self.poll().error, "unauthorized")
        self.backend.answers["connect"] = {"user": "ann", "expires": self.clock.seconds() + 100}
        self.assertEqual(self.poll().status, 200)

    def test_token_expires(self) -> None:
        """A token that ends before that is warned of, and ends as ever."""
        self.backend.answers["connect"] = {"user": "ann", "expires": self.clock.seconds() + 500}
        stream = self.sse(token=self.token(exp=self.clock.seconds() + 100))
        stream.answer()
        self.pump(80, 1)
        self.assertIn(b"token_expiring", stream.take())
        self.pump(30, 1)
        self.assertIn(b'"code":4004', stream.take())

    def test_revoked(self) -> None:
        """What it gave can be taken back by its user, also from those who poll; then it is asked again."""
        self.backend.answers["connect"] = _ANN
        stream = self.sse(channel="room:a")
        stream.answer()
        self.poll(channel="room:a")
        asked = len(self.backend.of("connect"))
        self.clock.advance(1)
        self.call("revoke", user="ann")
        self.assertIn(b'"code":4502', stream.take())
        self.clock.advance(1)
        self.assertEqual(self.poll(channel="room:a").status, 200)
        self.assertEqual(len(self.backend.of("connect")), asked + 1)
        self.call("revoke", user="ann", later=True)
        self.assertEqual(self.poll(channel="room:a").error, "token_revoked")

    def test_user_limited(self) -> None:
        """It counts where channels are for users, and for the limit of a user."""
        self.serve(
            server=self.server,
            limits="connections_per_user = 1",
            sections=_SECTIONS + "[namespace:chat]\nanonymous = yes\nuser_limited = yes\nhistory_size = 5",
        )
        self.hook()
        self.backend.answers["connect"] = {"user": "ann"}
        socket = self.ws()
        self.assertIn("epoch", socket.do("subscribe", channel="chat:a#ann"))
        self.assertEqual(socket.do("subscribe", channel="chat:a#bob"), "permission_denied")
        second = self.ws()
        second.say({"id": 1, "connect": {}})
        self.assertEqual(second.frames()[-1].code, 4005)
        self.assertEqual(self.sse().answer().status, 429)
        self.assertEqual(self.backend.events().count("disconnect"), 2)


class SubscribeTests(HookTestCase):
    """Whether a client may subscribe."""

    def test_asked(self) -> None:
        """Once for each channel, with the user."""
        self.backend.answers["connect"] = _ANN
        self.ws(channel="free:a,room:b").heard()
        asked = [(each["channel"], each["user"], each["info"]) for each in self.backend.of("subscribe")]
        self.assertEqual(asked, [("free:a", "ann", {"name": "Ann"}), ("room:b", "ann", {"name": "Ann"})])

    def test_denied(self) -> None:
        """On a WebSocket an error; elsewhere the answer."""
        self.backend.answers["subscribe"] = {"deny": {"code": 1234, "message": "full"}}
        socket = self.ws()
        socket.say({"id": 1, "subscribe": {"channel": "free:a"}})
        [reply] = socket.heard()
        told = {"code": 1234, "name": "permission_denied", "message": "full", "temporary": False}
        self.assertEqual(reply, {"id": 1, "error": told})
        for answer in (self.sse().answer(), self.poll(), self.poll(timeout=30)):
            self.assertEqual((answer.status, answer.json), (403, {"error": told}))
        for protocol in ("rtpush.v1", "rtpush.raw"):
            closed = self.socket("/ws?channel=free:a", protocol=protocol)
            closing = closed.frames()[-1]
            self.assertEqual((closing.opcode, closing.code, closing.reason), (CLOSE, 1008, "permission_denied"))
            closed.lose()
        self.backend.answers["subscribe"] = {}
        self.assertIn("epoch", socket.do("subscribe", channel="free:a"))
        socket.lose()
        self.assert_nobody()

    def test_failed(self) -> None:
        """No good answer is an error to come back from; on raw WebSockets, a close that says so."""
        self.backend.answers["subscribe"] = (500, {})
        self.assertEqual(self.ws().do("subscribe", channel="free:a"), "unavailable")
        self.assertEqual(self.sse().answer().status, 503)
        raw = self.socket("/ws?channel=free:a", protocol="rtpush.raw")
        self.assertEqual(raw.frames()[-1].code, 1013)

    def test_nothing_before(self) -> None:
        """Nothing is delivered before the answer, and nothing is missed from the position that was asked for."""
        start = self.publish("free:a", 1)
        self.publish("free:a", 2)
        del self.backend.answers["subscribe"]
        socket = self.ws()
        socket.say({"id": 1, "subscribe": {"channel": "free:a", "cursor": start}})
        stream = self.sse(cursor=start)
        self.publish("free:a", 3)
        self.assertEqual((socket.heard(), stream.take()), ([], b""))
        for each in self.backend.waiting():
            each.answer({})
        heard = socket.heard()
        self.assertEqual(heard[0]["subscribe"]["recovered"], True)
        self.assertEqual([each["message"]["data"] for each in heard[1:]], [2, 3])
        self.assertEqual([each.data for each in events_of(stream.answer().body)][1:], ["2", "3"])

    def test_disconnected_before(self) -> None:
        """A stream that is ended before the answer keeps the position that its client came with."""
        start = self.publish("free:a", 1)
        self.publish("free:a", 2)
        del self.backend.answers["subscribe"]
        poll = self.client()
        poll.request(f"/poll?channel=free:a&cursor={start}", headers=_COOKIE)
        self.node.leave_all()
        self.assertEqual(poll.answer().json["cursor"], start)

    def test_unsubscribed_before(self) -> None:
        """Who does not want it any more before the answer does not get it."""
        del self.backend.answers["subscribe"]
        socket = self.ws()
        socket.do("connect")
        socket.say([{"id": 1, "subscribe": {"channel": "free:a"}}, {"id": 2, "unsubscribe": {"channel": "free:a"}}])
        self.backend.waiting()[0].answer({})
        replies = {each["id"]: each for each in socket.heard()}
        self.assertIn("subscribe", replies[1])
        self.assertIn("unsubscribe", replies[2])
        self.assertEqual(self.call("channels")["channels"], {})

    def test_twice(self) -> None:
        """A channel is asked about once, also if the client is hasty."""
        del self.backend.answers["subscribe"]
        socket = self.ws()
        socket.do("connect")
        socket.say([{"id": n, "subscribe": {"channel": "free:a"}} for n in (1, 2)])
        self.assertEqual([each["error"]["name"] for each in socket.heard()], ["already_subscribed"])
        self.assertEqual(len(self.backend.of("subscribe")), 1)

    def test_quiet(self) -> None:
        """A namespace can be left out, and an event."""
        socket = self.ws()
        self.assertIn("epoch", socket.do("subscribe", channel="quiet:a"))
        socket.do("publish", channel="quiet:a", data=1)
        self.assertEqual(self.backend.events(), ["connect"])
        self.hook(events=("publish",))
        socket = self.ws()
        self.assertIn("epoch", socket.do("subscribe", channel="free:a"))
        socket.do("publish", channel="free:a", data=1)
        socket.lose()
        self.assertEqual(self.backend.events(), ["connect", "publish"])

    def test_bounded(self) -> None:
        """A client has so many commands asked about at once; no more is read until then, and nothing is lost."""
        self.hook(max_in_flight=1000)
        socket = self.ws()
        socket.do("connect")
        del self.backend.answers["publish"]
        for n in range(100):
            socket.say({"id": n + 1, "publish": {"channel": "free:a", "data": n}})
        self.assertEqual(len(self.backend.waiting()), 64)
        self.backend.answers["publish"] = {}
        for each in self.backend.waiting():
            each.answer({})
        self.clock.pump([0.0] * 200)
        self.assertEqual([each["id"] for each in socket.heard()], list(range(1, 101)))


    def test_giving_way(self) -> None:
        """When the application has enough to do, each client has one question that waits, and no more is read of it."""
        self.hook(max_in_flight=3)
        sockets = [self.ws(), self.ws(), self.socket("/ws?channel=free:a", protocol="rtpush.raw")]
        for socket in sockets[:2]:
            socket.do("connect")
        del self.backend.answers["publish"]
        for socket in sockets[:2]:
            socket.say([{"id": n, "publish": {"channel": "free:a", "data": n}} for n in range(1, 11)])
        for _ in range(10):
            sockets[2].send(frame(TEXT, b"raw"))
        self.assertEqual(self.node.hooks.pending, 3 + 3)
        for _ in range(40):
            for each in self.backend.waiting():
                each.answer({})
            self.clock.pump([0.0] * 3)
        for socket in sockets[:2]:
            self.assertEqual([each["id"] for each in socket.heard() if "id" in each], list(range(1, 11)))
        self.assertEqual(self.node.counts.published["websocket"], 30)


class PublishTests(HookTestCase):
    """Whether a client may publish, and what."""

    def messages(self) -> list[Any]:
        """Return what was published."""
        kept = self.call("history", channel="free:a")["messages"]
        return [each.get("data", each.get("data_b64")) for each in kept]

    def test_asked(self) -> None:
        """The application sees the message; acknowledged is what it has permitted."""
        del self.backend.answers["publish"]
        socket = self.ws()
        socket.say({"id": 1, "publish": {"channel": "free:a", "data": {"a": 1}, "event": "e"}})
        [asked] = self.backend.of("publish")
        self.assertEqual((asked["channel"], asked["data"], asked["name"]), ("free:a", {"a": 1}, "e"))
        self.assertEqual((socket.heard(), self.messages()), ([], []))
        self.backend.waiting()[0].answer({})
        self.assertIn("offset", socket.heard()[0]["publish"])
        self.assertEqual(self.messages(), [{"a": 1}])

    def test_denied(self) -> None:
        """What it does not permit is not published, by any road."""
        self.backend.answers["publish"] = {"deny": {"message": "no"}}
        self.assertEqual(self.ws().do("publish", channel="free:a", data=1), "permission_denied")
        self.assertEqual(self.emit({"publish": {"channel": "free:a", "data": 1}}).status, 403)
        raw = self.socket("/ws?channel=free:a", protocol="rtpush.raw")
        raw.send(frame(TEXT, b"x"))
        self.assertEqual(raw.frames()[-1].code, 1008)
        self.backend.answers["publish"] = (500, {})
        self.assertEqual(self.ws().do("publish", channel="free:a", data=1), "unavailable")
        self.assertEqual(self.emit({"publish": {"channel": "free:a", "data": 1}}).status, 503)
        self.assertEqual(self.messages(), [])

    def test_server(self) -> None:
        """The application itself is not asked."""
        self.publish("free:a", 1)
        self.assertEqual(self.backend.asked, [])

    def test_rewritten(self) -> None:
        """It may say what is published instead."""
        self.backend.answers["publish"] = {"data": "****"}
        socket = self.ws(channel="free:a")
        socket.heard()
        socket.say({"publish": {"channel": "free:a", "data": "darn", "event": "say"}})
        self.emit({"publish": {"channel": "free:a", "data": {"darn": 1}}})
        self.backend.answers["publish"] = {"data_b64": "AAE="}
        self.emit({"publish": {"channel": "free:a", "data": {"darn": 1}}})
        heard = [each["message"] for each in socket.heard() if "message" in each]
        self.assertEqual([each.get("data", each.get("data_b64")) for each in heard], ["****", "****", "AAE="])
        self.assertEqual(heard[0]["event"], "say")
        self.assertEqual(self.messages(), ["****", "****", "AAE="])

    def test_too_large(self) -> None:
        """What it makes of a message is not larger than a message may be."""
        self.backend.answers["publish"] = {"data": "x" * 65537}
        self.assertEqual(self.ws().do("publish", channel="free:a", data="x"), "message_too_large")

    def test_order(self) -> None:
        """What a client publishes keeps its order, whichever answer comes first."""
        del self.backend.answers["publish"], self.backend.answers["subscribe"]
        socket = self.ws()
        socket.do("connect")
        socket.say([{"id": 1, "subscribe": {"channel": "free:a"}}])
        socket.say([{"id": n, "publish": {"channel": "free:a", "data": n}} for n in (2, 3, 4)])
        socket.say([{"id": 5, "history": {"channel": "free:a"}}])
        waiting = self.backend.waiting()
        self.assertEqual(len(waiting), 4)
        waiting[2].answer({"deny": {}})
        waiting[3].answer({})
        waiting[1].answer({})
        self.assertEqual((socket.heard(), self.messages()), ([], []))
        waiting[0].answer({})
        self.clock.advance(0)
        heard = socket.heard()
        self.assertEqual([each["id"] for each in heard if "id" in each], [1, 2, 3, 4, 5])
        self.assertEqual([each["message"]["data"] for each in heard if "message" in each], [2, 4])
        history = next(each["history"] for each in heard if each.get("id") == 5)
        self.assertEqual([each["data"] for each in history["messages"]], [2, 4])

    def test_order_of_raw_and_emit(self) -> None:
        """Also on raw WebSockets, and in one request."""
        raw = self.socket("/ws?channel=free:a", protocol="rtpush.raw")
        emit = self.client()
        del self.backend.answers["publish"]
        for text in (b"1", b"2"):
            raw.send(frame(TEXT, text))
        body = json.dumps([{"publish": {"channel": "free:a", "data": text}} for text in ("3", "4")]).encode()
        emit.request("/emit", method="POST", body=body)
        for n in (1, 0, 3, 2):
            [each for each in self.backend.asked if each.said["event"] == "publish"][n].answer({})
        self.assertEqual(self.messages(), ["1", "2", "3", "4"])
        self.assertEqual(len(emit.answer().json), 2)

    def test_gone(self) -> None:
        """A late answer for one who has gone publishes nothing."""
        del self.backend.answers["publish"]
        socket = self.ws()
        socket.say({"publish": {"channel": "free:a", "data": 1}})
        socket.lose()
        self.backend.waiting()[0].answer({})
        self.assertEqual(self.messages(), [])
        self.assert_nobody()


class DisconnectTests(HookTestCase):
    """The application hears who has left."""

    def test_told(self) -> None:
        """Once, with how it ended, for those who stay."""
        self.backend.answers["connect"] = {"user": "ann"}
        closed, lost, kicked, raw = self.ws(), self.ws(), self.ws(), None
        for socket in (closed, lost, kicked):
            socket.do("connect")
        raw = self.socket("/ws?channel=free:a", protocol="rtpush.raw", headers=_COOKIE)
        stream, ended = self.sse(), self.sse()
        closed.send(close_frame(3001, b"bye"))
        closed.lose()
        lost.lose()
        kicked_id = self.backend.of("connect")[2]["connection"]
        self.call("disconnect", connection=kicked_id, code=4600, reason="out")
        kicked.send(close_frame(4600))
        kicked.lose()
        raw.send(close_frame(None))
        stream.lose()
        ended_id = self.backend.of("connect")[5]["connection"]
        self.call("disconnect", connection=ended_id)
        ended.lose()
        fields = ("transport", "code", "reason", "user")
        told = [tuple(each[name] for name in fields) for each in self.backend.of("disconnect")]
        self.assertEqual(
            told,
            [
                ("websocket", 3001, "bye", "ann"),
                ("websocket", 1006, "connection_lost", "ann"),
                ("websocket", 4600, "out", "ann"),
                ("websocket", 1005, "", "ann"),
                ("sse", 1006, "connection_lost", "ann"),
                ("sse", 4500, "disconnected", "ann"),
            ],
        )
        self.assertEqual(
            [each["connection"] for each in self.backend.of("disconnect")],
            [each["connection"] for each in self.backend.of("connect")],
        )

    def test_not_told(self) -> None:
        """Not of polls and requests, nor of those who never said anything."""
        self.poll()
        self.emit({"ping": {}})
        self.ws().lose()
        self.assertEqual(self.backend.of("disconnect"), [])

    def test_stop(self) -> None:
        """When the node ends it tells of all, and waits a moment for that."""
        socket = self.ws()
        socket.do("connect")
        del self.backend.answers["disconnect"]
        stopped = self.node.stop()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertNoResult(stopped)
        self.backend.waiting()[0].answer({})
        self.successResultOf(stopped)
        self.assertEqual(self.backend.closed, 1)


class PollTests(HookTestCase):
    """A poll is no new client to the application."""

    def test_remembered(self) -> None:
        """Its answers count for a while, for the same address, token and headers; also for requests."""
        self.backend.answers["connect"] = _ANN
        for _ in range(3):
            self.poll(channel="room:a,free:a")
            self.emit({"publish": {"channel": "room:a", "data": 1}})
        self.assertEqual(self.backend.events(), ["connect", "subscribe", "subscribe"] + ["publish"] * 3)
        self.ask("/poll?channel=free:a&timeout=0", headers={"Cookie": "session=other"})
        self.assertEqual(self.backend.events()[6:], ["connect", "subscribe"])
        self.poll(token=self.token())
        self.assertEqual(self.backend.events()[8:], ["connect", "subscribe"])
        self.clock.advance(60)
        self.poll()
        self.assertEqual(self.backend.events()[10:], ["connect", "subscribe"])

    def test_of_a_stream(self) -> None:
        """Who has a stream is known when it comes with a request."""
        self.sse()
        self.emit({"ping": {}})
        self.assertEqual(self.backend.events(), ["connect", "subscribe"])

    def test_not_remembered(self) -> None:
        """Not what was denied or failed, nor for those who stay."""
        for answer in ({"deny": {}}, (500, {})):
            self.backend.answers["connect"] = answer
            for _ in range(2):
                self.poll()
        self.backend.answers["connect"] = {}
        for _ in range(2):
            self.sse()
        self.assertEqual(self.backend.events().count("connect"), 6)

    def test_held(self) -> None:
        """A long poll goes on as ever."""
        client = self.client()
        client.request(f"/poll?channel=free:a&cursor={self.now('free:a')}", headers=_COOKIE)
        self.publish("free:a", 1)
        self.assertEqual([each["data"] for each in client.answer().json["messages"]], [1])

    def test_private(self) -> None:
        """No cache gives the answer to others."""
        self.assertEqual(self.poll(channel="cached:a").headers["cache-control"], "private, max-age=9")
        self.node.hooks = None
        self.assertEqual(self.poll(channel="cached:a").headers["cache-control"], "public, max-age=9")
