"""Autobahn's own client, also where it is told to break the rules."""

from __future__ import annotations

import json
import os
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from tests.transports.loopback import LoopbackTestCase


class Client(WebSocketClientProtocol):
    """
    A client.

    :ivar messages: What came: payload, and whether it is binary.
    :ivar pongs: The payloads of pongs.
    :ivar closed: Code and reason of the close, once it is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[bytes, bool]] = []
        self.pongs: list[bytes] = []
        self.closed: tuple[int | None, str | None] | None = None
        self.clean = False
        self.opened: Deferred[None] = Deferred()
        self._waiting: list[tuple[Any, Deferred[None]]] = []

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.append((payload, isBinary))
        self._look()

    def onPong(self, payload: bytes) -> None:
        self.pongs.append(payload)
        self._look()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        # What the other side has sent, if it has sent a close.
        self.closed = (self.remoteCloseCode or code, self.remoteCloseReason or reason)
        self.clean = wasClean
        self._look()

    def until(self, condition: Any) -> Deferred[None]:
        """Wait for a condition that depends on what comes."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((condition, deferred))
        self._look()
        return deferred

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for condition, deferred in waiting:
            if condition():
                deferred.callback(None)
            else:
                self._waiting.append((condition, deferred))


class AutobahnTestCase(LoopbackTestCase):
    """A node, and Autobahn's clients of it."""

    async def open(
        self, path: str = "/echo", *, protocols: list[str] | None = None, offers: Any = (), **options: Any
    ) -> Client:
        """Connect a client with some of its options."""
        factory = WebSocketClientFactory(f"ws://127.0.0.1:{self.port}{path}", protocols=protocols)
        factory.protocol = Client
        factory.setProtocolOptions(
            failByDrop=False,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            **options,
        )
        if offers:
            factory.setProtocolOptions(perMessageCompressionOffers=offers, perMessageCompressionAccept=_accept_deflate)
        client: Client = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(factory)
        self.addCleanup(lambda: client.closed or client.transport.abortConnection())
        await client.opened
        return client

    async def assert_failed(self, client: Client, code: int) -> None:
        """The node fails the connection with a code, and nothing is left."""
        await client.until(lambda: client.closed)
        assert client.closed is not None
        self.assertEqual(client.closed[0], code, client.closed)
        await self.nobody()


def _accept_deflate(response: Any) -> Any:
    return PerMessageDeflateResponseAccept(response) if isinstance(response, PerMessageDeflateResponse) else None


class MessageTests(AutobahnTestCase):
    """By the rules."""

    async def test_echo(self) -> None:
        """Messages come back, in their order."""
        client = await self.open()
        sent = []
        for size in (0, 1, 125, 126, 127, 1000, 65535, 65536):
            for payload, binary in ((os.urandom(size), True), (b"*" * size, False)):
                client.sendMessage(payload, binary)
                sent.append((payload, binary))
        await client.until(lambda: len(client.messages) == len(sent))
        self.assertEqual(client.messages, sent)

    async def test_fragments(self) -> None:
        """Messages that are fragmented by size, and by hand, with pings between."""
        client = await self.open()
        payload = "κόσμε".encode() * 100
        client.sendMessage(payload, False, fragmentSize=7)
        client.beginMessage(False)
        for start in range(0, len(payload), 50):
            client.sendMessageFrame(payload[start : start + 50])
            client.sendPing(b"%d" % start)
        await client.until(lambda: len(client.pongs) == len(range(0, len(payload), 50)))
        self.assertEqual(client.messages, [(payload, False)])
        client.endMessage()
        await client.until(lambda: len(client.messages) == 2)
        self.assertEqual(client.messages[1], (payload, False))
        self.assertEqual(client.pongs[:3], [b"0", b"50", b"100"])

    async def test_chopped(self) -> None:
        """Frames that are written a byte at a time."""
        client = await self.open()
        client.sendFrame(opcode=1, payload=b"hello", chopsize=1)
        await client.until(lambda: client.messages)
        self.assertEqual(client.messages, [(b"hello", False)])

    async def test_close(self) -> None:
        """A close is answered, and the TCP connection ends cleanly."""
        for code, reason in ((1000, "bye"), (3000, "é"), (4999, "x" * 123)):
            client = await self.open()
            client.sendClose(code, reason)
            await client.until(lambda client=client: client.closed)
            self.assertTrue(client.clean)
            assert client.closed is not None
            self.assertIn(client.closed[0], (code, 1000))
        await self.nobody()

    async def test_commands(self) -> None:
        """The subprotocol is agreed on, and commands are answered."""
        client = await self.open("/ws", protocols=["rtpush.raw", "rtpush.v1"])
        self.assertEqual(client.websocket_protocol_in_use, "rtpush.v1")
        client.sendMessage(b'[{"id":1,"subscribe":{"channel":"demo:a"}},{"publish":{"channel":"demo:a","data":1}}]')
        await client.until(lambda: len(client.messages) == 2)
        self.assertEqual(json.loads(client.messages[1][0])["message"]["data"], 1)


