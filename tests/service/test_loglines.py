"""Tests of rtpush.service.loglines."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.loglines import RELAYED, LogLine, as_json, as_text, for_journal


def _line(**fields: Any) -> LogLine:
    return LogLine(**{"ts": 1764030000.25, "level": "info", "logger": "rtpush.x", "message": "hello", **fields})


def _failure() -> Failure:
    try:
        raise ValueError("why\nand how")
    except ValueError:
        return Failure()


class EventTests(SynchronousTestCase):
    """Lines that are made of events."""

    def _of(self, template: str, level: LogLevel = LogLevel.info, **fields: Any) -> LogLine:
        events: list[Any] = []
        Logger("rtpush.x", observer=events.append).emit(level, template, **fields)
        return LogLine.of(events[0], "n1", 2)

    def test_event(self) -> None:
        """An event is a line, with the ids of what it is about."""
        line = self._of("{a} is {b}", LogLevel.warn, a="this", b=2, connection="c1", request="r1")
        self.assertEqual((line.level, line.logger, line.message), ("warn", "rtpush.x", "this is 2"))
        self.assertEqual((line.connection, line.request, line.node, line.worker), ("c1", "r1", "n1", 2))

    def test_other_things(self) -> None:
        """What is called like an id and is none is left out."""
        line = self._of("hello", connection=object(), request=None)
        self.assertEqual((line.connection, line.request), ("", ""))

    def test_failure(self) -> None:
        """A failure has a traceback, and the message does not repeat it."""
        line = self._of("it failed", LogLevel.critical, log_failure=_failure())
        self.assertEqual(line.message, "it failed")
        self.assertIn("ValueError: why\nand how", line.traceback)

    def test_relayed(self) -> None:
        """The line of another process is that line."""
        line = _line(worker=3)
        self.assertIs(self._of("hello", **{RELAYED: line}), line)

    def test_endless(self) -> None:
        """A message that does not end is cut."""
        self.assertLess(len(self._of("{x}", x="x" * 1_000_000).message), 20_000)


class LookTests(SynchronousTestCase):
    """How lines look."""

    def test_json(self) -> None:
        """An object a line, with what there is; the traceback is a text in it."""
        text = as_json(_line(connection="c1", request="r1", node="n1", worker=2, traceback="a\nb", message="x\ny"))
        self.assertNotIn("\n", text)
        self.assertEqual(
            json.loads(text),
            {
                "ts": "2025-11-25T00:20:00.250Z",
                "level": "info",
                "logger": "rtpush.x",
                "message": "x\ny",
                "connection": "c1",
                "request": "r1",
                "node": "n1",
                "worker": 2,
                "traceback": "a\nb",
            },
        )
        self.assertEqual(set(json.loads(as_json(_line()))), {"ts", "level", "logger", "message"})

    def test_text(self) -> None:
        """The time, the level, who says it, what it is about, what there is to say."""
        self.assertEqual(as_text(_line()), "2025-11-25T00:20:00.250Z info  rtpush.x: hello")
        self.assertEqual(
            as_text(_line(worker=2, connection="c1", request="r1")),
            "2025-11-25T00:20:00.250Z info  rtpush.x [worker 2, connection c1, request r1]: hello",
        )

    def test_one_line(self) -> None:
        """Nothing that is logged begins a line of its own, or tells the terminal something; below is the traceback."""
        text = as_text(_line(message="a\nb\x1b[31m\u2028c", traceback="d\n  e"))
        self.assertEqual(text.split("\n")[1:], ["    d", "      e"])
        self.assertEqual(text.split("\n")[0].partition(": ")[2], "a\\nb\\x1b[31m\\u2028c")

    def test_journal(self) -> None:
        """The journal is told how important each line is, and not what time it is."""
        self.assertEqual(
            for_journal(_line(level="error", traceback="d")), "<3>rtpush.x: hello\n<3>    d"
        )
        self.assertEqual(for_journal(_line(level="of another kind")), "<6>rtpush.x: hello")
