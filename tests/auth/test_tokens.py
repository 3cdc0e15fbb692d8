"""Tests of rtpush.auth.tokens."""

from __future__ import annotations

import base64
import json
import subprocess
import warnings
from pathlib import Path

import jwt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rtpush.auth.keys import Key, KeyMistake, KeySet, UnknownKey
from rtpush.auth.permissions import Action, Grant, Permissions
from rtpush.auth.tokens import MAX_TOKEN_BYTES, TokenRules, check, make_token
from rtpush.errors import ErrorCode, RtpushError
from tests.auth.makers import SECRET, b64, hs, oct_token, private_key, private_pem, public_pem

NOW = 1_800_000_000
LATER = NOW + 60

KEYS = KeySet(
    [
        Key.secret("hs", "HS256", SECRET),
        Key.secret("hs3", "HS384", SECRET),
        Key.secret("hs5", "HS512", SECRET),
        Key.pem("rs", "RS256", public_pem(private_key("RS256"))),
        Key.pem("es", "ES256", public_pem(private_key("ES256"))),
        Key.pem("ed", "EdDSA", public_pem(private_key("EdDSA"))),
        Key.secret("other", "HS256", SECRET[::-1]),
    ]
)
RULES = TokenRules(issuer="us", audience="push")

HS = {"alg": "HS256", "kid": "hs"}
GOOD = {"sub": "42", "exp": LATER}

_HEAD, _BODY, _TAIL = hs(**GOOD).split(b".")
_RSA_PEM = public_pem(private_key("RS256"))


def _with_claims(text: str) -> bytes:
    """Return a well signed token with claims as they are written."""
    return oct_token(HS, text.encode())


def _with_header(**header: object) -> bytes:
    """Return a token that is signed with the key ``hs``, and has a header like that."""
    return oct_token(header, GOOD)


