"""Tests of rtpush.protocol.frames."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.frames import BINARY, DEFLATE_THRESHOLD, PING_FRAME, TEXT, deflated_frame, frame
from tests.protocol.parsers import Frame, read_frames

_opcodes = st.sampled_from([TEXT, BINARY])
_windows = st.integers(9, 15)

#: Payloads, with those among them whose repetitions are far apart: only a large window finds them.
_payloads = st.binary(max_size=300) | st.builds(
    lambda piece, filler, times: (piece + filler) * times,
    st.binary(min_size=10, max_size=300),
    st.integers(0, 40000).map(lambda count: bytes(range(256)) * (count // 256)),
    st.integers(1, 3),
)


class FrameTests(SynchronousTestCase):
    """Frames that are not compressed."""

    @given(st.lists(st.tuples(_opcodes, st.binary(max_size=300))))
    def test_round_trip(self, sent: list[tuple[int, bytes]]) -> None:
        """Frames that follow on each other are read as they were written."""
        stream = b"".join(frame(opcode, payload) for opcode, payload in sent)
        self.assertEqual(read_frames(stream), [Frame(opcode, payload) for opcode, payload in sent])

    def test_lengths(self) -> None:
        """At each length where the head changes, it is the shortest that RFC 6455 allows."""
        heads = {0: 2, 125: 2, 126: 4, 127: 4, 65535: 4, 65536: 10, 100_000: 10}
        for length, head in heads.items():
            data = frame(BINARY, b"x" * length)
            self.assertEqual(len(data) - length, head)
            self.assertEqual(read_frames(data), [Frame(BINARY, b"x" * length)])

    def test_hello(self) -> None:
        """A frame is that of the examples of RFC 6455, section 5.7; "hello" takes 7 bytes."""
        self.assertEqual(frame(TEXT, b"Hello"), b"\x81\x05\x48\x65\x6c\x6c\x6f")

    def test_ping(self) -> None:
        """The heartbeat is a ping without payload."""
        self.assertEqual(read_frames(PING_FRAME), [Frame(9, b"")])


class DeflatedFrameTests(SynchronousTestCase):
    """Frames that may be compressed."""

    @given(st.lists(st.tuples(_opcodes, _payloads), max_size=4), _windows)
    def test_round_trip(self, sent: list[tuple[int, bytes]], window_bits: int) -> None:
        """Each is read by itself, with a window no larger than was agreed on."""
        stream = b"".join(deflated_frame(opcode, payload, window_bits) for opcode, payload in sent)
        frames = read_frames(stream, window_bits)
        self.assertEqual([(each.opcode, each.payload) for each in frames], sent)
        self.assertEqual([each.compressed for each in frames], [len(data) >= DEFLATE_THRESHOLD for _, data in sent])

    @given(_opcodes, _payloads)
    def test_without(self, opcode: int, payload: bytes) -> None:
        """Without a window nothing is compressed."""
        self.assertEqual(deflated_frame(opcode, payload, 0), frame(opcode, payload))

    def test_window_matters(self) -> None:
        """The reader of these tests can tell a window that is too large."""
        once = bytes(range(256)) + b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "big") for n in range(2000))
        data = deflated_frame(BINARY, once + once, 15)
        self.assertEqual(read_frames(data, 15)[0].payload, once + once)
        self.assertRaises(zlib.error, read_frames, data, 9)

    def test_shorter(self) -> None:
        """What repeats itself becomes shorter."""
        self.assertLess(len(deflated_frame(TEXT, b'{"a":1}' * 100, 15)), 100)
