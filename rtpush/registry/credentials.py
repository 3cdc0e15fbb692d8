"""What a client has shown of who it is: its tokens, and their ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, fail, gatherResults

from rtpush.auth.permissions import Action, Grant, channel_mismatch
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.protocol.backoff import earlier
from rtpush.protocol.pushes import TokenExpiring

if TYPE_CHECKING:
    from rtpush.registry.connection import Connection
    from rtpush.registry.guests import Given, Guest
    from rtpush.registry.node import Node

__all__ = ["Credentials", "TokenCheck", "fail_without_tokens", "grants_shown", "shown"]

#: The most seconds before its end at which a client is told that it needs a new token.
_NOTICE = 60.0

_NEVER = float("inf")


class TokenCheck(Protocol):
    """
    What checks tokens.

    :ivar in_use: Whether a token can be good at all. Else none is looked at.
    :ivar leeway: Seconds for which a token is taken after its end.
    :ivar cookie: The name of the cookie that may hold one, or nothing.
    """

    @property
    def in_use(self) -> bool: ...
    @property
    def leeway(self) -> float: ...
    @property
    def cookie(self) -> str: ...

    def check(self, token: str, /) -> Deferred[Grant]:
        """Return what a token grants. Fails with :exc:`RtpushError`."""

    def startService(self) -> None: ...
    def stopService(self) -> object: ...


class _Held:
    """
    A token that was shown.

    :ivar warn: When the client is told that it ends, by the reactor's clock.
    :ivar end: When it ends.
    """

    __slots__ = ("end", "grant", "warn")

    def __init__(self, grant: Grant, node: Node) -> None:
        self.grant = grant
        self.warn = self.end = _NEVER
        if grant.expires is not None:
            left = max(grant.expires + node.leeway - node.now(), 0.0)
            self.end = node.clock.seconds() + left
            # Tokens that were made together do not have their clients come for others together.
            self.warn = self.end - earlier(min(_NOTICE, left / 2), 0.5, node.chance())


class Credentials:
    """
    The tokens of one client: that of its connection, and those for single channels.

    Clients without a token have none of this. While it belongs to a connection, it has that warned and ended in time.

    :param grant: What the connection's own token grants.
    :param guest: It, as the application knows it, if that was asked.
    :param given: What the application gives to it. It counts as what a token grants.
    :raises RtpushError: ``permission_denied`` if these are of different users.
    """

    __slots__ = ("_channels", "_connection", "_given", "_node", "_own", "guest")

    def __init__(
        self,
        node: Node,
        grant: Grant | None,
        for_channels: Sequence[Grant] = (),
        *,
        guest: Guest | None = None,
        given: Given | None = None,
    ) -> None:
        self._node = node
        self._connection: Connection | None = None
        self._own: _Held | None = None
        self._channels: dict[str, _Held] | None = None
        self.guest = guest
        self._given = None if given is None else given.grant
        if grant is not None or self._given is not None:
            self._own = self._hold(self._with_given(grant))
        if guest is not None:
            guest.user = self.user
            guest.data = b"" if given is None else given.data
            if self._own is not None and self._own.grant.info:
                guest.info = self._own.grant.info
        for each in for_channels:
            self.add(each, each.channel)

    @property
    def grant(self) -> Grant | None:
        """What the connection's own token grants, if there is one."""
        return None if self._own is None else self._own.grant

    @property
    def user(self) -> str:
        """The user whose token it is, or nothing."""
        return "" if self._own is None else self._own.grant.user

    def grants(self) -> Iterator[Grant]:
        """Go through what all tokens grant."""
        if self._own is not None:
            yield self._own.grant
        for held in (self._channels or {}).values():
            yield held.grant

    def grant_for(self, action: Action, channel: str) -> Grant | None:
        """Return what is to be asked about something in a channel: the token for it, or that of the connection."""
        held = None if self._channels is None else self._channels.get(channel)
        own = self.grant
        if held is not None and (own is None or held.grant.allows(action, channel)):
            return held.grant
        return own

    def attach(self, connection: Connection) -> None:
        """From now on these are a connection's."""
        self._connection = connection
        connection.credentials = self
        if self._own is not None and self._own.grant.info:
            connection.info = self._own.grant.info
        self._watch()

    def detach(self) -> None:
        """The connection is at its end."""
        self._node.deadlines.cancel(self)
        guest = self.guest
        if guest is not None and self._node.hooks is not None:
            self._node.hooks.left(guest)

    def ends_by(self, code: int, reason: str) -> None:
        """Say how the connection ends. What was said first counts."""
        if self.guest is not None and self.guest.ending is None:
            self.guest.ending = (code, reason)

    def replace(self, grant: Grant) -> None:
        """
        Have another token for the connection. Subscriptions that it does not permit end.

        :raises RtpushError: ``permission_denied`` if it is another user's.
        """
        grant = self._with_given(grant)
        if self._own is not None and grant.user != self._own.grant.user:
            raise RtpushError(ErrorCode.PERMISSION_DENIED, "the new token is another user's (sub) than the one before")
        self._own = self._hold(grant)
        if self._connection is not None:
            if grant.info:
                self._connection.info = grant.info
            self._watch()
            self._connection.review()

    def add(self, grant: Grant, channel: str) -> None:
        """
        Have a token for one channel, in the place of the one before.

        :raises RtpushError: ``permission_denied`` if it is for another channel, or another user's than the
            connection's.
        """
        mismatch = channel_mismatch(grant, channel, self.grant)
        if mismatch is not None:
            raise mismatch
        if self._channels is None:
            self._channels = {}
        self._channels[channel] = _Held(grant, self._node)
        if self._connection is not None:
            self._watch()
            self._connection.review(channel)

    def has(self, channel: str) -> bool:
        """Tell whether there is a token for a channel."""
        return self._channels is not None and channel in self._channels

    def drop(self, channel: str) -> None:
        """Have no token for a channel any more."""
        if self._channels is not None and self._channels.pop(channel, None) is not None and not self._channels:
            self._channels = None

    def tick(self) -> None:
        """Something ends, or will soon."""
        connection = self._connection
        assert connection is not None
        now = self._node.clock.seconds()
        if self._own is not None and self._own.end <= now:
            # Against the end of what the application gives no token helps, but to come back: it is asked again then.
            connection.disconnect(Disconnect.RECONNECT if self._ends_with_given else Disconnect.TOKEN_EXPIRED)
            return
        for channel, held in list((self._channels or {}).items()):
            if held.end <= now:
                self.drop(channel)
                connection.review(channel, Disconnect.TOKEN_EXPIRED)
            else:
                self._warn(connection, held, channel, now)
        if self._own is not None:
            self._warn(connection, self._own, "", now)
        if connection.credentials is self:
            self._watch()

    def failed(self, doing: str) -> None:
        """Something of ours went wrong."""
        if self._connection is not None:
            self._connection.failed("the end of a token")

    @property
    def _ends_with_given(self) -> bool:
        """Whether what the application gives ends first."""
        expires = None if self._given is None else self._given.expires
        return expires is not None and self._own is not None and self._own.grant.expires == expires

    def _hold(self, grant: Grant) -> _Held:
        held = _Held(grant, self._node)
        expires = None if self._given is None else self._given.expires
        if expires is not None and grant.expires == expires:
            # There is no token to ask for, nor a clock of others.
            held.warn, held.end = _NEVER, held.end - self._node.leeway
        return held

    def _with_given(self, grant: Grant | None) -> Grant:
        given = self._given
        if given is None or grant is None:
            only = grant or given
            assert only is not None
            return only
        return grant.with_(given)

    @staticmethod
    def _warn(connection: Connection, held: _Held, channel: str, now: float) -> None:
        if held.warn <= now:
            held.warn = _NEVER
            connection.push(TokenExpiring(channel, held.end - now))

    def _watch(self) -> None:
        """Be called when the next thing ends, or is to be warned of."""
        connection = self._connection
        assert connection is not None
        held = [*((self._own,) if self._own is not None else ()), *(self._channels or {}).values()]
        due = min((min(each.warn, each.end) for each in held), default=_NEVER)
        if due < _NEVER and connection.is_alive:
            self._node.deadlines.set(self, due)
        else:
            self._node.deadlines.cancel(self)