#: Tokens, and what must be said about them. All are refused as ``invalid_token``.
BAD = (
    # Size and form.
    (b"", "not of the form"),
    (b".", "not of the form"),
    (b"..", "not of the form"),
    (b"a.b", "not of the form"),
    (hs(**GOOD) + b".x", "not of the form"),
    (hs(**GOOD) + b"\n", "not of the form"),
    (b" " + hs(**GOOD), "not of the form"),
    (b"Bearer " + hs(**GOOD), "not of the form"),
    ("ü.ü.ü", "not of the form"),
    ("\ud800.a.a", "not of the form"),
    (b"a.b.c.d.e", "not of the form"),  # an encrypted one (RFC 7516)
    (b"\x00.\x00.\x00", "not of the form"),
    (b"a" * 1_000_000, "1000000 bytes long"),
    (hs(sub="x" * 1_000_000), "bytes long"),
    (hs(info="x" * 6200, **GOOD), "bytes long"),
    (hs(**GOOD)[:-1], "base64url as it should"),
    (hs(**GOOD)[:-2], "cut off"),
    (hs(**GOOD)[:-3], "signature"),
    (_HEAD + b"." + _BODY + b".", "signature"),
    (_HEAD + b"." + _BODY[:-4] + b"." + _TAIL, "signature"),
    (_HEAD[4:] + b"." + _BODY + b"." + _TAIL, "header: expected a JSON object"),
    (b"=.=.=", "not of the form"),
    (_HEAD + b"==." + _BODY + b"." + _TAIL, "not of the form"),
    # The last digit has bits that mean nothing: only zeros are good there, so that a token is written in one way only.
    (hs(**GOOD)[:-1] + bytes([_TAIL[-1] + 1]), "base64url as it should"),
    # The signature.
    (hs(**GOOD).replace(_TAIL, b64(bytes(32))), "signature"),
    (oct_token(HS, GOOD, SECRET[::-1]), "signature"),
    (oct_token(HS, GOOD, b""), "signature"),
    (oct_token(HS, GOOD, algorithm="sha512"), "signature"),
    (oct_token({"alg": "HS256", "kid": "other"}, GOOD), "signature"),
    # The algorithm.
    *(
        (b64(json.dumps({"alg": spelled, **more})) + b"." + _BODY + b"." + tail, "algorithm (alg)")
        for spelled in ("none", "None", "NONE", "nOnE", "", " none", "none\0", "n", "hs256", "HS256 ", "ES384", "PS256")
        for more in ({}, {"kid": "hs"}, {"kid": ""})
        for tail in (b"", _TAIL)
    ),
    *(
        (_with_header(kid="hs", alg=alg), "algorithm (alg)")
        for alg in (None, 1, True, [], ["HS256"], {"HS256": 1}, 1e300)
    ),
    (_with_header(kid="hs"), "algorithm (alg)"),
    # HMAC with the public key as the secret.
    (oct_token({"alg": "HS256", "kid": "rs"}, GOOD, _RSA_PEM), "for another algorithm"),
    (oct_token({"alg": "HS256", "kid": "rs"}, GOOD, _RSA_PEM.strip()), "for another algorithm"),
    (oct_token({"alg": "RS256", "kid": "rs"}, GOOD, _RSA_PEM), "signature"),
    (oct_token({"alg": "RS256", "kid": "hs"}, GOOD), "for another algorithm"),
    (oct_token({"alg": "HS512", "kid": "hs"}, GOOD, algorithm="sha512"), "for another algorithm"),
    (oct_token({"alg": "ES256", "kid": "ed"}, GOOD), "for another algorithm"),
    (oct_token({"alg": "ES256", "kid": "es"}, GOOD), "signature"),
    (oct_token({"alg": "EdDSA", "kid": "ed"}, GOOD), "signature"),
    # A signature of zeros (CVE-2022-21449).
    (b64('{"alg":"ES256","kid":"es"}') + b"." + _BODY + b"." + b64(bytes(64)), "signature"),
    # The key.
    (_with_header(alg="HS256", kid="unknown"), "no key has the id"),
    (_with_header(alg="HS256", kid=""), "no key has the id"),
    (_with_header(alg="HS256", kid="HS"), "no key has the id"),
    (_with_header(alg="HS256", kid="../../../dev/null"), "no key has the id"),
    (_with_header(alg="HS256", kid="hs' or '1'='1"), "no key has the id"),
    (_with_header(alg="HS256"), "names no key (kid), and several keys"),
    *((_with_header(alg="HS256", kid=kid), "(kid) is no string") for kid in (None, 1, True, ["hs"], {"hs": 1}, 1.5)),
    # Keys that the token brings along are not asked.
    (_with_header(alg="HS256", kid="x", jwk={"kty": "oct", "k": b64(SECRET).decode()}), "no key has the id"),
    (
        _with_header(alg="HS256", kid="x", jku="https://evil.example/jwks", x5u="file:///etc/passwd"),
        "no key has the id",
    ),
    # Extensions.
    (_with_header(**HS, crit=["exp"]), "extensions"),
    (_with_header(**HS, crit=[]), "extensions"),
    (_with_header(**HS, crit="b64"), "extensions"),
    (_with_header(**HS, crit=None), "extensions"),
    (_with_header(**HS, b64=False, crit=["b64"]), "extensions"),
    (_with_header(**HS, b64=False), "extensions"),
    # The header's JSON.
    *(
        (oct_token(text, GOOD), "header: expected a JSON object")
        for text in (b"x", b"null", b"[]", b'"HS256"', b"1", b"{", b'{"alg":HS256}', b"\xff\xfe", b"[" * 3000)
    ),
    (oct_token(b'{"alg":"none","alg":"HS256","kid":"hs"}', GOOD), "twice"),
    (oct_token(b'{"alg":"HS256","kid":"rs","kid":"hs"}', GOOD), "twice"),
    (oct_token(b'{"alg":"HS256","kid":"hs"}x', GOOD), "header: expected a JSON object"),
    (oct_token(b'{"alg":"HS256","kid":"hs","x":NaN}', GOOD), "header: expected a JSON object"),
    # The claims' JSON.
    *(
        (oct_token(HS, text), "claims: expected a JSON object")
        for text in (b"x", b"null", b"[]", b'"x"', b"1", b"{", b"{'exp':1}", b"\xff", b'{"exp":1}{}', b"[" * 5000)
    ),
    (_with_claims('{"a":' * 1000 + "1" + "}" * 1000), "claims: expected a JSON object"),
    (_with_claims(f'{{"sub":"1","sub":"2","exp":{LATER}}}'), "twice"),
    (_with_claims(f'{{"exp":1,"exp":{LATER}}}'), "twice"),
    (_with_claims(f'{{"exp":{LATER},"channels":{{"demo:a":[],"demo:a":["publish"]}}}}'), "twice"),
    (_with_claims(f'{{"exp":{LATER},"\\u0065xp":1}}'), "twice"),
    # Times.
    (hs(sub="42"), "does not say when it ends"),
    *(
        (_with_claims(f'{{"{name}":{text}}}'), f"the token's {name} is no number")
        for name in ("exp", "nbf", "iat")
        for text in (
            "-1",
            "-1e300",
            "253402300800",
            "1e300",
            "9" * 400,
            '"1"',
            "null",
            "true",
            "[]",
            "{}",
            "[9999999999]",
        )
    ),
    *(
        (_with_claims(f'{{"{name}":{text}}}'), "claims: expected a JSON object")
        for name in ("exp", "nbf", "iat")
        for text in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "0x10", "01", "+1", "")
    ),
    (hs(nbf=NOW + 6, **GOOD), "not valid yet"),
    (hs(iat=NOW + 6, **GOOD), "made in the future"),
    # Who it is of.
    *(
        (hs(sub=sub, exp=LATER), "the token's sub is no string")
        for sub in (None, 42, True, [], {}, "x" * 256, "ü" * 128)
    ),
    *(
        (hs(sub=sub, exp=LATER), "the token's sub is no string")
        for sub in ("a\nb", "a\0", "\ud800", "a\u2028b", "\u202e")
    ),
    *((hs(jti=jti, exp=LATER), "the token's jti is no string") for jti in (None, 7, [], "x" * 256, "a\rb")),
    # An audience, where none is expected.
    (hs(aud="push", **GOOD), "[auth] audience is not set"),
    (hs(aud=["push"], **GOOD), "[auth] audience is not set"),
    (hs(aud=[], **GOOD), "[auth] audience is not set"),
    *((hs(aud=aud, **GOOD), "neither a string nor a list") for aud in (None, 1, {}, [1], ["push", None], [["push"]])),
    # Permissions.
    *((hs(channels=value, **GOOD), "the token's channels") for value in (None, 1, "demo:*", [], ["demo:*"], True)),
    *(
        (hs(channels={"demo:a": value}, **GOOD), "the token's channels: expected a list of subscribe, publish, history")
        for value in (
            None,
            1,
            "subscribe",
            {},
            {"subscribe": 1},
            [1],
            [None],
            [["subscribe"]],
            ["Subscribe"],
            ["*"],
            [""],
        )
    ),
    *(
        (hs(channels={name: ["subscribe"]}, **GOOD), "the token's channels: expected a channel's name or pattern")
        for name in ("", "a b", "a,b", 'a"b', "a\\b", "ü", "\ud800", "a\n", "x" * 256)
    ),
    (hs(channels={"a**": ["subscribe"]}, **GOOD), "at most one *"),
    (hs(channels={"a*b*:c": ["subscribe"]}, **GOOD), "at most one *"),
    (hs(channels={f"a:{number}": [] for number in range(101)}, **GOOD), "at most 100"),
    # One channel.
    (hs(channel="demo:a", channels={"demo:a": ["subscribe"]}, **GOOD), "both channel and channels"),
    *(
        (hs(channel=value, **GOOD), "channel is no channel's name")
        for value in (None, 1, True, [], ["demo:a"], {}, "", "a b", "demo:*", "x" * 256)
    ),
    (hs(channel="demo:a", actions=["delete"], **GOOD), "the token's actions: expected a list of"),
    (hs(channel="demo:a", actions="subscribe", **GOOD), "the token's actions: expected a list of"),
    (hs(channel="demo:a", actions=None, **GOOD), "the token's actions: expected a list of"),
    (hs(actions=["subscribe"], **GOOD), "actions without a channel"),
)


