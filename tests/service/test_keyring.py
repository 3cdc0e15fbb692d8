"""Tests of rtpush.service.keyring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.keys import Key, KeyMistake, UnknownKey, parse_source
from rtpush.auth.tokens import make_token
from rtpush.errors import ErrorCode, RtpushError
from rtpush.service.fetching import FetchError
from rtpush.service.keyring import Keyring
from rtpush.service.settings.access import Auth
from tests.auth.makers import SECRET, private_key, private_pem, public_pem

NOW = 1_800_000_000
URL = "https://example.com/keys"
OWN = parse_source(f"own HS256 {SECRET.decode()}")


def document(*ids: str) -> bytes:
    """Return a key set in which one key has some ids."""
    key = ECKey.import_key(public_pem(private_key("ES256"))).as_dict(private=False)
    return json.dumps({"keys": [{**key, "kid": id_} for id_ in ids]}).encode()


def token(id_: str, **claims: Any) -> str:
    """Return a token that names a published key."""
    return make_token(Key.pem(id_, "ES256", private_pem(private_key("ES256"))), {"exp": NOW + 60, **claims})


def own_token(**claims: Any) -> str:
    """Return a token of the key in the configuration."""
    return make_token(OWN.key(), {"exp": NOW + 60, **claims})


class World:
    """A keyring that runs on a clock, and the requests that it makes."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.requests: list[Deferred[bytes]] = []
        self.keyring = Keyring(Auth(keys=(OWN,), **options), self.clock, lambda: NOW, self.fetch)
        self.keyring.startService()

    def fetch(self, url: str) -> Deferred[bytes]:
        """Take a request."""
        assert url == URL
        self.requests.append(Deferred())
        return self.requests[-1]


