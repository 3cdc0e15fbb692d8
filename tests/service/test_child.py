"""Tests of rtpush.service.child."""

from __future__ import annotations

import os
from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.service import child
from tests.support.waiting import soon, until


class ConfigurationTests(SynchronousTestCase):
    """The configuration on its way to a worker."""

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_round_trip(self, text: str) -> None:
        """Whatever is packed is there when it is unpacked, also where the pipe does not end."""
        self.assertEqual(child.unpacked(BytesIO(child.packed(text) + b"more")), text)

    def test_bad(self) -> None:
        """What is something else, or not all of it, is refused."""
        for data in (b"", b"[server]\nlisten = tcp:80\n", b"-\n", child.packed("text")[:-1], b"9" * 100):
            with self.subTest(data=data):
                self.assertRaises(ValueError, child.unpacked, BytesIO(data))


class ParentWatchTests(TestCase):
    """Hearing the parent, and seeing it go away."""

    async def test_told(self) -> None:
        """Orders are told as they were given, however they come; the end of the pipe is told once."""
        told: list[child.Order] = []
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        gone: Deferred[None] = Deferred()
        watch = child.ParentWatch(reactor, told.append, lambda: gone.callback(None), reading)
        watch.startService()
        self.addCleanup(watch.stopService)
        orders = [
            child.Order(reload="[server]\nlisten = tcp:80 # \N{SNOWMAN}\n" * 10_000),
            child.Order(leave="slowly"),
            child.Order(end=True),
        ]
        written = deferToThread(os.write, writing, b"".join(order.line() for order in orders))
        await until(lambda: len(told) == len(orders), "all orders")
        await written
        self.assertEqual(told, orders)
        self.assertFalse(gone.called)
        os.close(writing)
        await soon(gone)
        self.assertNotIn(watch, reactor.getReaders())


class PulseTests(SynchronousTestCase):
    """Showing the parent that this process lives."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.pulse = child.Pulse(self.clock, self.writing)

    def test_beats(self) -> None:
        """It begins at once, and shows it once a second, until it is to end."""
        self.addCleanup(os.close, self.writing)
        self.pulse.start()
        self.clock.pump([0.5] * 6)
        self.assertEqual(os.read(self.reading, 100), b"....")
        self.pulse.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_reads(self) -> None:
        """A parent that does not read holds nothing up."""
        self.addCleanup(os.close, self.writing)
        self.pulse.start()
        os.write(self.writing, bytes(65535))
        self.clock.pump([1.0] * 3)
        self.pulse.stop()