class GoodTests(SynchronousTestCase):
    """Tokens that are good, and what they grant."""

    def test_all_claims(self) -> None:
        """A grant has what the token says; claims that mean nothing here do no harm."""
        grant = check(
            hs(
                sub="42",
                exp=LATER,
                iat=NOW - 1,
                nbf=NOW,
                jti="t1",
                iss="them",
                channels={"demo:lobby": ["subscribe", "publish"], "user:42:*": ["history", "presence", "history"]},
                info={"name": "Ann", "é": [1.5, None]},
                role={"admin": True},
            ),
            KEYS,
            NOW,
        )
        self.assertEqual((grant.user, grant.expires, grant.issued, grant.id), ("42", LATER, NOW - 1, "t1"))
        self.assertEqual((grant.channel, json.loads(grant.info)), ("", {"name": "Ann", "é": [1.5, None]}))
        allowed = {
            (channel, action)
            for channel in ("demo:lobby", "user:42:x:y", "user:43:x", "demo:lobby2")
            for action in Action
            if grant.allows(action, channel)
        }
        self.assertEqual(
            allowed,
            {
                ("demo:lobby", Action.SUBSCRIBE),
                ("demo:lobby", Action.PUBLISH),
                ("user:42:x:y", Action.HISTORY),
                ("user:42:x:y", Action.PRESENCE),
            },
        )

    def test_least(self) -> None:
        """A token of nobody that permits nothing is good: it shows that the application knows the client."""
        self.assertEqual(check(hs(exp=LATER), KEYS, NOW), Grant(expires=LATER))
        self.assertEqual(check(hs(exp=LATER, channels={}), KEYS, NOW), Grant(expires=LATER))

    def test_text_or_bytes(self) -> None:
        """A token may come as text or as bytes."""
        self.assertEqual(check(hs(**GOOD).decode(), KEYS, NOW), check(hs(**GOOD), KEYS, NOW))

    def test_channel(self) -> None:
        """A token for one channel permits to subscribe there, or what it says, and nothing elsewhere."""
        grant = check(hs(channel="demo:a", **GOOD), KEYS, NOW)
        self.assertEqual(grant.channel, "demo:a")
        self.assertEqual([action for action in Action if grant.allows(action, "demo:a")], [Action.SUBSCRIBE])
        self.assertFalse(grant.allows(Action.SUBSCRIBE, "demo:ab"))
        grant = check(hs(channel="demo:a", actions=["publish", "history"], **GOOD), KEYS, NOW)
        self.assertEqual(
            [action for action in Action if grant.allows(action, "demo:a")], [Action.PUBLISH, Action.HISTORY]
        )

    def test_leeway(self) -> None:
        """Clocks may differ by five seconds, or as many as is said; the end itself is not included."""
        for leeway, rules in ((5, None), (0, TokenRules(leeway=0)), (60.5, TokenRules(leeway=60.5))):
            check(hs(exp=NOW - leeway + 1), KEYS, NOW, rules)
            check(hs(exp=LATER, nbf=NOW + leeway, iat=NOW + leeway), KEYS, NOW, rules)
            self.refused(hs(exp=NOW - leeway), rules, ErrorCode.TOKEN_EXPIRED)
            self.refused(hs(exp=LATER, nbf=NOW + leeway + 1), rules)
            self.refused(hs(exp=LATER, iat=NOW + leeway + 1), rules)

    def test_times(self) -> None:
        """Times may have fractions, and be any of the next 8,000 years."""
        self.assertEqual(check(hs(exp=NOW + 0.5), KEYS, NOW).expires, NOW + 0.5)
        self.assertEqual(check(hs(exp=253402300799, nbf=0, iat=0), KEYS, NOW).issued, 0)

    def test_without_exp(self) -> None:
        """Where the rules allow it, a token need not end."""
        self.assertIsNone(check(hs(sub="42"), KEYS, NOW, TokenRules(require_exp=False)).expires)
        self.refused(hs(exp=NOW - 60), TokenRules(require_exp=False), ErrorCode.TOKEN_EXPIRED)

    def test_issuer_and_audience(self) -> None:
        """Issuer and audience are those that the rules say, if they say any."""
        for audience in ("push", ["push"], ["other", "push"]):
            check(hs(iss="us", aud=audience, **GOOD), KEYS, NOW, RULES)
        for claims in (
            {"aud": "push"},
            {"iss": "them", "aud": "push"},
            {"iss": ["us"], "aud": "push"},
            {"iss": None, "aud": "push"},
            {"iss": "us"},
            {"iss": "us", "aud": "Push"},
            {"iss": "us", "aud": "pushy"},
            {"iss": "us", "aud": []},
            {"iss": "us", "aud": ["other"]},
            {"iss": "us", "aud": ["push", 1]},
        ):
            self.refused(hs(**claims, **GOOD), RULES)

    def test_no_kid(self) -> None:
        """A token need not name its key if there is only one for its algorithm."""
        self.assertEqual(check(oct_token({"alg": "HS384"}, GOOD, algorithm="sha384"), KEYS, NOW).user, "42")
        self.refused(oct_token({"alg": "HS384"}, GOOD, algorithm="sha384"), None, keys=KeySet())

    def test_largest(self) -> None:
        """A token of 8 KiB is read, and the next longer one is not."""
        sizes = set()
        for size in range(6000, 6200):
            token = hs(info="x" * size, **GOOD)
            sizes.add(len(token))
            if len(token) <= MAX_TOKEN_BYTES:
                check(token, KEYS, NOW)
            else:
                self.refused(token, None)
        self.assertIn(MAX_TOKEN_BYTES, sizes)
        self.assertIn(MAX_TOKEN_BYTES + 2, sizes)

    def refused(
        self,
        token: bytes,
        rules: TokenRules | None,
        kind: ErrorCode = ErrorCode.INVALID_TOKEN,
        keys: KeySet = KEYS,
    ) -> None:
        """Assert that a token is refused."""
        error = self.assertRaises(RtpushError, check, token, keys, NOW, rules)
        self.assertIs(error.kind, kind, error.message)


