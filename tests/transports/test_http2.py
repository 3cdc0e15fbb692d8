"""Tests of rtpush.transports.http2: turns, room and patience, without sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpush.transports.http2 import Http2Connection
from rtpush.transports.http2_stream import Http2Stream, StreamRequest
from tests.transports.http2 import Http2Client
from tests.transports.serving import ServedTestCase, Wire, instances_of

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Http2Tests(ServedTestCase):
    """One connection."""

    server = "allowed_origins = *\ndemo = yes"

    def test_turns(self) -> None:
        """Large answers come a frame of each in turns; the room of the connection is what they have together."""
        client = Http2Client(self)
        ids = [client.ask("/client/rtpush.js") for _ in range(3)]
        self.assertEqual(sum(map(len, client.bodies.values())), 65535)
        client.order.clear()
        while not client.ended.issuperset(ids):
            client.machine.increment_flow_control_window(3 * 16384)
            client.flush()
        self.assertEqual(client.order[:2], ids[1:])
        self.assertEqual(len({client.bodies[id_] for id_ in ids}), 1)
        self.assertGreater(len(client.bodies[ids[0]]), 16384)

    def test_no_room(self) -> None:
        """An answer for which there is no room waits without any work; what waits too long is cancelled."""
        client = Http2Client(self, window=0)
        id_, stream = client.ask("/healthz"), client.ask("/sse?channel=demo:a")
        self.assertEqual((client.statuses[id_], client.bodies[id_]), ("200", b""))
        calls = [call for call in self.clock.getDelayedCalls() if call.getTime() <= self.clock.seconds()]
        self.assertEqual(calls, [])
        client.machine.increment_flow_control_window(4, id_)
        client.flush()
        self.assertEqual(client.bodies[id_], b'{"ok')
        self.pump(30.0, 0.5)
        client.look()
        self.assertEqual(client.resets, {id_: ErrorCodes.CANCEL})
        client.machine.increment_flow_control_window(1000, stream)
        client.flush()
        self.assertIn(b"event: open", client.bodies[stream])

    def test_early_room(self) -> None:
        """The rest comes as soon as there is room for it, by a larger window for all too."""
        client = Http2Client(self, window=4)
        id_ = client.ask("/healthz")
        self.assertEqual(client.bodies[id_], b'{"ok')
        client.machine.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.flush()
        self.assertEqual(client.bodies[id_], b'{"ok":true}')
        self.assertIn(id_, client.ended)

    def test_stuck(self) -> None:
        """A client that reads nothing is not read from either; afterwards all goes on."""
        client = Http2Client(self)
        stream = client.ask("/sse?channel=demo:a")
        client.wire.stick()
        self.publish("demo:a", 1)
        self.assertFalse(client.wire.reads)
        id_ = client.ask("/healthz")
        self.assertNotIn(id_, client.statuses)
        client.wire.drain()
        client.look()
        self.assertEqual(client.statuses[id_], "200")
        self.assertIn(b"data: 1\n", client.bodies[stream])

    def test_gone(self) -> None:
        """When the connection is lost, so are all its streams, and nothing is left of them."""
        # Other tests may have left some.
        kinds = (Http2Connection, Http2Stream, StreamRequest)
        before = instances_of(*kinds)
        client = Http2Client(self)
        for _ in range(5):
            client.ask("/sse?channel=demo:a")
        client.ask("/api/v1/publish", b"{", method="POST", is_all=False)
        client.ask("/poll?channel=demo:a&timeout=20")
        self.assertEqual(len(self.node.connections), 6)
        client.wire.go()
        self.assert_nobody()
        self.assertEqual(self.site.open, 0)
        del client
        self.assertEqual(instances_of(*kinds), before)

    def test_answered_early(self) -> None:
        """What a client goes on to send of a cancelled request is nobody's."""
        client = Http2Client(self)
        id_ = client.ask("/api/v1/publish", b"x" * 16000, method="POST", is_all=False)
        self.pump(30.0, 0.5)
        client.look()
        self.assertEqual(client.resets, {id_: ErrorCodes.CANCEL})
        self.assertEqual(client.statuses, {})
        other = client.ask("/healthz")
        self.assertIn(other, client.ended)

    def test_no_path(self) -> None:
        """A path that is none is refused, with the rest of its request."""
        client = Http2Client(self)
        id_ = client.ask("nowhere", b"x", method="POST", is_all=False)
        self.assertEqual(client.statuses[id_], "400")
        self.assertEqual(client.resets, {id_: ErrorCodes.NO_ERROR})


def _frames(ids: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    head = st.sampled_from(
        [
            b"\x82\x87\x84\x41\x01a",
            b"\x82\x87\x04\x08/healthz\x41\x01a",
            b"\x83\x87\x04\x05/emit\x41\x01a",
            b"\x82\x87\x04\x13/sse?channel=demo:a\x41\x01a",
            b"\x82",
            b"",
        ]
    )
    raw = st.binary(max_size=40)
    flags = st.lists(st.sampled_from(["END_STREAM", "END_HEADERS"]), unique=True)
    return st.one_of(
        st.builds(lambda id_, data, said: HeadersFrame(id_, data, flags=said), ids, st.one_of(head, head, raw), flags),
        st.builds(
            lambda id_, data: HeadersFrame(id_, data, flags=["END_STREAM", "END_HEADERS"]), ids, head
        ),
        st.builds(lambda id_, data: ContinuationFrame(id_, data, flags=["END_HEADERS"]), ids, raw),
        st.builds(
            lambda id_, data, ends: DataFrame(id_, data, flags=["END_STREAM"] * ends), ids, raw, st.booleans()
        ),
        st.builds(lambda id_, code: RstStreamFrame(id_, code), ids, st.integers(0, 20)),
        st.builds(lambda id_, size: WindowUpdateFrame(id_, size), st.just(0) | ids, st.integers(1, 2**31 - 1)),
        st.builds(
            lambda values: SettingsFrame(0, values),
            st.dictionaries(st.integers(1, 8), st.one_of(st.integers(0, 70000), st.integers(0, 2**32 - 1)), max_size=3),
        ),
        st.builds(lambda id_: PriorityFrame(id_, depends_on=0, stream_weight=3), ids),
        st.builds(lambda data: PingFrame(0, data), st.binary(min_size=8, max_size=8)),
        st.builds(lambda: GoAwayFrame(0)),
    )


class FuzzTests(ServedTestCase):
    """Anything that a client may send."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(_frames(st.integers(0, 4).map(lambda number: 2 * number + 1)), max_size=30), st.integers(1, 300))
    def test_frames(self, frames: Sequence[Any], size: int) -> None:
        """Any frames in any order are answered, or end the connection, and nothing is left of it."""
        wire = Wire(self.clock, 40000)
        wire.protocol = self.site.build_http2("")
        wire.protocol.makeConnection(wire)
        rest = _PREFACE + b"".join(frame.serialize() for frame in frames)
        while rest:
            wire.come(rest[:size])
            rest = rest[size:]
            self.clock.advance(0)
        wire.drain()
        wire.go()
        self.clock.advance(0)
        self.assertEqual((self.site.open, self.node.connections), (0, {}))

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300), st.booleans())
    def test_bytes(self, noise: bytes, begins_well: bool) -> None:
        """So are any bytes."""
        wire = Wire(self.clock, 40000)
        wire.protocol = self.site.build_http2("")
        wire.protocol.makeConnection(wire)
        wire.come(_PREFACE * begins_well + noise)
        self.clock.advance(0)
        wire.go()
        self.assertEqual(self.site.open, 0)
