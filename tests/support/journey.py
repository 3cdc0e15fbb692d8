"""A thousand numbered messages on their way to one client, while the network changes under it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import attrs
from twisted.internet.defer import Deferred

from tests.support.nginx import Nginx
from tests.support.server import Server
from tests.support.waiting import pause, until

__all__ = ["MESSAGES", "Journey", "View"]

#: How many messages are published: 1, 2, 3 and so on.
MESSAGES = 1000

#: How many of them go out in one call, and how many seconds are between two calls.
_TOGETHER = 5
_PACE = 0.04


@attrs.frozen
class View:
    """
    What a client shows of itself.

    :ivar transports: Those that carried so far, in order, with :obj:`None` where one was lost.
    :ivar received: How many messages came.
    """

    transports: Sequence[str | None] = attrs.field(converter=tuple)
    received: int

    @property
    def transport(self) -> str | None:
        """The one that carries now."""
        return self.transports[-1] if self.transports else None

    @property
    def losses(self) -> int:
        """How many times a transport was lost."""
        return self.transports.count(None)


class Journey:
    """
    Leads a client through the networks, from the good one to the bad ones and back, and publishes all the while.

    :param look: Tells how the client stands.
    :param best: The best transport that the client can do: ``websocket`` or ``sse``.
    """

    def __init__(
        self, server: Server, nginx: Nginx, channel: str, look: Callable[[], Awaitable[View]], best: str
    ) -> None:
        self._server = server
        self._nginx = nginx
        self._channel = channel
        self._look = look
        self._best = best
        self._published = 0
        self._allowed = 0
        self._view = View((), 0)

    async def travel(self) -> None:
        """Go all the way: at its end every message has come."""
        publishing = Deferred.fromCoroutine(self._publish())
        try:
            await self._legs()
            await publishing
        finally:
            publishing.addErrback(lambda _: None).cancel()

    async def _legs(self) -> None:
        await self._leg("good", self._best)
        await self._leg("no websocket", "sse")
        await self._leg("no websocket, buffers", "longpoll")
        await self._leg("cuts after 5 s", self._best)
        # Nobody says anything, so the network cuts what is open, whatever that is.
        losses = self._view.losses

        async def was_cut() -> bool:
            self._view = await self._look()
            return self._view.losses > losses

        await self._until(was_cut, "the network to cut a connection")
        await self._leg("good", self._best)

    async def _leg(self, network: str, transport: str) -> None:
        """Change the network, with messages on the way; the client finds a transport that works, which carries some."""
        share = MESSAGES // 5
        self._allowed += share - 50
        changed = 0.0
        if self._published:
            await self._nginx.switch(network)
            changed = time.monotonic()

        async def carries() -> bool:
            # A client may not have noticed yet that the change has cut its connection; the server has.
            self._view = await self._look()
            open_now = await self._server.call("connections", channel=self._channel, transport=transport)
            age = time.monotonic() - changed
            return self._view.transport == transport and any(each["since"] < age for each in open_now["connections"])

        await self._until(carries, f"{transport} in the network {network!r}")
        self._allowed += 50
        await self._until(self._all_there, f"what is published in the network {network!r}")

    async def _all_there(self) -> bool:
        self._view = await self._look()
        return self._view.received >= self._allowed

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        await until(condition, what, 40.0, 0.05, seen=lambda: f"{self._view}; {self._published} published")

    async def _publish(self) -> None:
        while self._published < MESSAGES:
            await pause(_PACE)
            begin, end = self._published + 1, min(self._published + _TOGETHER, self._allowed)
            if begin <= end:
                await self._server.publish(self._channel, [{"n": number} for number in range(begin, end + 1)])
                self._published = end