class BadTests(SynchronousTestCase):
    """Tokens that are not good."""

    def test_table(self) -> None:
        """Each is refused for its own reason, in one line that does not show the token."""
        for token, said in BAD:
            with self.subTest(token=token[:120], said=said):
                error = self.assertRaises(RtpushError, check, token, KEYS, NOW)
                self.assertIs(error.kind, ErrorCode.INVALID_TOKEN)
                self.assertIn(said, error.message)
                self.assertTrue(error.message.isprintable() and len(error.message) < 200)
                text = token if isinstance(token, str) else token.decode("latin-1")
                for part in text.split("."):
                    if len(part) > 8:
                        self.assertNotIn(part, error.message)

    def test_expired(self) -> None:
        """A token that was good has a code of its own, and says how long ago it ended."""
        error = self.assertRaises(RtpushError, check, hs(sub="42", exp=NOW - 60), KEYS, NOW)
        self.assertIs(error.kind, ErrorCode.TOKEN_EXPIRED)
        self.assertIn("60 seconds ago", error.message)

    def test_expired_and_worse(self) -> None:
        """Only a token that is good otherwise is called expired: nothing of others can be learned so."""
        for token in (
            oct_token(HS, {"exp": 1}, SECRET[::-1]),
            hs(exp=1, aud="other"),
            hs(exp=1, channels=1),
            hs(exp=1, nbf=LATER),
        ):
            error = self.assertRaises(RtpushError, check, token, KEYS, NOW)
            self.assertIs(error.kind, ErrorCode.INVALID_TOKEN, error.message)

    def test_unknown_key(self) -> None:
        """An unknown key can be told from all else: a newer key set may have it."""
        self.assertRaises(UnknownKey, check, oct_token({"alg": "HS256", "kid": "new"}, GOOD), KEYS, NOW)
        error = self.assertRaises(RtpushError, check, oct_token({"alg": "RS256", "kid": "hs"}, GOOD), KEYS, NOW)
        self.assertNotIsInstance(error, UnknownKey)

    def test_no_keys(self) -> None:
        """Without a key no token is good."""
        for header in (HS, {"alg": "HS256"}, {"alg": "none"}):
            self.assertRaises(RtpushError, check, oct_token(header, GOOD, b""), KeySet(), NOW)

    def test_large_is_cheap(self) -> None:
        """Of a token that is too long, only the length is looked at."""

        class Long(bytes):
            def __len__(self) -> int:
                return 1 << 40

        error = self.assertRaises(RtpushError, check, Long(), KEYS, NOW)
        self.assertIn("1099511627776 bytes", error.message)


