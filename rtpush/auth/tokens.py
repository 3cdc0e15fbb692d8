"""
Tokens: JSON Web Tokens (RFC 7519) in the compact form of a signed text (RFC 7515), checked and made.

Nothing of a token is believed, and little of it is read, before its size, its form and its signature are good. Whatever
is wrong is told as an :exc:`~rtpush.errors.RtpushError` whose message does not show the token. Time is passed in.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NoReturn

import attrs

from rtpush.auth.keys import ALGORITHMS, Key, KeySet
from rtpush.auth.permissions import NOTHING, Action, ApiGrant, Grant, Permissions
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import check_name

__all__ = ["MAX_NAME_BYTES", "MAX_TOKEN_BYTES", "TokenRules", "check", "looks_like_token", "make_token"]

#: The longest token. A longer one is refused unread.
MAX_TOKEN_BYTES = 8192

#: The longest ``sub`` and ``jti``.
MAX_NAME_BYTES = 255

#: The most calls that a token names, and the longest name of one.
_MAX_CALLS = 100
_MAX_CALL_BYTES = 64

#: The end of the year 9999.
_LAST_SECOND = 253402300799

_FORM = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_TO_URL = bytes.maketrans(b"+/", b"-_")

_ACTIONS = {action.word: action for action in Action}


@attrs.frozen(kw_only=True)
class TokenRules:
    """
    What is asked of tokens besides a good signature.

    :ivar issuer: What ``iss`` must be; nothing for any.
    :ivar audience: What must be in ``aud``; nothing if no token may have one.
    :ivar leeway: Seconds by which clocks may differ.
    :ivar require_exp: Whether each token must say when it ends.
    """

    issuer: str = ""
    audience: str = ""
    leeway: float = 5.0
    require_exp: bool = True


def make_token(key: Key, claims: Mapping[str, Any]) -> str:
    """
    Return a signed token.

    :param key: A secret or private key.
    :param claims: What it says, as it is.
    :raises KeyMistake: if the key is a public one.
    :raises ValueError: if the claims cannot be written as JSON.
    :raises TypeError: likewise.
    """
    header = {"alg": key.algorithm, "typ": "JWT"} | ({"kid": key.id} if key.id else {})
    content = b".".join(_encode(_WRITER.encode(part).encode()) for part in (header, claims))
    return (content + b"." + _encode(key.sign(content))).decode()


def looks_like_token(text: str) -> bool:
    """Tell whether a text has the form of a token: three parts, of which the first is an object in base64url."""
    return text.startswith("eyJ") and text.count(".") == 2


def check(token: str | bytes, keys: KeySet, now: float, rules: TokenRules | None = None) -> Grant:
    """
    Check a token and return what it grants.

    :param now: Seconds since 1970.
    :param rules: By default those of :class:`TokenRules`.
    :raises UnknownKey: if no key has the id that it names.
    :raises RtpushError: ``token_expired`` if it is good but for its end, ``invalid_token`` if anything else is wrong.
    """
    if len(token) > MAX_TOKEN_BYTES:
        _refuse(f"the token is {len(token)} bytes long: expected at most {MAX_TOKEN_BYTES}")
    try:
        match = _FORM.fullmatch(token.encode("ascii") if isinstance(token, str) else token)
    except UnicodeEncodeError:
        match = None
    if match is None:
        _refuse("the token is not of the form of a signed JWT: three parts in base64url, with dots between them")
    head, _, tail = match.groups()
    id_, algorithm = _header(_object(_decode(head), "header"))
    key = keys.find(id_, algorithm)
    if not key.fits(match.string[: match.end(2)], _decode(tail)):
        _refuse("the token's signature is not that of its key")
    return _grant(_object(_decode(match[2]), "claims"), now, rules or _DEFAULT_RULES)


_DEFAULT_RULES = TokenRules()


def _refuse(message: str) -> NoReturn:
    raise RtpushError(ErrorCode.INVALID_TOKEN, message)


def _decode(text: bytes) -> bytes:
    """Decode base64url without padding (RFC 7515 section 2); what could be written in another way is refused."""
    if len(text) % 4 == 1:
        _refuse("a part of the token is cut off")
    content = a2b_base64(text.translate(_FROM_URL) + b"=" * (-len(text) % 4))
    if _encode(content) != text:
        _refuse("a part of the token is not in base64url as it should be")
    return content


def _encode(content: bytes) -> bytes:
    return b2a_base64(content, newline=False).translate(_TO_URL).rstrip(b"=")


def _object(content: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = _READER.decode(content.decode())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        _refuse(f"the token's {what}: expected a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object in which no name is twice (RFC 7519 section 4 leaves the choice)."""
    made = dict(pairs)
    if len(made) < len(pairs):
        _refuse("a name is twice in one of the token's JSON objects")
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError
    return value


