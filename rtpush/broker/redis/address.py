"""Where a Redis is: addresses as the configuration writes them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote

import attrs

__all__ = ["RedisAddress", "parse_address"]

_PORT = 6379
_SENTINEL_PORT = 26379

_SCHEME = re.compile(r"(redis|rediss|unix|redis\+sentinel|rediss\+sentinel)://")
#: What may stand in a user's name or a password by RFC 3986, section 3.2.1, where ``%`` begins an encoded byte.
_ENCODED = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_CREDENTIALS = re.compile(rf"({_ENCODED}*):((?:{_ENCODED}|:)+)")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_MASTER = re.compile(r"[A-Za-z0-9._-]+")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})+")


@attrs.frozen(kw_only=True)
class RedisAddress:
    """
    Where a Redis is, and how to speak to it.

    :ivar hosts: Host and port of the server, or of the sentinels that know it; empty for a Unix socket.
    :ivar path: The path of its Unix socket, or nothing.
    :ivar master: What the sentinels call the master, or nothing if there are no sentinels.
    :ivar tls: Whether connections, also to the sentinels, use TLS.
    :ivar username: The user of Redis; nothing for the default one.
    :ivar sentinel_password: The password of the sentinels.
    :ivar db: The number of the database.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    tls: bool = False
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    sentinel_password: str = attrs.field(default="", repr=False)
    db: int = 0

    @property
    def name(self) -> str:
        """What logs call it: the place and the database, never a password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in sorted(self.hosts))
        if self.master:
            return f"{self.master}/{self.db} by {hosts}"
        return f"{self.path or hosts}/{self.db}"

    @property
    def shard(self) -> str:
        """What the ring of shards calls it: the same, but without sentinels, of which there may be others one day."""
        return f"{self.master}/{self.db}" if self.master else self.name


def parse_address(text: str) -> RedisAddress:
    """
    Read an address. These are the forms; what is in brackets may be left out, and ``rediss`` is ``redis`` with TLS::

        redis://[user:password@]host[:6379][/db]
        unix://[user:password@]/path/of/socket[?db=0]
        redis+sentinel://[user:password@]host[:26379][,host…]/master[/db][?sentinel_password=…]

    User and password are percent-encoded where they have characters that would mean something else; the user may be
    empty. An IPv6 address stands in brackets.

    :raises ValueError: if it is none; the reason shows nothing of the text.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ValueError("it begins with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://")
    rest, question, query = text[scheme.end() :].partition("?")
    authority, slash, path = rest.partition("/")
    username, password, place = _credentials(authority)
    if scheme[1] == "unix":
        if place or _PATH.fullmatch(slash + path) is None:
            raise ValueError("after unix:// comes the absolute path of the socket")
        options = _options(query, "db") if question else {}
        return RedisAddress(
            path=_decoded(slash + path), db=_db(options.get("db", "")), username=username, password=password
        )
    tls = scheme[1].startswith("rediss")
    if scheme[1].endswith("sentinel"):
        master, _, db = path.partition("/")
        if _MASTER.fullmatch(master) is None:
            raise ValueError("after the sentinels comes the name of their master, as in redis+sentinel://host/mymaster")
        options = _options(query, "sentinel_password") if question else {}
        hosts = tuple(_host(host, _SENTINEL_PORT) for host in place.split(","))
        if len(set(hosts)) < len(hosts):
            raise ValueError("one of the sentinels is there twice")
        return RedisAddress(
            hosts=hosts,
            master=master,
            tls=tls,
            username=username,
            password=password,
            sentinel_password=options.get("sentinel_password", ""),
            db=_db(db),
        )
    if question:
        raise ValueError("a ? has no meaning in it")
    return RedisAddress(hosts=(_host(place, _PORT),), tls=tls, username=username, password=password, db=_db(path))


def _credentials(authority: str) -> tuple[str, str, str]:
    """Split off the user and the password."""
    credentials, at, place = authority.rpartition("@")
    if not at:
        return "", "", authority
    match = _CREDENTIALS.fullmatch(credentials)
    if match is None:
        raise ValueError("before the @ come a user and a password, as in user:password@host, percent-encoded")
    return _decoded(match[1]), _decoded(match[2]), place


def _host(text: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError("what should be host or host:port is neither")
    number = int(match[3] or port)
    if not 1 <= number <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    if match[1] is None:
        return match[2].lower(), number
    try:
        return str(ipaddress.IPv6Address(match[1])), number
    except ValueError:
        raise ValueError("what is in brackets is not an IPv6 address") from None


def _db(text: str) -> int:
    if not text:
        return 0
    if re.fullmatch(r"[0-9]{1,5}", text) is None:
        raise ValueError("the database is a number from 0 to 99999")
    return int(text)


def _options(query: str, name: str) -> Mapping[str, str]:
    """Read a query that may hold one option."""
    match = re.fullmatch(rf"{name}=((?:{_ENCODED}|[:@/?])+)", query) if "&" not in query else None
    if match is None:
        raise ValueError(f"after the ? comes {name}=…, percent-encoded, and nothing else")
    return {name: _decoded(match[1])}


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("what is percent-encoded in it is not UTF-8") from None
    if "\0" in decoded:
        raise ValueError("there is a zero byte in it")
    return decoded
