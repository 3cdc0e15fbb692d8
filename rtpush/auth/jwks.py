"""Keys as others publish them: JSON Web Key Sets (RFC 7517)."""

from __future__ import annotations

import json
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from rtpush.auth.keys import Key, KeyMistake

__all__ = ["MAX_DOCUMENT_BYTES", "MAX_KEYS", "read_jwks"]

#: The largest key set that is read.
MAX_DOCUMENT_BYTES = 256 * 1024

#: The most keys in it.
MAX_KEYS = 100

#: The algorithm of a key that does not say (``alg``), by its type and curve.
_ALGORITHMS = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

#: What makes the public half of a key, by its type (RFC 7518 section 6, RFC 8037 section 2).
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


def read_jwks(document: bytes) -> tuple[Key, ...]:
    """
    Read a key set.

    Keys that are not for checking signatures, or for none of our algorithms, are left out, as the standard has it
    (section 5); so are secrets (``oct``), which belong into the configuration, and so is the private half of a key.

    :raises KeyMistake: if it is no key set, or too large, or has no key that can be used.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise KeyMistake(f"the key set is {len(document)} bytes long: expected at most {MAX_DOCUMENT_BYTES}")
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise KeyMistake("the key set is no JSON") from error
    listed = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise KeyMistake('the key set is no JSON object with a list called "keys"')
    if len(listed) > MAX_KEYS:
        raise KeyMistake(f"there are {len(listed)} keys in the key set: expected at most {MAX_KEYS}")
    keys = tuple(filter(None, map(_key, listed)))
    if not keys:
        raise KeyMistake(f"of the {len(listed)} keys in the key set, none can be used")
    return keys


def _key(each: Any) -> Key | None:
    """Read one key; return nothing if it cannot be used."""
    if not isinstance(each, dict):
        return None
    type_, curve, id_ = (each.get(name, "") for name in ("kty", "crv", "kid"))
    operations = each.get("key_ops", ["verify"])
    if not isinstance(type_, str) or not isinstance(curve, str) or not isinstance(id_, str):
        return None
    if each.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    fitting = _ALGORITHMS.get((type_, curve))
    algorithm = each.get("alg", fitting)
    if fitting is None or algorithm not in (fitting, "Ed25519" if fitting == "EdDSA" else fitting):
        return None
    try:
        public = {"kty": type_} | {name: each[name] for name in _PUBLIC[type_]}
        return Key.pair(id_, fitting, jwt.PyJWK(public, fitting).key)
    except (jwt.PyJWTError, KeyError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
