"""
What one client, or one address, may have and do: how many connections, and how many commands a second.

What is kept here exists only for limits that are set, and for those who come or talk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.addresses import shared_key
from rtpush.protocol.bucket import TokenBucket
from rtpush.protocol.limits import Limits
from rtpush.registry.counts import Counts

if TYPE_CHECKING:
    from rtpush.registry.connection import Connection

__all__ = ["LIMITS", "POLLS", "Limiter"]

#: What is counted when it is met.
LIMITS = (
    "max_connections",
    "connections_per_ip",
    "connections_per_user",
    "polls_per_client",
    "connect_rate_per_ip",
    "command_rate",
    "publish_rate",
    "command_rate_per_ip",
    "publish_rate_per_ip",
    "max_waiting",
    "header_timeout",
    "header_bytes",
    "url_bytes",
    "incoming_bytes",
)

#: The transports whose connections are polls.
POLLS = frozenset({"longpoll", "shortpoll"})

#: For how many seconds' worth of commands a client may come at once; and how many it may be refused before it counts
#: as one that does not listen.
_BURST = 5.0
_PATIENCE = 10.0

#: How much is kept before it is looked through for what is not needed any more; and how many addresses without
#: connections are kept at most. About 300 bytes each.
_MANY = 1024
_MOST = 100_000


class _Talk:
    """How much somebody has said."""

    __slots__ = ("commands", "publishes")

    def __init__(self) -> None:
        self.commands: TokenBucket | None = None
        self.publishes: TokenBucket | None = None

    def is_over(self, now: float) -> bool:
        """Tell whether it is as if nothing had been said."""
        return all(bucket is None or bucket.is_full(now) for bucket in (self.commands, self.publishes))


class _Host(_Talk):
    """An address. Its connections are counted, and those that came lately."""

    __slots__ = ("arrivals", "connections")

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0
        self.arrivals: TokenBucket | None = None

    def is_over(self, now: float) -> bool:
        return not self.connections and (self.arrivals is None or self.arrivals.is_full(now)) and super().is_over(now)


class Limiter:
    """
    Says no.

    An address is that of the client, as trusted proxies tell it; of IPv6, its network of 64 bits. It is empty where
    nobody asked for it. Those of this machine are not limited: they are those of a proxy that nobody has named, or of
    whoever runs this.

    :param now: Returns the time, in seconds.
    :ivar by_address: Whether it is to be told addresses.
    :ivar of_clients: Whether it is to be told of connections that come.
    :ivar of_talk: Whether it is to be told of commands.
    """

    def __init__(self, limits: Limits, counts: Counts, now: Callable[[], float]) -> None:
        self._counts = counts
        self._now = now
        self._hosts: dict[str, _Host] = {}
        self._talks: dict[Connection, _Talk] = {}
        #: Whose connections there are, and how many of each user.
        self._owners: dict[Connection, str] = {}
        self._users: dict[str, int] = {}
        #: Whose polls wait, and how many of each user or address.
        self._pollers: dict[Connection, str] = {}
        self._polls: dict[str, int] = {}
        self._many_hosts = self._many_talks = _MANY
        self.change(limits)

    def change(self, limits: Limits, connections: Iterable[Connection] = ()) -> None:
        """
        Have other limits from now on. What was said before is forgotten.

        :param connections: Those that there are, as they leave by and by. They may have come when nobody counted.
        """
        self._limits = limits
        self.by_address = bool(
            limits.connections_per_ip
            or limits.polls_per_client
            or limits.connect_rate_per_ip
            or limits.command_rate_per_ip
            or limits.publish_rate_per_ip
        )
        self.of_clients = bool(
            limits.max_connections
            or limits.connections_per_ip
            or limits.connections_per_user
            or limits.polls_per_client
        )
        self.of_talk = bool(
            limits.command_rate or limits.publish_rate or limits.command_rate_per_ip or limits.publish_rate_per_ip
        )
        self._talks.clear()
        for host in self._hosts.values():
            host.commands = host.publishes = host.arrivals = None
            host.connections = 0
        if limits.connections_per_ip:
            for connection in connections:
                if key := shared_key(connection.peer):
                    self._host(key).connections += 1

    # Coming and going

    def come(self, peer: str) -> None:
        """
        Let in one more client of an address, that comes to stay.

        :raises RtpushError: ``limit_exceeded`` if too many come from there.
        """
        rate = self._limits.connect_rate_per_ip
        if not rate or not (key := shared_key(peer)):
            return
        host = self._host(key)
        if host.arrivals is None:
            host.arrivals = TokenBucket(rate, max(rate * _BURST, 1.0), self._now())
        if not host.arrivals.take(self._now()):
            raise self.refusal("connect_rate_per_ip", "too many clients come from your address: come back later")

    def enter(self, peer: str, total: int, user: str = "", *, is_poll: bool = False) -> None:
        """
        Count one more connection of an address.

        :param total: How many connections there are of all.
        :param user: Whose it is to be, which is not counted yet.
        :param is_poll: Whether it is a poll. It is not counted as that yet.
        :raises RtpushError: ``unavailable`` if there are enough, ``limit_exceeded`` if there are of this address or
            user.
        """
        self._check_user(user)
        most = self._limits.polls_per_client
        if most and is_poll and self._polls.get(_client(peer, user), 0) >= most:
            raise self.refusal("polls_per_client", f"a client may have {most} polls at once at most")
        most = self._limits.max_connections
        if most and total >= most:
            self._counts.limited["max_connections"] += 1
            raise RtpushError(ErrorCode.UNAVAILABLE, "there are as many clients here as may be: come back later")
        most = self._limits.connections_per_ip
        if not most or not (key := shared_key(peer)):
            return
        host = self._host(key)
        if host.connections >= most:
            raise self.refusal("connections_per_ip", f"your address may have {most} connections at most")
        host.connections += 1

    def own(self, connection: Connection, user: str) -> None:
        """
        Count a connection of a user, once.

        :raises RtpushError: ``limit_exceeded`` if there are enough.
        """
        if self._limits.connections_per_user and user and connection not in self._owners:
            self._check_user(user)
            self._owners[connection] = user
            self._users[user] = self._users.get(user, 0) + 1

    def poll(self, connection: Connection, user: str) -> None:
        """Count a poll of a client."""
        if self._limits.polls_per_client and (client := _client(connection.peer, user)):
            self._pollers[connection] = client
            self._polls[client] = self._polls.get(client, 0) + 1

    def _check_user(self, user: str) -> None:
        most = self._limits.connections_per_user
        if most and user and self._users.get(user, 0) >= most:
            raise self.refusal("connections_per_user", f"a user may have {most} connections at most")

    def leave(self, connection: Connection) -> None:
        """A connection is gone."""
        if self._owners and (user := self._owners.pop(connection, "")):
            _one_less(self._users, user)
        if self._pollers and (client := self._pollers.pop(connection, "")):
            _one_less(self._polls, client)
        if self._talks:
            self._talks.pop(connection, None)
        if connection.peer and (host := self._hosts.get(shared_key(connection.peer))) is not None and host.connections:
            host.connections -= 1

    # Talking

    def hear(self, connection: Connection, *, publishes: bool) -> bool:
        """
        Let a connection do one more command.

        :returns: Whether it listens: not if it went on for long with what it was told is too much.
        :raises RtpushError: ``limit_exceeded`` if it does too many, or its address does.
        """
        limits = self._limits
        if limits.command_rate or (publishes and limits.publish_rate):
            talk = self._talks.get(connection)
            if talk is None:
                if len(self._talks) >= self._many_talks:
                    self._forget_silent()
                talk = self._talks[connection] = _Talk()
            if not self._take(talk, limits.command_rate, limits.publish_rate, publishes):
                if self._went_on(talk):
                    return False
                raise self.refusal(
                    "publish_rate" if publishes and limits.publish_rate else "command_rate",
                    "too many commands a second: this one was not done",
                )
        if connection.peer:
            self.ask(connection.peer, publishes=publishes)
        return True

    def ask(self, peer: str, *, publishes: bool = False) -> None:
        """
        Let an address do one more command, or make one more request.

        :raises RtpushError: ``limit_exceeded`` if it does too many.
        """
        limits = self._limits
        if not (limits.command_rate_per_ip or (publishes and limits.publish_rate_per_ip)):
            return
        key = shared_key(peer)
        if key and not self._take(self._host(key), limits.command_rate_per_ip, limits.publish_rate_per_ip, publishes):
            raise self.refusal(
                "publish_rate_per_ip" if publishes and limits.publish_rate_per_ip else "command_rate_per_ip",
                "too many commands a second from your address: this one was not done",
            )

    def refusal(self, limit: str, message: str) -> RtpushError:
        """Count that a limit was met, and return what is told of it."""
        self._counts.limited[limit] += 1
        return RtpushError(ErrorCode.LIMIT_EXCEEDED, message)

    def _take(self, talk: _Talk, commands: float, publishes_rate: float, publishes: bool) -> bool:
        now = self._now()
        if commands:
            if talk.commands is None:
                talk.commands = TokenBucket(commands, max(commands * _BURST, 1.0), now)
            if not talk.commands.take(now):
                return False
        if publishes and publishes_rate:
            if talk.publishes is None:
                talk.publishes = TokenBucket(publishes_rate, max(publishes_rate * _BURST, 1.0), now)
            return talk.publishes.take(now)
        return True

    def _went_on(self, talk: _Talk) -> bool:
        now = self._now()
        return any(bucket is not None and bucket.wait(now) > _PATIENCE for bucket in (talk.commands, talk.publishes))

    def _host(self, key: str) -> _Host:
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= self._many_hosts:
                self._forget_absent()
            host = self._hosts[key] = _Host()
        return host

    def _forget_absent(self) -> None:
        """Forget the addresses of which nothing is to be known; and the oldest without connections, if it is many."""
        now = self._now()
        hosts = {key: host for key, host in self._hosts.items() if not host.is_over(now)}
        absent = [key for key, host in hosts.items() if not host.connections]
        # A half, so that it is not done each time.
        for key in islice(absent, len(absent) - _MOST // 2 if len(absent) > _MOST else 0):
            del hosts[key]
        self._hosts = hosts
        self._many_hosts = max(_MANY, 2 * len(hosts))

    def _forget_silent(self) -> None:
        """Forget what connections have said that have been silent since."""
        now = self._now()
        self._talks = {connection: talk for connection, talk in self._talks.items() if not talk.is_over(now)}
        self._many_talks = max(_MANY, 2 * len(self._talks))


def _client(peer: str, user: str) -> str:
    """Return what a client is counted by: its user, or else its address. Nothing if it is not limited."""
    if user:
        return f"user {user}"
    key = shared_key(peer)
    return f"address {key}" if key else ""


def _one_less(counts: dict[str, int], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
