"""
What reads the bytes of strangers, one after the other, without a node: for the fuzzer, and for one that sees which code
its bytes reach.

Each of :data:`PARSERS` takes any bytes. What a reader tells of bad ones is no fault; everything else that is raised is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable, Mapping

import httptools

from rtpush.auth.jwks import read_jwks
from rtpush.auth.keys import Key, KeyMistake, KeySet
from rtpush.auth.permissions import Action, Grant
from rtpush.auth.tokens import TokenRules, check
from rtpush.errors import RtpushError
from rtpush.protocol.addresses import UNIX, TrustedProxies, host_of, shared_key
from rtpush.protocol.channel import Namespace, Namespaces, check_name
from rtpush.protocol.codecs import JSON, MSGPACK, BadCommand, Codec
from rtpush.protocol.commands import Connect, Publish, Subscribe
from rtpush.protocol.message import Kind
from rtpush.protocol.position import BadCursor, Position, format_cursor, parse_cursor
from rtpush.protocol.proxy_header import BadHeader, read_header
from rtpush.service.config import ConfigError, parse
from rtpush.transports.heads import read_line, read_plain
from rtpush.transports.query import Query
from tests.auth.makers import SECRET, private_key, public_pem

__all__ = ["KEYS", "NOW", "PARSERS", "RULES", "Trouble"]

#: The time at which tokens are checked.
NOW = 1_000_000.0

KEYS = KeySet(
    [
        Key.secret("hs", "HS256", SECRET),
        Key.secret("hs5", "HS512", SECRET),
        Key.pem("rs", "RS256", public_pem(private_key("RS256"))),
        Key.pem("es", "ES256", public_pem(private_key("ES256"))),
        Key.pem("ed", "EdDSA", public_pem(private_key("EdDSA"))),
    ]
)
RULES = TokenRules(audience="us")

_HASHES = {"hs": "sha256", "hs5": "sha512"}
_PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
_NAMESPACES = Namespaces([Namespace(name="default"), Namespace(name="demo")])


class Trouble(Exception):
    """Something happened that must not."""


class _Heard:
    """What llhttp tells of the head of a request."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: dict[bytes, list[bytes]] = {}

    def on_url(self, url: bytes) -> None:
        """Note a part of the target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a field."""
        self.fields.setdefault(name.lower(), []).append(value.strip(b" \t"))


def _head(data: bytes) -> None:
    """What is read of a head at once is what llhttp reads of it, or nothing."""
    end = data.find(b"\r\n\r\n")
    line_end = data.find(b"\r\n")
    if not 0 < line_end <= end:
        return
    line, plain = read_line(data[:line_end]), read_plain(data[line_end:end])
    if line is None or plain is None:
        return
    # Whatever follows is no part of it.
    other = _Heard()
    parser = httptools.HttpRequestParser(other)
    try:
        parser.feed_data(data[: end + 4])
    except httptools.HttpParserUpgrade:
        pass
    if (parser.get_method(), other.url, other.fields) != (*line, plain.fields._fields):
        raise Trouble(f"{line} and {plain.fields._fields} are not {other.url!r} and {other.fields}")


def _query(data: bytes) -> None:
    try:
        query = Query(data)
        query.several("channel")
        query.one("cursor", "last_event_id")
        query.number("timeout", 25.0)
    except RtpushError:
        pass


def _cursor(data: bytes) -> None:
    """What is read of a cursor is what was written."""
    text = data.decode("latin-1")
    try:
        if str(Position.parse(text)) != text:
            raise Trouble(f"{text!r} is another position")
    except BadCursor:
        pass
    try:
        if format_cursor(parse_cursor(text, text.count(",") + 1)) != text:
            raise Trouble(f"{text!r} is another cursor")
    except BadCursor:
        pass


def _commands(codec: Codec) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        for request in codec.requests(data):
            if isinstance(request, BadCommand):
                json.dumps(request.error.as_dict())
                continue
            try:
                match request.command:
                    case Publish() as publish:
                        payload = codec.publication(publish).payload
                        if payload.kind is Kind.TEXT:
                            payload.data.decode()
                        elif payload.kind is Kind.JSON:
                            _json(payload.data)
                    case Connect() as connect:
                        codec.json(connect.info)
                    case Subscribe() as subscribe:
                        check_name(subscribe.channel)
            except RtpushError:
                pass

    return read


def _json(data: bytes) -> None:
    """What is carried as JSON is JSON, for all who read it."""
    try:
        json.loads(data)
    except RecursionError:
        # This one is not made for so many brackets.
        pass


def _proxy(data: bytes) -> None:
    """A header of the PROXY protocol names an address, or none."""
    try:
        found = read_header(data)
    except BadHeader:
        return
    if found is not None:
        host, size = found
        if host:
            ipaddress.ip_address(host)
        if not 0 < size <= len(data):
            raise Trouble(f"a header of {size} bytes in {len(data)}")


def _forwarded(data: bytes) -> None:
    """What a proxy says of its clients is an address, or not heard."""
    text = data.decode("latin-1")
    host_of(text)
    for peer in ("10.0.0.1", UNIX, "203.0.113.7"):
        client = _PROXIES.client(peer, text.split("\n"))
        if client != peer:
            ipaddress.ip_address(client)
        shared_key(client)
        if peer == "203.0.113.7" and client != peer:
            raise Trouble(f"a stranger is believed: {client}")


def _configuration(data: bytes) -> None:
    """A mistake is told in one line."""
    try:
        parse(data.decode("utf-8", "replace"))
    except ConfigError as error:
        if len(str(error).splitlines()) != 1:
            raise


def _names(data: bytes) -> None:
    """A name that is good has nothing in it that means something elsewhere."""
    name = data.decode("utf-8", "replace")
    try:
        _NAMESPACES.of(name)
    except RtpushError:
        return
    if not name.isascii() or not name.isprintable() or set(name) & set(' ",\\'):
        raise Trouble(f"{name!r} is a channel")


def _token(data: bytes) -> None:
    """A token is refused, or its signature is good: that is worked out here anew, where it is one of a secret."""
    try:
        grant = check(data, KEYS, NOW, RULES)
    except RtpushError:
        return
    content, _, tail = data.rpartition(b".")
    head = json.loads(base64.urlsafe_b64decode(content.partition(b".")[0] + b"=="))
    hashed = _HASHES.get(head.get("kid"))
    if hashed is not None:
        expected = base64.urlsafe_b64encode(hmac.new(SECRET, content, getattr(hashlib, hashed)).digest()).rstrip(b"=")
        if expected != tail or head["alg"] != hashed.replace("sha", "HS"):
            raise Trouble("a token is good that is not signed")
    _use(grant)


def _use(grant: Grant) -> None:
    """What a token grants can be asked for."""
    for action in Action:
        for channel in ("demo:a", "a", "user:42:x", grant.channel or "demo:b"):
            grant.allows(action, channel)
    if grant.info:
        json.loads(grant.info)


def _key_set(data: bytes) -> None:
    """A key set has keys, or is refused."""
    try:
        keys = read_jwks(data)
    except KeyMistake:
        return
    if not keys or any(key.signs for key in keys):
        raise Trouble("a key set has no keys, or private ones")


#: Of each kind of bytes that strangers send, what reads them.
PARSERS: Mapping[str, Callable[[bytes], None]] = {
    "head": _head,
    "query": _query,
    "cursor": _cursor,
    "json": _commands(JSON),
    "msgpack": _commands(MSGPACK),
    "proxy": _proxy,
    "forwarded": _forwarded,
    "ini": _configuration,
    "name": _names,
    "token": _token,
    "jwks": _key_set,
}
