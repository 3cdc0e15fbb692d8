"""
Addresses of clients: which proxies are believed, what they say, and which addresses count as one client.

Pure: texts in, texts out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["UNIX", "TrustedProxies", "host_of", "shared_key"]

#: What stands for whoever comes over a Unix socket.
UNIX = "unix"

#: Of an IPv6 network that a provider gives to one customer, this much is the customer's.
_IPV6_PREFIX = 64

#: How many addresses are remembered, with what was found out about them.
_MAX_KNOWN = 4096

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _read(text: str) -> _Address | None:
    """Read an address; one of IPv4 that is written as IPv6 is one of IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def host_of(text: str) -> str | None:
    """
    Read an address as proxies write it: with a port or without one, IPv6 in brackets or not.

    :returns: The address in its usual form; nothing if it is none.
    """
    text = text.strip(" \t")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = _read(text)
    return None if address is None else str(address)


@lru_cache(_MAX_KNOWN)
def shared_key(host: str) -> str:
    """
    Return what an address is counted by: itself; of IPv6, the network of 64 bits that it is in.

    It is empty for those of this machine, which are not limited.
    """
    address = _read(host)
    if address is None or address.is_loopback:
        return ""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address) >> (128 - _IPV6_PREFIX) << (128 - _IPV6_PREFIX), _IPV6_PREFIX)))


class TrustedProxies:
    """
    The proxies that are believed.

    :param entries: Addresses, networks (``10.0.0.0/8``), and ``unix`` for all that comes over Unix sockets.
    :raises ValueError: if one of them is neither.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        entries = tuple(entries)
        self._unix = UNIX in entries
        self._networks: list[_Network] = [ipaddress.ip_network(entry) for entry in entries if entry != UNIX]
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, host: str) -> bool:
        """
        Tell whether what a peer says of others is believed.

        :param host: Its address, or :data:`UNIX`.
        """
        if host == UNIX:
            return self._unix
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            address = _read(host)
            known = address is not None and any(address in network for network in self._networks)
            self._known[host] = known
        return known

    def client(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """
        Return the address of the client: the last one that none of these proxies has made up.

        Each proxy adds at the right the address that it was asked from. So what is right of the first address from the
        right that is not a trusted proxy's was added by trusted ones, and what is left of it anybody may have written.

        :param peer: The address of who is connected, or :data:`UNIX`.
        :param forwarded_for: The lines of ``X-Forwarded-For``.
        """
        client = peer
        for entry in reversed(",".join(forwarded_for).split(",")):
            if not self.trusts(client):
                break
            host = host_of(entry)
            if host is None:
                break
            client = host
        return client
