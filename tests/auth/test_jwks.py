"""Tests of rtpush.auth.jwks."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from jwt.algorithms import RSAAlgorithm
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.jwks import MAX_DOCUMENT_BYTES, MAX_KEYS, read_jwks
from rtpush.auth.keys import Key, KeyMistake
from tests.auth.makers import private_key, private_pem, public_pem

_TYPES: dict[str, Any] = {"RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}


def jwk(algorithm: str, **changes: Any) -> dict[str, Any]:
    """Return a key as another library writes it, with some changes; a change to ``...`` removes."""
    made = _TYPES[algorithm].import_key(public_pem(private_key(algorithm))).as_dict(private=False)
    made = {"kid": algorithm.lower(), **made} | changes
    return {name: value for name, value in made.items() if value is not ...}


def document(*keys: Any) -> bytes:
    """Return a key set."""
    return json.dumps({"keys": keys}).encode()


class JwksTests(SynchronousTestCase):
    """Reading a key set."""

    def mistake(self, content: bytes) -> str:
        """Return why a key set cannot be used."""
        return str(self.assertRaises(KeyMistake, read_jwks, content))

    def test_kinds(self) -> None:
        """Keys of all public-key kinds are read, with their ids, and check what the private half has signed."""
        keys = read_jwks(document(jwk("RS256"), jwk("ES256"), jwk("EdDSA")))
        self.assertEqual([key.id for key in keys], ["rs256", "es256", "eddsa"])
        for key, algorithm in zip(keys, ("RS256", "ES256", "EdDSA"), strict=True):
            self.assertEqual((key.algorithm, key.signs), (algorithm, False))
            private = Key.pem("", algorithm, private_pem(private_key(algorithm)))
            self.assertTrue(key.fits(b"x", private.sign(b"x")))
            self.assertFalse(key.fits(b"y", private.sign(b"x")))

    def test_of_another_library(self) -> None:
        """A whole set that another library has written is read."""
        keys = KeySet([kind.import_key(public_pem(private_key(name))) for name, kind in _TYPES.items()])
        self.assertEqual(len(read_jwks(json.dumps(keys.as_dict(private=False)).encode())), 3)

    def test_said(self) -> None:
        """What says that it is for signatures and for its own algorithm, is taken."""
        for changes in (
            {"use": "sig"},
            {"key_ops": ["verify"]},
            {"key_ops": ["sign", "verify"]},
            {"alg": "EdDSA"},
            {"alg": "Ed25519"},
            {"kid": ...},
            {"x5c": ["MII"], "foo": {}},
        ):
            [key] = read_jwks(document(jwk("EdDSA", **changes)))
            self.assertEqual((key.algorithm, key.id), ("EdDSA", "eddsa" if "kid" not in changes else ""))

    def test_left_out(self) -> None:
        """What cannot be used is left out, and the others are not."""
        small = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
        other = ECKey.import_key(public_pem(ec.generate_private_key(ec.SECP384R1()))).as_dict(private=False)
        for useless in (
            None,
            1,
            [],
            {},
            small,
            other,
            OctKey.generate_key(512).as_dict(private=True),
            jwk("RS256", use="enc"),
            jwk("RS256", use=1),
            jwk("RS256", key_ops=["sign"]),
            jwk("RS256", key_ops="verify"),
            jwk("RS256", alg="RS512"),
            jwk("RS256", alg="HS256"),
            jwk("RS256", alg="none"),
            jwk("RS256", alg="ES256"),
            jwk("RS256", alg=["RS256"]),
            jwk("RS256", kty="rsa"),
            jwk("RS256", kty=["RSA"]),
            jwk("RS256", kid=1),
            jwk("RS256", n=...),
            jwk("RS256", n=1),
            jwk("RS256", n=""),
            jwk("RS256", n="***"),
            jwk("RS256", e="AA"),
            jwk("ES256", crv="P-384"),
            jwk("ES256", crv=["P-256"]),
            jwk("ES256", crv=...),
            jwk("ES256", x="AAAA"),
            jwk("ES256", y=jwk("ES256")["x"]),
            jwk("EdDSA", alg="ES256"),
            jwk("EdDSA", crv="Ed448"),
            jwk("EdDSA", x="AAAA"),
            jwk("EdDSA", x=None),
        ):
            with self.subTest(useless=useless):
                [key] = read_jwks(document(useless, jwk("ES256"), useless))
                self.assertEqual(key.id, "es256")
                self.assertIn("of the 1 keys in the key set, none", self.mistake(document(useless)))

    def test_private(self) -> None:
        """A private half that should not be there is not kept."""
        for algorithm, kind in _TYPES.items():
            content = kind.import_key(private_pem(private_key(algorithm))).as_dict(private=True)
            self.assertIn("d", content)
            [key] = read_jwks(document(content))
            self.assertFalse(key.signs)

    def test_no_set(self) -> None:
        """What is no key set is refused with the reason."""
        for content in (b"", b"x", b"\xff", b"[" * 100_000, b"{"):
            self.assertIn("no JSON", self.mistake(content))
        for content in (b"null", b"[]", b"{}", b'{"keys":null}', b'{"keys":{}}', json.dumps(jwk("ES256")).encode()):
            self.assertIn('a list called "keys"', self.mistake(content))
        self.assertIn("of the 0 keys", self.mistake(document()))

    def test_bounds(self) -> None:
        """A set has a hundred keys and 256 KiB at most."""
        self.assertEqual(len(read_jwks(document(*[jwk("EdDSA")] * MAX_KEYS))), MAX_KEYS)
        self.assertIn("101 keys", self.mistake(document(*[jwk("EdDSA")] * (MAX_KEYS + 1))))
        whole = document(jwk("EdDSA"))
        read_jwks(whole.ljust(MAX_DOCUMENT_BYTES))
        self.assertIn("262145 bytes", self.mistake(whole.ljust(MAX_DOCUMENT_BYTES + 1)))

    _VALUE = st.none() | st.integers() | st.text("AQab_-=+/", max_size=50) | st.lists(st.text(max_size=3), max_size=2)

    @given(st.sampled_from(["RS256", "ES256", "EdDSA"]), st.dictionaries(
        st.sampled_from(["kty", "crv", "n", "e", "x", "y", "alg", "use", "kid", "key_ops", "d"]), _VALUE, max_size=3,
    ))  # fmt: skip
    def test_any_key(self, algorithm: str, changes: dict[str, Any]) -> None:
        """A key with anything in its place is used or left out."""
        self.assertIn(len(read_jwks(document(jwk(algorithm, **changes), jwk("ES256")))), (1, 2))

    @given(st.binary() | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda value: document(value)
    ))  # fmt: skip
    def test_anything(self, content: bytes) -> None:
        """Anything else is a mistake."""
        self.mistake(content)
