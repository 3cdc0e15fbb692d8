"""What ``/negotiate`` says, with defaults for a server that does not answer it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

import attrs
import msgspec

from rtpush.client.errors import BadAnswer
from rtpush.client.wire import read
from rtpush.protocol.backoff import Backoff

__all__ = ["TRANSPORTS", "Negotiation", "base_url", "websocket_url"]

#: The transports that this client can do, best first.
TRANSPORTS = ("websocket", "sse", "longpoll", "shortpoll")

_ROUTES = {"websocket": "/ws", "sse": "/sse", "longpoll": "/poll", "shortpoll": "/poll"}
_SECURE = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class _Offer(msgspec.Struct):
    transport: str
    url: str


class _Backoff(msgspec.Struct):
    base: float = 1.0
    max: float = 30.0
    jitter: float = 1.0


class _Poll(msgspec.Struct):
    timeout: float = 25.0
    max_age: float = 5.0


class _Limits(msgspec.Struct):
    channels: int | None = None


class _Answer(msgspec.Struct):
    transports: list[_Offer] = []
    emit: str = "/emit"
    heartbeat: float = 30.0
    heartbeat_grace: float = 10.0
    backoff: _Backoff = msgspec.field(default_factory=_Backoff)
    poll: _Poll = msgspec.field(default_factory=_Poll)
    limits: _Limits = msgspec.field(default_factory=_Limits)


@attrs.frozen(kw_only=True)
class Negotiation:
    """
    How to talk to a server. Times are seconds.

    :ivar urls: The absolute URL of each transport that is offered, best first.
    :ivar hold: How long a poll is held.
    :ivar pause: How long to wait between short polls.
    :ivar channels: How many channels a connection may have; :obj:`None` if that is not known.
    """

    urls: Mapping[str, str]
    emit: str
    heartbeat: float = 30.0
    grace: float = 10.0
    backoff: Backoff = Backoff()
    hold: float = 25.0
    pause: float = 5.0
    channels: int | None = None

    @classmethod
    def default(cls, base: str, transports: Sequence[str]) -> Negotiation:
        """Return what holds where the server does not say."""
        return cls(urls={name: _join(base, _ROUTES[name]) for name in transports}, emit=_join(base, "/emit"))

    @classmethod
    def of(cls, body: bytes, base: str, transports: Sequence[str]) -> Negotiation:
        """
        Read an answer.

        :param transports: Those that are wanted. The order is the server's.
        :raises BadAnswer: if it is not one.
        """
        answer = read(body, _Answer)
        urls = {offer.transport: _join(base, offer.url) for offer in answer.transports if offer.transport in transports}
        return cls(
            urls=urls,
            emit=_join(base, answer.emit),
            heartbeat=max(1.0, answer.heartbeat),
            grace=max(1.0, answer.heartbeat_grace),
            backoff=Backoff(answer.backoff.base, answer.backoff.max, answer.backoff.jitter),
            hold=max(1.0, answer.poll.timeout),
            pause=max(1.0, answer.poll.max_age),
            channels=answer.limits.channels,
        )


def base_url(url: str) -> str:
    """
    Return the place where the server is: the URL with a slash at its end.

    :raises ValueError: if it is not an absolute http or https URL, in one line.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or any(character <= " " for character in url):
        raise ValueError(f"bad URL {url!r}: expected http://HOST[:PORT]/ or https://…")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"bad URL {url!r}: expected no user name, query or fragment")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))


def websocket_url(url: str) -> str:
    """Return a URL with the scheme that WebSocket has for it."""
    parts = urlsplit(url)
    return urlunsplit((_SECURE[parts.scheme], *parts[1:]))


def _join(base: str, url: str) -> str:
    """Make a URL absolute: one that begins with a slash is below the place of ``/negotiate``, a proxy's prefix too."""
    if url.startswith("/") and not url.startswith("//"):
        return base + url[1:]
    if urlsplit(url).scheme not in _SECURE:
        raise BadAnswer(f"the server names a URL that cannot be used: {url!r}")
    return url
