"""
What the configuration is: the classes that hold it, and the table of its sections and keys.

:data:`SECTIONS` and :data:`NAMESPACE` are all there is. Defaults are those of the classes.
"""

from __future__ import annotations

import attrs

from rtpush.broker.redis.address import RedisAddress, parse_address
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Access, Namespace, SlowReader
from rtpush.protocol.limits import Limits
from rtpush.service.listen import listen_address
from rtpush.service.values import Many, One, Value, boolean, choice, integer, matching, member, number, origin, url

__all__ = [
    "AUTO",
    "NAMESPACE",
    "SECTIONS",
    "Api",
    "Broker",
    "Config",
    "Key",
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

#: As a number of workers: one per processor.
AUTO = 0


@attrs.frozen(kw_only=True)
class Server:
    """
    ``[server]``: where the node listens and what it offers.

    :ivar node: Its name; empty for one made at the start.
    :ivar workers: How many processes there are, or :data:`AUTO`.
    """

    listen: tuple[str, ...]
    node: str = ""
    workers: int = 1
    public_url: str = ""
    transports: tuple[str, ...] = _TRANSPORTS
    allowed_origins: tuple[str, ...] = ()
    heartbeat: float = 30.0
    heartbeat_grace: float = 10.0
    echo: bool = False
    demo: bool = False


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
    """``[api]``: who may use the server API."""

    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    open: bool = False


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
    broker: Broker = attrs.Factory(Broker)
    redis: Redis = attrs.Factory(Redis)
    namespaces: tuple[Namespace, ...] = ()


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


def _workers() -> One:
    whole = integer(1, 256)
    return One(f"{whole.expected}, or auto", lambda text: AUTO if text == "auto" else whole.convert(text))


_API_KEY = matching(r"[!-~]{16,200}", "a key of 16 to 200 printable ASCII characters without space", secret=True)
_REDIS_URL = One("an address such as redis://127.0.0.1:6379/0", parse_address, secret=True)
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
                "heartbeat",
                number(0.1, _HOUR),
                "Seconds within which each side sends something. Firewalls forget what is idle for a minute.",
            ),
            Key(
                "heartbeat_grace",
                number(0.1, _HOUR),
                "Seconds that a heartbeat may be late before the connection counts as dead.",
            ),
            Key("echo", boolean(), "Whether /echo sends each WebSocket message back: for conformance tests."),
            Key("demo", boolean(), "Whether /demo serves the demo page."),
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
        Key("subscribe", member(Access), "Who may subscribe: anyone or server."),
        Key("publish", member(Access), "Who may publish: anyone, or server (the server API only)."),
        Key("presence", boolean(), "Whether the connections of a channel can be listed."),
        Key(
            "join_leave",
            boolean(),
            "Whether subscribers hear of others that come and go: for small channels, since each is a message to all.",
        ),
        Key(
            "slow_reader",
            member(SlowReader),
            "What happens to a reader whose queue is full: recover (it goes on from history) or disconnect.",
        ),
        Key("poll_max_age", integer(0, 86400), "Seconds for which caches may keep the answer of a short poll."),
    ),
)
