"""Keys and tokens, good and bad, made without rtpush."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

__all__ = ["SECRET", "b64", "hs", "oct_token", "private_key", "private_pem", "public_pem"]

SECRET = b"0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABCDEF"


def b64(content: bytes | str) -> bytes:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(content.encode() if isinstance(content, str) else content).rstrip(b"=")


def oct_token(header: Any, claims: Any, secret: bytes = SECRET, algorithm: str = "sha256") -> bytes:
    """Return a token with an HMAC; header and claims are values, or JSON (or anything else) as bytes."""
    content = b".".join(b64(part if isinstance(part, bytes) else json.dumps(part)) for part in (header, claims))
    return content + b"." + b64(hmac.new(secret, content, getattr(hashlib, algorithm)).digest())


def hs(**claims: Any) -> bytes:
    """Return a good HS256 token of key ``hs``."""
    return oct_token({"alg": "HS256", "kid": "hs"}, claims)


@cache
def private_key(algorithm: str) -> Any:
    """Return the private key for an algorithm; the same each time."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(key: Any) -> bytes:
    """Return a private key as PEM."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def public_pem(key: Any) -> bytes:
    """Return the public half of a private key as PEM."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem
