"""
The keys that sign and check tokens. Each is bound to one algorithm, and is chosen by its id (``kid``) and that.

The cryptography is PyJWT's and cryptography's. A key is prepared once, when it is read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any

import attrs
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from rtpush.errors import ErrorCode, RtpushError

__all__ = ["ALGORITHMS", "Key", "KeyMistake", "KeySet", "KeySource", "UnknownKey", "key_set", "parse_source"]

#: The shortest secrets, in bytes: as long as the hash (RFC 7518 section 3.2).
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}

#: The smallest RSA keys, in bits (RFC 7518 section 3.3).
_RSA_BITS = 2048

#: All algorithms that a token may be signed with. ``none`` is not one.
ALGORITHMS = (*_SECRET_BYTES, "RS256", "ES256", "EdDSA")

_PRIVATE = {"RS256": rsa.RSAPrivateKey, "ES256": ec.EllipticCurvePrivateKey, "EdDSA": ed25519.Ed25519PrivateKey}
_PUBLIC = {"RS256": rsa.RSAPublicKey, "ES256": ec.EllipticCurvePublicKey, "EdDSA": ed25519.Ed25519PublicKey}

_LARGEST_FILE = 65536


class KeyMistake(ValueError):
    """A key cannot be used. Its text says why, without the key."""


class UnknownKey(RtpushError):
    """No key has the id that a token names: a key set that was fetched a while ago may be too old."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.INVALID_TOKEN, "no key has the id (kid) that this token names")


@attrs.frozen
class Key:
    """
    A key.

    :ivar id: What tokens call it (``kid``), or nothing.
    :ivar algorithm: The one algorithm that it is for.
    :ivar _public: What checks signatures; the secret, for HMAC.
    :ivar _private: What signs, or :obj:`None` if there is only the public half.
    """

    id: str
    algorithm: str
    _public: Any = attrs.field(repr=False)
    _private: Any = attrs.field(repr=False)
    _method: Any = attrs.field(repr=False, eq=False)

    @classmethod
    def secret(cls, id_: str, algorithm: str, secret: bytes) -> Key:
        """
        Return a key for HMAC.

        :raises KeyMistake: if the secret is too short, or if it is a key of another kind.
        """
        least = _SECRET_BYTES.get(algorithm)
        if least is None:
            raise KeyMistake(f"{algorithm} takes no secret")
        if len(secret) < least:
            raise KeyMistake(f"a secret of {len(secret)} bytes is too short for {algorithm}: expected {least} or more")
        method = jwt.get_algorithm_by_name(algorithm)
        try:
            prepared = method.prepare_key(secret)
        except jwt.InvalidKeyError as error:
            raise KeyMistake("this is no secret, but a key of another kind (PEM, SSH, DER or JWK)") from error
        return cls(id_, algorithm, prepared, prepared, method)

    @classmethod
    def pair(cls, id_: str, algorithm: str, half: object) -> Key:
        """
        Return a key of a public-key algorithm.

        :param half: A private or public key of the ``cryptography`` package.
        :raises KeyMistake: if it is not one for the algorithm.
        """
        private: Any = half if algorithm in _PRIVATE and isinstance(half, _PRIVATE[algorithm]) else None
        public = half if private is None else private.public_key()
        if algorithm not in _PUBLIC or not isinstance(public, _PUBLIC[algorithm]):
            raise KeyMistake(f"this is no key for {algorithm}")
        if isinstance(public, rsa.RSAPublicKey) and public.key_size < _RSA_BITS:
            raise KeyMistake(f"an RSA key of {public.key_size} bits is too small: expected {_RSA_BITS} or more")
        if isinstance(public, ec.EllipticCurvePublicKey) and not isinstance(public.curve, ec.SECP256R1):
            raise KeyMistake(f"a key on the curve {public.curve.name} is not for ES256: expected P-256")
        return cls(id_, algorithm, public, private, jwt.get_algorithm_by_name(algorithm))

    @classmethod
    def pem(cls, id_: str, algorithm: str, pem: bytes) -> Key:
        """
        Return a key of a public-key algorithm from PEM: a private key, or a public one if it is to check only.

        :raises KeyMistake: if it cannot be read, or is not one for the algorithm.
        """
        try:
            return cls.pair(
                id_,
                algorithm,
                load_pem_private_key(pem, password=None) if b"PRIVATE KEY" in pem else load_pem_public_key(pem),
            )
        except KeyMistake:
            raise
        except TypeError as error:
            raise KeyMistake("the private key is encrypted") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyMistake("expected a private or public key in PEM") from error

    @property
    def signs(self) -> bool:
        """Whether tokens can be made with it."""
        return self._private is not None

    def sign(self, content: bytes) -> bytes:
        """
        Return the signature of some content.

        :raises KeyMistake: if there is only the public half.
        """
        if self._private is None:
            raise KeyMistake("a token cannot be signed with a public key: the private one is needed")
        signature: bytes = self._method.sign(content, self._private)
        return signature

    def fits(self, content: bytes, signature: bytes) -> bool:
        """Tell whether a signature is of this key and for this content."""
        try:
            return bool(self._method.verify(content, self._public, signature))
        except ValueError:
            # A signature of another length, for some of the algorithms.
            return False


