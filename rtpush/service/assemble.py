"""Builds a node and its site from a configuration: the one place that knows which class is behind which key."""

from __future__ import annotations

import os
import random
import socket
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.static import File
from twisted.web.util import Redirect

import rtpush
from rtpush.api.cluster import answering
from rtpush.api.demo import DemoNetwork
from rtpush.api.resources import Health, Readiness, api_resource
from rtpush.auth.apikey import ApiKeys
from rtpush.auth.origin import Origins
from rtpush.broker.memory import MemoryBroker
from rtpush.interfaces import IBroker
from rtpush.protocol.channel import Namespaces
from rtpush.registry.node import Node
from rtpush.service.config import Config
from rtpush.transports.emit import EmitResource
from rtpush.transports.http import NotFound, PushSite
from rtpush.transports.negotiate import NegotiateResource
from rtpush.transports.poll import PollResource
from rtpush.transports.sse import SseResource
from rtpush.transports.upgrade import EchoResource, WebSocketResource

__all__ = ["build_node", "build_site"]

_STATIC = os.path.join(os.path.dirname(rtpush.__file__), "static")


#: Seconds for which a channel is followed after its last subscription.
_LINGER = 5.0


def build_node(config: Config, clock: IReactorTime) -> Node:
    """Build the node that a configuration describes; nothing of it runs yet."""
    namespaces = Namespaces(config.namespaces)
    name = config.server.node or f"{socket.gethostname()}-{os.getpid()}"
    node = Node(
        clock,
        _broker(config, clock, namespaces, name),
        namespaces,
        name=name,
        limits=config.limits,
        backoff=config.backoff,
        heartbeat=config.server.heartbeat,
        heartbeat_grace=config.server.heartbeat_grace,
        linger=_LINGER,
        chance=random.random,
    )
    node.answering = answering(node)
    return node


def _broker(config: Config, clock: IReactorTime, namespaces: Namespaces, name: str) -> IBroker:
    if config.broker.engine == "redis":
        return _redis_broker(config, clock, namespaces, name)
    broker: IBroker = MemoryBroker(
        clock,
        namespaces,
        position_ttl=config.broker.position_ttl,
        idempotency_window=config.broker.idempotency_window,
    )
    return broker


def _redis_broker(config: Config, clock: IReactorTime, namespaces: Namespaces, name: str) -> IBroker:
    # Not before it is needed: what it is built on imports the reactor.
    from rtpush.broker.redis.broker import RedisBroker
    from rtpush.broker.redis.scripts import Scripts
    from rtpush.broker.redis.session import Dialler

    settings = config.redis
    scripts = Scripts(
        settings.prefix,
        config.namespaces,
        message_bytes=config.limits.message_bytes,
        position_ttl=config.broker.position_ttl,
        idempotency_window=config.broker.idempotency_window,
    )
    files = {"ca": settings.ca, "certificate": settings.certificate, "key": settings.key}
    broker: IBroker = RedisBroker(
        clock,
        namespaces,
        [
            Dialler(clock, address, scripts, client_name=f"rtpush:{name}", timeout=settings.timeout, **files)
            for address in settings.url
        ],
        scripts,
        name=name,
        position_ttl=config.broker.position_ttl,
        idempotency_window=config.broker.idempotency_window,
        timeout=settings.timeout,
        node_ttl=settings.node_ttl,
        chance=random.random,
    )
    return broker


def build_site(config: Config, node: Node, clock: IReactorTime) -> server.Site:
    """Build everything that is served over HTTP."""
    settings = config.server
    origins = Origins(settings.allowed_origins)
    poll = PollResource(
        node,
        origins,
        timeout=config.poll.timeout,
        max_timeout=config.poll.max_timeout,
        jitter=config.poll.jitter,
    )

    def negotiate(public_url: str) -> NegotiateResource:
        return NegotiateResource(
            node, origins, transports=settings.transports, public_url=public_url, poll_timeout=config.poll.timeout
        )

    routes: dict[str, Resource] = {
        "negotiate": negotiate(settings.public_url.rstrip("/")),
        "emit": EmitResource(node, origins),
    }
    if "websocket" in settings.transports:
        routes["ws"] = WebSocketResource(node, origins, compression=config.websocket.compression)
    if "sse" in settings.transports:
        routes["sse"] = SseResource(node, origins)
    if "longpoll" in settings.transports or "shortpoll" in settings.transports:
        routes["poll"] = poll
    if settings.echo:
        routes["echo"] = EchoResource(node, origins, compression=config.websocket.compression)
    root = NotFound(origins)
    for name, resource in routes.items():
        root.putChild(name.encode(), resource)
    root.putChild(b"api", api_resource(node, origins, ApiKeys(config.api.keys, open_=config.api.open)))
    root.putChild(b"healthz", Health(origins))
    root.putChild(b"readyz", Readiness(node, origins))
    root.putChild(b"client", _static("client", origins))
    if settings.demo:
        root.putChild(b"", Redirect(b"demo/"))
        root.putChild(b"demo", DemoNetwork(origins, _static("demo", origins), {**routes, "negotiate": negotiate("")}))
    return PushSite(
        root,
        clock,
        wheel=node.deadlines,
        others=(b"", b"client", b"demo"),
        request_bytes=config.limits.request_bytes,
        timeout=config.limits.header_timeout,
        retry_after=node.retry_after,
    )


def _static(name: str, origins: Origins) -> File:
    """Serve a folder of files that come with the package."""
    return _Files(os.path.join(_STATIC, name), origins)


class _Files(File):
    """Files of the package, without listings of their folders."""

    contentTypes = File.contentTypes | {".js": "text/javascript", ".ts": "text/plain"}

    def __init__(self, path: str, origins: Origins) -> None:
        super().__init__(path)
        self._origins = origins
        self.childNotFound: Any = NotFound(origins)

    def render_GET(self, request: server.Request) -> bytes | int:
        # Asked for again each time, and answered by 304 mostly: after an upgrade nobody keeps the old client.
        request.setHeader(b"cache-control", b"no-cache")
        # Pages of any origin may import the client; whom it may then talk to is another question.
        request.setHeader(b"access-control-allow-origin", b"*")
        answer: bytes | int = super().render_GET(request)  # type: ignore[no-untyped-call]
        return answer

    render_HEAD = render_GET

    def directoryListing(self) -> Resource:
        return NotFound(self._origins)

    def createSimilarFile(self, path: str) -> File:
        return _Files(path, self._origins)
