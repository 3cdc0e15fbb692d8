"""A shard: one Redis, with all that a node does in it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.broker.redis.following import Following
from rtpush.broker.redis.link import Link
from rtpush.broker.redis.membership import Membership
from rtpush.broker.redis.presence import Presence
from rtpush.broker.redis.session import Dialler, Session
from rtpush.protocol.cluster import LinkStatus

__all__ = ["Shard"]


class Shard:
    """
    Ties the parts together: they share a link, which restores them in a new session.

    :param took: Gets what is published on the channels of the nodes themselves.
    :param common: The channel in Redis on which all nodes are spoken to.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        dialler: Dialler,
        following: Following,
        presence: Presence,
        membership: Membership,
        *,
        common: str,
        timeout: float,
        patience: float,
        chance: Callable[[], float],
        took: Callable[[bytes, Shard], None],
    ) -> None:
        self.following = following
        self.presence = presence
        self.membership = membership
        self._common = common.encode()
        self._took = took
        self.link = Link(
            clock,
            dialler,
            timeout=timeout,
            patience=patience,
            chance=chance,
            receive=self._receive,
            restore=self._restore,
            ready=self._ready,
        )
        following.link = presence.link = membership.link = self.link

    def tick(self) -> None:
        """A second has passed."""
        self.link.tick()
        self.membership.tick()
        self.presence.tick()
        self.following.tick()

    def status(self) -> LinkStatus:
        """Tell how it is with this Redis."""
        session = self.link.session
        return LinkStatus(
            name=self.link.name,
            is_up=session is not None,
            sessions=self.link.sessions,
            lag=self.membership.lag(),
            pending=0 if session is None else session.pending,
        )

    async def _restore(self, session: Session) -> None:
        await session.follow([self._common])
        await self.membership.restore(session)
        await self.presence.restore(session)
        await self.following.restore(session)

    def _ready(self) -> None:
        self.presence.work_soon()
        self.following.work_soon()

    def _receive(self, name: bytes, raw: bytes) -> None:
        try:
            if raw[:2] == b"b ":
                self.membership.took(int(raw[2:]))
            elif raw[:1] in (b"q", b"a"):
                self._took(raw, self)
            else:
                self.following.take(name, raw)
        except ValueError:
            # What it is, is not ours to write down.
            self._log.warn("Redis {name}: {size} bytes not published by us", name=self.link.name, size=len(raw))