# Made once: to make one costs as much as to read a token with it.
_READER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
_WRITER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _header(header: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the key's id, if there is one, and the algorithm."""
    algorithm, id_ = header.get("alg"), header.get("kid")
    if algorithm == "Ed25519":
        algorithm = "EdDSA"  # which RFC 9864 calls so now
    if algorithm not in ALGORITHMS:
        _refuse(f"the token's algorithm (alg) is not one of {', '.join(ALGORITHMS)}")
    if not isinstance(id_, str | None) or ("kid" in header and id_ is None):
        _refuse("the token's key id (kid) is no string")
    if "crit" in header or "b64" in header:
        # Extensions must be understood, or the token refused (RFC 7515 section 4.1.11): we have none.
        _refuse("the token has extensions (crit, b64), and none is known here")
    return id_, algorithm


def _grant(claims: Mapping[str, Any], now: float, rules: TokenRules) -> Grant:
    if rules.issuer and claims.get("iss") != rules.issuer:
        _refuse("the token's issuer (iss) is not the one of [auth] issuer")
    _check_audience(claims, rules.audience)
    begins, issued, expires = (_time(claims, name) for name in ("nbf", "iat", "exp"))
    grant = Grant(
        user=_text(claims, "sub"),
        expires=expires,
        issued=issued,
        id=_text(claims, "jti"),
        channel=claims.get("channel", ""),
        permissions=_permissions(claims),
        info=_info(claims),
    )
    if begins is not None and now < begins - rules.leeway:
        _refuse("the token is not valid yet (nbf)")
    if issued is not None and now < issued - rules.leeway:
        _refuse("the token was made in the future (iat): the clocks differ")
    if expires is None and rules.require_exp:
        _refuse("the token does not say when it ends: it needs a claim exp")
    if expires is not None and now >= expires + rules.leeway:
        raise RtpushError(
            ErrorCode.TOKEN_EXPIRED, f"the token ended {now - expires:.0f} seconds ago (exp)", channel=grant.channel
        )
    return _with_calls(grant, claims) if "api" in claims else grant


def _with_calls(grant: Grant, claims: Mapping[str, Any]) -> ApiGrant:
    """Add what a token opens of the server API."""
    calls = claims["api"]
    if grant.channel:
        _refuse("the token has both channel and api: expected one of them")
    if not isinstance(calls, list) or len(calls) > _MAX_CALLS:
        _refuse(f"the token's api is no list of at most {_MAX_CALLS} calls")
    if not all(isinstance(call, str) and len(call) <= _MAX_CALL_BYTES for call in calls):
        _refuse("the token's api is no list of names of calls")
    return ApiGrant(
        user=grant.user,
        expires=grant.expires,
        issued=grant.issued,
        id=grant.id,
        permissions=grant.permissions,
        info=grant.info,
        calls=frozenset(calls),
        everywhere="channels" not in claims,
    )


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    if "aud" not in claims:
        if audience:
            _refuse("the token is for no audience in particular (aud), but [auth] audience asks for one")
        return
    given = claims["aud"]
    several = given if isinstance(given, list) else [given]
    if not all(isinstance(each, str) for each in several):
        _refuse("the token's audience (aud) is neither a string nor a list of them")
    # Whoever is not in the audience must refuse (RFC 7519 section 4.1.3), and whoever has no name is in none.
    if not audience:
        _refuse("the token is for an audience (aud), but [auth] audience is not set")
    if audience not in several:
        _refuse("the token is for another audience (aud) than [auth] audience")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    # An exact type: a bool is an int to isinstance. What is no number (NaN) is not within bounds either.
    if type(value) not in (int, float) or not 0 <= value <= _LAST_SECOND:
        _refuse(f"the token's {name} is no number of seconds since 1970, from 0 to {_LAST_SECOND}")
    return float(value)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or not value.isprintable() or not _fits(value):
        _refuse(f"the token's {name} is no string of at most {MAX_NAME_BYTES} bytes of printable characters")
    return value


def _fits(value: str) -> bool:
    return len(value) <= MAX_NAME_BYTES and len(value.encode()) <= MAX_NAME_BYTES


def _permissions(claims: Mapping[str, Any]) -> Permissions:
    if "channel" not in claims:
        if "actions" in claims:
            _refuse("the token has actions without a channel")
        channels = claims.get("channels")
        if channels is None and "channels" not in claims:
            return NOTHING
        if not isinstance(channels, dict):
            _refuse("the token's channels are no JSON object of lists of actions")
        return _made("channels", lambda: {name: _actions(listed) for name, listed in channels.items()})
    if "channels" in claims:
        _refuse("the token has both channel and channels: expected one of them")
    channel = claims["channel"]
    if not isinstance(channel, str) or "*" in channel:
        _refuse("the token's channel is no channel's name")
    try:
        check_name(channel)
    except RtpushError:
        _refuse("the token's channel is no channel's name")
    return _made("actions", lambda: {channel: _actions(claims.get("actions", ["subscribe"]))})


def _made(claim: str, channels: Callable[[], Mapping[str, list[Action]]]) -> Permissions:
    try:
        return Permissions.of(channels())
    except ValueError as error:
        _refuse(f"the token's {claim}: {error}")


def _actions(listed: object) -> list[Action]:
    if not isinstance(listed, list) or not all(isinstance(word, str) and word in _ACTIONS for word in listed):
        raise ValueError(f"expected a list of {', '.join(_ACTIONS)}")
    return [_ACTIONS[word] for word in listed]


def _info(claims: Mapping[str, Any]) -> bytes:
    """Return the client's information as JSON in ASCII, so that a lone surrogate in it does no harm."""
    if "info" not in claims:
        return b""
    try:
        return _WRITER.encode(claims["info"]).encode()
    except RecursionError:
        _refuse("the token's info is nested too deeply")
