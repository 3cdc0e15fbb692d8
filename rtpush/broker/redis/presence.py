"""Who of this node's connections is in which channel, as one Redis is to know it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.broker.redis.link import Link
from rtpush.broker.redis.records import entry_of, said_of
from rtpush.broker.redis.session import Session
from rtpush.errors import RtpushError
from rtpush.protocol.pushes import PresenceEntry

__all__ = ["Presence"]

#: How many changes go into one command.
_BATCH = 500


class Presence:
    """
    Tells one Redis who comes and goes.

    What could not be told is told when Redis is back; a connection that came and went meanwhile was never there.

    :param node_ttl: Milliseconds after which a node that is not heard of is dead.
    :param node: What this node is called there.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, *, node: str, node_ttl: int) -> None:
        self.link: Link
        self._node = node
        self._clock = clock
        self._node_ttl = node_ttl
        #: Who is here, by channel and connection.
        self._present: dict[str, dict[str, PresenceEntry]] = {}
        #: What Redis is to be told: the operation, the entry, and who waits for it to be done.
        self._changes: dict[tuple[str, str], tuple[bytes, PresenceEntry, list[Deferred[None]]]] = {}
        self._working: Deferred[None] | None = None
        #: Whether Redis took what it was told last.
        self._told = True
        self._complaint = ""

    def join(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        """A connection is in a channel; see :meth:`IPresence.join`."""
        self._present.setdefault(channel, {})[entry.connection] = entry
        return self._change(b"j", channel, entry)

    def leave(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        """It is there no longer; see :meth:`IPresence.leave`."""
        present = self._present.get(channel)
        if present is not None and present.pop(entry.connection, None) is not None and not present:
            del self._present[channel]
        return self._change(b"l", channel, entry)

    async def list(self, channel: str) -> Sequence[PresenceEntry]:
        """List who is in a channel, on all nodes; see :meth:`IPresence.presence`."""
        while self._working is not None:
            # Whoever has just come is to find itself.
            waiting: Deferred[None] = Deferred()
            self._working.chainDeferred(waiting)
            await waiting
        session = await self.link.soon()
        found = await session.evaluate("present", self._node_ttl, channel=channel)
        return [entry_of(found[index], found[index + 1]) for index in range(0, len(found), 2)]

    async def restore(self, session: Session) -> None:
        """Tell a new session who is here."""
        here = [(b"r", channel, entry) for channel, present in self._present.items() for entry in present.values()]
        for begin in range(0, len(here), _BATCH):
            await self._tell(session, here[begin : begin + _BATCH])

    async def rename(self, node: str, session: Session) -> None:
        """Tell everything under another name of this node."""
        self._node = node
        await self.restore(session)

    def tick(self) -> None:
        """A second has passed."""
        self._told = True
        self.work_soon()

    def work_soon(self) -> None:
        """Tell Redis, after this turn of the reactor, what it is to be told."""
        if self._working is None and self._told and self._changes and self.link.session is not None:
            self._working = Deferred()
            self._clock.callLater(0, self._work)

    def _change(self, operation: bytes, channel: str, entry: PresenceEntry) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        key = (channel, entry.connection)
        before, _, waiting = self._changes.pop(key, (b"", entry, []))
        waiting = [*waiting, done]
        if operation == b"l" and before == b"j":
            # Redis has never heard of it.
            self._fire(waiting)
        else:
            self._changes[key] = (operation, entry, waiting)
            self.work_soon()
        return done

    def _work(self) -> None:
        Deferred.fromCoroutine(self._step()).addBoth(self._worked)

    def _worked(self, _: object) -> None:
        working, self._working = self._working, None
        if working is not None:
            working.callback(None)
        self.work_soon()

    async def _step(self) -> None:
        session = self.link.session
        if session is None:
            return
        keys = list(islice(self._changes, _BATCH))
        changes = {key: self._changes.pop(key) for key in keys}
        try:
            await self._tell(session, [(change[0], key[0], change[1]) for key, change in changes.items()])
        except Exception as error:
            # Redis may have heard of who came. Nobody is told twice.
            again = {key: (b"r" if change[0] == b"j" else change[0], *change[1:]) for key, change in changes.items()}
            self._changes = {**again, **self._changes}
            self._told = False
            if session is self.link.session:
                self._refused(error)
            return
        self._complaint = ""
        for _, _, waiting in changes.values():
            self._fire(waiting)

    def _refused(self, error: Exception) -> None:
        """Redis is there, and refuses: the next tick tries again."""
        if not isinstance(error, RtpushError):
            self._log.failure("presence cannot be told")
        elif error.message != self._complaint:
            self._complaint = error.message
            self._log.warn("Redis {name}: presence cannot be told: {error}", name=self.link.name, error=error.message)

    @staticmethod
    def _fire(waiting: Sequence[Deferred[None]]) -> None:
        for done in waiting:
            done.callback(None)

    async def _tell(self, session: Session, changes: Sequence[tuple[bytes, str, PresenceEntry]]) -> None:
        arguments: list[object] = [self._node]
        for operation, channel, entry in changes:
            arguments += (operation, channel, entry.connection, said_of(entry))
        await session.evaluate("presence", *arguments)
