"""Nodes at a Redis, as far as the engine goes: a broker, and what it delivers."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from rtpush.broker.redis.address import parse_address
from rtpush.broker.redis.broker import RedisBroker
from rtpush.broker.redis.scripts import Scripts
from rtpush.broker.redis.session import Dialler
from rtpush.protocol.channel import Namespace, Namespaces
from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Page
from tests.broker.contract import Receiver, publication
from tests.support.waiting import until

__all__ = ["NAMESPACES", "Node"]

NAMESPACES = (
    Namespace(name="h", history_size=1000, history_ttl=600.0, presence=True, join_leave=True),
    Namespace(name="none"),
)


class Node:
    """
    A broker at one Redis or more, which ends with its test.

    :ivar receiver: What it delivers to.
    """

    def __init__(
        self,
        test: TestCase,
        *urls: str,
        name: str = "n",
        timeout: float = 5.0,
        node_ttl: float = 15.0,
        scripts: type[Scripts] = Scripts,
        namespaces: Sequence[Namespace] = NAMESPACES,
        ca: str = "",
        certificate: str = "",
        key: str = "",
    ) -> None:
        made = scripts("rt", namespaces, message_bytes=1000, position_ttl=600.0, idempotency_window=60.0)
        self.receiver = Receiver()
        self.broker = RedisBroker(
            reactor,
            Namespaces(namespaces),
            [
                Dialler(
                    reactor,
                    parse_address(url),
                    made,
                    client_name=name,
                    timeout=timeout,
                    ca=ca,
                    certificate=certificate,
                    key=key,
                )
                for url in urls
            ],
            made,
            name=name,
            position_ttl=600.0,
            idempotency_window=60.0,
            timeout=timeout,
            node_ttl=node_ttl,
            chance=lambda: 0.5,
        )
        self.broker.start(self.receiver)
        test.addCleanup(self.broker.stop)

    async def up(self) -> None:
        """Wait until it is connected."""
        await until(lambda: self.broker.problem() is None, "Redis", seen=lambda: str(self.broker.problem()))

    async def down(self, pattern: str = "") -> str:
        """Wait until it has a problem in which these words are; return that."""
        await until(
            lambda: self.broker.problem() is not None and pattern in self.broker.problem(),
            f"a problem {pattern!r}",
            seen=lambda: str(self.broker.problem()),
        )
        problem = self.broker.problem()
        assert problem is not None
        return problem

    async def publish(self, channel: str, *values: int) -> list[Position]:
        """Publish numbers one after the other; return their positions."""
        positions = []
        for value in values:
            position = await self.broker.publish(publication(channel, value))
            assert position is not None
            positions.append(position)
        return positions

    async def read(self, channel: str, since: Position | None = None) -> Page:
        """Read history forward."""
        page: Page = await self.broker.history(channel, since, 1000)
        return page
