"""
Connections from proxies that announce their clients: the header of the PROXY protocol, before anything else.

It is read from trusted proxies alone, and they must send it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from zope.interface import implementer

from rtpush.protocol.addresses import UNIX, TrustedProxies
from rtpush.protocol.proxy_header import BadHeader, read_header

__all__ = ["Proxied", "ProxiedFactory"]

#: Seconds for the header to arrive: a proxy sends it at once.
_TIMEOUT = 5.0


@implementer(IAddress)
@attrs.frozen
class Proxied:
    """The address of a client that a proxy has told."""

    host: str


@implementer(IProtocolFactory)
class ProxiedFactory:
    """
    Reads the header, and leaves the rest to others.

    :param factory: Builds what reads the rest. It is told a :class:`Proxied` address if the proxy has told one.
    :param proxies: Returns the trusted proxies.
    :param clock: The reactor.
    """

    _log = Logger()

    def __init__(self, factory: IProtocolFactory, proxies: Callable[[], TrustedProxies], clock: Any) -> None:
        self.factory = factory
        self.clock = clock
        self._proxies = proxies

    def around(self, factory: IProtocolFactory) -> ProxiedFactory:
        """Return the same before another factory."""
        return ProxiedFactory(factory, self._proxies, self.clock)

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        host = getattr(addr, "host", UNIX)
        if not self._proxies().trusts(host):
            self._log.debug("{host} is no trusted proxy, and may not connect here", host=host)
            return None
        return ProxyHead(self, addr)


class ProxyHead(Protocol):
    """Reads the header of one connection, and hands it over."""

    _log = Logger()

    def __init__(self, factory: ProxiedFactory, address: Any) -> None:
        self._of = factory
        self._address = address
        self._data = b""
        self._timer: Any = None

    def connectionMade(self) -> None:
        self._timer = self._of.clock.callLater(_TIMEOUT, self._end, "the header of the PROXY protocol does not come")

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            found = read_header(self._data)
        except BadHeader:
            self._end("there is no header of the PROXY protocol")
            return
        if found is not None:
            self._hand_over(*found)

    def connectionLost(self, reason: Any = None) -> None:
        self._stop_timer()

    def _hand_over(self, host: str, size: int) -> None:
        self._stop_timer()
        transport: Any = self.transport
        protocol = self._of.factory.buildProtocol(Proxied(host) if host else self._address)
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        rest, self._data = self._data[size:], b""
        if rest:
            protocol.dataReceived(rest)

    def _end(self, why: str) -> None:
        self._log.debug("{why}, from {address}", why=why, address=self._address)
        transport: Any = self.transport
        transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
