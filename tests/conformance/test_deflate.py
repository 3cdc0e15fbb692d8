"""permessage-deflate (RFC 7692), where the config switches it on."""

from __future__ import annotations

import json
import os
import tracemalloc
import zlib
from typing import Any

from tests.transports.serving import target
from tests.transports.sockets import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    SocketTestCase,
    WebSocket,
    close_frame,
    frame,
)

TAIL = b"\x00\x00\xff\xff"


def deflate(payload: bytes, window_bits: int = 15, level: int = 6) -> bytes:
    """Compress a message as section 7.2.1 says."""
    compressor = zlib.compressobj(level=level, wbits=-window_bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def inflate(payload: bytes, window_bits: int = 15) -> bytes:
    """Decompress a message as section 7.2.2 says, with a window that is no larger than what was agreed."""
    return zlib.decompressobj(wbits=-window_bits).decompress(payload + TAIL)


class DeflateTestCase(SocketTestCase):
    """A node with compression."""

    sections = "[api]\nopen = yes\n[websocket]\ncompression = yes"

    def offering(self, offer: str, path: str = "/echo", **more: Any) -> WebSocket:
        """Open a WebSocket with an offer."""
        return self.socket(path, headers={"Sec-WebSocket-Extensions": offer}, **more)

    def agreed(self, offer: str) -> dict[str, str] | None:
        """Return the parameters that were agreed on; nothing if compression was not."""
        ws = self.offering(offer)
        ws.lose()
        value = ws.answer.headers.get("sec-websocket-extensions")
        if value is None:
            return None
        name, *parameters = [part.strip() for part in value.split(";")]
        self.assertEqual(name, "permessage-deflate")
        return dict(parameter.partition("=")[::2] for parameter in parameters)


class NegotiationTests(DeflateTestCase):
    """What is agreed on (section 7.1)."""

    def test_offers(self) -> None:
        """Every offer that is well is taken, with an answer that it allows."""
        for offer in (
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=15",
            "permessage-deflate; client_max_window_bits=9",
            'permessage-deflate; client_max_window_bits="10"',
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate;server_max_window_bits=9;client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
            "Permessage-Deflate",
        ):
            agreed = self.agreed(offer)
            assert agreed is not None, offer
            # No side keeps a window from message to message.
            self.assertEqual({"server_no_context_takeover", "client_no_context_takeover"} - set(agreed), set())
            asked = offer.partition("server_max_window_bits=")[2].partition(";")[0]
            if asked:
                self.assertLessEqual(int(agreed.get("server_max_window_bits", "15")), int(asked))
            # It may be answered only to one who has said that it knows it.
            self.assertNotIn("client_max_window_bits", agreed)

    def test_first_good_one(self) -> None:
        """The first offer that is well is taken; those that are not are passed over (section 5.1)."""
        for offers, window in (
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", "10"),
            ("permessage-deflate; server_max_window_bits=99, permessage-deflate; server_max_window_bits=11", "11"),
            ("x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=12", "12"),
            ("permessage-deflate; nonsense, permessage-deflate", None),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9", "9"),
        ):
            agreed = self.agreed(offers)
            assert agreed is not None, offers
            self.assertEqual(agreed.get("server_max_window_bits"), window, offers)

    def test_bad_offers(self) -> None:
        """What is not well is declined, and the connection goes on without."""
        for offer in (
            "permessage-deflate; nonsense",
            "permessage-deflate; nonsense=1",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=x",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=-9",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-bzip2",
            "x-webkit-deflate-frame",
            "",
            ";;,,;",
        ):
            self.assertIsNone(self.agreed(offer), offer)
            ws = self.offering(offer)
            ws.send(frame(TEXT, b"a" * 1000))
            self.assertEqual(ws.frames(), [Frame(TEXT, b"a" * 1000)])
            ws.send(frame(TEXT, deflate(b"a"), rsv=4))
            self.assertEqual((ws.frames()[-1].opcode, ws.closed), (CLOSE, True))


class MessageTests(DeflateTestCase):
    """Compressed messages that are well."""

    def test_sizes(self) -> None:
        """Messages of all sizes come back, compressed or not, within the server's window."""
        for window in (9, 10, 12, 15):
            ws = self.offering(f"permessage-deflate; server_max_window_bits={window}; client_max_window_bits")
            for size in (0, 1, 63, 64, 65, 125, 126, 1000, 65_000):
                for opcode, payload in ((BINARY, os.urandom(size)), (TEXT, (b"rtpush %d " % size * size)[:size])):
                    ws.send(frame(opcode, deflate(payload, window), rsv=4))
                    [echo] = ws.frames()
                    self.assertEqual((echo.opcode, echo.fin), (opcode, True))
                    self.assertIn(echo.rsv, (0, 4))
                    content = inflate(echo.payload, window) if echo.rsv else echo.payload
                    self.assertEqual(content, payload, (window, size))
            ws.send(frame(TEXT, deflate(b"a" * 5000), rsv=4))
            self.assertLess(len(ws.frames()[0].payload), 200)

    def test_uncompressed(self) -> None:
        """A client need not compress each message (section 6)."""
        ws = self.offering("permessage-deflate")
        for payload in (b"", b"hello", b"a" * 1000):
            ws.send(frame(TEXT, payload) + frame(TEXT, deflate(payload), rsv=4))
            for echo in ws.frames():
                self.assertEqual(inflate(echo.payload) if echo.rsv else echo.payload, payload)

    def test_forms_of_deflate(self) -> None:
        """Whatever a client's compressor makes is understood: stored, fixed, final blocks, several of them."""
        ws = self.offering("permessage-deflate")
        for payload in (
            # The examples of RFC 7692 section 7.2.3.
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        ):
            ws.send(frame(TEXT, payload, rsv=4))
            self.assertEqual(ws.frames(), [Frame(TEXT, b"Hello")], payload)

    def test_no_context(self) -> None:
        """Each message stands for itself, both ways."""
        ws = self.offering("permessage-deflate")
        data = frame(TEXT, deflate(b"the same words " * 50), rsv=4)
        ws.send(data * 3)
        frames = ws.frames()
        self.assertEqual(len(frames), 3)
        for echo in frames:
            self.assertEqual(inflate(echo.payload), b"the same words " * 50)

    def test_fragments(self) -> None:
        """A compressed message may come in fragments, with control frames between (section 6.1)."""
        ws = self.offering("permessage-deflate")
        payload = "κόσμε 😀".encode() * 200
        compressed = deflate(payload, level=1)
        for size in (1, 7, len(compressed) // 2):
            pieces = [compressed[start : start + size] for start in range(0, len(compressed), size)]
            ws.send(frame(TEXT, b"", fin=False, rsv=4))
            for piece in pieces:
                ws.send(frame(CONTINUATION, piece, fin=False) + frame(PING, b"p"))
            ws.send(frame(CONTINUATION, b""))
            *pongs, echo = ws.frames()
            self.assertEqual({(each.opcode, each.rsv) for each in pongs}, {(PONG, 0)})
            self.assertEqual(inflate(echo.payload), payload)

    def test_commands(self) -> None:
        """Commands, replies and pushes are compressed where that helps."""
        ws = self.offering("permessage-deflate", target("/ws", channel="none:a"))
        plain = self.socket(target("/ws", channel="none:a"))
        ws.frames()
        plain.heard()
        for size in (1, 5000):
            command = json.dumps({"id": 1, "publish": {"channel": "none:a", "data": "x" * size}}).encode()
            ws.send(frame(TEXT, deflate(command), rsv=4))
            self.assertEqual([each["message"]["data"] for each in plain.heard()], ["x" * size])
            reply, pushed = ws.frames()
            self.assertEqual(json.loads(reply.payload)["id"], 1)
            self.assertEqual(pushed.rsv, 4)
            self.assertEqual(json.loads(inflate(pushed.payload))["message"]["data"], "x" * size)

    def test_raw_and_packed(self) -> None:
        """The other subprotocols have it too; clients with different windows each get what they can read."""
        sockets = {
            window: self.offering(
                f"permessage-deflate; server_max_window_bits={window}",
                target("/ws", channel="demo:a"),
                protocol="rtpush.raw",
            )
            for window in (9, 11, 15)
        }
        text = "".join(f"{n} lines of text, " for n in range(2000))
        self.publish("demo:a", text)
        for window, ws in sockets.items():
            [pushed] = ws.frames()
            self.assertEqual(inflate(pushed.payload, window).decode(), text)


class AttackTests(DeflateTestCase):
    """Compressed frames that are not well."""

    def assert_failed(self, attack: bytes, *codes: int) -> None:
        """An attack fails its connection, with one of some codes."""
        ws = self.offering("permessage-deflate")
        ws.send(attack)
        last = ws.frames()[-1]
        self.assertEqual(last.opcode, CLOSE)
        self.assertIn(last.code, codes, (attack[:40], last))
        self.pump(5.5)
        self.assertTrue(ws.closed)
        self.assert_nobody()

    def test_bad_data(self) -> None:
        """What is not deflate."""
        for data in (b"\xff" * 20, b"\x06", b"nonsense, not deflate", deflate(b"x" * 100)[:-3] + b"\xff\xff"):
            self.assert_failed(frame(TEXT, data, rsv=4), 1007, 1002)
            self.assert_failed(frame(BINARY, data[:1], rsv=4, fin=False) + frame(CONTINUATION, data[1:]), 1007, 1002)

    def test_bad_bits(self) -> None:
        """The bit where it may not be: in a control frame, in a continuation; and the other bits."""
        for attack in (
            frame(PING, b"x", rsv=4),
            frame(CLOSE, b"", rsv=4),
            frame(TEXT, deflate(b"a"), rsv=4, fin=False) + frame(CONTINUATION, b"", rsv=4),
            frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4),
            frame(TEXT, deflate(b"a"), rsv=5),
            frame(TEXT, deflate(b"a"), rsv=6),
            frame(TEXT, b"a", rsv=1),
        ):
            self.assert_failed(attack, 1002)

    def test_bad_utf8(self) -> None:
        """Text that is not UTF-8 once it is decompressed."""
        for bad in (b"\xff", b"good \xed\xa0\x80", "é".encode()[:1]):
            self.assert_failed(frame(TEXT, deflate(bad), rsv=4), 1007)

    def test_bomb(self) -> None:
        """A few bytes that become very many are refused, before the memory is there."""
        bombs = [
            frame(BINARY, deflate(b"\0" * 65537), rsv=4),
            frame(BINARY, deflate(b"\0" * 60_000_000, level=9), rsv=4),
            frame(BINARY, deflate(b"\0" * 60_000, level=9)[:20], rsv=4, fin=False)
            + frame(CONTINUATION, deflate(b"\0" * 60_000_000, level=9)[20:]),
        ]
        self.assertLess(max(map(len, bombs)), 65536)
        for bomb in bombs:
            ws = self.offering("permessage-deflate")
            tracemalloc.start()
            try:
                ws.send(bomb)
                for _ in range(20):
                    ws.send(frame(CONTINUATION, b"\0" * 60_000, fin=False))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 3_000_000)
            self.assertEqual(ws.frames()[-1].code, 1009)
            ws.lose()

    def test_bomb_in_fragments(self) -> None:
        """The limit is that of the whole message, of all its fragments."""
        ws = self.offering("permessage-deflate")
        compressor = zlib.compressobj(wbits=-15)
        opcode, rsv = BINARY, 4
        for _ in range(10):
            piece = compressor.compress(b"\0" * 10_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
            ws.send(frame(opcode, piece, rsv=rsv, fin=False))
            opcode, rsv = CONTINUATION, 0
        self.assertEqual(ws.frames()[-1].code, 1009)

    def test_limit(self) -> None:
        """A message at the limit passes, one byte more does not, however well it is compressed."""
        ws = self.offering("permessage-deflate")
        for payload in (b"\0" * 65536, os.urandom(65_000)):
            ws.send(frame(BINARY, deflate(payload), rsv=4))
            [echo] = ws.frames()
            self.assertEqual(inflate(echo.payload) if echo.rsv else echo.payload, payload)
        ws.send(frame(BINARY, deflate(b"\0" * 65537), rsv=4))
        self.assertEqual(ws.frames()[-1].code, 1009)

    def test_closing(self) -> None:
        """Closing works as without."""
        ws = self.offering("permessage-deflate")
        ws.send(frame(TEXT, deflate(b"a"), rsv=4) + close_frame(1000))
        self.assertEqual([each.opcode for each in ws.frames()], [TEXT, CLOSE])
        self.assertTrue(ws.closed)


class SwitchedOffTests(SocketTestCase):
    """A node without compression, which is the default."""

    def test_declined(self) -> None:
        """Offers are declined, and a compressed frame is a violation."""
        ws = self.socket("/echo", headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})
        self.assertNotIn("sec-websocket-extensions", ws.answer.headers)
        ws.send(frame(TEXT, b"a" * 1000))
        self.assertEqual(ws.frames(), [Frame(TEXT, b"a" * 1000)])
        ws.send(frame(TEXT, deflate(b"a"), rsv=4))
        self.assertEqual(ws.frames()[-1].code, 1002)
