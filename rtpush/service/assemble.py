"""Builds a node and its site from a configuration: the one place that knows which class is behind which key."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.static import File
from twisted.web.util import Redirect

import rtpush
from rtpush.api.admin import LIFETIME, Dashboard
from rtpush.api.cluster import answering
from rtpush.api.demo import DemoNetwork
from rtpush.api.metrics import MetricsResource
from rtpush.api.resources import Health, Readiness, api_resource
from rtpush.auth.apikey import ApiKeys
from rtpush.auth.jwks import MAX_DOCUMENT_BYTES
from rtpush.auth.origin import Origins
from rtpush.auth.sessions import Sessions
from rtpush.broker.memory import MemoryBroker
from rtpush.errors import ErrorCode, RtpushError
from rtpush.interfaces import IBroker
from rtpush.metrics.samples import Samples
from rtpush.metrics.sampling import node_samples
from rtpush.protocol.addresses import TrustedProxies
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import DEFAULT_NAMESPACE, Namespace, Namespaces
from rtpush.protocol.limits import Limits
from rtpush.registry.node import Node
from rtpush.service.config import Config, ConfigError
from rtpush.service.fetching import fetch, web_agent
from rtpush.service.hooking import change_hooks
from rtpush.service.keyring import Keyring
from rtpush.transports.emit import EmitResource
from rtpush.transports.endpoint import NotFound
from rtpush.transports.http import Request, answer_error, check_request, count_request
from rtpush.transports.negotiate import NegotiateResource
from rtpush.transports.poll import PollResource
from rtpush.transports.polling import polling_of
from rtpush.transports.site import PushSite
from rtpush.transports.sse import SseResource
from rtpush.transports.upgrade import EchoResource, WebSocketResource

__all__ = ["build_api_site", "build_node", "build_site", "reconfigure", "redis_diallers"]

_STATIC = os.path.join(os.path.dirname(rtpush.__file__), "static")


#: Seconds for which a channel is followed after its last subscription.
_LINGER = 5.0


def build_node(config: Config, clock: IReactorTime, now: Callable[[], float] = time.time) -> Node:
    """
    Build the node that a configuration describes; nothing of it runs yet.

    :param now: Tells the seconds since 1970, as the times in tokens have them.
    """
    namespaces = Namespaces(config.namespaces, config.limits.channel_name_bytes)
    name = config.server.name
    node = Node(
        clock,
        _broker(config, clock, namespaces, name),
        namespaces,
        name=name,
        limits=config.limits,
        backoff=config.backoff,
        heartbeat=config.server.heartbeat,
        heartbeat_grace=config.server.heartbeat_grace,
        proxies=TrustedProxies(config.server.trusted_proxies),
        linger=_LINGER,
        chance=random.random,
        soon=getattr(polling_of(clock), "soon", None),
        tokens=Keyring(
            config.auth, clock, now, lambda url: fetch(web_agent(clock), clock, url, MAX_DOCUMENT_BYTES)
        ),
        now=now,
    )
    node.answering = answering(node)
    change_hooks(config.hooks, config.server.allowed_origins, node, clock, random.random)
    return node


def _broker(config: Config, clock: IReactorTime, namespaces: Namespaces, name: str) -> IBroker:
    if config.broker.engine == "redis":
        return _redis_broker(config, clock, namespaces, name)
    broker: IBroker = MemoryBroker(
        clock,
        namespaces,
        position_ttl=config.broker.position_ttl,
        idempotency_window=config.broker.idempotency_window,
        max_channels=config.broker.max_channels,
    )
    return broker


def _redis_broker(config: Config, clock: IReactorTime, namespaces: Namespaces, name: str) -> IBroker:
    # Not before it is needed: what it is built on imports the reactor.
    from rtpush.broker.redis.broker import RedisBroker

    settings = config.redis
    scripts, diallers = redis_diallers(config, clock, name)
    broker: IBroker = RedisBroker(
        clock,
        namespaces,
        diallers,
        scripts,
        name=name,
        position_ttl=config.broker.position_ttl,
        idempotency_window=config.broker.idempotency_window,
        timeout=settings.timeout,
        node_ttl=settings.node_ttl,
        chance=random.random,
    )
    return broker


def redis_diallers(config: Config, clock: IReactorTime, name: str) -> tuple[Any, list[Any]]:
    """Return the scripts, and what opens sessions with each Redis that a configuration names."""
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
    diallers = [
        Dialler(clock, address, scripts, client_name=f"rtpush:{name}", timeout=settings.timeout, **files)
        for address in settings.url
    ]
    return scripts, diallers


#: Returns the samples of all workers, by their numbers.
Gather = Callable[[], Mapping[str, Samples]]


def build_site(config: Config, node: Node, clock: IReactorTime, gather: Gather | None = None) -> PushSite:
    """
    Build everything that is served over HTTP to clients; to backends too, unless they have addresses of their own.

    :param gather: Returns the samples of all workers, if there are several.
    """
    return _site(_root(config, node, gather), config, node, clock)


def build_api_site(config: Config, node: Node, clock: IReactorTime, gather: Gather | None = None) -> PushSite:
    """Build what is served at the addresses of the server API, if it has some of its own."""
    return _site(_api_root(config, node, gather), config, node, clock)


def _site(root: Resource, config: Config, node: Node, clock: IReactorTime) -> PushSite:
    return PushSite(
        root,
        clock,
        wheel=node.deadlines,
        counts=node.counts,
        incoming=node.incoming,
        others=(b"", b"admin", b"client", b"demo"),
        request_bytes=config.limits.request_bytes,
        timeout=config.limits.header_timeout,
        header_bytes=config.limits.header_bytes,
        url_bytes=config.limits.url_bytes,
        max_waiting=config.limits.max_waiting,
        http2=config.server.http2,
        heed=_heed(config, node),
        retry_after=node.retry_after,
    )


def _heed(config: Config, node: Node) -> Callable[[Request], None] | None:
    """Return what counts requests, if there is a limit on them."""
    return partial(count_request, node) if config.limits.command_rate_per_ip else None


def reconfigure(
    config: Config, node: Node, site: PushSite, gather: Gather | None = None, api_site: PushSite | None = None
) -> None:
    """
    Have a node and its sites go on with another configuration. Nobody is dropped for it.

    What cannot be changed in them is as it was: the broker, and the name of the node.

    :raises KeyMistake: if a key for tokens cannot be used. Nothing has changed then.
    :raises ConfigError: if another file cannot be used.
    """
    if isinstance(node.tokens, Keyring):
        node.tokens.reload(config.auth)
    try:
        change_hooks(config.hooks, config.server.allowed_origins, node, node.clock, random.random)
    except (OSError, ValueError) as error:
        # A file has changed since the configuration was read.
        raise ConfigError("[hooks] ca", None, str(error)) from error
    node.reconfigure(
        config.namespaces,
        limits=config.limits,
        backoff=config.backoff,
        heartbeat=config.server.heartbeat,
        heartbeat_grace=config.server.heartbeat_grace,
        proxies=TrustedProxies(config.server.trusted_proxies),
    )
    limits = config.limits
    roots = [(site, _root(config, node, gather))]
    if api_site is not None:
        roots.append((api_site, _api_root(config, node, gather)))
    for each, root in roots:
        each.reconfigure(
            root,
            request_bytes=limits.request_bytes,
            timeout=limits.header_timeout,
            header_bytes=limits.header_bytes,
            url_bytes=limits.url_bytes,
            max_waiting=limits.max_waiting,
            http2=config.server.http2,
            heed=_heed(config, node),
        )


def _api_root(config: Config, node: Node, gather: Gather | None) -> Resource:
    """Build the routes that are not for clients."""
    origins = Origins(config.server.allowed_origins)
    root = NotFound(origins)
    _add_health(root, node, origins)
    _add_api(root, config, node, origins, gather)
    return root


def _add_health(root: Resource, node: Node, origins: Origins) -> None:
    root.putChild(b"healthz", Health(origins))
    root.putChild(b"readyz", Readiness(node, origins))


def _add_api(root: Resource, config: Config, node: Node, origins: Origins, gather: Gather | None) -> None:
    keys = ApiKeys(config.api.keys, open_=config.api.open)
    root.putChild(b"api", api_resource(node, origins, keys, tokens=config.api.tokens))
    metrics_keys = ApiKeys((*config.metrics.keys, *config.api.keys), open_=config.metrics.open or config.api.open)
    root.putChild(b"metrics", MetricsResource(origins, metrics_keys, gather or (lambda: {"1": node_samples(node)})))
    if config.server.dashboard:
        root.putChild(b"admin", _dashboard(config, node))


def _root(config: Config, node: Node, gather: Gather | None) -> Resource:
    """Build the routes for clients; and the others, if they are not elsewhere."""
    settings = config.server
    hooks_see_cookies = config.hooks.in_use and "cookie" in config.hooks.headers
    # With * any page could use the cookies of its visitors.
    cookies = bool(config.auth.cookie) or (hooks_see_cookies and "*" not in settings.allowed_origins)
    origins = Origins(settings.allowed_origins, credentials=cookies)
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
    _add_health(root, node, origins)
    if not config.api.listen:
        _add_api(root, config, node, origins, gather)
    root.putChild(b"client", _static("client", origins))
    if settings.demo:
        root.putChild(b"", Redirect(b"demo/"))
        root.putChild(b"demo", DemoNetwork(origins, _static("demo", origins), {**routes, "negotiate": negotiate("")}))
    return root


def _dashboard(config: Config, node: Node) -> Dashboard:
    """Build what is below ``/admin``."""
    sessions = Sessions(config.api.keys, lifetime=LIFETIME)
    pages = _Files(os.path.join(_STATIC, "admin"), Origins(()), public=False)
    return Dashboard(node, pages, sessions, open_=config.api.open, make_viewers=lambda: _viewers(node))


def _viewers(node: Node) -> Node:
    """Build the node at which the viewers of a node's dashboard are: with two minutes of history, for its charts."""
    namespaces = Namespaces([Namespace(name=DEFAULT_NAMESPACE, history_size=120, history_ttl=150.0)])
    return Node(
        node.clock,
        MemoryBroker(node.clock, namespaces, position_ttl=150.0, idempotency_window=0.0),
        namespaces,
        name=f"{node.name}/dashboard",
        limits=Limits(message_bytes=1 << 24, channels_per_connection=1, connect_rate=10.0, connect_burst=50),
        backoff=Backoff(0.5, 5.0, 0.5),
        heartbeat=15.0,
        heartbeat_grace=5.0,
        chance=random.random,
    )


