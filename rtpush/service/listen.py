"""Listen addresses: Twisted endpoint strings, checked without listening."""

from __future__ import annotations

import ipaddress
import re

from twisted.internet.endpoints import serverFromString

from rtpush.service.values import One, nearest

__all__ = ["is_local", "listen_address"]

_KINDS = ("tcp", "tcp6", "ssl", "unix", "systemd")
_WITH_PORT = ("tcp", "tcp6", "ssl")

# An argument, or a keyword and, with the equals sign, its value.
_PIECE = re.compile(r"(?:^|:)((?:[^\\:=]|\\.)*)(=(?:[^\\:]|\\.)*)?")


def listen_address() -> One:
    """Return the kind of value that is the endpoint string of a server."""
    return One("a Twisted endpoint such as tcp:8080:interface=127.0.0.1", _checked)


def is_local(address: str) -> bool:
    """Return whether only this machine can connect to an address: it is a Unix socket or names a loopback interface."""
    kind, _, keywords = _split(address)
    if kind == "unix":
        return True
    interface = keywords.get("interface", "")
    try:
        return kind in _WITH_PORT and (interface == "localhost" or ipaddress.ip_address(interface).is_loopback)
    except ValueError:
        return False


def _checked(address: str) -> str:
    # Only a running reactor can listen, but some kinds of endpoint want one to be built.
    from twisted.internet import reactor

    kind, arguments, keywords = _split(address)
    if kind in _WITH_PORT:
        port = keywords.get("port", arguments[0] if arguments else "")
        if re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
            raise ValueError(f"the port must be a number from 0 to 65535, not {port[:60]!r}")
    try:
        serverFromString(reactor, address)
    # Which errors there are is up to each kind's parser, and kinds come from plugins too.
    except Exception as error:
        if kind == "systemd" and isinstance(error, LookupError):
            return address  # well formed; the socket itself is there only when systemd starts us
        if str(error).startswith("Unknown endpoint type"):
            hint = nearest(kind, _KINDS) or f"known are {', '.join(_KINDS)}"
            raise ValueError(f"unknown kind of endpoint; {hint}") from error
        raise ValueError(re.sub(r"^[\w.]+\(\) ", "", str(error))[:200] or type(error).__name__) from error
    return address


def _split(address: str) -> tuple[str, list[str], dict[str, str]]:
    """Return the kind, the arguments and the keyword arguments of an endpoint string."""
    kind = ""
    arguments: list[str] = []
    keywords: dict[str, str] = {}
    for position, (name, value) in enumerate(_PIECE.findall(address)):
        if position == 0:
            kind = name
        elif value:
            keywords[_plain(name)] = _plain(value[1:])
        else:
            arguments.append(_plain(name))
    return kind, arguments, keywords


def _plain(piece: str) -> str:
    return re.sub(r"\\(.)", r"\1", piece)
