"""A node on a real socket, and clients that are bytes on another."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import parse
from rtpush.service.sockets import listen
from tests.transports.serving import CONFIG, Loudness

__all__ = ["LoopbackTestCase", "RawClient"]

T = TypeVar("T")


class RawClient(Protocol):
    """
    A TCP connection of a client.

    :ivar received: What came so far.
    :ivar lost: Whether the connection is gone.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost = True
        self._look()

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Wait for a condition that depends on what comes."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((condition, deferred))
        self._look()
        return deferred

    def until_received(self, data: bytes) -> Deferred[None]:
        """Wait for some bytes, or for the end."""
        return self.until(lambda: data in self.received or self.lost)

    def until_lost(self) -> Deferred[None]:
        """Wait for the end."""
        return self.until(lambda: self.lost)

    def reset(self) -> None:
        """Go away without a farewell: the other side gets a reset."""
        if self.lost:
            return
        self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abortConnection()

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for condition, deferred in waiting:
            if condition():
                deferred.callback(None)
            else:
                self._waiting.append((condition, deferred))


class LoopbackTestCase(TestCase):
    """
    A node that listens on a free port of 127.0.0.1; everything that is logged as an error fails the test.

    :cvar server: More lines for ``[server]``.
    :cvar limits: More lines for ``[limits]``.
    :cvar sections: More sections.
    :cvar endpoint: Where it listens.
    :ivar port: The port.
    """

    timeout = 60
    server = "allowed_origins = *"
    limits = ""
    sections = "[api]\nopen = yes"
    config = CONFIG
    endpoint = "tcp:0:interface=127.0.0.1"

    async def setUp(self) -> None:
        loudness = Loudness()
        self.addCleanup(lambda: self.assertEqual(loudness.formats(), []))
        self.addCleanup(loudness.close)
        config = parse(
            self.config.format(server=self.server, limits=self.limits, sections=self.sections, echo="echo = yes")
        )
        self.node: Any = build_node(config, reactor)
        self.site: Any = build_site(config, self.node, reactor)
        self.channels: list[Any] = []
        build = self.site.buildProtocol

        def remember(address: Any) -> Any:
            protocol = build(address)
            self.channels.append(protocol)
            return protocol

        self.site.buildProtocol = remember
        await self.node.start()
        self._listening: Any = listen(reactor, self.endpoint, self.site)
        self.addCleanup(self._stop)
        self.port: int = self._listening.getHost().port

    async def connect(self) -> RawClient:
        """Connect a client."""
        client = RawClient()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), client)
        return client

    async def settle(self, condition: Callable[[], bool]) -> None:
        """Let the reactor turn until a condition holds; one that never does is the test's timeout."""
        while not condition():
            await deferLater(reactor, 0)

    async def nobody(self) -> None:
        """Wait until nobody is connected any more, and see that nothing is left of those who were."""
        await self.settle(lambda: not self.node.connections)
        self.assertEqual([name for name, channel in self.node.channels.items() if len(channel)], [])
        self.assertEqual(len(self.node.wheel), 0)

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Run what blocks elsewhere."""
        return deferToThread(function, *arguments)

    async def _stop(self) -> None:
        await self._listening.stopListening()
        for protocol in self.channels:
            if protocol.transport is not None and protocol.transport.connected:
                protocol.transport.abortConnection()
        await self.node.stop()
        # What was aborted is told so in a later turn.
        for _ in range(3):
            await deferLater(reactor, 0)
