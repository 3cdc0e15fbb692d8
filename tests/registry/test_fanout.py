"""Tests of rtpush.registry.fanout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.codecs import JSON, MSGPACK
from rtpush.protocol.forms import POLL, SSE, Batch, CursorOf, RawForm, WebSocketForm, WireForm
from rtpush.protocol.pushes import Push
from rtpush.registry import channel as channel_module
from rtpush.registry.subscription import Since, Stage
from tests.protocol.parsers import read_frames
from tests.registry.fakes import FakeSink, World, got


@attrs.frozen
class CountingForm(WireForm):
    """A form that counts how often it encodes."""

    name: str
    counts: list[int] = attrs.field(eq=False, factory=list)

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        """Encode a batch."""
        self.counts.append(len(batch.messages))
        return b"".join(message.payload.data for message in batch.messages)

    def push(self, push: Push, cursor: str) -> bytes:
        """Have no room for pushes."""
        return b""


class BadForm(WireForm):
    """A form that cannot encode."""

    def messages(self, batch: Batch, cursor_of: CursorOf) -> bytes:
        """Fail."""
        raise ValueError("not in this form")

    def push(self, push: Push, cursor: str) -> bytes:
        """Encode a push."""
        return b"x"


class FanOutTests(SynchronousTestCase):
    """One message to many connections."""

    def setUp(self) -> None:
        """Have a broker at hand."""
        self.world = World()
        self.world.broker.is_near = True

    def connect(self, form: WireForm | None = None, channel: str = "a:x") -> FakeSink:
        """Connect a client that follows a channel from now."""
        sink = self.world.connect(form)
        self.world.follow(sink, channel)
        sink.written.clear()
        return sink

    def test_once_per_form(self) -> None:
        """However many connections there are, each form encodes once."""
        one, other = CountingForm("one"), CountingForm("other")
        sinks = [self.connect(form) for form in (one, other) for _ in range(50)]
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual((one.counts, other.counts), ([1], [1]))
        self.assertEqual([sink.written for sink in sinks], [[b"7"]] * 100)

    def test_once_per_turn(self) -> None:
        """What arrives within a turn is one batch, and one write for each connection."""
        form = CountingForm("one")
        sinks = [self.connect(form) for _ in range(3)]
        self.world.broker.emit("a:x", 1, 2, 3)
        self.world.broker.emit("a:x", 4)
        self.assertEqual(form.counts, [])
        self.world.turn()
        self.assertEqual(form.counts, [4])
        self.assertEqual([sink.written for sink in sinks], [[b"1234"]] * 3)
        self.world.turn()
        self.assertEqual(form.counts, [4])

    def test_very_much(self) -> None:
        """What is very much for one batch goes out in several, and is all there at the end of the turn."""
        self.patch(channel_module, "_BATCH_BYTES", 3 * (1 + channel_module._OVERHEAD))
        form = CountingForm("one")
        sinks = [self.connect(form) for _ in range(2)]
        self.world.broker.emit("a:x", 1, 2)
        self.world.broker.emit("a:x", 3, 4, history=False)
        self.world.broker.emit("a:x", 5, 6, 7)
        self.world.turn()
        self.assertEqual(form.counts, [3, 3, 1])
        self.assertEqual([sink.written for sink in sinks], [[b"123", b"456", b"7"]] * 2)

    def test_very_large(self) -> None:
        """A message that is larger than a batch should be is one."""
        self.patch(channel_module, "_BATCH_BYTES", 1)
        form = CountingForm("one")
        sink = self.connect(form)
        self.world.broker.emit("a:x", 1, 2, 3)
        self.world.turn()
        self.assertEqual(form.counts, [1, 1, 1])
        self.assertEqual(sink.written, [b"1", b"2", b"3"])

    def test_slow_amid_very_much(self) -> None:
        """A reader that is full after a part is behind from there, and has all when it reads again."""
        self.patch(channel_module, "_BATCH_BYTES", 1)
        sink = self.connect()
        sink.room = 0
        self.world.node.limits = attrs.evolve(self.world.node.limits, queue_bytes=100)
        self.world.broker.emit("a:x", *range(10, 30))
        self.world.turn()
        self.assertIs(sink.connection.subscriptions["a:x"].stage, Stage.BEHIND)
        self.assertLess(len(got(sink)), 3)
        self.assertLessEqual(sink.connection.queued, 100)
        sink.room = None
        sink.drain()
        self.assertEqual(got(sink), list(range(10, 30)))

    def test_equal_forms_are_one(self) -> None:
        """Two connections that chose the same options share their bytes."""
        sinks = [self.connect(WebSocketForm(JSON)) for _ in range(2)]
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertIs(sinks[0].written[0], sinks[1].written[0])

    def test_all_forms(self) -> None:
        """Each connection gets the message as its transport wants it."""
        json, msgpack, raw = (self.connect(form) for form in (WebSocketForm(JSON), WebSocketForm(MSGPACK), RawForm()))
        (position,) = self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual(got(json), [7])
        self.assertEqual(read_frames(msgpack.data)[0].opcode, 2)
        self.assertEqual([frame.payload for frame in read_frames(raw.data)], [b"7"])
        self.assertEqual(position.offset, 1)

    def test_channels_apart(self) -> None:
        """Each channel goes to its own subscribers, in one turn."""
        one, other = self.connect(), self.connect(channel="a:y")
        self.world.broker.emit("a:x", 1)
        self.world.broker.emit("a:y", 2)
        self.world.turn()
        self.assertEqual((got(one), got(other)), ([1], [2]))

    def test_faults_stay_apart(self) -> None:
        """A sink that raises ends its own connection; all others get the message."""
        sinks = [self.connect() for _ in range(5)]
        sinks[0].broken = sinks[3].broken = ZeroDivisionError("broken")
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual([got(sink) for sink in sinks], [[], [7], [7], [], [7]])
        # For each: the write, the farewell, and the abort.
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 6)
        self.assertEqual(
            [sink.connection.state.value for sink in sinks], ["closing", "open", "open", "closing", "open"]
        )
        self.world.broker.emit("a:x", 8)
        self.world.turn()
        self.assertEqual(got(sinks[4]), [7, 8])

    def test_fault_of_one_that_is_served_alone(self) -> None:
        """The same is true of a connection that follows several channels."""
        sinks = [self.world.connect(SSE, transport="sse") for _ in range(3)]
        for sink in sinks:
            for channel in ("a:x", "a:y"):
                sink.connection.subscribe(channel, Since.NOW)
            for channel in ("a:x", "a:y"):
                sink.connection.go(channel)
        sinks[1].broken = ZeroDivisionError("broken")
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual([bool(sink.written) for sink in sinks], [True, False, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_form_that_cannot(self) -> None:
        """A form that cannot encode a message ends the connections that want it, so that they miss nothing unknown."""
        bad, good = self.connect(BadForm()), self.connect()
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual(got(good), [7])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        assert bad.finished is not None
        self.assertEqual(bad.finished[1], 1011)

    def answering(self, then: Callable[[], Any], *channels: str) -> FakeSink:
        """Connect a poll whose answer brings something about at once, as the next request on its connection does."""
        sink = self.world.connect(POLL, transport="longpoll")
        sink.ends_after_write = True
        for channel in channels or ("a:x",):
            sink.connection.subscribe(channel, Since.NOW)
        for channel in channels or ("a:x",):
            sink.connection.go(channel)
        lost = sink.connection.lost
        write = sink.write

        def writing(data: bytes) -> None:
            write(data)
            lost()
            then()

        sink.write = writing  # type: ignore[method-assign]
        return sink

    def test_subscribing_amid(self) -> None:
        """One that subscribes while a batch goes out gets what comes after it, and not the batch again."""
        added: list[FakeSink] = []
        for form in (WebSocketForm(JSON), None, POLL):
            for position in ("before", "after"):
                if position == "after":
                    self.connect(form)
                self.answering(lambda form=form: added.append(self.connect(form)))
        # A group that is reached only after all polls.
        self.connect(CountingForm("last"))
        self.answering(lambda: added.append(self.connect(CountingForm("last"))))
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual(len(added), 7)
        self.assertEqual([sink.written for sink in added], [[]] * 7)
        self.world.broker.emit("a:x", 8)
        self.world.turn()
        self.assertEqual([len(sink.written) for sink in added], [1] * 7)

    def test_volatile_amid(self) -> None:
        """A poll that comes again at once, for more channels, gets no message without history a second time."""
        polls: list[FakeSink] = []

        def poll() -> None:
            if len(polls) < 5:
                polls.append(self.answering(poll, *["a:x", "a:y"][: len(polls) + 1]))

        self.connect()
        poll()
        self.world.broker.emit("a:x", 7, history=False)
        self.world.turn()
        self.assertEqual([len(sink.written) for sink in polls], [1, 0])

    def test_unsubscribing_amid(self) -> None:
        """One that is unsubscribed while a batch goes out gets no more of it."""
        others: list[FakeSink] = []
        self.answering(lambda: [sink.connection.unsubscribe("a:x") for sink in others])
        others += [self.connect(), self.connect(CountingForm("one"))]
        for sink in others:
            # Those that are written to straight have it before anybody else.
            sink.is_straight = False
            sink.connection._go_straight_or_not()
        self.world.broker.emit("a:x", 7)
        self.world.turn()
        self.assertEqual([sink.written for sink in others], [[], []])