class FuzzTests(SynchronousTestCase):
    """Whatever comes, there is a grant or an RtpushError."""

    def outcome(self, token: bytes | str) -> Grant | None:
        """Check a token."""
        try:
            return check(token, KEYS, NOW, TokenRules(require_exp=False))
        except RtpushError as error:
            self.assertIn(error.kind, (ErrorCode.INVALID_TOKEN, ErrorCode.TOKEN_EXPIRED))
            error.message.encode()
            return None

    @given(st.binary() | st.text() | st.text("ABCabc012-_.=", max_size=200))
    def test_anything(self, token: bytes | str) -> None:
        """Bytes and texts of any kind are no tokens."""
        self.assertIsNone(self.outcome(token))

    @given(st.binary(), st.binary(), st.binary())
    def test_parts(self, header: bytes, claims: bytes, signature: bytes) -> None:
        """Nor are three parts with anything in them."""
        self.assertIsNone(self.outcome(b".".join([b64(header), b64(claims), b64(signature)])))

    @given(
        st.sampled_from(["HS256", "RS256", "ES256", "EdDSA"]), st.sampled_from(["hs", "rs", "es", "ed"]), st.binary()
    )
    def test_signatures(self, algorithm: str, id_: str, signature: bytes) -> None:
        """No key takes any other signature than its own."""
        self.assertIsNone(
            self.outcome(b64(json.dumps({"alg": algorithm, "kid": id_})) + b"." + _BODY + b"." + b64(signature))
        )

    _JSON = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    )
    _NAMES = st.sampled_from(
        ["sub", "exp", "nbf", "iat", "aud", "iss", "jti", "channels", "channel", "actions", "info", "x"]
    )

    @given(st.dictionaries(_NAMES, _JSON | st.dictionaries(st.text("ab:*", max_size=9), st.just(["publish"]))))
    @example({"info": {"a": "\ud800"}})
    @example({"info": [float("inf")]})
    def test_claims(self, claims: dict[str, object]) -> None:
        """A token that is well signed is refused, or gives what can be used: texts in UTF-8, JSON, numbers."""
        grant = self.outcome(hs(**claims))
        if grant is not None:
            (grant.user + grant.id + grant.channel).encode()
            if "info" in claims:
                self.assertEqual(json.loads(grant.info), claims["info"])
            grant.allows(Action.PUBLISH, "a:b")

    @given(st.binary(max_size=300))
    def test_claims_of_bytes(self, claims: bytes) -> None:
        """So is one whose claims are any bytes, or whose header is."""
        self.outcome(oct_token(HS, claims))
        self.outcome(oct_token(claims, GOOD))

    @given(st.integers(0, len(hs(**GOOD)) - 1), st.integers(0, 255))
    def test_changed(self, place: int, byte: int) -> None:
        """A token with any byte changed is no token."""
        token = bytearray(hs(**GOOD))
        if token[place] != byte:
            token[place] = byte
            self.assertIsNone(self.outcome(bytes(token)))

    @settings(max_examples=50)
    @given(st.text('[{"a:1,', max_size=40), st.integers(1, 1500))
    def test_deep(self, text: str, times: int) -> None:
        """Nesting does not exhaust the stack."""
        self.outcome(_with_claims(text * times))
        self.outcome(_with_claims('{"info":' + "[" * times + "]" * times + "}"))


