"""How clients are served: ``[server]``, ``[backoff]``, ``[websocket]`` and ``[poll]``."""

from __future__ import annotations

import os
import socket

import attrs

from rtpush.protocol.addresses import TrustedProxies
from rtpush.protocol.backoff import Backoff
from rtpush.service.listen import listen_address
from rtpush.service.sections import Key, SectionType
from rtpush.service.values import Many, One, boolean, choice, integer, matching, number, origin, url

__all__ = ["AUTO", "BACKOFF", "POLL", "SERVER", "WEBSOCKET", "Poll", "Server", "WebSocket"]

_TRANSPORTS = ("websocket", "sse", "longpoll", "shortpoll")
_HOUR = 3600

#: As a number of workers: one per processor.
AUTO = 0


@attrs.frozen(kw_only=True)
class Server:
    """
    ``[server]``: where the node listens and what it offers.

    :ivar node: Its name; empty for one made at the start.
    :ivar workers: How many processes there are, or :data:`AUTO`.
    """

    @property
    def name(self) -> str:
        """What this process is called."""
        return self.node or f"{socket.gethostname()}-{os.getpid()}"

    listen: tuple[str, ...]
    node: str = ""
    workers: int = 1
    public_url: str = ""
    transports: tuple[str, ...] = _TRANSPORTS
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    heartbeat: float = 30.0
    heartbeat_grace: float = 10.0
    drain_window: float = 15.0
    drain_notice: float = 3.0
    watchdog: float = 15.0
    http2: bool = True
    echo: bool = False
    demo: bool = False
    dashboard: bool = True


@attrs.frozen(kw_only=True)
class WebSocket:
    """``[websocket]``."""

    compression: bool = False


@attrs.frozen(kw_only=True)
class Poll:
    """``[poll]``."""

    timeout: float = 25.0
    max_timeout: float = 60.0
    jitter: float = 0.1


def _proxy(text: str) -> str:
    TrustedProxies([text])
    return text


_PROXY = One("an IP address, a network such as 10.0.0.0/8, or unix", _proxy)


def _workers() -> One:
    whole = integer(1, 256)
    return One(f"{whole.expected}, or auto", lambda text: AUTO if text == "auto" else whole.convert(text))


SERVER = SectionType(
    "server",
    Server,
    (
        Key(
            "listen",
            Many(listen_address(), least=1),
            "The addresses to listen on: Twisted endpoint strings, one a line.",
        ),
        Key(
            "node",
            matching(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits, dots, underscores and hyphens"),
            "The name of this node. By default it is made of the host's name and the process id.",
        ),
        Key(
            "workers",
            _workers(),
            "How many processes share the addresses: a number, or auto for one per processor.",
        ),
        Key(
            "public_url",
            url(),
            "Where clients reach this node, if that is not where they found /negotiate: an absolute URL.",
        ),
        Key(
            "transports",
            Many(choice(*_TRANSPORTS), commas=True, least=1),
            "The transports to offer.",
        ),
        Key(
            "allowed_origins",
            Many(origin(), commas=True),
            "The web origins whose pages may connect, separated by commas. * is all; none is the node's own only.",
        ),
        Key(
            "trusted_proxies",
            Many(_PROXY, commas=True),
            "The proxies that are believed when they say who their clients are, separated by commas.",
        ),
        Key(
            "heartbeat",
            number(0.1, _HOUR),
            "Seconds within which each side sends something. Firewalls forget what is idle for a minute.",
        ),
        Key(
            "heartbeat_grace",
            number(0.1, _HOUR),
            "Seconds that a heartbeat may be late before the connection counts as dead.",
        ),
        Key(
            "drain_window",
            number(0, _HOUR),
            "Seconds that leaving takes at most: clients are told to go to other nodes one after the other.",
        ),
        Key(
            "drain_notice",
            number(0, _HOUR),
            "Seconds of these in which all goes on as before, but /readyz says no, so that balancers see it first.",
        ),
        Key(
            "watchdog",
            number(1, _HOUR),
            "Seconds of silence after which a worker counts as hung and is replaced.",
        ),
        Key("http2", boolean(), "Whether HTTP/2 is offered where TLS is spoken. WebSockets stay on HTTP/1.1."),
        Key("echo", boolean(), "Whether /echo sends each WebSocket message back: for conformance tests."),
        Key("demo", boolean(), "Whether /demo serves the demo page."),
        Key("dashboard", boolean(), "Whether /admin serves the dashboard, for those who have a key of [api]."),
    ),
)

BACKOFF = SectionType(
    "backoff",
    Backoff,
    (
        Key(
            "base",
            number(0, _HOUR),
            "Seconds before a client's first attempt to reconnect. Each further attempt doubles them.",
        ),
        Key("max", number(0, _HOUR), "The most seconds that the doubling reaches.", "maximum"),
        Key(
            "jitter",
            number(0, _HOUR),
            "The most seconds that chance adds to each wait, so that clients do not come at once.",
        ),
    ),
)

WEBSOCKET = SectionType(
    "websocket",
    WebSocket,
    (
        Key(
            "compression",
            boolean(),
            "Whether clients may compress (permessage-deflate). It costs processor time for each message.",
        ),
    ),
)

POLL = SectionType(
    "poll",
    Poll,
    (
        Key("timeout", number(0.1, _HOUR), "Seconds that a long poll waits for data, if it does not say."),
        Key("max_timeout", number(0.1, _HOUR), "The most seconds that a long poll may ask for."),
        Key(
            "jitter",
            number(0, 1, "a fraction"),
            "The largest part of its timeout by which chance ends a long poll early, so that not all end at once.",
        ),
    ),
)
