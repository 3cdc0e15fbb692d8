"""Frames by hand, against ``/echo``: each is answered as RFC 6455 says."""

from __future__ import annotations

import os
import struct

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

#: Around each boundary of the length field.
SIZES = (0, 1, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536)

BAD_UTF8 = (
    b"\x80",
    b"\xc3",
    b"\xc3\x28",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xff",
    b"\xfe",
    "é".encode("latin-1"),
    "κόσμε".encode() + b"\xed\xa0\x80edited",
)


class EchoTestCase(SocketTestCase):
    """Clients of ``/echo``."""

    def setUp(self) -> None:
        super().setUp()
        self.ws = self.echo()

    def echo(self) -> WebSocket:
        """Open another one."""
        return self.socket("/echo")

    def assert_failed(self, ws: WebSocket, code: int) -> None:
        """
        The connection was failed with a code: a close frame, then nothing, whatever comes (RFC 6455 section 7.1.7); and
        the TCP connection ends even if the client does nothing more.
        """
        frames = ws.frames()
        self.assertEqual([each.opcode for each in frames[:-1] if each.opcode not in (PING, PONG)], [])
        self.assertEqual((frames[-1].opcode, frames[-1].code), (CLOSE, code), frames)
        ws.send(frame(TEXT, b"more") + frame(PING, b"more"))
        self.assertEqual(ws.frames(), [])
        self.pump(5.5)
        self.assertTrue(ws.closed)
        self.assert_nobody()


class MessageTests(EchoTestCase):
    """Messages that are well."""

    def test_sizes(self) -> None:
        """Each size comes back as it was, in the shortest form of the length."""
        for opcode in (TEXT, BINARY):
            for size in SIZES:
                payload = b"*" * size if opcode == TEXT else os.urandom(size)
                self.ws.send(frame(opcode, payload))
                [echo] = self.ws.frames()
                self.assertEqual(echo, Frame(opcode, payload))

    def test_pieces(self) -> None:
        """TCP may cut a frame anywhere."""
        data = frame(BINARY, os.urandom(200)) + frame(TEXT, b"x" * 70) + frame(PING, b"y") + frame(TEXT, b"")
        whole = self.echo()
        whole.send(data)
        expected = whole.frames()
        for cut in range(1, len(data)):
            self.ws.send(data[:cut])
            self.ws.send(data[cut:])
            self.assertEqual(self.ws.frames(), expected, cut)
        for index in range(len(data)):
            self.ws.send(data[index : index + 1])
        self.assertEqual(self.ws.frames(), expected)

    def test_masks(self) -> None:
        """Any mask will do, also none that changes anything."""
        for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"):
            payload = bytes(range(130))
            masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            self.ws.send(b"\x82\xfe\x00\x82" + mask + masked)
            self.assertEqual(self.ws.frames(), [Frame(BINARY, payload)])

    def test_fragments(self) -> None:
        """A message in fragments comes back whole, however small they are, in whatever segments."""
        payload = "κόσμε 😀".encode() * 10
        for size in (1, 2, 3, 7, 50, len(payload)):
            pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
            frames = [
                frame(TEXT if index == 0 else CONTINUATION, piece, fin=index == len(pieces) - 1)
                for index, piece in enumerate(pieces)
            ]
            self.ws.send(b"".join(frames))
            self.assertEqual(self.ws.frames(), [Frame(TEXT, payload)], size)
            for each in frames:
                self.ws.send(each)
            self.assertEqual(self.ws.frames(), [Frame(TEXT, payload)], size)

    def test_empty_fragments(self) -> None:
        """Fragments may be empty."""
        for opcode in (TEXT, BINARY):
            self.ws.send(
                frame(opcode, fin=False)
                + frame(CONTINUATION, fin=False) * 50
                + frame(CONTINUATION, b"x", fin=False)
                + frame(CONTINUATION)
            )
            self.assertEqual(self.ws.frames(), [Frame(opcode, b"x")])
            self.ws.send(frame(opcode, fin=False) + frame(CONTINUATION))
            self.assertEqual(self.ws.frames(), [Frame(opcode, b"")])

    def test_control_frames_between_fragments(self) -> None:
        """Pings are answered at once, also between the fragments of a message (RFC 6455 section 5.4)."""
        for size in (0, 1, 125):
            ping = os.urandom(size)
            self.ws.send(frame(TEXT, b"one", fin=False))
            self.ws.send(frame(PING, ping))
            self.assertEqual(self.ws.frames(), [Frame(PONG, ping)])
            self.ws.send(frame(CONTINUATION, b"two", fin=False) + frame(PONG, b"unasked") + frame(PING, b"a"))
            self.assertEqual(self.ws.frames(), [Frame(PONG, b"a")])
            self.ws.send(frame(CONTINUATION, b"three"))
            self.assertEqual(self.ws.frames(), [Frame(TEXT, b"onetwothree")])

    def test_close_between_fragments(self) -> None:
        """A close between fragments ends the connection, and the message is not one."""
        self.ws.send(frame(TEXT, b"one", fin=False) + close_frame() + frame(CONTINUATION, b"two"))
        self.assertEqual([(each.opcode, each.code) for each in self.ws.frames()], [(CLOSE, 1000)])
        self.assertTrue(self.ws.closed)
        self.assert_nobody()

    def test_utf8(self) -> None:
        """Good UTF-8 comes back, also if fragments cut its characters."""
        for text in ("é", "\u0000", "\ud7ff\ue000\uffff", "\U00010000\U0010ffff", "\ufdd0\ufffe", "κόσμε", "😀" * 30):
            payload = text.encode()
            self.ws.send(frame(TEXT, payload))
            self.assertEqual(self.ws.frames(), [Frame(TEXT, payload)])
            for cut in range(len(payload) + 1):
                self.ws.send(frame(TEXT, payload[:cut], fin=False) + frame(CONTINUATION, payload[cut:]))
                self.assertEqual(self.ws.frames(), [Frame(TEXT, payload)])

    def test_binary_is_any_bytes(self) -> None:
        """Binary messages are not looked at."""
        for payload in BAD_UTF8:
            self.ws.send(frame(BINARY, payload))
            self.assertEqual(self.ws.frames(), [Frame(BINARY, payload)])

    def test_pings(self) -> None:
        """The pong has the ping's payload, up to the longest; pongs that were not asked for are let pass."""
        for size in (0, 1, 124, 125):
            payload = os.urandom(size)
            self.ws.send(frame(PING, payload))
            self.assertEqual(self.ws.frames(), [Frame(PONG, payload)])
            self.ws.send(frame(PONG, payload))
            self.assertEqual(self.ws.frames(), [])
        self.ws.send(b"".join(frame(PING, bytes((n,))) for n in range(100)))
        self.assertEqual([each.payload for each in self.ws.frames()], [bytes((n,)) for n in range(100)])

    def test_not_compressed(self) -> None:
        """Without permessage-deflate nothing is compressed."""
        self.assertNotIn("sec-websocket-extensions", self.ws.answer.headers)
        self.ws.send(frame(TEXT, b"a" * 10_000))
        self.assertEqual(self.ws.frames(), [Frame(TEXT, b"a" * 10_000)])


