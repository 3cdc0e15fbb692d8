"""Tests of rtpush.auth.keys."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.keys import Key, KeyMistake, KeySet, KeySource, UnknownKey, key_set, parse_source
from rtpush.errors import ErrorCode, RtpushError
from tests.auth.makers import SECRET, private_key, private_pem, public_pem


class KeyTests(SynchronousTestCase):
    """One key."""

    def mistake(self, algorithm: str, content: bytes) -> str:
        """Return why a PEM is no key for an algorithm."""
        return str(self.assertRaises(KeyMistake, Key.pem, "k", algorithm, content))

    def test_short_secrets(self) -> None:
        """A secret is as long as the hash or longer; the message has the lengths and not the secret."""
        for algorithm, least in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
            Key.secret("k", algorithm, b"x" * least)
            error = self.assertRaises(KeyMistake, Key.secret, "k", algorithm, b"x" * (least - 1))
            self.assertIn(f"of {least - 1} bytes is too short for {algorithm}: expected {least} or more", str(error))
            self.assertNotIn("xx", str(error))

    def test_public_key_as_secret(self) -> None:
        """A key of another kind is no secret: it may be known to all."""
        key = private_key("RS256").public_key()
        for content in (
            public_pem(private_key("RS256")),
            public_pem(private_key("ES256")),
            private_pem(private_key("EdDSA")),
            key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        ):
            error = self.assertRaises(KeyMistake, Key.secret, "k", "HS256", content)
            self.assertIn("of another kind", str(error))

    def test_kinds(self) -> None:
        """A key is for its own algorithm, and for no other."""
        for kind in ("RS256", "ES256", "EdDSA"):
            for algorithm in ("RS256", "ES256", "EdDSA", "HS256", "none"):
                for pem in (public_pem(private_key(kind)), private_pem(private_key(kind))):
                    if algorithm == kind:
                        key = Key.pem("k", algorithm, pem)
                        self.assertEqual((key.algorithm, key.signs), (algorithm, b"PRIVATE" in pem))
                    else:
                        self.assertIn(f"no key for {algorithm}", self.mistake(algorithm, pem))
        for algorithm in ("RS256", "EdDSA", "none", ""):
            self.assertRaises(KeyMistake, Key.secret, "k", algorithm, SECRET)

    def test_weak_and_strange(self) -> None:
        """Keys that are small, on another curve or of another kind are refused."""
        self.assertIn(
            "1024 bits is too small", self.mistake("RS256", public_pem(rsa.generate_private_key(65537, 1024)))
        )
        self.assertIn("secp384r1 is not", self.mistake("ES256", public_pem(ec.generate_private_key(ec.SECP384R1()))))
        self.assertIn("secp256k1 is not", self.mistake("ES256", public_pem(ec.generate_private_key(ec.SECP256K1()))))
        self.assertIn("no key for EdDSA", self.mistake("EdDSA", public_pem(ed448.Ed448PrivateKey.generate())))
        self.assertIn("no key for EdDSA", self.mistake("EdDSA", public_pem(x25519.X25519PrivateKey.generate())))
        self.assertIn("no key for RS256", self.mistake("RS256", public_pem(dsa.generate_private_key(2048))))

    def test_no_pem(self) -> None:
        """What is no PEM, or is encrypted, is refused with the reason."""
        for content in (b"", b"x", b"\xff", SECRET, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
            self.assertIn("expected a private or public key in PEM", self.mistake("RS256", content))
        locked = private_key("ES256").private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
        )
        self.assertIn("encrypted", self.mistake("ES256", locked))

    def test_old_forms(self) -> None:
        """The older PEM forms are read too."""
        for algorithm in ("RS256", "ES256"):
            pem = private_key(algorithm).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            self.assertTrue(Key.pem("k", algorithm, pem).signs)

    def test_shows_nothing(self) -> None:
        """Neither a key nor a source shows its secret."""
        self.assertNotIn("0123", repr(Key.secret("k", "HS256", SECRET)))
        self.assertNotIn("0123", repr(parse_source(f"k HS256 {SECRET.decode()}")))

    @given(st.binary(), st.binary())
    def test_signatures(self, content: bytes, signature: bytes) -> None:
        """A signature fits the key that made it and its content, and any other bytes do not fit."""
        keys = [Key.pem("", algorithm, private_pem(private_key(algorithm))) for algorithm in ("ES256", "EdDSA")]
        for key in (*keys, Key.secret("", "HS384", SECRET)):
            made = key.sign(content)
            self.assertTrue(key.fits(content, made))
            self.assertFalse(key.fits(content + b"x", made))
            self.assertFalse(key.fits(content, signature))


class KeySetTests(SynchronousTestCase):
    """Choosing a key."""

    a, b, c = (
        Key.secret(id_, algorithm, SECRET) for id_, algorithm in (("a", "HS256"), ("b", "HS256"), ("c", "HS512"))
    )

    def test_find(self) -> None:
        """A key is found by its id and algorithm."""
        keys = KeySet([self.a, self.b, self.c])
        for key in keys.keys:
            self.assertIs(keys.find(key.id, key.algorithm), key)
        self.assertRaises(UnknownKey, keys.find, "d", "HS256")
        error = self.assertRaises(RtpushError, keys.find, "c", "HS256")
        self.assertEqual((error.kind, type(error)), (ErrorCode.INVALID_TOKEN, RtpushError))

    def test_without_id(self) -> None:
        """Without an id it is the only one for the algorithm."""
        keys = KeySet([self.a, self.b, self.c])
        self.assertIs(keys.find(None, "HS512"), self.c)
        for algorithm in ("HS256", "HS384"):
            error = self.assertRaises(RtpushError, keys.find, None, algorithm)
            self.assertIs(error.kind, ErrorCode.INVALID_TOKEN)

    def test_unnamed(self) -> None:
        """A key that has no id is found only by tokens that name none: an empty name is none."""
        key = Key.secret("", "HS256", SECRET)
        self.assertIs(KeySet([key]).find(None, "HS256"), key)
        self.assertRaises(UnknownKey, KeySet([key]).find, "", "HS256")

    def test_same_id(self) -> None:
        """Keys for different algorithms may share an id; of two for the same, the first counts."""
        other = Key.secret("a", "HS512", SECRET)
        last = Key.secret("a", "HS256", SECRET[::-1])
        keys = KeySet([self.a, other, last])
        self.assertEqual(keys.keys, (self.a, other))
        self.assertIs(keys.find("a", "HS512"), other)

    def test_empty(self) -> None:
        """A set is false if no token can be good."""
        self.assertFalse(KeySet())
        self.assertTrue(KeySet([self.a]))


class SourceTests(SynchronousTestCase):
    """Keys as the configuration has them."""

    def file(self, content: bytes) -> str:
        """Return the path of a file."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def test_secrets(self) -> None:
        """A secret is there as it is, in base64 (of either alphabet) or in a file, without its line's end."""
        binary = bytes(range(180, 244))
        for text, secret in (
            (f"k HS256 {SECRET.decode()}", SECRET),
            (f"k  HS512\t{SECRET.decode()}", SECRET),
            ("k HS256 with=and#and:it,is,long,enough,too", b"with=and#and:it,is,long,enough,too"),
            (f"k HS256 base64:{base64.b64encode(binary).decode()}", binary),
            (f"k HS256 base64:{base64.urlsafe_b64encode(binary).decode().rstrip('=')}", binary),
            (f"k HS256 file:{self.file(SECRET)}", SECRET),
            (f"k HS256 file:{self.file(SECRET + bytes([13, 10]))}", SECRET),
        ):
            key = parse_source(text).key()
            self.assertEqual((key.id, key.sign(b"x")), ("k", Key.secret("k", key.algorithm, secret).sign(b"x")))

    def test_pem(self) -> None:
        """Other keys are in files, with or without ``file:``."""
        path = self.file(public_pem(private_key("ES256")))
        for text in (f"k ES256 {path}", f"k ES256 file:{path}"):
            self.assertEqual(parse_source(text), KeySource("k", "ES256", path=path))
            self.assertFalse(parse_source(text).key().signs)

    def test_malformed(self) -> None:
        """A line that is none is refused with the reason, and without the secret."""
        for text, said in (
            ("", "three parts"),
            ("k", "three parts"),
            ("k HS256", "three parts"),
            ("k HS256  ", "three parts"),
            ("ü HS256 " + "x" * 32, "three parts"),
            ("k" * 256 + " HS256 " + "x" * 32, "three parts"),
            ("k none xxxx", "one of HS256, HS384, HS512, RS256, ES256, EdDSA"),
            ("k hs256 xxxx", "one of"),
            ("k PS256 xxxx", "one of"),
            ("k HS256 " + "x" * 31, "31 bytes is too short"),
            ("k HS512 " + "x" * 63, "63 bytes is too short"),
            ("k HS256 base64:" + "x" * 40, "30 bytes is too short"),
            ("k HS256 xxxxxxxxxxxxxxxx xxxxxxxxxxxxxxxx", "white space"),
            ("k HS256 base64:***", "no base64"),
            ("k HS256 base64:x", "no base64"),
            ("k HS256 file:", "no file"),
            ("k RS256 file:", "no file"),
            ("k RS256 a\0b", "no file"),
        ):
            error = self.assertRaises(ValueError, parse_source, text)
            self.assertIn(said, str(error), text)
            self.assertNotIn("xxxx", str(error))

    def test_files(self) -> None:
        """A file that cannot be used is named, with the key and the reason."""
        for algorithm, path, said in (
            ("RS256", "/no/such/file", "cannot read the file: No such file"),
            ("RS256", "/", "cannot read the file: Is a directory"),
            ("RS256", self.file(SECRET), "expected a private or public key in PEM"),
            ("ES256", self.file(public_pem(private_key("RS256"))), "no key for ES256"),
            ("RS256", self.file(b"x" * 65537), "larger than 65536 bytes"),
            ("HS256", self.file(b"x" * 31 + b"\n"), "31 bytes is too short"),
            ("HS256", self.file(public_pem(private_key("RS256"))), "of another kind"),
        ):
            error = self.assertRaises(KeyMistake, KeySource("k", algorithm, path=path).key)
            self.assertEqual(str(error)[: len(path) + 7], f"key k: {path}")
            self.assertIn(said, str(error))

    def test_set(self) -> None:
        """The set has the keys of the configuration first, then those that were fetched."""
        sources = [parse_source(f"{id_} HS256 {SECRET.decode()}") for id_ in "ab"]
        fetched = [Key.secret("a", "HS256", SECRET[::-1]), Key.secret("c", "HS256", SECRET)]
        keys = key_set(sources, fetched)
        self.assertEqual([key.id for key in keys.keys], ["a", "b", "c"])
        self.assertNotEqual(keys.find("a", "HS256"), fetched[0])
        self.assertEqual(key_set([]).keys, ())

    def test_twice(self) -> None:
        """Two keys of the configuration with the same id and algorithm are a mistake; with other algorithms, none."""
        one = parse_source(f"a HS256 {SECRET.decode()}")
        two = parse_source(f"a HS256 {SECRET[::-1].decode()}")
        self.assertIn("once", str(self.assertRaises(KeyMistake, key_set, [one, two])))
        key_set([one, parse_source(f"a HS384 {SECRET.decode()}")])

    @given(
        st.text() | st.tuples(st.sampled_from(["k HS256 ", "k HS256 base64:", "k HS256 file:"]), st.text()).map("".join)
    )
    def test_any(self, text: str) -> None:
        """Any line is a source or a ValueError."""
        try:
            source = parse_source(text)
        except ValueError:
            return
        self.assertTrue(source.path or source.key())

    @given(st.binary())
    def test_any_pem(self, content: bytes) -> None:
        """Any file is a key or a mistake."""
        for pem in (content, b"-----BEGIN PRIVATE KEY-----" + content, b"-----BEGIN PUBLIC KEY-----" + content):
            self.assertRaises(KeyMistake, Key.pem, "k", "ES256", pem)
