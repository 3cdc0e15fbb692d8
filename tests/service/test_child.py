"""Tests of rtpush.service.child."""

from __future__ import annotations

import os
from io import BytesIO, StringIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.service import child
from tests.support.waiting import soon


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


class LogTests(SynchronousTestCase):
    """What a worker writes for its parent to log."""

    def _log(self, stream: Any) -> Logger:
        self.patch(child.sys, "stdout", stream)
        return Logger("rtpush.x", observer=child.log_to_parent())

    def test_line(self) -> None:
        """An event is a line with where it comes from and its level, but without a time."""
        log = self._log(stream := StringIO())
        log.emit(LogLevel.warn, "{a} is {b}", a="this", b=2)
        self.assertEqual(stream.getvalue(), "[rtpush.x#warn] this is 2\n")

    def test_failure(self) -> None:
        """A failure has its traceback."""
        log = self._log(stream := StringIO())
        try:
            raise ValueError("why")
        except ValueError:
            log.failure("what")
        first, *_, last = stream.getvalue().splitlines()
        self.assertEqual(first, "[rtpush.x#critical] what")
        self.assertIn("ValueError: why", last)

    def test_nothing(self) -> None:
        """An event without text is no line."""
        log = self._log(stream := StringIO())
        log.info("")
        self.assertEqual(stream.getvalue(), "")

    def test_nobody_reads(self) -> None:
        """A parent that is gone makes no error of each event."""
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w", buffering=1) as stream:
            log = self._log(stream)
            log.info("a")
            log.info("b")
            # What is left in the buffer would be written as the stream is closed.
            self.assertRaises(BrokenPipeError, stream.flush)
            os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


class ParentWatchTests(TestCase):
    """Seeing the parent go away."""

    async def test_gone(self) -> None:
        """The end of the pipe is told once; what comes before it is not the end."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        gone: Deferred[None] = Deferred()
        watch = child.ParentWatch(reactor, lambda: gone.callback(None), reading)
        watch.startService()
        self.addCleanup(watch.stopService)
        os.write(writing, b"data")
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.05, turned.callback, None)
        await turned
        self.assertFalse(gone.called)
        os.close(writing)
        await soon(gone)
        self.assertNotIn(watch, reactor.getReaders())
