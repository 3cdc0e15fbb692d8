"""The doors of a process: where it accepts connections, from the first to the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from rtpush.protocol.addresses import TrustedProxies
from rtpush.service.listen import is_proxied
from rtpush.service.port import Port
from rtpush.service.sockets import is_kept, listen, listen_inherited, secured
from rtpush.service.tls import Tls
from rtpush.transports.proxied import ProxiedFactory

__all__ = ["Listeners"]


class Listeners:
    """
    All listening ports of a process.

    :param addresses: Endpoint strings.
    :param sockets: File descriptors to accept from, one for each address: if another process has opened them.
    :param proxies: Returns the proxies that are trusted.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str],
        sockets: Sequence[int] = (),
        proxies: Callable[[], TrustedProxies] = TrustedProxies,
    ) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self._sockets = sockets
        self._proxies = proxies
        self._ports: list[tuple[str, IListeningPort]] = []

    def open(self, factory: IProtocolFactory, tls: Callable[[str], Tls]) -> None:
        """
        Listen everywhere.

        :param tls: Returns what holds for an address that speaks TLS.
        :raises CannotListen: if an address cannot be had.
        """
        for index, address in enumerate(self._addresses):
            serving = self._before(address, factory)
            if self._sockets:
                port = listen_inherited(self._reactor, self._sockets[index], address, serving, tls(address))
            else:
                port = listen(self._reactor, address, serving, tls(address))
            self._ports.append((address, port))
            self._log.info("listening on {address} ({host})", address=address, host=port.getHost())

    def renewed(
        self, factory: IProtocolFactory, tls: Callable[[str], Tls]
    ) -> list[tuple[Port, IProtocolFactory]]:
        """
        Read the certificates again.

        :param tls: Returns what holds for an address that speaks TLS.
        :returns: Each port that has one, and what is to serve it now.
        :raises CannotListen: if a certificate cannot be used.
        """
        found = [
            (port, secured(self._reactor, address, self._before(address, factory), tls(address)))
            for address, port in self._ports
            if isinstance(port, Port)
        ]
        return [(port, renewed) for port, renewed in found if renewed is not None]

    def _before(self, address: str, factory: IProtocolFactory) -> IProtocolFactory:
        """Return what serves an address before, and by means of, a factory."""
        return ProxiedFactory(factory, self._proxies, self._reactor) if is_proxied(address) else factory

    def close(self, *, for_all: bool) -> None:
        """
        Accept those connections that wait, and then no more.

        :param for_all: Whether other processes that share the sockets end too, so that connections are to be refused.
        """
        ports, self._ports = self._ports, []
        for address, port in ports:
            if isinstance(port, Port) and not is_kept(address):
                port.accept_waiting()
                if for_all:
                    port.refuse()
            # If somebody else keeps the socket, those who wait there wait for the next process.
            port.stopListening()