class DeflateTests(AutobahnTestCase):
    """Its permessage-deflate, with all that it can offer."""

    sections = "[api]\nopen = yes\n[websocket]\ncompression = yes"

    async def test_offers(self) -> None:
        """Every offer leads to messages that come back, whole and in fragments."""
        text = b"".join(b"%d lines of text, " % n for n in range(1000))
        for accept_takeover in (True, False):
            for accept_window in (True, False):
                for request_takeover in (True, False):
                    for window in (0, 9, 12, 15):
                        offer = PerMessageDeflateOffer(accept_takeover, accept_window, request_takeover, window)
                        client = await self.open(offers=[offer])
                        self.assertEqual(len(client.websocket_extensions_in_use), 1)
                        random = os.urandom(5000)
                        for payload in (b"", b"hello", text):
                            client.sendMessage(payload, False)
                        client.sendMessage(random, True)
                        client.sendMessage(text, False, fragmentSize=100)
                        client.sendMessage(text, False, doNotCompress=True)
                        await client.until(lambda client=client: len(client.messages) == 6)
                        self.assertEqual(
                            [payload for payload, _ in client.messages], [b"", b"hello", text, random, text, text]
                        )
                        client.sendClose(1000)
                        await client.until(lambda client=client: client.closed)
                        self.assertTrue(client.clean)
        await self.nobody()


class ViolationTests(AutobahnTestCase):
    """Against the rules."""

    async def test_unmasked(self) -> None:
        """Frames that are not masked."""
        client = await self.open(maskClientFrames=False)
        client.sendMessage(b"hello")
        await self.assert_failed(client, 1002)

    async def test_reserved(self) -> None:
        """Bits and opcodes that have no meaning."""
        for options in ({"opcode": 1, "rsv": 1}, {"opcode": 1, "rsv": 4}, {"opcode": 3}, {"opcode": 11}):
            client = await self.open()
            client.sendFrame(payload=b"x", **options)
            await self.assert_failed(client, 1002)

    async def test_control_frames(self) -> None:
        """Control frames that are too long or fragmented."""
        for options in (
            {"opcode": 9, "payload": b"x" * 126},
            {"opcode": 9, "fin": False},
            {"opcode": 8, "payload": b"x"},
        ):
            client = await self.open()
            client.sendFrame(**options)
            await self.assert_failed(client, 1002)

    async def test_bad_utf8(self) -> None:
        """Text that is not UTF-8."""
        for payload in (b"\xff", b"\xed\xa0\x80", "é".encode()[:1]):
            client = await self.open()
            client.sendFrame(opcode=1, payload=payload)
            await self.assert_failed(client, 1007)

    async def test_too_large(self) -> None:
        """Messages over the limit, as one frame and as many."""
        for options in ({}, {"fragmentSize": 1000}):
            client = await self.open()
            client.sendMessage(b"x" * 65537, True, **options)
            await self.assert_failed(client, 1009)

    async def test_close_codes(self) -> None:
        """Codes that must not be sent."""
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535):
            client = await self.open()
            client.sendCloseFrame(code=code, reasonUtf8=b"x", isReply=False)
            await self.assert_failed(client, 1002)

    async def test_others_go_on(self) -> None:
        """One that breaks the rules is alone with that."""
        good, bad = await self.open(), await self.open()
        bad.sendFrame(opcode=5)
        good.sendMessage(b"hello")
        await good.until(lambda: good.messages)
        await bad.until(lambda: bad.closed)
        good.sendMessage(b"again")
        await good.until(lambda: len(good.messages) == 2)
