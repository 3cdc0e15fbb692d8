"""
Tokens that are taken back before they end.

Pure: times are passed in. Each node has all revocations; they may arrive in any order and more than once.
"""

from __future__ import annotations

import attrs
import msgspec

from rtpush.auth.permissions import Grant
from rtpush.errors import ErrorCode, RtpushError

__all__ = ["Revocation", "Revocations"]


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """
    What is taken back: the tokens that have all of what is given.

    A user, a token's id, a channel, or a user in a channel. Of a user and of a channel, tokens that were made later are
    good again: so a user who has logged in anew can come back. To keep a user out, let ``before`` be ``until``.

    :ivar user: Tokens of this user.
    :ivar id: The token with this ``jti``.
    :ivar channel: What tokens permit in this channel, not elsewhere.
    :ivar before: Tokens that were made (``iat``) until then, in seconds since 1970, or that do not say when.
    :ivar until: When it can be forgotten, since all such tokens have ended.
    """

    user: str = ""
    id: str = ""
    channel: str = ""
    before: float
    until: float

    def __post_init__(self) -> None:
        if not (self.user or self.id or self.channel) or (self.id and (self.user or self.channel)):
            raise ValueError("expected a user, a channel, both, or a token's id")
        if not 0 <= self.before < float("inf") or not 0 <= self.until < float("inf"):
            raise ValueError("expected times from 1970 on")
        if any(len(text) > 255 or "\0" in text for text in (self.user, self.id, self.channel)):
            raise ValueError("expected names of at most 255 characters")

    def encode(self) -> bytes:
        """Return the form in which nodes tell each other."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, content: bytes) -> Revocation:
        """
        Read that form.

        :raises ValueError: if it is malformed.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"no revocation: {error}") from error


@attrs.define
class _Kept:
    before: float
    until: float


class Revocations:
    """
    All that is taken back now.

    :param limit: How many are kept. Beyond it none is taken, rather than another one forgotten.
    """

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, str, str], _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, revocation: Revocation, now: float) -> None:
        """
        Take something back. What is there for the same user, token or channel is made wider, never narrower.

        :raises RtpushError: ``limit_exceeded`` if there is no room, even without those whose time is over.
        """
        if revocation.until <= now:
            return
        name = (revocation.user, revocation.id, revocation.channel)
        kept = self._kept.get(name)
        if kept is not None and kept.until > now:
            kept.before = max(kept.before, revocation.before)
            kept.until = max(kept.until, revocation.until)
            return
        if kept is None and len(self._kept) >= self._limit:
            self.forget(now)
            if len(self._kept) >= self._limit:
                raise RtpushError(ErrorCode.LIMIT_EXCEEDED, f"there are {self._limit} revocations: expected no more")
        self._kept[name] = _Kept(revocation.before, revocation.until)

    def forget(self, now: float) -> None:
        """Drop those whose time is over."""
        self._kept = {name: kept for name, kept in self._kept.items() if kept.until > now}

    def is_revoked(self, grant: Grant, channel: str, now: float) -> bool:
        """
        Tell whether a grant is taken back.

        :param channel: In this channel; empty for everywhere, which is what counts for the connection.
        """
        if not self._kept:
            return False
        return (
            (grant.id != "" and self._is_kept(("", grant.id, ""), None, now))
            or (grant.user != "" and self._is_kept((grant.user, "", ""), grant.issued, now))
            or (channel != "" and self._is_kept(("", "", channel), grant.issued, now))
            or (channel != "" and grant.user != "" and self._is_kept((grant.user, "", channel), grant.issued, now))
        )

    def _is_kept(self, name: tuple[str, str, str], issued: float | None, now: float) -> bool:
        kept = self._kept.get(name)
        return kept is not None and now < kept.until and (issued is None or issued <= kept.before)

    def all(self, now: float) -> list[Revocation]:
        """Return all, for a node that has come later."""
        return [
            Revocation(user=user, id=id_, channel=channel, before=kept.before, until=kept.until)
            for (user, id_, channel), kept in self._kept.items()
            if kept.until > now
        ]