class KeySet:
    """
    All keys that are good now. It does not change: a new set takes its place as a whole.

    :param keys: Where two have the same id and algorithm, the first counts.
    """

    __slots__ = ("_by_name", "_ids", "keys")

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_name: dict[tuple[str, str], Key] = {}
        for key in keys:
            self._by_name.setdefault((key.id, key.algorithm), key)
        #: The keys, in the order given.
        self.keys = tuple(self._by_name.values())
        self._ids = frozenset(key.id for key in self.keys if key.id)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, id_: str | None, algorithm: str) -> Key:
        """
        Return the key for a token.

        :param id_: The id that the token names, or :obj:`None` if it names none: then there must be just one key for
            the algorithm.
        :raises UnknownKey: if no key has the id.
        :raises RtpushError: ``invalid_token`` if no key fits, or if it is not clear which.
        """
        if id_ is None:
            fitting = [key for key in self.keys if key.algorithm == algorithm]
            if len(fitting) != 1:
                raise RtpushError(
                    ErrorCode.INVALID_TOKEN,
                    "this token names no key (kid), and "
                    + ("several keys have its algorithm" if fitting else "no key has its algorithm"),
                )
            return fitting[0]
        key = self._by_name.get((id_, algorithm)) if id_ else None
        if key is not None:
            return key
        if id_ in self._ids:
            raise RtpushError(ErrorCode.INVALID_TOKEN, "the key that this token names is for another algorithm")
        raise UnknownKey


@attrs.frozen
class KeySource:
    """
    A key as the configuration names it.

    :ivar secret: The secret itself, or nothing if it is in a file.
    :ivar path: The file.
    """

    id: str
    algorithm: str
    secret: bytes = attrs.field(default=b"", repr=False)
    path: str = ""

    def key(self) -> Key:
        """
        Return the key.

        :raises KeyMistake: if the file cannot be read, or if what is in it cannot be used.
        """
        try:
            if not self.path:
                return Key.secret(self.id, self.algorithm, self.secret)
            content = self._content()
            if self.algorithm in _SECRET_BYTES:
                return Key.secret(self.id, self.algorithm, content.rstrip(b"\r\n"))
            return Key.pem(self.id, self.algorithm, content)
        except KeyMistake as mistake:
            place = f"key {self.id}: {self.path}" if self.path else f"key {self.id}"
            raise KeyMistake(f"{place}: {mistake}") from mistake

    def _content(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                content = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise KeyMistake(f"cannot read the file: {error.strerror}") from error
        if len(content) > _LARGEST_FILE:
            raise KeyMistake(f"the file is larger than {_LARGEST_FILE} bytes")
        return content


def parse_source(text: str) -> KeySource:
    """
    Read one line of ``[auth] keys``: ``ID ALGORITHM KEY``.

    For HS256, HS384 and HS512 the key is the secret as it is (without white space, where comments could begin),
    ``base64:`` and the secret in base64, or ``file:`` and the path of a file that has it. For the other algorithms it
    is the path of a PEM file, with or without ``file:``.

    :raises ValueError: if it is malformed.
    """
    id_, algorithm, key = [*text.split(maxsplit=2), "", "", ""][:3]
    if re.fullmatch(r"[!-~]{1,255}", id_) is None or not key:
        raise ValueError("there are three parts to it")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"the algorithm is one of {', '.join(ALGORITHMS)}")
    if key.startswith("file:") or algorithm not in _SECRET_BYTES:
        path = key.removeprefix("file:")
        if not path or "\0" in path:
            raise ValueError("there is no file")
        return KeySource(id_, algorithm, path=path)
    if len(key.split()) > 1:
        raise ValueError("a secret with white space in it is written in base64")
    source = KeySource(id_, algorithm, secret=_base64(key[7:]) if key.startswith("base64:") else key.encode())
    source.key()
    return source


def key_set(sources: Iterable[KeySource], fetched: Iterable[Key] = ()) -> KeySet:
    """
    Return the set of all keys.

    :param sources: The keys of the configuration.
    :param fetched: The keys of a JWKS. One of the configuration with the same id and algorithm goes before.
    :raises KeyMistake: if a key cannot be read or used, or if two of the configuration have the same id and algorithm.
    """
    keys = [source.key() for source in sources]
    names = {(key.id, key.algorithm) for key in keys}
    if len(names) < len(keys):
        raise KeyMistake("expected each key's id and algorithm once")
    return KeySet([*keys, *fetched])


def _base64(text: str) -> bytes:
    try:
        plain = text.translate(str.maketrans("-_", "+/")).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("the secret is no base64") from error
