"""
What the configuration is: the classes that hold it, and the table of its sections and keys.

:data:`SECTIONS` and :data:`NAMESPACE` are all there is. Defaults are those of the classes.
"""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

import attrs

from rtpush.auth.keys import KeySource, parse_source
from rtpush.auth.tokens import TokenRules
from rtpush.broker.redis.address import RedisAddress, parse_address
from rtpush.protocol.addresses import TrustedProxies
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Access, Namespace, SlowReader
from rtpush.protocol.limits import Limits
from rtpush.service.listen import listen_address
from rtpush.service.tls import CertificateFiles, Tls
from rtpush.service.values import Many, One, Value, boolean, choice, integer, matching, member, number, origin, url

__all__ = [
    "AUTO",
    "NAMESPACE",
    "SECTIONS",
    "Api",
    "Auth",
    "Broker",
    "Config",
    "Key",
    "Log",
    "Metrics",
    "Poll",
    "Redis",
    "SectionType",
    "Server",
    "WebSocket",
]

_TRANSPORTS = ("websocket", "sse", "longpoll", "shortpoll")
_HOUR = 3600
_YEAR = 366 * 24 * _HOUR
_GIBIBYTE = 1 << 30

#: What a line of the log can be, from the least to the most important.
LOG_LEVELS = ("debug", "info", "warn", "error", "critical")

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


@attrs.frozen(kw_only=True)
class Api:
    """
    ``[api]``: who may use the server API.

    :ivar listen: Where it is served; empty for where all else is.
    """

    listen: tuple[str, ...] = ()
    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    open: bool = False


@attrs.frozen(kw_only=True)
class Metrics:
    """``[metrics]``: who may read them, besides those who may use the server API."""

    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    open: bool = False


@attrs.frozen(kw_only=True)
class Log:
    """
    ``[log]``.

    :ivar modules: Modules whose lines have another least level than ``level``, and that.
    """

    format: str = "text"
    level: str = "info"
    modules: tuple[tuple[str, str], ...] = ()


@attrs.frozen(kw_only=True)
class Auth:
    """
    ``[auth]``: which tokens are good.

    :ivar jwks: Where more keys are: ``file:`` and a path, or a URL; empty for nowhere.
    """

    keys: tuple[KeySource, ...] = ()
    jwks: str = ""
    jwks_interval: float = 300.0
    issuer: str = ""
    audience: str = ""
    leeway: float = 5.0
    require_exp: bool = True
    cookie: str = ""

    @property
    def in_use(self) -> bool:
        """Whether a token can be good at all."""
        return bool(self.keys or self.jwks)

    @property
    def rules(self) -> TokenRules:
        """What is asked of tokens."""
        return TokenRules(
            issuer=self.issuer, audience=self.audience, leeway=self.leeway, require_exp=self.require_exp
        )


@attrs.frozen(kw_only=True)
class Broker:
    """``[broker]``."""

    engine: str = "memory"
    position_ttl: float = 86400.0
    idempotency_window: float = 300.0