class KeyringTests(SynchronousTestCase):
    """Checking tokens while keys come and go."""

    def setUp(self) -> None:
        self.warnings: list[str] = []

        def observe(event: Any) -> None:
            if "keys for tokens" in (event.get("log_format") or ""):
                self.warnings.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def world(self, **options: Any) -> World:
        """Return a world that ends with the test."""
        made = World(**options)

        def stop() -> None:
            made.keyring.stopService()
            self.assertEqual(made.clock.getDelayedCalls(), [])

        self.addCleanup(stop)
        return made

    def refusal(self, checked: Deferred[Any]) -> RtpushError:
        """Return the error of a token that is refused."""
        error = self.failureResultOf(checked, RtpushError).value
        assert isinstance(error, RtpushError)
        return error

    def test_own_keys(self) -> None:
        """Tokens of the configuration's keys are checked at once, by the configuration's rules."""
        world = self.world(issuer="us")
        self.assertEqual(self.successResultOf(world.keyring.check(own_token(sub="42", iss="us"))).user, "42")
        self.assertIs(self.refusal(world.keyring.check(own_token())).kind, ErrorCode.INVALID_TOKEN)
        expired = make_token(OWN.key(), {"exp": NOW - 60, "iss": "us"})
        self.assertIs(self.refusal(world.keyring.check(expired)).kind, ErrorCode.TOKEN_EXPIRED)
        self.assertIsInstance(self.refusal(world.keyring.check(token("a"))), UnknownKey)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_published(self) -> None:
        """Published keys are read at the start and then in intervals; each time the set is a new one."""
        world = self.world(jwks=URL, jwks_interval=300)
        world.requests.pop().callback(document("a"))
        keys = world.keyring.keys
        self.successResultOf(world.keyring.check(token("a")))
        self.successResultOf(world.keyring.check(own_token()))
        world.clock.advance(299)
        self.assertEqual(world.requests, [])
        world.clock.advance(1)
        world.requests.pop().callback(document("b"))
        self.assertEqual([key.id for key in world.keyring.keys.keys], ["own", "b"])
        self.assertEqual([key.id for key in keys.keys], ["own", "a"])
        self.assertIsInstance(self.refusal(world.keyring.check(token("a"))), UnknownKey)

    def test_at_the_start(self) -> None:
        """Tokens that come before the keys wait for them; those that need none do not."""
        world = self.world(jwks=URL)
        first, second, third = (world.keyring.check(token(id_)) for id_ in "aab")
        self.successResultOf(world.keyring.check(own_token()))
        self.assertNoResult(first)
        self.assertEqual(len(world.requests), 1)
        world.requests.pop().callback(document("a"))
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertIsInstance(self.refusal(third), UnknownKey)

    def test_never_read(self) -> None:
        """As long as the keys could never be read, an unknown one is no fault of the token: come back."""
        world = self.world(jwks=URL)
        waiting = world.keyring.check(token("a"))
        world.requests.pop().errback(FetchError("no"))
        for refused in (waiting, world.keyring.check(token("a"))):
            self.assertIs(self.refusal(refused).kind, ErrorCode.UNAVAILABLE)
        self.assertEqual(world.requests, [])
        world.clock.advance(30)
        world.requests.pop().callback(document("a"))
        self.successResultOf(world.keyring.check(token("a")))

    def test_unknown_key(self) -> None:
        """A token with an unknown key has the keys read, at most once in ten seconds, and once for all that wait."""
        world = self.world(jwks=URL)
        world.requests.pop().callback(document("a"))
        self.assertIsInstance(self.refusal(world.keyring.check(token("b"))), UnknownKey)
        self.assertEqual(world.requests, [])
        world.clock.advance(10)
        waiting = [world.keyring.check(token(id_)) for id_ in "bbc"]
        self.assertEqual(len(world.requests), 1)
        world.requests.pop().callback(document("a", "b"))
        for each in waiting[:2]:
            self.successResultOf(each)
        self.assertIsInstance(self.refusal(waiting[2]), UnknownKey)
        self.assertIsInstance(self.refusal(world.keyring.check(token("c"))), UnknownKey)
        self.assertEqual(world.requests, [])
        # The interval begins anew.
        self.assertEqual([call.getTime() for call in world.clock.getDelayedCalls()], [310])

    def test_other_mistakes(self) -> None:
        """No other bad token has the keys read."""
        world = self.world(jwks=URL)
        world.requests.pop().callback(document("a"))
        world.clock.advance(10)
        for bad in ("", "x.y.z", token("a")[:-2], token("a", aud="x"), make_token(OWN.key(), {"exp": 1})):
            self.refusal(world.keyring.check(bad))
        self.assertEqual(world.requests, [])

    def test_many_wait(self) -> None:
        """Only so many tokens wait."""
        world = self.world(jwks=URL)
        waiting = [world.keyring.check(token("a")) for _ in range(1000)]
        self.assertIs(self.refusal(world.keyring.check(token("a"))).kind, ErrorCode.UNAVAILABLE)
        world.requests.pop().callback(document("a"))
        for each in waiting:
            self.successResultOf(each)

    def test_gone(self) -> None:
        """Who waits for keys may go; the others still get theirs."""
        world = self.world(jwks=URL)
        gone, stays = (world.keyring.check(token("a")) for _ in range(2))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        world.requests.pop().callback(document("a"))
        self.successResultOf(stays)

    def test_failures(self) -> None:
        """When a reading fails the last keys stay, it is tried again soon, and each new problem is logged."""
        world = self.world(jwks=URL)
        world.requests.pop().callback(document("a"))
        world.clock.advance(300)
        for content in (FetchError("the first problem"), FetchError("the first problem"), b"{}", document()):
            request = world.requests.pop()
            if isinstance(content, bytes):
                request.callback(content)
            else:
                request.errback(content)
            self.successResultOf(world.keyring.check(token("a")))
            self.assertEqual(world.requests, [])
            world.clock.advance(30)
        self.assertEqual(len(self.warnings), 3)
        self.assertEqual(self.warnings[0], f"The keys for tokens cannot be read from {URL}: the first problem")
        world.requests.pop().callback(document("b"))
        world.clock.advance(300)
        self.assertEqual(len(world.requests), 1)

    def test_file(self) -> None:
        """Keys may be published in a file, which is read again after the interval, or for an unknown key."""
        path = Path(self.mktemp())
        world = self.world(jwks=f"file:{path}")
        self.assertIs(self.refusal(world.keyring.check(token("a"))).kind, ErrorCode.UNAVAILABLE)
        self.assertIn("No such file", self.warnings[0])
        path.write_bytes(document("a"))
        world.clock.advance(30)
        self.successResultOf(world.keyring.check(token("a")))
        path.write_bytes(document("b"))
        world.clock.advance(10)
        self.successResultOf(world.keyring.check(token("b")))
        path.write_bytes(document("b").ljust(300_000))
        world.clock.advance(300)
        self.assertIn("expected at most", self.warnings[1])

    def test_reload(self) -> None:
        """Another configuration counts at once; published keys of the same place stay until they are read again."""
        world = self.world(jwks=URL)
        world.requests.pop().callback(document("a"))
        other = parse_source(f"other HS256 {SECRET.decode()}")
        world.keyring.reload(Auth(keys=(other,), jwks=URL, audience="push"))
        self.assertEqual([key.id for key in world.keyring.keys.keys], ["other", "a"])
        self.successResultOf(world.keyring.check(token("a", aud="push")))
        self.refusal(world.keyring.check(token("a")))
        self.assertEqual(len(world.requests), 1)
        # While it is being read, it need not be read again; what waits gets it.
        waiting = world.keyring.check(token("b", aud="push"))
        world.keyring.reload(Auth(keys=(other,), jwks=URL, audience="push"))
        self.assertEqual(len(world.requests), 1)
        world.requests.pop().callback(document("b"))
        self.successResultOf(waiting)

    def test_reload_elsewhere(self) -> None:
        """Keys of another place are good no more, and what was being read from there is not waited for."""
        world = self.world(jwks=URL)
        world.requests[0].callback(document("a"))
        world.clock.advance(300)
        waiting = world.keyring.check(token("b"))
        world.keyring.reload(Auth(keys=(OWN,), jwks="file:/no/such/file"))
        self.assertEqual([key.id for key in world.keyring.keys.keys], ["own"])
        self.refusal(waiting)
        world.keyring.reload(Auth(keys=(OWN,)))
        self.assertEqual(world.clock.getDelayedCalls(), [])
        self.assertIsInstance(self.refusal(world.keyring.check(token("a"))), UnknownKey)

    def test_reload_mistake(self) -> None:
        """A configuration whose keys cannot be used changes nothing."""
        world = self.world(jwks=URL)
        world.requests.pop().callback(document("a"))
        keys = world.keyring.keys
        mistaken = Auth(keys=(parse_source("k RS256 /no/such/file"),), audience="push")
        self.assertRaises(KeyMistake, world.keyring.reload, mistaken)
        self.assertIs(world.keyring.keys, keys)
        self.successResultOf(world.keyring.check(token("a")))

    def test_stop(self) -> None:
        """A keyring that has ended reads nothing, says nothing, and does not keep anybody waiting."""
        world = self.world(jwks=URL)
        waiting = world.keyring.check(token("a"))
        world.keyring.stopService()
        self.refusal(waiting)
        self.refusal(world.keyring.check(token("a")))
        self.assertEqual((len(world.requests), world.clock.getDelayedCalls(), self.warnings), (1, [], []))
