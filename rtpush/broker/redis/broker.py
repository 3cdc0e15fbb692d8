"""
The Redis engine: any number of nodes behave as one.

Channels are spread over one or more Redis servers. In each a message is published in one atomic step, a script; history
is a stream, and delivery is Redis's own publish and subscribe. See ``docs/redis.rst``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from rtpush.broker.redis.following import Following
from rtpush.broker.redis.membership import Membership
from rtpush.broker.redis.presence import Presence
from rtpush.broker.redis.protocol import unavailable
from rtpush.broker.redis.questions import Questions
from rtpush.broker.redis.records import KIND_LETTERS, Record
from rtpush.broker.redis.ring import Ring
from rtpush.broker.redis.scripts import Scripts, milliseconds
from rtpush.broker.redis.session import Dialler, Session
from rtpush.broker.redis.shard import Shard
from rtpush.errors import RtpushError
from rtpush.interfaces import IBroker, IBrokerReceiver, ICluster, IHealthCheck, ILinked, IPresence, IReconfigurable
from rtpush.protocol.channel import Namespace, Namespaces
from rtpush.protocol.cluster import Answers, LinkStatus, NodeStatus
from rtpush.protocol.commands import Publication
from rtpush.protocol.position import MAX_OFFSET, Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Page, gap_between

__all__ = ["RedisBroker"]

#: Seconds for Redis to hear that this node ends.
_FAREWELL = 1.0

#: Seconds between two beats.
_TICK = 1.0

#: The part of the time to answer for which one waits for a Redis that is away: clients do not wait for longer.
_PATIENCE = 0.6

#: How many answers may be awaited of one Redis; beyond that a publish is refused.
_MOST_PENDING = 20_000


@implementer(IBroker, IPresence, ICluster, IHealthCheck, ILinked, IReconfigurable)
class RedisBroker:
    """
    Carries messages through Redis.

    :param diallers: One for each Redis; their names decide which channel is where.
    :param name: What this node is called, without what makes it unique.
    :param position_ttl: Seconds for which the position of an idle channel is remembered, if it ever had a message.
    :param idempotency_window: Seconds for which an idempotency key counts.
    :param timeout: Seconds for Redis to answer.
    :param node_ttl: Seconds after which a node that is not heard of is dead.
    :param chance: Gives random numbers, at least 0 and below 1.
    """

    def __init__(
        self,
        clock: IReactorTime,
        namespaces: Namespaces,
        diallers: Sequence[Dialler],
        scripts: Scripts,
        *,
        name: str,
        position_ttl: float,
        idempotency_window: float,
        timeout: float,
        node_ttl: float,
        chance: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._namespaces = namespaces
        self._scripts = scripts
        self._position_ttl = milliseconds(position_ttl)
        self._window = round(idempotency_window * 1000)
        self._salt = secrets.token_hex(8)
        self._receiver: IBrokerReceiver | None = None
        self._ring = Ring([dialler.address.shard for dialler in diallers])
        # What is between blanks in our records has none.
        id_ = f"{re.sub(r'[^!-~]+', '-', name)}.{secrets.token_hex(4)}"
        common, inbox = f"{scripts.prefix}:nodes", f"{scripts.prefix}:node:{id_}"
        self._questions = Questions(clock, common=common, inbox=inbox, answer=self._answer)
        self._shards = []
        for dialler in diallers:
            following = Following(
                clock,
                prefix=scripts.prefix,
                position_ttl=self._position_ttl,
                salt=self._salt,
                patience=_PATIENCE * timeout,
            )
            presence = Presence(clock, node=f"{id_}.1", node_ttl=milliseconds(node_ttl))
            membership = Membership(
                clock,
                name=id_,
                inbox=inbox,
                status=self._status,
                node_ttl=milliseconds(node_ttl),
                timeout=timeout,
                reborn=presence.rename,
            )
            self._shards.append(
                Shard(
                    clock,
                    dialler,
                    following,
                    presence,
                    membership,
                    common=common,
                    timeout=timeout,
                    patience=_PATIENCE * timeout,
                    chance=chance,
                    took=self._took,
                )
            )
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    # IBroker

    def start(self, receiver: IBrokerReceiver) -> Deferred[None]:
        self._receiver = receiver
        for shard in self._shards:
            shard.following.receiver = receiver
            shard.link.start()
        self._ticking.start(_TICK, now=False)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._receiver = None
        if self._ticking.running:
            self._ticking.stop()
        for shard in self._shards:
            shard.following.receiver = None
        left = DeferredList(
            [Deferred.fromCoroutine(shard.membership.leave()) for shard in self._shards], consumeErrors=True
        )
        return left.addTimeout(_FAREWELL, self._clock).addBoth(self._stopped)

    def _stopped(self, _: object) -> None:
        for shard in self._shards:
            shard.link.stop()

    def publish(self, publication: Publication) -> Deferred[Position | None]:
        shard = self._shard(publication.channel)
        session = shard.link.session
        if session is None:
            return fail(shard.link.away())
        if session.pending >= _MOST_PENDING:
            return fail(unavailable(f"Redis does not keep up: {session.pending} answers are awaited"))
        namespace = self._namespaces.of(publication.channel)
        event, key = publication.event or "", publication.idempotency_key or ""
        arguments = (
            KIND_LETTERS[publication.payload.kind],
            event.encode(),
            publication.payload.data,
            key.encode(),
            b"1" if publication.history else b"0",
            namespace.history_size,
            milliseconds(namespace.history_ttl),
            self._position_ttl,
            self._window,
            self._salt,
        )
        published: Deferred[bytes] = session.evaluate("publish", *arguments, channel=publication.channel)
        return published.addCallback(_position)

    def history(self, channel: str, since: Position | None, limit: int) -> Deferred[Page]:
        return Deferred.fromCoroutine(self._history(channel, since, limit))

    async def _history(self, channel: str, since: Position | None, limit: int) -> Page:
        """Read in steps, since one is bounded in bytes too."""
        page = await self._read(channel, "after", since, limit)
        messages = list(page.messages)
        while page.gap is None and not page.complete and len(messages) < limit:
            page = await self._read(channel, "after", messages[-1].position, limit - len(messages))
            messages += page.messages
        return page if not messages or len(messages) == len(page.messages) else Page(messages, page.top)

    def history_before(self, channel: str, before: Position | None, limit: int) -> Deferred[Page]:
        return Deferred.fromCoroutine(self._history_before(channel, before, limit))

    async def _history_before(self, channel: str, before: Position | None, limit: int) -> Page:
        page = await self._read(channel, "before", before, limit)
        messages = list(page.messages)
        while page.gap is None and page.messages and messages[-1].offset > 1 and len(messages) < limit:
            page = await self._read(channel, "before", messages[-1].position, limit - len(messages))
            messages += page.messages
        return page if page.gap is not None and not messages else Page(messages, page.top)

    async def _read(self, channel: str, direction: str, since: Position | None, limit: int) -> Page:
        shard = self._shard(channel)
        ttl = milliseconds(self._namespaces.of(channel).history_ttl)
        epoch, offset, time = "", 0 if direction == "after" else MAX_OFFSET, ""
        if since is not None:
            epoch, offset, time = since.epoch, since.offset, shard.following.known(channel, since)
        try:
            session = await shard.link.soon()
            arguments = (direction, epoch, offset, time, limit, ttl, self._salt)
            found_epoch, top_offset, kept, *records = await session.evaluate(
                "history", *arguments, channel=channel
            )
        except RtpushError:
            shard.following.suspect(channel)
            raise
        top = Position(found_epoch.decode(), int(top_offset))
        if since is not None:
            gap = gap_between(since, top, kept)
            if gap is not None and (direction == "after" or since.epoch != top.epoch):
                return Page((), top, gap)
        return Page([Record.parse(channel, record).message for record in records], top)

    def subscribe(self, channel: str) -> Deferred[Position]:
        return self._shard(channel).following.subscribe(channel)

    def unsubscribe(self, channel: str) -> Deferred[None]:
        return self._shard(channel).following.unsubscribe(channel)

    # IPresence

    def join(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        return self._shard(channel).presence.join(channel, entry)

    def leave(self, channel: str, entry: PresenceEntry) -> Deferred[None]:
        return self._shard(channel).presence.leave(channel, entry)

    def presence(self, channel: str) -> Deferred[Sequence[PresenceEntry]]:
        return Deferred.fromCoroutine(self._shard(channel).presence.list(channel))

    # ICluster

    def nodes(self) -> Deferred[Sequence[NodeStatus]]:
        return Deferred.fromCoroutine(self._nodes())

    async def _nodes(self) -> Sequence[NodeStatus]:
        shard, session = self._any()
        return await shard.membership.others(session)

    def ask(self, question: bytes) -> Deferred[Answers]:
        return Deferred.fromCoroutine(self._ask(question))

    async def _ask(self, question: bytes) -> Answers:
        shard, session = self._any()
        return await self._questions.ask(session, question, await shard.membership.others(session))

    # IReconfigurable

    def reconfigured(self, namespaces: Sequence[Namespace], message_bytes: int) -> None:
        # Nodes say with each message how it is kept. Those who publish without a node use what is in Redis, which is
        # brought there with the next connection.
        self._scripts.reconfigure(namespaces, message_bytes)

    # IHealthCheck

    def problem(self) -> str | None:
        # While one of several is there, this node is of use: without this, the loss of one would take away all nodes.
        if any(shard.link.problem is None for shard in self._shards):
            return None
        return "; ".join(f"Redis {shard.link.name}: {shard.link.problem}" for shard in self._shards)

    # ILinked

    def links(self) -> Sequence[LinkStatus]:
        return [shard.status() for shard in self._shards]

    def _shard(self, channel: str) -> Shard:
        return self._shards[self._ring(channel)]

    def _any(self) -> tuple[Shard, Session]:
        """Return a shard that is there, for what concerns no channel: all nodes are at each."""
        for shard in self._shards:
            if shard.link.session is not None:
                return shard, shard.link.session
        raise self._shards[0].link.away()

    def _tick(self) -> None:
        for shard in self._shards:
            shard.tick()

    def _status(self) -> bytes:
        status: bytes = b"{}" if self._receiver is None else self._receiver.status()
        return status

    def _answer(self, question: bytes) -> Deferred[bytes]:
        if self._receiver is None:
            raise unavailable("this node is leaving")
        answer: Deferred[bytes] = self._receiver.asked(question)
        return answer

    def _took(self, raw: bytes, shard: Shard) -> None:
        self._questions.took(raw, shard.link.session, shard.membership.node)


def _position(result: bytes) -> Position | None:
    """Read what a publish has answered."""
    if not result:
        return None
    epoch, offset = result.split(b" ")
    return Position(epoch.decode(), int(offset))