@attrs.frozen(kw_only=True)
class Redis:
    """``[redis]``: what counts if the engine is Redis. Several addresses are shards."""

    url: tuple[RedisAddress, ...] = (parse_address("redis://127.0.0.1:6379/0"),)
    prefix: str = "rtpush"
    timeout: float = 5.0
    node_ttl: float = 15.0
    ca: str = ""
    certificate: str = ""
    key: str = ""


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
    namespaces: tuple[Namespace, ...] = ()

    def tls_of(self, address: str) -> Tls:
        """Return what holds for an address that speaks TLS: clients show certificates to the server API alone."""
        return self.tls if address in self.api.listen else attrs.evolve(self.tls, client_ca="")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where a process listens: for clients, then for the server API alone."""
        return (*self.server.listen, *self.api.listen)


@attrs.frozen
class Key:
    """
    One key of a section.

    :ivar value: What it may hold.
    :ivar doc: What it does, in the words that the shipped files use.
    :ivar other_field: The field of the class that holds it, where that is not called like the key.
    """

    name: str
    value: Value
    doc: str
    other_field: str = ""

    @property
    def field(self) -> str:
        """The field of the class that holds the value."""
        return self.other_field or self.name


@attrs.frozen
class SectionType:
    """
    One section.

    :ivar holder: The class that holds its values and knows their defaults.
    """

    name: str
    holder: type[attrs.AttrsInstance]
    keys: tuple[Key, ...]

    def default(self, key: Key) -> object:
        """Return the default of a key: :data:`attrs.NOTHING` if it must be given."""
        return attrs.fields_dict(self.holder)[key.field].default


def _proxy(text: str) -> str:
    TrustedProxies([text])
    return text


_PROXY = One("an IP address, a network such as 10.0.0.0/8, or unix", _proxy)


def _module_level(text: str) -> tuple[str, str]:
    module, _, level = (part.strip() for part in text.partition("="))
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", module) is None or level not in LOG_LEVELS:
        raise ValueError
    return module, level


def _certificate_files(text: str) -> CertificateFiles:
    certificate, *key = text.split()
    if len(key) > 1:
        raise ValueError
    return CertificateFiles(certificate, key[0] if key else certificate)


def _workers() -> One:
    whole = integer(1, 256)
    return One(f"{whole.expected}, or auto", lambda text: AUTO if text == "auto" else whole.convert(text))


def _jwks() -> One:
    def convert(text: str) -> str:
        if re.fullmatch(r"file:[^\0]+", text) is not None:
            return text
        parts = urlsplit(text)
        plain = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        # Whoever can change the keys on their way can make tokens: no plain HTTP over a network.
        if re.fullmatch(r"[!-~]+", text) is None or not parts.hostname or not (parts.scheme == "https" or plain):
            raise ValueError
        return text

    return One("file: and a path, or a URL that begins with https://", convert)


_API_KEY = matching(r"[!-~]{16,200}", "a key of 16 to 200 printable ASCII characters without space", secret=True)
_REDIS_URL = One("an address such as redis://127.0.0.1:6379/0", parse_address, secret=True)
_PRINTABLE = matching(r"[!-~]{1,255}", "1 to 255 printable ASCII characters without space")
_FILE = matching(r"[^\0]+", "the path of a file")

SECTIONS = (
    SectionType(
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
    ),
    SectionType(
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
    ),
    SectionType(
        "limits",
        Limits,
        (
            Key("message_bytes", integer(1, _GIBIBYTE), "The largest payload of a message, in bytes."),
            Key(
                "request_bytes",
                integer(1, _GIBIBYTE),
                "The largest body of an HTTP request, in bytes: at least message_bytes.",
            ),
            Key("queue_bytes", integer(1, _GIBIBYTE), "The most bytes that wait for a reader that does not keep up."),
            Key("channels_per_connection", integer(1, 100_000), "The most channels that one connection follows."),
            Key(
                "page_messages",
                integer(1, 100_000),
                "The most messages in one page of history, and in the answer to a poll.",
            ),
            Key("header_timeout", number(0.1, _HOUR), "Seconds in which the head of a request must have come."),
            Key(
                "connect_rate",
                number(0, 1_000_000, "a number a second"),
                "The most clients that a process lets in a second; others are told when to come back. 0 is no limit.",
            ),
            Key(
                "connect_burst",
                integer(1, 10_000_000),
                "The most that it lets in at once, after a quiet time.",
            ),
            Key("header_bytes", integer(1024, 1 << 20), "The largest head of an HTTP request, with its URL, in bytes."),
            Key(
                "max_waiting",
                integer(1, 10_000_000),
                "The most connections that may wait for a request; beyond it, the one is closed that waits longest.",
            ),
            Key(
                "max_connections",
                integer(0, 10_000_000),
                "The most clients that a process has. 0 is no limit but that of open files.",
            ),
            Key(
                "connections_per_ip",
                integer(0, 10_000_000),
                "The most clients of one address that a process has. 0 is no limit.",
            ),
            Key(
                "connections_per_user",
                integer(0, 10_000_000),
                "The most clients of one user of tokens that a process has. 0 is no limit.",
            ),
            Key(
                "connect_rate_per_ip",
                number(0, 1_000_000, "a number a second"),
                "The most clients of one address that a process lets in a second. 0 is no limit.",
            ),
            Key(
                "command_rate",
                number(0, 1_000_000, "a number a second"),
                "The most commands a second of one WebSocket. 0 is no limit.",
            ),
            Key(
                "publish_rate",
                number(0, 1_000_000, "a number a second"),
                "The most messages a second that one WebSocket publishes. 0 is no limit.",
            ),
            Key(
                "command_rate_per_ip",
                number(0, 1_000_000, "a number a second"),
                "The most commands and polls a second of one address. 0 is no limit.",
            ),
            Key(
                "publish_rate_per_ip",
                number(0, 1_000_000, "a number a second"),
                "The most messages a second that one address publishes. 0 is no limit.",
            ),
        ),
    ),
    SectionType(
        "websocket",
        WebSocket,
        (
            Key(
                "compression",
                boolean(),
                "Whether clients may compress (permessage-deflate). It costs processor time for each message.",
            ),
        ),
    ),
    SectionType(
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
    ),
    SectionType(
        "api",
        Api,
        (
            Key(
                "listen",
                Many(listen_address()),
                "Where the server API, the metrics and the dashboard are served: then nowhere else. One a line.",
            ),
            Key(
                "keys",
                Many(_API_KEY),
                "The API keys, one a line. Without any, and unless it is open, the server API is closed.",
            ),
            Key(
                "open",
                boolean(),
                "Whether the server API is open to all: only where every address is a loopback or Unix one.",
            ),
        ),
    ),
    SectionType(
        "tls",
        Tls,
        (
            Key(
                "certificates",
                Many(One("the file of a certificate and, after a space, that of its key", _certificate_files)),
                "The certificates of the ssl: addresses, one a line: its file, and that of its key.",
            ),
            Key("min_version", choice("1.2", "1.3"), "The oldest version of TLS that is spoken: 1.2 or 1.3."),
            Key(
                "client_ca",
                _FILE,
                "The file of the authorities that sign the certificates of backends: at [api] listen, they need one.",
            ),
        ),
    ),
    SectionType(
        "metrics",
        Metrics,
        (
            Key(
                "keys",
                Many(_API_KEY),
                "Keys that open /metrics and nothing else, one a line. Those of the server API open it too.",
            ),
            Key("open", boolean(), "Whether all may read /metrics who reach this node. They may if [api] is open."),
        ),
    ),
    SectionType(
        "log",
        Log,
        (
            Key(
                "format",
                choice("text", "json"),
                "How the log is written: text, a line for people; or json, an object a line for machines.",
            ),
            Key("level", choice(*LOG_LEVELS), "The least that is logged: debug, info, warn, error or critical."),
            Key(
                "modules",
                Many(One("a module and its level, such as rtpush.broker=debug", _module_level), commas=True),
                "Modules with another level, with those below them: name=level, separated by commas.",
            ),
        ),
    ),
    SectionType(
        "auth",
        Auth,
        (
            Key(
                "keys",
                Many(One("an id, an algorithm and a key, with spaces between them", parse_source, secret=True)),
                "The keys that tokens are signed with, one a line: an id (kid), an algorithm and the key.",
            ),
            Key("jwks", _jwks(), "Where more keys are published: file: and a path, or the URL of a JSON Web Key Set."),
            Key(
                "jwks_interval",
                number(10, 24 * _HOUR),
                "Seconds after which they are read again. That is done too when a token names a key that is not known.",
            ),
            Key("issuer", _PRINTABLE, "What tokens must have as their issuer (iss). By default anything."),
            Key(
                "audience",
                _PRINTABLE,
                "What tokens must have in their audience (aud). By default a token for an audience is refused.",
            ),
            Key("leeway", number(0, 300), "Seconds by which the clock of whoever makes tokens may differ from ours."),
            Key("require_exp", boolean(), "Whether each token must say when it ends (exp)."),
            Key(
                "cookie",
                matching(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits, dots, underscores and hyphens"),
                "The name of the cookie in which browsers may have their token. By default cookies are not looked at.",
            ),
        ),
    ),
    SectionType(
        "broker",
        Broker,
        (
            Key(
                "engine",
                choice("memory", "redis"),
                "What carries messages and keeps history. With memory, history ends with the process.",
            ),
            Key(
                "position_ttl",
                number(1, 10 * _YEAR),
                "Seconds for which the position of a channel is known after its last message or subscriber.",
            ),
            Key(
                "idempotency_window",
                number(0, _YEAR),
                "Seconds in which a publish with the same idempotency key is not done again.",
            ),
        ),
    ),
    SectionType(
        "redis",
        Redis,
        (
            Key(
                "url",
                Many(_REDIS_URL, least=1),
                "Where Redis is. Several addresses, one a line, share the channels between them.",
            ),
            Key(
                "prefix",
                matching(r"[A-Za-z0-9_]{1,32}", "1 to 32 letters, digits and underscores"),
                "What all its keys and channels in Redis begin with: another one for each installation, "
                "even in different databases of a Redis.",
            ),
            Key(
                "timeout",
                number(0.1, 60),
                "Seconds within which Redis must answer; after them its connections are made anew.",
            ),
            Key(
                "node_ttl",
                number(3, _HOUR),
                "Seconds after which a node that is not heard of counts as dead.",
            ),
            Key(
                "ca",
                _FILE,
                "The file of the authorities that may sign Redis's certificate, if not those of the system.",
            ),
            Key("certificate", _FILE, "The file of the certificate that this node shows to Redis, if it asks for one."),
            Key("key", _FILE, "The file of that certificate's private key."),
        ),
    ),
)

#: What ``[namespace:NAME]`` may hold.
NAMESPACE = SectionType(
    "namespace:NAME",
    Namespace,
    (
        Key(
            "history_size",
            integer(0, 10_000_000),
            "The most messages that each channel keeps, for those who come back. 0 keeps none.",
        ),
        Key("history_ttl", number(0.1, 10 * _YEAR), "Seconds for which a message is kept."),
        Key("subscribe", member(Access), "Who may subscribe: anyone, token (whose token permits it) or server."),
        Key("publish", member(Access), "Who may publish: anyone, token, or server (the server API only)."),
        Key(
            "read_history",
            member(Access),
            "Who may ask for history: anyone, token or server. By default those who may subscribe.",
        ),
        Key(
            "read_presence",
            member(Access),
            "Who may ask for presence: anyone, token or server. By default those who may subscribe.",
        ),
        Key(
            "anonymous",
            boolean(),
            "Whether clients without a token may do anything here. By default no as soon as [auth] has keys.",
        ),
        Key(
            "user_limited",
            boolean(),
            "Whether a channel such as chat:room#42#43 is for the users 42 and 43 alone.",
        ),
        Key("presence", boolean(), "Whether the connections of a channel can be listed."),
        Key(
            "join_leave",
            boolean(),
            "Whether subscribers hear of others that come and go: for small channels, since each is a message to all.",
        ),
        Key(
            "slow_reader",
            member(SlowReader),
            "What happens to a reader that does not keep up: recover (it goes on from history), latest or disconnect.",
        ),
        Key("poll_max_age", integer(0, 86400), "Seconds for which caches may keep the answer of a short poll."),
    ),
)
