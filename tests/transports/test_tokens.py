"""Tokens on every transport: where they may be, which are refused and how, what they permit, and when they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from rtpush.auth.keys import UnknownKey
from rtpush.auth.revocation import Revocation
from rtpush.errors import ErrorCode
from rtpush.registry.credentials import Credentials
from tests.auth.makers import SECRET, b64, hs, oct_token, private_key, public_pem
from tests.transports.http2 import Http2Client
from tests.transports.serving import events_of, target
from tests.transports.sockets import CLOSE, HANDSHAKE, PONG, TEXT, SocketTestCase, WebSocket, frame

AUTH = """
[api]
open = yes
[auth]
keys =
    hs HS256 {secret}
audience = us
leeway = 5
cookie = session
[namespace:free]
anonymous = yes
history_size = 10
publish = anyone
presence = yes
[namespace:rights]
subscribe = token
publish = token
read_history = token
read_presence = token
history_size = 10
presence = yes
poll_max_age = 7
[namespace:members]
history_size = 10
publish = anyone
presence = yes
[namespace:rooms]
history_size = 10
presence = yes
user_limited = yes
publish = token
[namespace:closed]
anonymous = yes
subscribe = anyone
read_history = server
read_presence = server
history_size = 10
presence = yes
"""

#: Half a second more than the leeway.
_LATE = 5.5


class TokenTestCase(SocketTestCase):
    """A node that takes tokens, whose time is the clock's."""

    server = "allowed_origins = https://friend.example"
    sections = AUTH.format(secret=SECRET.decode())

    def token(self, lasts: float = 1000, **claims: Any) -> str:
        """Make a good token."""
        now = self.clock.seconds()
        made = {"sub": "42", "aud": "us", "iat": now, "exp": now + lasts, **claims}
        return hs(**{name: value for name, value in made.items() if value is not None}).decode()

    def rights(self, *actions: str, channel: str = "rights:a", **claims: Any) -> str:
        """Make a token that permits something in a channel."""
        return self.token(channels={channel: list(actions)}, **claims)

    def ws(self, **query: Any) -> WebSocket:
        """Open a WebSocket."""
        return self.socket(target("/ws", **query), protocol="rtpush.v1")

    def live(self, socket: WebSocket, seconds: float) -> None:
        """Let time pass for a client that gives signs of life."""
        for _ in range(int(seconds // 10)):
            self.pump(10)
            socket.send(frame(PONG))
        self.pump(seconds % 10)

    def watched(self) -> int:
        """Return how many clients have tokens whose end is awaited."""
        return sum(isinstance(each, Credentials) for each in self.node.deadlines)

    def refused(self, path: str, **request: Any) -> tuple[int, str]:
        """Ask for something that is refused, and return how."""
        answer = self.ask(path, **request)
        self.assertGreaterEqual(answer.status, 400, (path, answer.body))
        return answer.status, answer.error

    def outcome(self, path: str, **request: Any) -> str:
        """Ask for something, and return the name of the error, or ``ok``."""
        answer = self.ask(path, **request)
        return "ok" if answer.status == 200 else answer.error


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


_PING = json.dumps({"ping": {}}).encode()


class BadTokenTests(TokenTestCase):
    """A table of bad tokens, each refused with its code on every transport."""

    def table(self) -> dict[str, tuple[str, ErrorCode]]:
        """Return the tokens, and how each is refused."""
        now = self.clock.seconds()
        good = {"sub": "42", "aud": "us", "exp": now + 100}
        head, claims, signature = hs(**good).split(b".")
        invalid = ErrorCode.INVALID_TOKEN
        pem = public_pem(private_key("RS256"))

        def of(header: Any, end: bytes = signature) -> str:
            return b".".join((b64(json.dumps(header)), claims, end)).decode()

        return {
            "expired": (self.token(-6), ErrorCode.TOKEN_EXPIRED),
            "not yet valid": (self.token(nbf=now + 60), invalid),
            "wrong audience": (self.token(aud="them"), invalid),
            "no audience": (self.token(aud=None), invalid),
            "no end": (self.token(exp=None), invalid),
            "none": (of({"alg": "none"}, b""), invalid),
            "none with a signature": (of({"alg": "nOnE", "kid": "hs"}), invalid),
            "HS with the public key of RS": (oct_token({"alg": "HS256", "kid": "rs"}, good, pem).decode(), invalid),
            "RS with the id of HS": (of({"alg": "RS256", "kid": "hs"}), invalid),
            "unknown key": (oct_token({"alg": "HS256", "kid": "other"}, good).decode(), invalid),
            "wrong secret": (oct_token({"alg": "HS256", "kid": "hs"}, good, b"x" * 64).decode(), invalid),
            "truncated": (hs(**good).decode()[:-10], invalid),
            "without its signature": (b".".join((head, claims, b"")).decode(), invalid),
            "changed": (b".".join((head, b64(json.dumps({**good, "sub": "1"})), signature)).decode(), invalid),
            "too long": (self.token(info="x" * 6200), invalid),
            "empty": ("", invalid),
            "no token at all": ("x", invalid),
            "for one channel": (self.token(channel="free:a"), invalid),
            "taken back": (self.token(jti="gone"), ErrorCode.TOKEN_REVOKED),
        }

    def everywhere(self) -> dict[str, Callable[[str], tuple[int, str]]]:
        """Return what asks with a token on each transport, and says how it was refused."""

        def headed(path: str, more: dict[str, str] | None = None, **request: Any) -> Callable[[str], tuple[int, str]]:
            return lambda token: self.refused(path, headers=_bearer(token) | (more or {}), **request)

        def queried(path: str, **request: Any) -> Callable[[str], tuple[int, str]]:
            return lambda token: self.refused(f"{path}?channel=free:a&timeout=0&token={token}", **request)

        def over_http2(path: str, body: bytes | None = None) -> Callable[[str], tuple[int, str]]:
            return lambda token: self.refused_over_http2(path, _bearer(token), body)

        def cookie(token: str) -> tuple[int, str]:
            return self.refused("/poll?channel=free:a&timeout=0", headers={"Cookie": f'a=b; session="{token}"; c=d'})

        def connect(token: str) -> tuple[int, str]:
            socket = self.ws()
            socket.say({"id": 1, "connect": {"token": token}})
            [reply] = socket.heard()
            # It is still there, as the anonymous client that it was.
            self.assertIn("connection", socket.do("connect"))
            self.assertEqual(socket.do("subscribe", channel="members:a"), "unauthorized")
            socket.lose()
            error = reply["error"]
            return ErrorCode[error["name"].upper()].status, error["name"]

        def subscribe(token: str) -> tuple[int, str]:
            socket = self.ws()
            socket.say({"id": 1, "subscribe": {"channel": "rights:a", "token": token}})
            [reply] = socket.heard()
            socket.lose()
            error = reply["error"]
            return ErrorCode[error["name"].upper()].status, error["name"]

        return {
            "ws header": headed("/ws?channel=free:a", HANDSHAKE),
            "ws query": queried("/ws", headers=HANDSHAKE),
            "raw header": headed("/ws?channel=free:a", HANDSHAKE | {"Sec-WebSocket-Protocol": "rtpush.raw"}),
            "ws connect": connect,
            "ws subscribe": subscribe,
            "sse header": headed("/sse?channel=free:a"),
            "sse query": queried("/sse"),
            "sse channel token": lambda token: self.refused(f"/sse?channel=free:a&channel_token={token}"),
            "poll header": headed("/poll?channel=free:a&timeout=0"),
            "poll query": queried("/poll"),
            "long poll header": headed("/poll?channel=free:a"),
            "long poll header, cursor": headed("/poll?channel=free:a&cursor=-"),
            "emit header": headed("/emit", method="POST", body=_PING),
            "emit query": queried("/emit", method="POST", body=_PING),
            "cookie": cookie,
            "http2 sse": over_http2("/sse?channel=free:a"),
            "http2 poll": over_http2("/poll?channel=free:a&timeout=0"),
            "http2 long poll": over_http2("/poll?channel=free:a"),
            "http2 emit": over_http2("/emit", _PING),
        }

    def refused_over_http2(self, path: str, headers: dict[str, str], body: bytes | None) -> tuple[int, str]:
        """Ask for something over HTTP/2 that is refused, and return how."""
        client = Http2Client(self)
        stream = client.ask(path, body, method="GET" if body is None else "POST", headers=headers)
        self.assertIn(stream, client.ended, path)
        client.wire.go()
        return int(client.statuses[stream]), json.loads(client.bodies[stream])["error"]["name"]

    def test_refused(self) -> None:
        """Each bad token is refused with its code on each transport."""
        self.call("revoke", jti="gone")
        for where, ask in self.everywhere().items():
            for what, (token, kind) in self.table().items():
                if what == "for one channel" and where in ("ws subscribe", "sse channel token"):
                    # There it is where it belongs.
                    continue
                if what == "too long" and ("query" in where or where == "sse channel token"):
                    kind = ErrorCode.URL_TOO_LONG
                self.assertEqual(ask(token), (kind.status, kind.name.lower()), (where, what))

    def test_megabyte(self) -> None:
        """A token of a megabyte is refused, wherever it is."""
        token = "x" * 1_000_000
        for path in ("/sse", "/poll", "/ws", "/negotiate", "/nothing"):
            for query, headers in (("&token=" + token, {}), ("", _bearer(token)), ("", {"Cookie": "session=" + token})):
                client = self.client()
                client.request(f"{path}?channel=free:a{query}", headers=headers)
                answer = client.answer()
                self.assertEqual((answer.status, answer.error), (431, "head_too_large"), path)
        body = json.dumps({"refresh": {"token": token[:200_000]}}).encode()
        self.assertEqual(self.refused("/emit", method="POST", body=body), (404, "not_available"))
        socket = self.ws()
        self.assertEqual(socket.do("connect", token="x" * 200_000), "invalid_token")

    def test_no_permission(self) -> None:
        """A good token for something else is refused as such, everywhere; without any, one is asked for."""
        token = self.rights("subscribe", channel="rights:b")
        publish = json.dumps({"publish": {"channel": "rights:a", "data": 1}}).encode()
        raw = HANDSHAKE | {"Sec-WebSocket-Protocol": "rtpush.raw"}
        for path, body, more in (
            ("/ws?channel=rights:a", None, HANDSHAKE),
            ("/ws?channel=rights:a", None, raw),
            ("/sse?channel=rights:a", None, {}),
            ("/sse?channel=rights:b,rights:a", None, {}),
            ("/poll?channel=rights:a", None, {}),
            ("/poll?channel=rights:a&timeout=0", None, {}),
            ("/emit", publish, {}),
        ):
            for headers, expected in (
                (_bearer(token), (403, "permission_denied")),
                ({}, (401, "unauthorized")),
            ):
                method = "GET" if body is None else "POST"
                refused = self.refused(path, headers=headers | more, method=method, body=body)
                self.assertEqual(refused, expected, path)
                if not more:
                    self.assertEqual(self.refused_over_http2(path, headers, body), expected, path)
        socket = self.socket("/ws", headers=_bearer(token))
        for command in ("subscribe", "history", "presence"):
            self.assertEqual(socket.do(command, channel="rights:a"), "permission_denied")

    def test_good(self) -> None:
        """The same with a good token: nothing is refused."""
        token = self.token()
        poll = "/poll?channel=members:a&timeout=0"
        self.assertEqual(self.ask(poll, headers=_bearer(token)).status, 200)
        self.assertEqual(self.ask(f"{poll}&token={token}").status, 200)
        self.assertEqual(self.ask(f"{poll}&token={token}", headers=_bearer(token)).status, 200)
        self.assertEqual(self.ask(poll, headers={"Cookie": f"session={token}"}).status, 200)
        self.assertEqual(self.ask("/emit", method="POST", body=_PING, headers=_bearer(token)).status, 200)
        for query in (f"token={token}", ""):
            socket = self.socket("/ws?channel=members:a&" + query, headers=_bearer(token))
            self.assertEqual([list(each) for each in socket.heard()], [["subscribed"]])

    def test_challenge(self) -> None:
        """The answer says what kind of authentication is wanted (RFC 6750 section 3)."""
        answer = self.ask("/sse?channel=rights:a")
        self.assertEqual((answer.status, answer.headers["www-authenticate"]), (401, "Bearer"))
        answer = self.ask("/sse?channel=rights:a&token=x")
        self.assertEqual(answer.headers["www-authenticate"], 'Bearer error="invalid_token"')

    def test_raw(self) -> None:
        """A bad token is told before a raw WebSocket is one; a good one lets it follow and publish."""
        raw = HANDSHAKE | {"Sec-WebSocket-Protocol": "rtpush.raw"}
        self.assertEqual(self.refused("/ws?channel=rights:a&token=x", headers=raw), (401, "invalid_token"))
        token = self.rights("subscribe")
        socket = self.socket(f"/ws?channel=rights:a&token={token}", protocol="rtpush.raw")
        self.publish("rights:a", "one")
        self.assertEqual([each.payload for each in socket.frames()], [b"one"])
        socket.client.send(frame(TEXT, b"two"))
        self.assertEqual(self.closing(socket), (1008, "permission_denied"))


class PlaceTests(TokenTestCase):
    """Where a token may be, and which one counts."""

    poll = "/poll?channel=members:a&timeout=0"

    def test_several(self) -> None:
        """Header and query must not differ."""
        one, other = self.token(), self.token(sub="43")
        self.assertEqual(self.refused(f"{self.poll}&token={one}", headers=_bearer(other)), (400, "bad_request"))
        self.assertEqual(self.refused(f"{self.poll}&token={one}&token={one}"), (400, "bad_request"))

    def test_cookie_is_last(self) -> None:
        """A cookie counts only if nothing else is there: else the bad one is not looked at."""
        self.assertEqual(self.ask(self.poll, headers=_bearer(self.token()) | {"Cookie": "session=bad"}).status, 200)
        self.assertEqual(self.refused(self.poll, headers={"Cookie": "session=bad"}), (401, "invalid_token"))
        self.assertEqual(self.refused(self.poll, headers={"Cookie": "other=bad"}), (401, "unauthorized"))
        self.assertEqual(self.refused(self.poll, headers={"Cookie": "session=a; session=b"}), (400, "bad_request"))

    def test_cookie_and_origin(self) -> None:
        """Pages of another origin cannot use the cookies of their visitors; allowed ones can, also by CORS."""
        cookie = {"Cookie": f"session={self.token()}"}
        strange = cookie | {"Origin": "https://evil.example"}
        self.assertEqual(self.refused(self.poll, headers=strange), (403, "origin_not_allowed"))
        self.assertEqual(self.refused("/ws", headers=strange | HANDSHAKE), (403, "origin_not_allowed"))
        answer = self.ask(self.poll, headers=cookie | {"Origin": "https://friend.example"})
        self.assertEqual((answer.status, answer.headers["access-control-allow-credentials"]), (200, "true"))

    def test_other_schemes(self) -> None:
        """What a proxy puts into the header for itself is no token."""
        self.assertEqual(self.refused(self.poll, headers={"Authorization": "Basic eDp5"}), (401, "unauthorized"))

    def test_private(self) -> None:
        """What one gets by a token is for no shared cache."""
        token = self.rights("subscribe")
        answer = self.ask("/poll?channel=rights:a&timeout=0", headers=_bearer(token))
        self.assertEqual(answer.headers["cache-control"], "private, max-age=7")

    def test_not_kept(self) -> None:
        """Neither queries nor header fields with a token are remembered."""
        before = len(self.site._known)
        self.ask(self.poll, headers=_bearer(self.token()))
        self.ask(self.poll, headers={"Cookie": f"session={self.token()}"})
        self.ask("/metrics", headers={"X-API-Key": "0123456789abcdef"})
        self.assertEqual(len(self.site._known), before)

    def test_not_looked_at(self) -> None:
        """Without keys no token is looked at, but for those in commands."""
        self.serve(sections="[api]\nopen = yes")
        self.assertEqual(self.ask("/poll?channel=a&timeout=0&token=x", headers=_bearer("y")).status, 200)
        self.assertEqual(self.ws().do("connect", token="x"), "unauthorized")

    def test_keys_that_are_fetched(self) -> None:
        """What waits for a key goes on when it is there, in its order; other clients do not wait."""
        waiting: list[Deferred[Any]] = []
        check = self.node.tokens.check

        def later(token: str) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1].addCallback(lambda _: check(token))

        self.patch(self.node.tokens, "check", later)
        token = self.rights("subscribe", "publish")
        stream, socket, upgrade, gone = self.client(), self.ws(), self.client(), self.client()
        stream.request(f"/sse?channel=rights:a&token={token}")
        gone.request(f"/sse?channel=rights:a&token={token}")
        upgrade.request(f"/ws?channel=rights:a&token={token}", headers=HANDSHAKE)
        socket.say([{"id": 1, "connect": {"token": token}}, {"id": 2, "subscribe": {"channel": "rights:a"}}])
        socket.say({"id": 3, "ping": {}})
        # It does not wait for the answer, as it should, and is heard all the same.
        upgrade.send(frame(TEXT, b'{"id":5,"ping":{}}'))
        gone.lose()
        self.assertEqual((stream.take(), upgrade.take(), socket.heard()), (b"", b"", []))
        self.assertEqual(self.ask("/poll?channel=free:a&timeout=0").status, 200)
        for each in waiting:
            each.callback(None)
        self.clock.advance(0)
        self.assertEqual(stream.answer().status, 200)
        self.assertRegex(upgrade.take(), rb'(?s) 101 .*"id":5,"ping":')
        self.assertEqual([each["id"] for each in socket.heard()], [1, 2, 3])
        self.assertEqual(self.call("connections")["total"], 3)

    def test_keys_that_do_not_come(self) -> None:
        """One whose key is not known in the end is told so when that is known."""
        waiting: Deferred[Any] = Deferred()
        self.patch(self.node.tokens, "check", lambda token: waiting)
        client = self.client()
        client.request(f"/sse?channel=rights:a&token={self.token()}")
        waiting.errback(UnknownKey())
        answer = client.answer()
        self.assertEqual((answer.status, answer.error), (401, "invalid_token"))

    def test_never_logged(self) -> None:
        """No line of the log shows a token, also where something fails; nor does the list of connections."""
        events: list[LogEvent] = []
        keep: Any = events.append
        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        token = self.rights("subscribe")
        for path in (f"/sse?channel=rights:a&token={token}", f"/poll?channel=rights:a&token={token}"):
            self.client().request(path)
        self.client().request(f"/sse?channel=rights:a&channel_token={self.token(channel='rights:a', sub=None)}")
        socket = self.socket(f"/ws?channel=rights:a&token={token}")
        socket.do("refresh", token=token)
        socket.send(b"\xff\xff")
        self.ask("/poll?channel=rights:a&timeout=0", headers={"Cookie": f"session={token}"})
        self.refused(f"/sse?channel=rights:a&token={token}x")
        listed = json.dumps(self.call("connections"))
        self.assertIn('"user": "42"', listed)
        signature = token.rpartition(".")[2]
        logged = "\n".join(f"{formatEvent(event)} {event.get('log_failure', '')} {event!r}" for event in events)
        self.assertNotIn(signature, logged)
        self.assertNotIn(signature, listed)


class PermissionTests(TokenTestCase):
    """What tokens and namespaces permit, by the real transports."""

    #: What each client may do: in each namespace subscribe, publish, history, presence.
    TABLE = (
        ("free:a", "nobody", "ok ok ok ok"),
        ("free:a", "somebody", "ok ok ok ok"),
        ("members:a", "nobody", "unauthorized unauthorized unauthorized unauthorized"),
        ("members:a", "somebody", "ok ok ok ok"),
        ("rights:a", "nobody", "unauthorized unauthorized unauthorized unauthorized"),
        ("rights:a", "somebody", "permission_denied permission_denied permission_denied permission_denied"),
        ("rights:a", "subscribe", "ok permission_denied permission_denied permission_denied"),
        ("rights:a", "publish", "permission_denied ok permission_denied permission_denied"),
        ("rights:a", "history", "permission_denied permission_denied ok permission_denied"),
        ("rights:a", "presence", "permission_denied permission_denied permission_denied ok"),
        ("rights:b", "subscribe", "permission_denied permission_denied permission_denied permission_denied"),
        ("rooms:a", "somebody", "ok permission_denied ok ok"),
        ("rooms:x#42#43", "nobody", "unauthorized unauthorized unauthorized unauthorized"),
        ("rooms:x#42#43", "somebody", "ok permission_denied ok ok"),
        ("rooms:x#43", "somebody", "permission_denied permission_denied permission_denied permission_denied"),
        ("closed:a", "nobody", "ok permission_denied permission_denied permission_denied"),
        ("closed:a", "somebody", "ok permission_denied permission_denied permission_denied"),
        ("$rtpush:revocations", "somebody", "permission_denied permission_denied permission_denied permission_denied"),
    )

    def token_of(self, who: str) -> str | None:
        """Return the token of a client of the table."""
        if who == "nobody":
            return None
        return self.token() if who == "somebody" else self.rights(who)

    def commands(self, channel: str) -> list[tuple[str, dict[str, Any]]]:
        """Return what is tried in a channel."""
        return [
            ("publish", {"channel": channel, "data": 1}),
            ("history", {"channel": channel}),
            ("presence", {"channel": channel}),
        ]

    def test_websocket(self) -> None:
        """By commands on a WebSocket."""
        for channel, who, expected in self.TABLE:
            socket = self.ws()
            token = self.token_of(who)
            socket.do("connect", **({} if token is None else {"token": token}))
            tried = [("subscribe", {"channel": channel}), *self.commands(channel)]
            found = [socket.do(name, **fields) for name, fields in tried]
            told = " ".join(each if isinstance(each, str) else "ok" for each in found)
            self.assertEqual(told, expected, (channel, who))
            socket.lose()

    def test_requests(self) -> None:
        """By streams, polls and emit."""
        for channel, who, expected in self.TABLE:
            token = self.token_of(who)
            headers = {} if token is None else _bearer(token)
            named = channel.replace("#", "%23")
            rest = [
                self.outcome("/emit", method="POST", headers=headers, body=json.dumps({name: fields}).encode())
                for name, fields in self.commands(channel)
            ]
            for path in ("/sse?channel=", "/poll?timeout=0&channel=", "/poll?channel="):
                client = self.client()
                client.request(path + named, headers=headers)
                self.clock.advance(60)
                answer = client.answer()
                client.lose()
                first = "ok" if answer.status == 200 else answer.error
                self.assertEqual(" ".join([first, *rest]), expected, (channel, who, path))
            for path in ("/sse?channel=", "/poll?channel="):
                head = self.ask(path + named, headers=headers, method="HEAD")
                self.assertEqual(head.status == 200, expected.startswith("ok"), (channel, who, path))

    def test_raw(self) -> None:
        """By raw WebSockets, refused before they are one."""
        raw = HANDSHAKE | {"Sec-WebSocket-Protocol": "rtpush.raw"}
        for channel, who, expected in self.TABLE:
            token = self.token_of(who)
            headers = raw | ({} if token is None else _bearer(token))
            answer = self.ask("/ws?channel=" + channel.replace("#", "%23"), headers=headers)
            first = "ok" if answer.status == 101 else answer.error
            self.assertEqual(first, expected.split()[0], (channel, who))

    def test_user(self) -> None:
        """Whose connections they are is seen in presence, in the list of connections, and by ``disconnect``."""
        socket, other, stream = self.ws(), self.ws(), self.client()
        socket.do("connect", token=self.token(info={"name": "Ann"}), info={"name": "Eve"})
        socket.do("subscribe", channel="members:a")
        other.do("connect", token=self.token(sub="43"))
        stream.request("/sse?channel=members:a", headers=_bearer(self.token()))
        entries = self.call("presence", channel="members:a")["connections"]
        by_transport = {each["transport"]: each for each in entries}
        entry = by_transport["websocket"]
        self.assertEqual((entry["user"], entry["info"]), ("42", {"name": "Ann"}))
        self.assertEqual(by_transport["sse"]["user"], "42")
        self.assertEqual({each.get("user") for each in self.call("connections")["connections"]}, {"42", "43"})
        self.assertEqual(self.call("connections", user="43")["total"], 1)
        self.assertEqual(self.call("disconnect", user="42"), {"disconnected": 2})
        self.assertEqual(self.closing(socket), (4500, "disconnected"))
        self.assertEqual(other.do("ping"), {})

    def test_fast_path(self) -> None:
        """For clients without a token nothing is checked twice, and nothing is waited for."""
        self.ask("/poll?channel=free:a&timeout=0")
        self.patch(self.node.tokens, "check", lambda token: self.fail("there is no token"))
        self.assertTrue(self.node._free["free"] & 1)
        stream = self.client()
        stream.request("/sse?channel=free:a")
        self.assertEqual(stream.answer().status, 200)
        self.assertIsNone(next(iter(self.node.connections.values())).credentials)


class ChannelTokenTests(TokenTestCase):
    """Tokens for one channel."""

    def of(self, channel: str = "rights:a", lasts: float = 1000, **claims: Any) -> str:
        """Make a token for a channel."""
        return self.token(lasts, channel=channel, **{"sub": None, **claims})

    def test_subscribe(self) -> None:
        """One lets a WebSocket subscribe, and do there what it says."""
        socket = self.ws()
        self.assertEqual(socket.do("subscribe", channel="rights:a"), "unauthorized")
        token = self.of(actions=["subscribe", "publish"])
        self.assertIn("epoch", socket.do("subscribe", channel="rights:a", token=token))
        self.assertIn("offset", socket.do("publish", channel="rights:a", data=1))
        socket.heard()
        self.assertEqual(socket.do("history", channel="rights:a"), "permission_denied")
        self.assertEqual(socket.do("publish", channel="rights:b", data=1), "unauthorized")
        socket.do("unsubscribe", channel="rights:a")
        self.assertEqual(socket.do("publish", channel="rights:a", data=1), "unauthorized")

    def test_wrong(self) -> None:
        """One for another channel, of another user, or that is not for a channel, is refused and not kept."""
        socket = self.ws()
        for token, expected in (
            (self.of("rights:b"), "permission_denied"),
            (self.of(sub="42"), "permission_denied"),
            (self.token(), "invalid_token"),
            (self.of(actions=["publish"]), "permission_denied"),
        ):
            self.assertEqual(socket.do("subscribe", channel="rights:a", token=token), expected)
        self.assertEqual(socket.do("publish", channel="rights:a", data=1), "unauthorized")

    def test_with_a_connection(self) -> None:
        """One of a user is for that user's connection, and adds to what its token permits."""
        socket = self.ws()
        socket.do("connect", token=self.rights("publish"))
        self.assertEqual(socket.do("subscribe", channel="rights:a", token=self.of(sub="43")), "permission_denied")
        self.assertIn("epoch", socket.do("subscribe", channel="rights:a", token=self.of(sub="42")))
        self.assertIn("offset", socket.do("publish", channel="rights:a", data=1))

    def test_queries(self) -> None:
        """Streams and polls have them in the query, one for each channel that needs one, in any order."""
        tokens = [self.of("rights:b"), self.of("rights:a")]
        channels = "rights:a,free:a,rights:b"
        for path in ("/sse", "/poll"):
            both = self.ask(target(path, channel=channels, channel_token=tokens, timeout=0))
            self.assertEqual(both.status, 200, path)
            missing = target(path, channel=channels, channel_token=tokens[:1], timeout=0)
            self.assertEqual(self.refused(missing), (401, "unauthorized"))
            wrong = target(path, channel="free:a", channel_token=tokens[:1], timeout=0)
            self.assertEqual(self.refused(wrong), (403, "permission_denied"))
        socket = self.socket(target("/ws", channel=channels, channel_token=tokens))
        self.assertEqual(len(socket.heard()), 3)

    def test_named(self) -> None:
        """Of several, the one that has ended or was taken back is named by its channel; one that is none is not."""
        until = self.node.now() + 100
        self.successResultOf(self.node.revoking.publish(Revocation(id="j", before=until, until=until)))
        for wrong, expected in (
            (self.of("rights:b", -100), ("token_expired", "rights:b")),
            (self.of("rights:b", jti="j"), ("token_revoked", "rights:b")),
            ("nonsense", ("invalid_token", None)),
        ):
            tokens = [self.of("rights:a"), wrong]
            answer = self.ask(target("/poll", channel="rights:a,rights:b", channel_token=tokens, timeout=0))
            error = json.loads(answer.body)["error"]
            self.assertEqual((error["name"], error.get("channel")), expected)

    def test_end(self) -> None:
        """When one ends, so does its subscription, with a word before; the others stay."""
        socket = self.ws()
        socket.do("subscribe", channel="rights:a", token=self.of(lasts=100))
        socket.do("subscribe", channel="free:a")
        self.live(socket, 80)
        [warning] = [each for each in socket.heard() if "token_expiring" in each]
        self.assertEqual(warning["token_expiring"]["channel"], "rights:a")
        self.live(socket, 25 + 0.5)
        told = {"channel": "rights:a", "code": 4004, "reason": "token_expired"}
        self.assertEqual(socket.heard(), [{"unsubscribed": told}])
        self.assertEqual(socket.do("ping"), {})

    def test_refresh(self) -> None:
        """A new one in time keeps it; one for a channel that is not followed is refused."""
        socket = self.ws()
        socket.do("subscribe", channel="rights:a", token=self.of(lasts=100))
        self.assertEqual(socket.do("refresh", token=self.of("rights:b")), "not_subscribed")
        self.assertEqual(socket.do("refresh", token=self.of(lasts=300)), {})
        self.live(socket, 120)
        self.assertEqual(socket.heard(), [])
        socket.say({"id": 7, "refresh": {"token": self.of(actions=["publish"])}})
        told = {"channel": "rights:a", "code": 4501, "reason": "permission_denied"}
        self.assertEqual(socket.heard(), [{"unsubscribed": told}, {"id": 7, "refresh": {}}])


class ExpiryTests(TokenTestCase):
    """When a token ends."""

    def test_websocket(self) -> None:
        """A warning, then the end with 4004, a leeway after the token's; the same token is no good then."""
        token = self.rights("subscribe", lasts=100)
        socket = self.ws(channel="rights:a", token=token)
        socket.heard()
        self.live(socket, 59)
        self.assertEqual(socket.heard(), [])
        self.live(socket, 25)
        [warning] = socket.heard()
        self.assertTrue(39 < warning["token_expiring"]["expires_in"] < 40, warning)
        self.live(socket, 100 - 84 + 4.5)
        self.assertEqual(socket.heard(), [])
        self.live(socket, 1)
        *_, disconnect, close = socket.frames()
        told = {"code": 4004, "reason": "token_expired", "reconnect": True}
        self.assertEqual(json.loads(disconnect.payload), {"disconnect": told})
        self.assertEqual((close.opcode, close.code, close.reason), (CLOSE, 4004, "token_expired"))
        self.assertEqual(self.refused(f"/sse?channel=rights:a&token={token}"), (401, "token_expired"))

    def test_stream(self) -> None:
        """A stream is warned, and ended by an event."""
        for envelope in (0, 1):
            token = self.rights("subscribe", lasts=40)
            client = self.client()
            client.request(target("/sse", channel="rights:a", token=token, envelope=envelope))
            self.pump(45.5)
            events = list(events_of(client.answer().body))
            self.assertEqual([each.name for each in events], ["open", "token_expiring", "disconnect"])
            self.assertEqual(events[-1].json["code"], 4004)
            # The warning is no place to go on from.
            self.assertEqual(events[1].id, events[0].id)

    def test_poll(self) -> None:
        """A poll that is held is answered with the disconnect; the next one with 401."""
        token = self.rights("subscribe", lasts=10)
        client = self.client()
        client.request(target("/poll", channel="rights:a", token=token))
        self.pump(15.5)
        answer = client.answer()
        self.assertEqual((answer.status, answer.json["disconnect"]["code"]), (200, 4004))
        self.assertEqual(self.refused(target("/poll", channel="rights:a", token=token)), (401, "token_expired"))

    def test_raw(self) -> None:
        """A raw WebSocket is closed with the code; it has no room for a warning."""
        socket = self.socket(
            target("/ws", channel="rights:a", token=self.rights("subscribe", lasts=10)), protocol="rtpush.raw"
        )
        self.pump(15.5)
        self.assertEqual(self.closing(socket), (4004, "token_expired"))

    def test_refresh(self) -> None:
        """A new token of the same user keeps the connection; another user's does not."""
        socket = self.ws()
        socket.do("connect", token=self.rights("subscribe", lasts=100))
        socket.do("subscribe", channel="rights:a")
        self.live(socket, 90)
        socket.heard()
        self.assertEqual(socket.do("refresh", token=self.rights("subscribe", sub="43")), "permission_denied")
        self.assertEqual(socket.do("refresh", token="x"), "invalid_token")
        self.assertEqual(socket.do("refresh", token=self.rights("subscribe", lasts=100)), {})
        self.live(socket, 25)
        self.assertEqual(socket.heard(), [])
        self.live(socket, 80.6)
        self.assertEqual(self.closing(socket), (4004, "token_expired"))

    def test_fewer_permissions(self) -> None:
        """What a new token does not permit any more, ends."""
        socket = self.ws()
        socket.do("connect", token=self.rights("subscribe", channel="rights:*"))
        socket.do("subscribe", channel="rights:a")
        socket.do("subscribe", channel="rights:b")
        socket.say({"id": 7, "refresh": {"token": self.rights("subscribe", channel="rights:b")}})
        told = {"channel": "rights:a", "code": 4501, "reason": "permission_denied"}
        self.assertEqual(socket.heard(), [{"unsubscribed": told}, {"id": 7, "refresh": {}}])
        self.publish("rights:b", 1)
        self.assertEqual(len(socket.heard()), 1)

    def test_nothing_to_refresh(self) -> None:
        """Who has no token has none to refresh; nor has a request, with which a new one comes."""
        token = self.token()
        self.assertEqual(self.ws().do("refresh", token=token), "not_available")
        body = json.dumps({"refresh": {"token": token}}).encode()
        self.assertEqual(self.refused("/emit", method="POST", body=body), (404, "not_available"))

    def test_connect_later(self) -> None:
        """A client may come without a token and show one later; what it follows stays."""
        socket = self.ws(channel="free:a")
        socket.heard()
        self.assertEqual(socket.do("subscribe", channel="rights:a"), "unauthorized")
        socket.do("connect", token=self.rights("subscribe"))
        self.assertIn("epoch", socket.do("subscribe", channel="rights:a"))
        self.assertEqual(socket.do("connect", token=self.token(sub="43")), "permission_denied")

    def test_gone(self) -> None:
        """Nothing is kept for those who have gone."""
        for _ in range(3):
            socket = self.ws(channel="rights:a", token=self.rights("subscribe", lasts=100))
            self.assertEqual(self.watched(), 1)
            socket.lose()
            self.pump(6)
            self.assertEqual(self.watched(), 0)
        self.assert_nobody()

    def test_no_end(self) -> None:
        """A token without an end sets no deadline, where such are taken."""
        self.serve(server=self.server, sections=self.sections.replace("leeway", "require_exp = no\nleeway"))
        self.ws(channel="rights:a", token=self.rights("subscribe", exp=None))
        self.assertEqual(self.watched(), 0)


class RevocationTests(TokenTestCase):
    """Tokens that are taken back."""

    def test_user(self) -> None:
        """All connections of a user end, on every transport; new tokens are good again."""
        token = self.rights("subscribe")
        self.clock.advance(1)
        query = {"channel": "rights:a", "token": token}
        socket, raw = self.ws(**query), self.socket(target("/ws", **query), protocol="rtpush.raw")
        stream, poll = self.client(), self.client()
        stream.request(target("/sse", **query))
        poll.request(target("/poll", **query))
        other = self.ws(**(query | {"token": self.rights("subscribe", sub="43")}))
        socket.heard(), other.heard()
        self.assertIn("until", self.call("revoke", user="42"))
        told = {"code": 4502, "reason": "token_revoked", "reconnect": False}
        self.assertEqual(json.loads(socket.frames()[-2].payload), {"disconnect": told})
        self.assertEqual(self.closing(raw), (4502, "token_revoked"))
        self.assertEqual(list(events_of(stream.answer().body))[-1].json, told)
        self.assertEqual(poll.answer().json["disconnect"], told)
        self.assertEqual(other.do("ping"), {})
        self.assertEqual(self.refused(target("/sse", **query)), (401, "token_revoked"))
        self.clock.advance(1)
        query["token"] = self.rights("subscribe")
        self.assertEqual(self.ask(target("/poll", timeout=0, **query)).status, 200)

    def test_later_tokens(self) -> None:
        """A user can be kept out for a while, whatever tokens are made."""
        self.call("revoke", user="42", ttl=60, later=True)
        self.clock.advance(30)
        self.assertEqual(self.refused(f"/sse?channel=free:a&token={self.token()}"), (401, "token_revoked"))
        self.clock.advance(31)
        self.assertEqual(self.ask(f"/poll?channel=free:a&timeout=0&token={self.token()}").status, 200)

    def test_one_token(self) -> None:
        """One token by its id; the others of the same user stay."""
        one, other = (self.ws(channel="free:a", token=self.token(jti=jti)) for jti in ("a", "b"))
        self.call("revoke", jti="a")
        self.assertEqual(self.closing(one), (4502, "token_revoked"))
        other.heard()
        self.assertEqual(other.do("ping"), {})

    def test_channel(self) -> None:
        """In a channel, tokens permit nothing any more; the connections stay, and what is for all."""
        socket, free = self.ws(), self.ws(channel="free:a", token=self.token())
        socket.do("connect", token=self.rights("subscribe", "publish", channel="rights:*"))
        socket.do("subscribe", channel="rights:a")
        socket.do("subscribe", channel="rights:b")
        free.heard()
        self.call("revoke", channel="rights:a")
        self.call("revoke", channel="free:a")
        told = {"channel": "rights:a", "code": 4502, "reason": "token_revoked"}
        self.assertEqual(socket.heard(), [{"unsubscribed": told}])
        self.assertEqual(socket.do("publish", channel="rights:a", data=1), "token_revoked")
        self.assertIn("offset", socket.do("publish", channel="rights:b", data=1))
        self.assertEqual((free.heard(), free.do("ping")), ([], {}))

    def test_user_in_channel(self) -> None:
        """Of a user in a channel; other users stay there."""
        token = self.rights("subscribe", channel="rights:*")
        socket, other = (
            self.ws(channel="rights:a", token=each) for each in (token, self.rights("subscribe", sub="43"))
        )
        socket.heard(), other.heard()
        self.call("revoke", user="42", channel="rights:a")
        self.assertEqual([list(each) for each in socket.heard()], [["unsubscribed"]])
        self.assertEqual(other.heard(), [])

    def test_channel_token(self) -> None:
        """A token for one channel, by its id: its subscription ends alone."""
        socket = self.ws()
        token = self.token(sub=None, jti="c", channel="rights:a")
        socket.do("subscribe", channel="rights:a", token=token)
        self.call("revoke", jti="c")
        told = {"channel": "rights:a", "code": 4502, "reason": "token_revoked"}
        self.assertEqual(socket.heard(), [{"unsubscribed": told}])
        self.assertEqual(socket.do("subscribe", channel="rights:a", token=token), "token_revoked")

    def test_list(self) -> None:
        """What is taken back can be listed, until it is forgotten."""
        self.call("revoke", user="42", ttl=60)
        self.call("revoke", jti="x", ttl=120)
        listed = self.call("revocations", limit=1)
        self.assertEqual((len(listed["revocations"]), listed["total"]), (1, 2))
        now = self.clock.seconds()
        self.assertEqual(listed["revocations"], [{"user": "42", "before": now, "until": now + 60}])
        self.clock.advance(61)
        self.assertEqual([each["jti"] for each in self.call("revocations")["revocations"]], ["x"])

    def test_bad_calls(self) -> None:
        """What makes no sense is refused."""
        for body in (b"{}", b'{"user":"1","jti":"2"}', b'{"user":""}', b'{"user":"1","ttl":0}', b'{"ttl":9}'):
            self.assertEqual(self.refused("/api/v1/revoke", method="POST", body=body), (400, "bad_request"), body)
        body = b'{"channel":"nowhere:a"}'
        self.assertEqual(self.refused("/api/v1/revoke", method="POST", body=body), (404, "unknown_channel"))
        self.serve(sections="[api]\nopen = yes")
        self.assertEqual(self.refused("/api/v1/revoke", method="POST", body=b'{"user":"1"}'), (404, "not_available"))
