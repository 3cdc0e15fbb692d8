"""
What the configuration is: the class that holds it, and the table of its sections.

:data:`SECTIONS` and :data:`NAMESPACE` are all there is. Defaults are those of the classes.
"""

from __future__ import annotations

import attrs

from rtpush.hooks.settings import HookSettings
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Namespace
from rtpush.protocol.limits import Limits
from rtpush.service.hooking import HOOKS
from rtpush.service.settings.access import API, AUTH, TLS, Api, Auth
from rtpush.service.settings.brokers import BROKER, REDIS, Broker, Redis
from rtpush.service.settings.limits import LIMITS
from rtpush.service.settings.namespaces import NAMESPACE
from rtpush.service.settings.serving import BACKOFF, POLL, SERVER, WEBSOCKET, Poll, Server, WebSocket
from rtpush.service.settings.watching import LOG, METRICS, Log, Metrics
from rtpush.service.tls import Tls

__all__ = ["NAMESPACE", "SECTIONS", "Config"]


@attrs.frozen(kw_only=True)
class Config:
    """All of the configuration."""

    server: Server
    backoff: Backoff = attrs.Factory(Backoff)
    limits: Limits = attrs.Factory(Limits)
    websocket: WebSocket = attrs.Factory(WebSocket)
    poll: Poll = attrs.Factory(Poll)
    api: Api = attrs.Factory(Api)
    tls: Tls = attrs.Factory(Tls)
    auth: Auth = attrs.Factory(Auth)
    metrics: Metrics = attrs.Factory(Metrics)
    log: Log = attrs.Factory(Log)
    broker: Broker = attrs.Factory(Broker)
    redis: Redis = attrs.Factory(Redis)
    hooks: HookSettings = attrs.Factory(HookSettings)
    namespaces: tuple[Namespace, ...] = ()

    def tls_of(self, address: str) -> Tls:
        """Return what holds for an address that speaks TLS: clients show certificates to the server API alone."""
        return self.tls if address in self.api.listen else attrs.evolve(self.tls, client_ca="")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where a process listens: for clients, then for the server API alone."""
        return (*self.server.listen, *self.api.listen)


#: All sections but the namespaces, in the order in which they are shown.
SECTIONS = (SERVER, BACKOFF, LIMITS, WEBSOCKET, POLL, API, TLS, METRICS, LOG, AUTH, HOOKS, BROKER, REDIS)
