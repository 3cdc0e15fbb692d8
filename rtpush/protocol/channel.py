"""Channel names, and the namespaces that give channels their options."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache

import attrs

from rtpush.errors import ErrorCode, RtpushError

__all__ = [
    "DEFAULT_NAMESPACE",
    "MAX_CHANNEL_BYTES",
    "REVOCATIONS",
    "Access",
    "Namespace",
    "Namespaces",
    "SlowReader",
    "check_name",
]

#: The longest channel name.
MAX_CHANNEL_BYTES = 255

#: The namespace of names without a colon.
DEFAULT_NAMESPACE = "default"

# Printable ASCII but space, double quote, comma (which joins channels in a query) and backslash: such a name goes into
# JSON as it is.
_NAME = re.compile(r"[!#-+\--\[\]-~]{1,255}", re.ASCII)


def check_name(channel: str, most: int = MAX_CHANNEL_BYTES) -> None:
    """
    Check the form of a channel name.

    :param most: How many bytes it may have.
    :raises RtpushError: ``bad_channel`` if it is malformed.
    """
    if _NAME.fullmatch(channel) is None or len(channel) > most:
        raise RtpushError(
            ErrorCode.BAD_CHANNEL,
            f"bad channel name {channel[:60]!r}: expected 1 to {most} printable ASCII characters "
            'without space, comma, " and \\',
        )


class Access(enum.Enum):
    """Who may do something in a namespace: anyone, whose token permits it, or the server API only."""

    ANYONE = "anyone"
    TOKEN = "token"
    SERVER = "server"


class SlowReader(enum.Enum):
    """
    What happens to a reader that does not keep up.

    ``RECOVER``: when its queue is full it gets nothing more, and when it reads again it goes on from history.
    ``LATEST``: nothing is queued for it, and when it reads again it gets the newest message alone.
    ``DISCONNECT``: when its queue is full it is disconnected.
    """

    RECOVER = "recover"
    LATEST = "latest"
    DISCONNECT = "disconnect"


@attrs.frozen(kw_only=True)
class Namespace:
    """
    The options of the channels whose names begin with ``name:``.

    :ivar history_size: How many messages a channel keeps at most; 0 keeps none.
    :ivar history_ttl: How many seconds it keeps each.
    :ivar subscribe: Who may subscribe, and get what was missed.
    :ivar publish: Who may publish.
    :ivar read_history: Who may ask for history; :obj:`None` for those who may subscribe.
    :ivar read_presence: Who may ask for presence; :obj:`None` for those who may subscribe.
    :ivar anonymous: Whether clients without a token may do anything.
    :ivar user_limited: Whether ``#`` in a channel's name begins the names of the only users that it is for.
    :ivar presence: Whether the connections of a channel are listed.
    :ivar join_leave: Whether subscribers hear of others that come and go.
    :ivar slow_reader: What happens to a reader that does not keep up.
    :ivar poll_max_age: Seconds for which the answer of a short poll may be cached.
    :ivar hooks: Whether the application is asked about what clients do there, if it is asked at all.
    """

    name: str
    history_size: int = 0
    history_ttl: float = 300.0
    subscribe: Access = Access.ANYONE
    publish: Access = Access.SERVER
    read_history: Access | None = None
    read_presence: Access | None = None
    anonymous: bool = True
    user_limited: bool = False
    presence: bool = False
    join_leave: bool = False
    slow_reader: SlowReader = SlowReader.RECOVER
    poll_max_age: int = 0
    hooks: bool = True


#: The channel by which nodes tell each other what is taken back; its namespace is no configuration's.
REVOCATIONS = "$rtpush:revocations"

#: As long as the longest revocation, and as many as a node keeps.
_OWN = Namespace(name="$rtpush", history_size=100_000, history_ttl=366 * 86400.0, subscribe=Access.SERVER)


class Namespaces:
    """
    All namespaces of this node: those of the configuration, and its own.

    :param name_bytes: How many bytes the name of a channel may have.
    """

    def __init__(self, namespaces: Iterable[Namespace], name_bytes: int = MAX_CHANNEL_BYTES) -> None:
        # The same few thousand channels are asked for again and again.
        self._remembered = lru_cache(4096)(self._find)
        self.replace(namespaces, name_bytes)

    def replace(self, namespaces: Iterable[Namespace], name_bytes: int = MAX_CHANNEL_BYTES) -> None:
        """Have other namespaces from now on."""
        self._name_bytes = name_bytes
        self._by_name = {namespace.name: namespace for namespace in namespaces}
        self._names = tuple(self._by_name)
        self._by_name[_OWN.name] = _OWN
        self._remembered.cache_clear()

    @property
    def names(self) -> Iterable[str]:
        """The names of all that the configuration has."""
        return self._names

    def of(self, channel: str) -> Namespace:
        """
        Return the namespace of a channel.

        :raises RtpushError: ``bad_channel`` if the name is malformed, ``unknown_channel`` if no namespace has it.
        """
        return self._remembered(channel)

    def _find(self, channel: str) -> Namespace:
        check_name(channel, self._name_bytes)
        name, colon, _ = channel.partition(":")
        namespace = self._by_name.get(name if colon else DEFAULT_NAMESPACE)
        if namespace is None:
            raise RtpushError(
                ErrorCode.UNKNOWN_CHANNEL,
                f"unknown channel {channel!r}: there is no namespace {name if colon else DEFAULT_NAMESPACE!r}",
            )
        return namespace