class ViolationTests(EchoTestCase):
    """Frames that are not well."""

    def assert_each_fails(self, code: int, *attacks: bytes) -> None:
        """Each attack, on a connection of its own, fails it with a code; others are not disturbed."""
        for attack in attacks:
            ws = self.echo()
            self.ws.lose()
            ws.send(attack)
            self.assert_failed(ws, code)
            self.ws = self.echo()
            self.ws.send(frame(TEXT, b"undisturbed"))
            self.assertEqual(self.ws.frames(), [Frame(TEXT, b"undisturbed")])

    def test_unmasked(self) -> None:
        """A frame of a client that is not masked (RFC 6455 section 5.1)."""
        self.assert_each_fails(
            1002,
            frame(TEXT, b"hello", masked=False),
            frame(BINARY, b"", masked=False),
            frame(PING, b"hello", masked=False),
            frame(BINARY, b"x" * 300, masked=False),
        )

    def test_reserved_bits(self) -> None:
        """A reserved bit that no extension gave a meaning (section 5.2)."""
        self.assert_each_fails(1002, *(frame(TEXT, b"hello", rsv=rsv) for rsv in range(1, 8)))
        self.assert_each_fails(1002, frame(PING, rsv=4), frame(BINARY, rsv=1), frame(CLOSE, rsv=2))
        self.assert_each_fails(1002, frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4))

    def test_reserved_opcodes(self) -> None:
        """An opcode that has no meaning (section 5.2)."""
        self.assert_each_fails(1002, *(frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)))
        self.assert_each_fails(1002, frame(3), frame(11), frame(TEXT, b"a", fin=False) + frame(5, b"b"))

    def test_control_frames(self) -> None:
        """A control frame that is fragmented or too long (section 5.5)."""
        for opcode in (CLOSE, PING, PONG):
            self.assert_each_fails(
                1002,
                frame(opcode, b"", fin=False),
                frame(opcode, struct.pack("!H", 1000) + b"x" * 124),
                frame(opcode, b"x" * 300),
                frame(opcode, b"x" * 70_000),
                frame(opcode, b"x" * 100, length_bytes=2),
            )

    def test_fragmentation(self) -> None:
        """A continuation of nothing, and a new message within another (section 5.4)."""
        self.assert_each_fails(
            1002,
            frame(CONTINUATION, b"x"),
            frame(CONTINUATION, b"x", fin=False),
            frame(CONTINUATION),
            frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
            frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False),
            frame(BINARY, b"a", fin=False) + frame(PING) + frame(TEXT, b"b"),
        )

    def test_after_a_whole_message(self) -> None:
        """What was whole before the violation is answered; what comes after it is not."""
        ws = self.echo()
        self.ws.lose()
        ws.send(frame(TEXT, b"good") + frame(CONTINUATION, b"bad") + frame(TEXT, b"late"))
        first, *rest = ws.frames()
        self.assertEqual(first, Frame(TEXT, b"good"))
        self.assertEqual([(each.opcode, each.code) for each in rest], [(CLOSE, 1002)])

    def test_lengths(self) -> None:
        """A length that is not in its shortest form, or has its highest bit set (section 5.2)."""
        self.assert_each_fails(
            1002,
            frame(TEXT, b"x", length_bytes=2),
            frame(TEXT, b"x" * 125, length_bytes=2),
            frame(BINARY, b"x" * 126, length_bytes=8),
            frame(BINARY, b"x" * 65535, length_bytes=8),
            frame(BINARY, b"", length=2**63, length_bytes=8),
            frame(BINARY, b"", length=2**64 - 1, length_bytes=8),
        )

    def test_bad_utf8(self) -> None:
        """Text that is not UTF-8 (section 8.1): whole, between good characters, cut by fragments, cut short."""
        for bad in BAD_UTF8:
            self.assert_each_fails(
                1007,
                frame(TEXT, bad),
                frame(TEXT, b"good " + bad + b" good"),
                frame(TEXT, bad[:1], fin=False) + frame(CONTINUATION, bad[1:]),
                frame(TEXT, b"good", fin=False) + frame(PING) + frame(CONTINUATION, bad),
            )
        self.assert_each_fails(1007, *(frame(TEXT, "😀".encode()[:cut]) for cut in (1, 2, 3)))
        self.assert_each_fails(
            1007, *(frame(TEXT, b"", fin=False) + frame(CONTINUATION, "é".encode()[:1]) for _ in range(1))
        )

    def test_bad_utf8_is_seen_at_once(self) -> None:
        """It is not waited for the end of the message (section 8.1 allows it; it saves memory)."""
        ws = self.echo()
        self.ws.lose()
        ws.send(frame(TEXT, b"x" * 1000 + b"\xff", fin=False))
        self.assert_failed(ws, 1007)

    def test_too_large(self) -> None:
        """A message over the limit is failed as soon as that is known, by one frame or by several (section 7.4.1)."""
        limit = 65536
        self.ws.send(frame(BINARY, b"x" * limit))
        self.assertEqual(len(self.ws.frames()[0].payload), limit)
        self.ws.send(frame(BINARY, b"x" * 30_000, fin=False) + frame(CONTINUATION, b"x" * (limit - 30_000)))
        self.assertEqual(len(self.ws.frames()[0].payload), limit)
        self.assert_each_fails(
            1009,
            frame(BINARY, b"x" * (limit + 1)),
            frame(BINARY, b"", length=limit + 1),
            frame(BINARY, b"", length=2**62),
            frame(TEXT, b"x" * limit, fin=False) + frame(CONTINUATION, b"x"),
            frame(TEXT, b"x" * limit, fin=False) + frame(CONTINUATION, b"", length=2**40, length_bytes=8),
        )

    def test_flood_after_failure(self) -> None:
        """What a client goes on to send after its connection was failed is not kept."""
        for attack in (
            frame(PING, b"", length=2**40),
            frame(BINARY, b"", length=2**40),
            frame(TEXT, b"x", masked=False),
            b"\xff" * 10,
        ):
            ws = self.echo()
            protocol = ws.client.wire.protocol
            ws.send(attack)
            for _ in range(100):
                ws.send(b"\x89" * 65536)
            self.assertLess(_held(protocol), 1_000_000)
            ws.lose()


