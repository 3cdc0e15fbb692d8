"""Listen addresses: Twisted endpoint strings, checked without listening."""

from __future__ import annotations

import ipaddress
import re

import attrs
from twisted.internet.endpoints import quoteStringArgument, serverFromString

from rtpush.service.tls import CertificateFiles, load_identity
from rtpush.service.values import One, nearest

__all__ = [
    "SecureAddress",
    "certificate_file",
    "is_local",
    "is_proxied",
    "listen_address",
    "secure_address",
    "unproxied",
]

_KINDS = ("tcp", "tcp6", "ssl", "unix", "systemd", "haproxy")

_WITH_PORT = ("tcp", "tcp6", "ssl")

#: Stands before the endpoint where proxies connect that speak the PROXY protocol. Twisted knows it too, but trusts all.
_PROXIED = "haproxy:"

#: What an address that begins with ssl: may say, and which of it may stand without its name, in this order.
_SECURE = ("port", "privateKey", "certKey", "extraCertChain", "interface", "backlog")
_UNNAMED = 3

#: What Twisted's endpoint knows besides.
_CHOSEN_HERE = {
    "sslmethod": "which versions there are is said by [tls] min_version: take it away",
    "dhParameters": "there is no such key exchange: take it away",
}

# An argument, or a keyword and, with the equals sign, its value.
_PIECE = re.compile(r"(?:^|:)((?:[^\\:=]|\\.)*)(=(?:[^\\:]|\\.)*)?")


def listen_address() -> One:
    """Return the kind of value that is the endpoint string of a server."""
    return One("a Twisted endpoint such as tcp:8080:interface=127.0.0.1", _checked)


def is_proxied(address: str) -> bool:
    """Tell whether proxies that speak the PROXY protocol connect to an address, and nobody else."""
    return address.startswith(_PROXIED)


def unproxied(address: str) -> str:
    """Return the endpoint of an address alone."""
    return address.removeprefix(_PROXIED)


@attrs.frozen
class SecureAddress:
    """
    An address over TLS.

    :ivar endpoint: The endpoint string of the address without TLS.
    :ivar files: Where its certificate is; nothing if it has none of its own.
    """

    endpoint: str
    files: CertificateFiles | None


def secure_address(address: str) -> SecureAddress | None:
    """
    Take an address over TLS apart; return nothing if it is none.

    :raises ValueError: if it says what it cannot.
    """
    kind, arguments, keywords = _split(unproxied(address))
    if kind != "ssl":
        return None
    if len(arguments) > _UNNAMED:
        raise ValueError(f"{arguments[_UNNAMED][:60]!r}: expected its name before it, and =")
    said = {**dict(zip(_SECURE, arguments, strict=False)), **keywords}
    for name in said:
        if name not in _SECURE:
            hint = nearest(name, _SECURE) or f"known are {', '.join(_SECURE)}"
            raise ValueError(f"{name[:60]}: {_CHOSEN_HERE.get(name) or hint}")
    options = [f"{name}={quoteStringArgument(said[name])}" for name in ("interface", "backlog") if said.get(name)]
    key, certificate = said.get("privateKey", ""), said.get("certKey", "")
    if (certificate or said.get("extraCertChain")) and not key:
        raise ValueError("privateKey is missing, the file of the certificate's key")
    files = CertificateFiles(certificate or key, key, said.get("extraCertChain", "")) if key else None
    return SecureAddress(":".join(["tcp", said.get("port", ""), *options]), files)


def is_local(address: str) -> bool:
    """Return whether only this machine can connect to an address: it is a Unix socket or names a loopback interface."""
    if is_proxied(address):
        # Those who connect speak for others.
        return False
    kind, _, keywords = _split(address)
    if kind == "unix":
        return True
    interface = keywords.get("interface", "")
    try:
        return kind in _WITH_PORT and (interface == "localhost" or ipaddress.ip_address(interface).is_loopback)
    except ValueError:
        return False


def certificate_file(address: str) -> str:
    """Return the file that holds the certificate that an address names; nothing if it names none."""
    secure = secure_address(address)
    return secure.files.certificate if secure is not None and secure.files is not None else ""


def _checked(address: str) -> str:
    # Only a running reactor can listen, but some kinds of endpoint want one to be built.
    from twisted.internet import reactor

    whole, address = address, unproxied(address)
    kind, arguments, keywords = _split(address)
    if kind in _WITH_PORT:
        port = keywords.get("port", arguments[0] if arguments else "")
        if re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
            raise ValueError(f"the port must be a number from 0 to 65535, not {port[:60]!r}")
    secure = secure_address(address)
    if secure is not None:
        address = secure.endpoint
        if secure.files is not None:
            load_identity(secure.files)
    try:
        serverFromString(reactor, address)
    # Which errors there are is up to each kind's parser, and kinds come from plugins too.
    except Exception as error:
        if kind == "systemd" and isinstance(error, LookupError):
            return whole  # well formed; the socket itself is there only when systemd starts us
        if str(error).startswith("Unknown endpoint type"):
            hint = nearest(kind, _KINDS) or f"known are {', '.join(_KINDS)}"
            raise ValueError(f"unknown kind of endpoint; {hint}") from error
        raise ValueError(re.sub(r"^[\w.]+\(\) ", "", str(error))[:200] or type(error).__name__) from error
    return whole


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