class MakeTests(SynchronousTestCase):
    """Making tokens."""

    def test_round(self) -> None:
        """What is made with a key is checked with its public half; other libraries take it too."""
        claims = {"sub": "é", "exp": LATER, "channels": {"a:*": ["subscribe"]}, "info": "x"}
        for algorithm in ("RS256", "ES256", "EdDSA"):
            pem = private_pem(private_key(algorithm))
            token = make_token(Key.pem("k", algorithm, pem), claims)
            public = Key.pem("k", algorithm, public_pem(private_key(algorithm)))
            self.assertEqual(check(token, KeySet([public]), NOW).user, "é")
            self.assertEqual(check(token, KeySet([Key.pem("k", algorithm, pem)]), NOW).user, "é")
            self.assertEqual(self.read(token, public_pem(private_key(algorithm)), algorithm), claims)
        for algorithm in ("HS256", "HS384", "HS512"):
            token = make_token(Key.secret("k", algorithm, SECRET), claims)
            self.assertEqual(check(token, KeySet([Key.secret("k", algorithm, SECRET)]), NOW).user, "é")
            self.assertEqual(self.read(token, SECRET, algorithm), claims)
            self.assertEqual(jwt.get_unverified_header(token), {"alg": algorithm, "typ": "JWT", "kid": "k"})

    @staticmethod
    def read(token: str, key: bytes, algorithm: str) -> object:
        """Return what another library finds in a token."""
        options = {"verify_exp": False, "verify_iat": False}
        return jwt.decode(token, key, algorithms=[algorithm], options=options)  # type: ignore[arg-type]

    def test_without_id(self) -> None:
        """A key without id makes tokens that name none."""
        key = Key.secret("", "HS256", SECRET)
        token = make_token(key, GOOD)
        self.assertNotIn("kid", jwt.get_unverified_header(token))
        self.assertEqual(check(token, KeySet([key]), NOW).user, "42")

    def test_public(self) -> None:
        """A public key makes none."""
        key = Key.pem("k", "ES256", public_pem(private_key("ES256")))
        self.assertFalse(key.signs)
        self.assertIn("private", str(self.assertRaises(KeyMistake, make_token, key, GOOD)))

    def test_no_json(self) -> None:
        """What is no JSON is no claim."""
        key = Key.secret("k", "HS256", SECRET)
        self.assertRaises(ValueError, make_token, key, {"exp": float("nan")})
        self.assertRaises(TypeError, make_token, key, {"exp": b"1"})