class CloseTests(EchoTestCase):
    """The closing handshake (RFC 6455 section 7)."""

    def test_by_the_client(self) -> None:
        """A close is answered with a close, then the server closes TCP first (section 7.1.1)."""
        for code in (None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
            for reason in (b"",) if code is None else (b"", b"bye", "é".encode() * 61, b"x" * 123):
                ws = self.echo()
                ws.send(close_frame(code, reason))
                [answer] = ws.frames()
                self.assertEqual(answer.opcode, CLOSE)
                self.assertIn(answer.code, (code, 1000))
                self.assertTrue(ws.closed)
        self.ws.lose()
        self.assert_nobody()

    def test_nothing_after_it(self) -> None:
        """What comes behind a close is not answered."""
        self.ws.send(close_frame() + frame(TEXT, b"late") + frame(PING) + close_frame())
        self.assertEqual([each.opcode for each in self.ws.frames()], [CLOSE])
        self.assertTrue(self.ws.closed)

    def test_bad_payloads(self) -> None:
        """A close of one byte, or whose reason is not UTF-8 (section 5.5.1)."""
        self.ws.lose()
        for data, code in (
            (frame(CLOSE, b"\x03"), 1002),
            (frame(CLOSE, b"x"), 1002),
            (close_frame(1000, b"\xff"), 1007),
            (close_frame(1000, "é".encode()[:1]), 1007),
        ):
            ws = self.echo()
            ws.send(data)
            [answer] = ws.frames()
            self.assertEqual((answer.opcode, answer.code), (CLOSE, code), data)
            self.pump(5.5)
            self.assertTrue(ws.closed)
        self.assert_nobody()

    def test_bad_codes(self) -> None:
        """Codes that must not be on the wire, or that nobody has defined (section 7.4)."""
        self.ws.lose()
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
            ws = self.echo()
            ws.send(close_frame(code))
            [answer] = ws.frames()
            self.assertEqual((answer.opcode, answer.code), (CLOSE, 1002), code)
            self.pump(5.5)
            self.assertTrue(ws.closed)
        self.assert_nobody()

    def test_registered_codes(self) -> None:
        """Codes that were registered after RFC 6455 are answered too."""
        for code in (1012, 1013, 1014):
            ws = self.echo()
            ws.send(close_frame(code))
            self.assertEqual([each.opcode for each in ws.frames()], [CLOSE], code)

    def test_by_the_server(self) -> None:
        """After the server's close, messages of the client are not answered; its close ends the connection."""
        for answer in (close_frame(4500), close_frame(None), close_frame(1000, b"bye"), close_frame(1005)):
            ws = self.echo()
            for each in self.call("connections")["connections"]:
                self.call("disconnect", connection=each["connection"])
            self.assertEqual(ws.frames()[-1].code, 4500)
            ws.send(frame(TEXT, b"late") + frame(PING, b"late"))
            self.assertEqual(ws.frames(), [])
            self.assertFalse(ws.closed)
            ws.send(answer)
            self.assertTrue(ws.closed)
        self.ws.lose()
        self.assert_nobody()

    def test_both_at_once(self) -> None:
        """Closes that cross each other end the connection, without another one."""
        ws = self.ws
        ws.client.wire.pauseProducing()
        ws.send(close_frame(1001))
        for each in self.call("connections")["connections"]:
            self.call("disconnect", connection=each["connection"])
        self.assertEqual([each.code for each in ws.frames()], [4500])
        ws.client.wire.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(ws.frames(), [])
        self.assertTrue(ws.closed)

    def test_gone_without_close(self) -> None:
        """A client that just goes leaves nothing behind."""
        self.ws.send(frame(TEXT, b"half", fin=False))
        self.ws.lose()
        self.assert_nobody()


def _held(protocol: object) -> int:
    """Return how many bytes of input a protocol holds."""
    held = len(getattr(protocol, "data", b""))
    for name in ("frame_data", "control_frame_data", "message_data"):
        held += sum(len(each) for each in getattr(protocol, name, None) or ())
    return held
