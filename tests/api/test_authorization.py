"""Tokens that open calls of the server API: which calls, in which channels, until when."""

from __future__ import annotations

import json
from typing import Any

from rtpush.api.calls import CALLS
from rtpush.auth.revocation import Revocation
from tests.auth.makers import SECRET, hs
from tests.transports.serving import ServedTestCase

KEY = "0123456789abcdef0123456789abcdef"

SECTIONS = """
[api]
keys = {key}
tokens = {tokens}
[auth]
keys =
    hs HS256 {secret}
audience = us
[namespace:shop]
history_size = 10
presence = yes
subscribe = token
"""

#: Bodies that are good.
BODIES: dict[str, dict[str, Any]] = {
    "publish": {"channel": "shop:a", "data": 1},
    "publish_batch": {"messages": [{"channel": "shop:a", "data": 1}, {"channel": "shop:b", "data": 1}]},
    "broadcast": {"channels": ["shop:a", "shop:b"], "data": 1},
    "history": {"channel": "shop:a"},
    "presence": {"channel": "shop:a"},
    "channels": {},
    "connections": {},
    "disconnect": {"user": "nobody"},
    "unsubscribe": {"channel": "shop:a"},
    "revoke": {"jti": "nothing"},
    "revocations": {},
    "info": {},
}


class ApiTokenTestCase(ServedTestCase):
    """A node whose API takes tokens besides a key."""

    sections = SECTIONS.format(key=KEY, tokens="yes", secret=SECRET.decode())

    def token(self, lasts: float = 1000, **claims: Any) -> str:
        """Make a good token."""
        now = self.clock.seconds()
        made = {"aud": "us", "iat": now, "exp": now + lasts, **claims}
        return hs(**{name: value for name, value in made.items() if value is not None}).decode()

    def outcome(self, token: str, name: str, body: dict[str, Any] | None = None, header: str = "Authorization") -> str:
        """Do a call with a token, and return the name of its error, or ``ok``."""
        content = json.dumps(BODIES[name] if body is None else body).encode()
        given = token if header == "X-API-Key" else f"Bearer {token}"
        headers = {header: given, "X-Forwarded-For": "203.0.113.7"}
        answer = self.ask(f"/api/v1/{name}", method="POST", body=content, headers=headers)
        self.assertNotIn(token.encode(), answer.body)
        return "ok" if answer.status == 200 else f"{answer.status} {answer.error}"


class CallTests(ApiTokenTestCase):
    """Which calls a token opens."""

    def test_named(self) -> None:
        """Those that it names, and no others."""
        self.assertEqual(set(BODIES), set(CALLS))
        for opened in CALLS:
            token = self.token(api=[opened])
            for name in CALLS:
                expected = "ok" if name == opened else "403 permission_denied"
                self.assertEqual(self.outcome(token, name), expected, (opened, name))

    def test_all(self) -> None:
        """A star is for all; several are several."""
        for name in CALLS:
            self.assertEqual(self.outcome(self.token(api=["*"]), name), "ok", name)
        token = self.token(api=["history", "publish"])
        outcomes = {name: self.outcome(token, name) for name in CALLS}
        self.assertEqual({name for name, outcome in outcomes.items() if outcome == "ok"}, {"history", "publish"})

    def test_of_clients(self) -> None:
        """A token of a client opens nothing, whatever it permits; nor does an empty list."""
        everything = {"*": ["subscribe", "publish", "history", "presence"]}
        for claims in ({}, {"channels": everything}, {"channel": "shop:a", "actions": ["publish"]}, {"api": []}):
            for name in CALLS:
                self.assertEqual(self.outcome(self.token(**claims), name), "403 permission_denied", (claims, name))

    def test_key(self) -> None:
        """A key opens all as ever; what is neither is told as it is without tokens."""
        for name in CALLS:
            self.assertEqual(self.outcome(KEY, name), "ok", name)
        for wrong in (f"{KEY}x", "eyJ", "eyJ.x", "x.y.z"):
            self.assertEqual(self.outcome(wrong, "info"), "401 unauthorized")

    def test_header(self) -> None:
        """It comes as what a bearer has, not as a key."""
        self.assertEqual(self.outcome(self.token(api=["*"]), "info", header="X-API-Key"), "401 unauthorized")

    def test_bad_body(self) -> None:
        """A body that is none is told as ever."""
        self.assertEqual(self.outcome(self.token(api=["*"]), "publish", {"channel": "shop:a"}), "400 bad_request")
        self.assertEqual(self.outcome(self.token(api=["*"]), "publish", {"x": 1}), "400 bad_request")