def _static(name: str, origins: Origins) -> File:
    """Serve a folder of files that come with the package."""
    return _Files(os.path.join(_STATIC, name), origins)


class _Files(File):
    """
    Files of the package, without listings of their folders.

    :param public: Whether pages of any origin may import them.
    """

    contentTypes = File.contentTypes | {".js": "text/javascript", ".ts": "text/plain"}

    def __init__(self, path: str, origins: Origins, *, public: bool = True) -> None:
        super().__init__(path)
        self._origins = origins
        self._public = public
        self.childNotFound: Any = NotFound(origins)

    def getChild(self, path: bytes, request: server.Request) -> Resource:
        try:
            path.decode()
        except UnicodeDecodeError:
            # Twisted would log it as an error.
            nothing: Resource = self.childNotFound
            return nothing
        child: Resource = super().getChild(path, request)  # type: ignore[no-untyped-call]
        return child

    def render(self, request: Any) -> bytes | int:
        try:
            check_request(request)
            if request.method not in (b"GET", b"HEAD"):
                request.setHeader(b"allow", b"GET, HEAD")
                raise RtpushError(ErrorCode.METHOD_NOT_ALLOWED, "this is a file, expected GET or HEAD")
        except RtpushError as error:
            return answer_error(request, error)
        # Thousands of ranges of a small file were a large answer; and none is needed (RFC 9110 section 14.2).
        request.requestHeaders.removeHeader(b"range")
        answer: bytes | int = super().render(request)  # type: ignore[no-untyped-call]
        return answer

    def render_GET(self, request: server.Request) -> bytes | int:
        # Asked for again each time, and answered by 304 mostly: after an upgrade nobody keeps the old client.
        request.setHeader(b"cache-control", b"no-cache")
        if self._public:
            # Pages of any origin may import the client; whom it may then talk to is another question.
            request.setHeader(b"access-control-allow-origin", b"*")
        answer: bytes | int = super().render_GET(request)  # type: ignore[no-untyped-call]
        return answer

    render_HEAD = render_GET

    def directoryListing(self) -> Resource:
        return NotFound(self._origins)

    def createSimilarFile(self, path: str) -> File:
        return _Files(path, self._origins, public=self._public)
