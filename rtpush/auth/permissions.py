"""
Who may do what in which channel: what a token grants, and the decision.

Pure: no time, no input and output.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import lru_cache

import attrs

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import Access, Namespace, check_name

__all__ = ["MAX_PATTERNS", "NOTHING", "Action", "ApiGrant", "Grant", "Permissions", "channel_mismatch", "may"]

#: The most names and patterns that one grant has.
MAX_PATTERNS = 100


class Action(enum.Enum):
    """
    What can be done in a channel.

    :ivar bit: The value, which is one bit: to look it up as such takes longer.
    """

    SUBSCRIBE = 1
    PUBLISH = 2
    HISTORY = 4
    PRESENCE = 8

    def __init__(self, bit: int) -> None:
        self.bit = bit

    @property
    def word(self) -> str:
        """The name as tokens have it."""
        return self.name.lower()


def _check_pattern(text: str) -> None:
    """
    Check the form of a name or pattern.

    A star stands for any characters, also none, but the colon; at the end of the pattern for any characters at all.
    Between two colons there is at most one: so matching takes a time that is proportional to the channel's length.

    :raises ValueError: if it is neither.
    """
    try:
        check_name(text)
    except RtpushError as error:
        raise ValueError("expected a channel's name or pattern") from error
    if any(part.count("*") > 1 for part in text.split(":")):
        raise ValueError("expected at most one * between two colons")


def _fits(pattern: str, channel: str) -> bool:
    """Tell whether a channel has the form of a pattern."""
    open_end = pattern.endswith("*")
    parts = pattern.split(":")
    given = channel.split(":", len(parts) - 1) if open_end else channel.split(":")
    if len(given) != len(parts):
        return False
    for part, text in zip(parts, given, strict=True):
        before, star, behind = part.partition("*")
        if not star:
            if text != part:
                return False
        elif not (len(text) >= len(before) + len(behind) and text.startswith(before) and text.endswith(behind)):
            return False
    return True


@attrs.frozen(weakref_slot=False)
class Permissions:
    """
    What may be done in which channels. There is one for many connections, or one for each: so it is small, and those
    that were made lately are shared. :meth:`of` makes them.

    :ivar _names: Channels and patterns.
    :ivar _actions: The actions (bits) for each.
    """

    _names: tuple[str, ...]
    _actions: bytes

    @classmethod
    def of(cls, channels: Mapping[str, Iterable[Action]]) -> Permissions:
        """
        Return the permissions for some channels.

        :param channels: The actions by channel name or pattern. A channel that several fit has the actions of all.
        :raises ValueError: if a name or pattern is malformed, or if there are more than :data:`MAX_PATTERNS`.
        """
        if not channels:
            return NOTHING
        if len(channels) > MAX_PATTERNS:
            raise ValueError(f"expected at most {MAX_PATTERNS} channels and patterns")
        names = tuple(sorted(channels))
        return _permissions(names, bytes(sum({action.value for action in channels[name]}) for name in names))

    def allows(self, action: Action, channel: str) -> bool:
        """Tell whether something may be done in a channel."""
        bit = action.bit
        for name, actions in zip(self._names, self._actions, strict=True):
            if actions & bit and (name == channel or ("*" in name and _fits(name, channel))):
                return True
        return False

    def with_(self, others: Permissions) -> Permissions:
        """Return these and others together, which may be more than :data:`MAX_PATTERNS`."""
        if not self._names or not others._names:
            return self if self._names else others
        together = dict(zip(self._names, self._actions, strict=True))
        for name, actions in zip(others._names, others._actions, strict=True):
            together[name] = together.get(name, 0) | actions
        names = tuple(sorted(together))
        return _permissions(names, bytes(together[name] for name in names))


@lru_cache(1024)
def _permissions(names: tuple[str, ...], actions: bytes) -> Permissions:
    for name in names:
        _check_pattern(name)
    return Permissions(names, actions)


#: No permissions.
NOTHING = Permissions((), b"")


@attrs.frozen(kw_only=True, weakref_slot=False)
class Grant:
    """
    What a valid token says: one small object for each client that has shown one.

    :ivar user: The user (``sub``), or nothing for a token of nobody in particular.
    :ivar expires: When it ends (``exp``), in seconds since 1970, or :obj:`None` for never.
    :ivar issued: When it was made (``iat``), or :obj:`None` if it does not say.
    :ivar id: The token's own id (``jti``), or nothing.
    :ivar channel: The one channel that it is for; nothing for a token that opens connections.
    :ivar info: The client's information for presence: JSON, or nothing.
    """

    user: str = ""
    expires: float | None = None
    issued: float | None = None
    id: str = ""
    channel: str = ""
    permissions: Permissions = NOTHING
    info: bytes = b""

    def allows(self, action: Action, channel: str) -> bool:
        """Tell whether the token permits something in a channel."""
        return self.permissions.allows(action, channel)

    def with_(self, given: Grant) -> Grant:
        """
        Return what a token grants together with what the application gives to the client that has it.

        It ends with the first of them. It is taken back with the token, or with what its user has.

        :raises RtpushError: ``permission_denied`` if both name a user, and not the same.
        """
        if self.user and given.user and self.user != given.user:
            raise RtpushError(
                ErrorCode.PERMISSION_DENIED, "the application says that this is another user than the token does (sub)"
            )
        ends = [each for each in (self.expires, given.expires) if each is not None]
        return Grant(
            user=self.user or given.user,
            expires=min(ends, default=None),
            issued=self.issued,
            id=self.id,
            permissions=self.permissions.with_(given.permissions),
            info=given.info or self.info,
        )


@attrs.frozen(kw_only=True, weakref_slot=False)
class ApiGrant(Grant):
    """
    What a valid token says that opens calls of the server API too.

    :ivar calls: Their names; ``*`` for all.
    :ivar everywhere: Whether in all channels; else in those that it names, for what it permits there.
    """

    calls: frozenset[str]
    everywhere: bool

    def opens(self, call: str) -> bool:
        """Tell whether the token opens a call."""
        return call in self.calls or "*" in self.calls


def channel_mismatch(token: Grant, channel: str, connection: Grant | None) -> RtpushError | None:
    """
    Say why a token that was given for one channel cannot be used there, or nothing if it can.

    :param token: The token that came with the command.
    :param channel: The channel of the command.
    :param connection: What the connection's own token grants. A token of a user is for that user's connections only.
    """
    if token.channel != channel:
        return RtpushError(
            ErrorCode.PERMISSION_DENIED, f"this token is not for channel {channel!r}: its claim channel names another"
        )
    if token.user != (connection.user if connection else ""):
        return RtpushError(ErrorCode.PERMISSION_DENIED, "this token is another user's than the connection's (sub)")
    return None


def may(grant: Grant | None, action: Action, channel: str, namespace: Namespace) -> RtpushError | None:
    """
    Decide whether a client may do something in a channel: return nothing if so, else the error.

    :param grant: What its token grants, or :obj:`None` for a client without one.
    :param namespace: The channel's namespace.
    :returns: ``permission_denied``, or ``unauthorized`` where a token could help.
    """
    access = _access(action, namespace)
    if access is Access.SERVER:
        return RtpushError(
            ErrorCode.PERMISSION_DENIED,
            f"{action.word} in {channel!r}: only the server API may, by {action.word} in [namespace:{namespace.name}]",
        )
    if grant is None and not namespace.anonymous:
        return _needs_token(action, channel, f"[namespace:{namespace.name}] is not for anonymous clients")
    if namespace.user_limited and "#" in channel:
        if grant is None:
            return _needs_token(action, channel, "it is only for the users that it names")
        if not grant.user or grant.user not in channel.split("#")[1:]:
            return RtpushError(
                ErrorCode.PERMISSION_DENIED,
                f"{action.word} in {channel!r}: it is only for the users that it names",
            )
        if action is not Action.PUBLISH:
            return None
    if access is Access.ANYONE:
        return None
    if grant is None:
        return _needs_token(action, channel, f"[namespace:{namespace.name}] wants one that permits it")
    if grant.allows(action, channel):
        return None
    return RtpushError(
        ErrorCode.PERMISSION_DENIED,
        f"{action.word} in {channel!r}: the token does not permit it",
    )


def _access(action: Action, namespace: Namespace) -> Access:
    match action:
        case Action.SUBSCRIBE:
            return namespace.subscribe
        case Action.PUBLISH:
            return namespace.publish
        case Action.HISTORY:
            return namespace.read_history or namespace.subscribe
        case Action.PRESENCE:
            return namespace.read_presence or namespace.subscribe


def _needs_token(action: Action, channel: str, why: str) -> RtpushError:
    return RtpushError(ErrorCode.UNAUTHORIZED, f"{action.word} in {channel!r}: a token is needed: {why}")