class ChannelTests(ApiTokenTestCase):
    """In which channels a token opens them."""

    def test_permitted(self) -> None:
        """Where it permits what the call does: all of them, if there are several."""
        actions = {
            "publish": "publish",
            "publish_batch": "publish",
            "broadcast": "publish",
            "history": "history",
            "presence": "presence",
            "unsubscribe": "subscribe",
        }
        for name, action in actions.items():
            good = self.token(api=["*"], channels={"shop:*": [action]})
            self.assertEqual(self.outcome(good, name), "ok", name)
            others = [each for each in set(actions.values()) if each != action]
            for channels in ({"shop:*": others}, {"shop:c": [action]}, {}):
                token = self.token(api=["*"], channels=channels)
                self.assertEqual(self.outcome(token, name), "403 permission_denied", (name, channels))
        for name in ("publish_batch", "broadcast"):
            partly = self.token(api=["*"], channels={"shop:a": ["publish"]})
            self.assertEqual(self.outcome(partly, name), "403 permission_denied", name)

    def test_none_was_published(self) -> None:
        """If one message of a batch is not permitted, none is published."""
        partly = self.token(api=["*"], channels={"shop:a": ["publish", "history"]})
        self.outcome(partly, "publish_batch")
        self.outcome(partly, "broadcast")
        answer = self.ask(
            "/api/v1/history",
            method="POST",
            body=b'{"channel":"shop:a"}',
            headers={"Authorization": f"Bearer {partly}"},
        )
        self.assertEqual(answer.json["result"]["messages"], [])

    def test_calls_for_all(self) -> None:
        """With channels it opens nothing that is for all, or that shows or ends what others do elsewhere."""
        token = self.token(api=["*"], channels={"*": ["subscribe", "publish", "history", "presence"]})
        for name in ("channels", "connections", "disconnect", "revoke", "revocations", "info"):
            self.assertEqual(self.outcome(token, name), "403 permission_denied", name)
        for name in ("connections", "disconnect", "revoke"):
            self.assertEqual(self.outcome(token, name, {"channel": "shop:a"}), "403 permission_denied", name)


class BadTokenTests(ApiTokenTestCase):
    """Tokens that are no good."""

    def test_refused(self) -> None:
        """With the codes that all tokens have."""
        now = self.clock.seconds()
        for claims, expected in (
            ({"exp": now - 100}, "401 token_expired"),
            ({"exp": None}, "401 invalid_token"),
            ({"nbf": now + 100}, "401 invalid_token"),
            ({"aud": "them"}, "401 invalid_token"),
            ({"aud": None}, "401 invalid_token"),
            ({"api": "*"}, "401 invalid_token"),
            ({"api": [1]}, "401 invalid_token"),
            ({"api": ["x" * 65]}, "401 invalid_token"),
            ({"api": ["x"] * 101}, "401 invalid_token"),
            ({"channel": "shop:a"}, "401 invalid_token"),
        ):
            self.assertEqual(self.outcome(self.token(**{"api": ["*"], **claims}), "info"), expected, claims)
        good = self.token(api=["*"])
        self.assertEqual(self.outcome(f"{good[:-4]}AAAA", "info"), "401 invalid_token")
        self.assertEqual(self.outcome(good.replace(".", ".A", 1), "info"), "401 invalid_token")

    def test_taken_back(self) -> None:
        """One that was taken back, by its id or its user, opens nothing any more."""
        until = self.clock.seconds() + 1000
        tokens = [self.token(api=["*"], jti="j"), self.token(api=["*"], sub="42"), self.token(api=["*"])]
        self.assertEqual([self.outcome(each, "info") for each in tokens], ["ok"] * 3)
        for revocation in (
            Revocation(id="j", before=until, until=until),
            Revocation(user="42", before=until, until=until),
        ):
            self.successResultOf(self.node.revoking.publish(revocation))
        outcomes = [self.outcome(each, "info") for each in tokens]
        self.assertEqual(outcomes, ["401 token_revoked"] * 2 + ["ok"])

    def test_limited(self) -> None:
        """Who tries with bad ones is limited as clients are; good ones are not."""
        server = "trusted_proxies = 127.0.0.1"
        self.serve(server=server, sections=self.sections, limits="command_rate_per_ip = 1")
        good, bad = self.token(api=["*"]), self.token(-100, api=["*"])
        self.assertEqual({self.outcome(good, "info") for _ in range(20)}, {"ok"})
        self.assertIn("429 limit_exceeded", {self.outcome(bad, "info") for _ in range(20)})


class OffTests(ApiTokenTestCase):
    """The default."""

    sections = SECTIONS.format(key=KEY, tokens="no", secret=SECRET.decode())

    def test_closed(self) -> None:
        """Tokens open nothing, and are not even looked at."""
        self.patch(self.node.tokens, "check", lambda token: self.fail("it was looked at"))
        self.assertEqual(self.outcome(self.token(api=["*"]), "info"), "401 unauthorized")
        self.assertEqual(self.outcome(KEY, "info"), "ok")


class WithoutKeyTests(ApiTokenTestCase):
    """A server without API keys."""

    sections = ApiTokenTestCase.sections.replace(f"keys = {KEY}\n", "")

    def test_open(self) -> None:
        """Tokens open it all the same."""
        self.assertEqual(self.outcome(self.token(api=["info"]), "info"), "ok")
        self.assertEqual(self.outcome(KEY, "info"), "401 unauthorized")