def shown(node: Node, token: str | None, for_channels: Sequence[str] = ()) -> Deferred[Credentials]:
    """
    Check the tokens that a client shows.

    :param token: That of its connection.
    :param for_channels: Those for single channels.
    :returns: Fails with :exc:`RtpushError`.
    """
    if not for_channels and token is not None:
        return node.checked(token).addCallback(lambda grant: Credentials(node, _for_connections(grant)))
    return grants_shown(node, token, for_channels).addCallback(lambda grants: Credentials(node, *grants))


def grants_shown(
    node: Node, token: str | None, for_channels: Sequence[str] = ()
) -> Deferred[tuple[Grant | None, list[Grant]]]:
    """
    Check the tokens that a client shows, and return what they grant.

    :returns: What that of its connection grants, and those for single channels. Fails with :exc:`RtpushError`.
    """
    checked = gatherResults([node.checked(each) for each in (token, *for_channels) if each is not None], True)

    def told(grants: list[Grant]) -> tuple[Grant | None, list[Grant]]:
        if token is None:
            return None, [_for_channel(grant) for grant in grants]
        return _for_connections(grants[0]), [_for_channel(grant) for grant in grants[1:]]

    return checked.addCallback(told)


def _for_connections(grant: Grant) -> Grant:
    if grant.channel:
        raise RtpushError(ErrorCode.INVALID_TOKEN, "this token is for one channel: it opens no connection")
    return grant


def _for_channel(grant: Grant) -> Grant:
    if not grant.channel:
        raise RtpushError(ErrorCode.INVALID_TOKEN, "this token is not for one channel: it has no claim channel")
    return grant


def fail_without_tokens() -> Deferred[Grant]:
    """Return what is told of a token where there are no keys."""
    return fail(RtpushError(ErrorCode.UNAUTHORIZED, "this server takes no tokens: [auth] has no keys"))
