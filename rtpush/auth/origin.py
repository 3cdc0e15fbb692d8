"""Which web pages may use this server: the ``Origin`` of a request against an allow-list (RFC 6454)."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["Origins"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """
    The origins whose pages are let in.

    :param allowed: Origins such as ``https://example.com``; ``*`` for all; empty for the same origin alone.
    :ivar credentials: Whether they may send the cookies of their visitors.
    """

    def __init__(self, allowed: Iterable[str], *, credentials: bool = False) -> None:
        self.credentials = credentials
        allowed = [origin.lower().rstrip("/") for origin in allowed]
        self._all = "*" in allowed
        self._allowed = frozenset(allowed)

    def allows(self, origin: str, host: str) -> bool:
        """
        Tell whether a page may use this server.

        :param origin: The ``Origin`` header.
        :param host: The ``Host`` header of the same request: pages that came from there are let in always.
        """
        if self._all or origin.lower() in self._allowed:
            return True
        try:
            parts = urlsplit(origin)
            default = _DEFAULT_PORTS.get(parts.scheme)
            port = default if parts.port is None else parts.port
            own = urlsplit(f"//{host}")
            # A proxy may speak TLS for us, so our own scheme is not known: the default port is that of the page's.
            own_port = default if own.port is None else own.port
        except ValueError:
            return False
        return default is not None and parts.hostname is not None and (parts.hostname, port) == (own.hostname, own_port)
