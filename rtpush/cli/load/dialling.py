"""Connections to one server: its name is looked up once, not for each of them."""

from __future__ import annotations

import resource
import socket
from typing import Any
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThread

from rtpush import __version__
from rtpush.client import LinkLost
from rtpush.client.errors import lost_by
from rtpush.client.negotiation import base_url

__all__ = ["Dialler", "Target", "raise_file_limit"]

#: Files that a process has open besides its connections.
_OTHER_FILES = 64


@attrs.frozen
class Target:
    """
    Where the server is.

    :ivar path: The prefix of all routes, with a slash at its end.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """
        Read a URL.

        :raises ValueError: if it is none.
        """
        parts = urlsplit(base_url(url))
        host = parts.hostname or ""
        return cls(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80), parts.path)

    @property
    def authority(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    def request(self, method: str, route: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
        """Return a request as bytes."""
        fields = {"Host": self.authority, "User-Agent": f"rtpush/{__version__}", "Accept": "*/*", **headers}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {self.path}{route} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


class Dialler:
    """Connects to a target, with TLS if its scheme asks for it."""

    def __init__(self, reactor: Any, target: Target, timeout: float = 10.0) -> None:
        self.target = target
        self._reactor = reactor
        self._timeout = timeout
        self._endpoint: IStreamClientEndpoint | None = None

    async def dial(self, protocol: IProtocol) -> Any:
        """
        Connect a protocol, and return it.

        :raises LinkLost: if that fails.
        """
        if self._endpoint is None:
            self._endpoint = await self._find()
        return await self._connect(self._endpoint, protocol)

    def _connect(self, endpoint: IStreamClientEndpoint, protocol: IProtocol) -> Deferred[Any]:
        return endpoint.connect(_Only(protocol)).addErrback(lambda failure: _raise(lost_by(failure)))

    async def _find(self) -> IStreamClientEndpoint:
        target, timeout = self.target, self._timeout
        try:
            found = await deferToThread(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise LinkLost("there is no such host", unreachable=True) from None
        if len({address[0] for address in found}) > 1:
            # Which of them works is found out with each connection.
            endpoint: IStreamClientEndpoint = HostnameEndpoint(
                self._reactor, target.host.encode(), target.port, timeout=timeout
            )
        else:
            kind = TCP6ClientEndpoint if found[0][0] == socket.AF_INET6 else TCP4ClientEndpoint
            endpoint = kind(self._reactor, str(found[0][4][0]), target.port, timeout=timeout)
        if target.scheme == "https":
            return wrapClientTLS(optionsForClientTLS(target.host), endpoint)
        return endpoint


def _raise(error: LinkLost) -> Any:
    raise error


class _Only(Factory):
    """Has one protocol to give away."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, address: Any) -> Any:
        return self._protocol


def raise_file_limit() -> int:
    """Let this process have as many files open as it may; return how many connections that leaves room for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _OTHER_FILES