class OthersTests(SynchronousTestCase):
    """Tokens that other programs have made."""

    def test_joserfc(self) -> None:
        """Those of joserfc are good, with each algorithm."""
        for algorithm, id_, key in (
            ("HS256", "hs", OctKey.import_key(SECRET)),
            ("HS384", "hs3", OctKey.import_key(SECRET)),
            ("HS512", "hs5", OctKey.import_key(SECRET)),
            ("RS256", "rs", RSAKey.import_key(private_pem(private_key("RS256")))),
            ("ES256", "es", ECKey.import_key(private_pem(private_key("ES256")))),
            ("EdDSA", "ed", OKPKey.import_key(private_pem(private_key("EdDSA")))),
        ):
            # EdDSA is also called Ed25519 (RFC 9864).
            for name in {algorithm, algorithm.replace("EdDSA", "Ed25519")}:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # joserfc does not like the old name
                    token = jose.encode({"alg": name, "kid": id_}, GOOD, key, algorithms=[name])
                self.assertEqual(check(token, KEYS, NOW).user, "42", name)

    def test_pyjwt(self) -> None:
        """Those of PyJWT are good."""
        for algorithm, id_ in (("RS256", "rs"), ("ES256", "es"), ("EdDSA", "ed")):
            token = jwt.encode(GOOD, private_key(algorithm), algorithm, {"kid": id_})
            self.assertEqual(check(token, KEYS, NOW).user, "42", algorithm)

    def test_openssl(self) -> None:
        """So is one that was signed on the command line."""
        content = b64('{"alg":"RS256","kid":"rs"}') + b"." + _BODY
        path = Path(self.mktemp())
        path.write_bytes(private_pem(private_key("RS256")))
        try:
            made = subprocess.run(
                ["openssl", "dgst", "-sha256", "-sign", str(path)], input=content, capture_output=True, check=True
            )
        except FileNotFoundError:
            raise SkipTest("openssl is not installed") from None
        self.assertEqual(check(content + b"." + b64(made.stdout), KEYS, NOW).user, "42")

    def test_rfc(self) -> None:
        """The example of the standard was good in 2011 (RFC 7515 appendix A.1)."""
        claims = b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
        key = Key.secret("", "HS256", base64.urlsafe_b64decode(secret + "=="))
        token = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + claims + b".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        self.assertEqual(check(token, KeySet([key]), 1300819379).expires, 1300819380)
        error = self.assertRaises(RtpushError, check, token, KeySet([key]), NOW)
        self.assertIs(error.kind, ErrorCode.TOKEN_EXPIRED)


class SharedTests(SynchronousTestCase):
    """What many tokens have in common is there once."""

    def test_permissions(self) -> None:
        """Two tokens with the same permissions share them."""
        one, two = (
            check(hs(sub=user, exp=LATER, channels={"a:*": ["subscribe"], "b": ["publish"]}), KEYS, NOW)
            for user in "12"
        )
        self.assertIs(one.permissions, two.permissions)
        self.assertIs(check(hs(exp=LATER), KEYS, NOW).permissions, Permissions.of({}))
