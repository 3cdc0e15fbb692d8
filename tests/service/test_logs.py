"""Tests of rtpush.service.logs."""

from __future__ import annotations

import json
import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rtpush.service import logs
from rtpush.service.config import ConfigError, parse
from rtpush.service.loglines import RELAYED, LogLine, as_text
from rtpush.service.repeats import Repeats
from rtpush.service.settings.watching import Log

_CONFIG = "[server]\nlisten = tcp:0:interface=127.0.0.1\nnode = n1\n"


class _Reactor(Clock):
    """A clock that runs at once what other threads want run."""

    def callFromThread(self, function: Any) -> None:
        function()


class WriterTests(SynchronousTestCase):
    """Which events become lines."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.stream = StringIO()

    def _logger(self, log: Log | None = None, name: str = "rtpush.x") -> Logger:
        writer = logs.LogWriter(
            self.stream,
            lambda line: f"{line.level} {line.message}{line.traceback and '!'}",
            logs.levels(log or Log()),
            Repeats(self.clock.seconds, self.clock.callLater, most=2),
            lambda: "n1",
        )
        verifyObject(ILogObserver, writer)
        return Logger(name, observer=writer)

    def _lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def test_levels(self) -> None:
        """What is less than wanted is not written; a module may have a level of its own."""
        log = Log(level="warn", modules=(("rtpush.x", "debug"),))
        for name in ("rtpush", "rtpush.x", "rtpush.x.y"):
            logger = self._logger(log, name)
            logger.debug("debug of {log_namespace}")
            logger.warn("warn of {log_namespace}")
        self.assertEqual(
            self._lines(),
            [
                "warn warn of rtpush",
                *("debug debug of rtpush.x", "warn warn of rtpush.x"),
                *("debug debug of rtpush.x.y", "warn warn of rtpush.x.y"),
            ],
        )

    def test_nothing(self) -> None:
        """An event without text is no line."""
        self._logger().info("")
        self.assertEqual(self._lines(), [])

    def test_repeated(self) -> None:
        """What is said very often is written a few times, and then counted; something else passes."""
        logger = self._logger()
        for number in range(100):
            logger.info("client {number} is strange", number=number)
        logger.info("something else")
        self.clock.advance(60)
        self.assertEqual(
            self._lines(),
            [
                "info client 0 is strange",
                "info client 1 is strange",
                "info something else",
                "info ... 98 more like this in the last minute: client 99 is strange",
            ],
        )

    def test_failures(self) -> None:
        """Failures of another type are something else; how many more there were is told without a traceback."""
        logger = self._logger()
        for kind in (ValueError, KeyError):
            for _ in range(3):
                try:
                    raise kind
                except Exception:
                    logger.failure("it failed")
        self.clock.advance(60)
        self.assertEqual(self._lines()[:4], ["critical it failed!"] * 4)
        self.assertEqual(self._lines()[4:], ["critical ... 1 more like this in the last minute: it failed"] * 2)

    def test_relayed(self) -> None:
        """Lines of workers are written as they are: what is wanted, they know, and how often."""
        line = LogLine(ts=0.0, level="debug", logger="a", message="b", worker=1)
        for _ in range(5):
            self._logger(Log(level="error")).info("worker: b", **{RELAYED: line})
        self.assertEqual(self._lines(), ["debug b"] * 5)

    def test_nobody_reads(self) -> None:
        """A reader that is gone makes no error of each event."""
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w", buffering=1) as stream:
            self.stream = stream  # type: ignore[assignment]
            log = self._logger()
            log.info("a")
            log.info("b")
            # What is left in the buffer would be written as the stream is closed.
            self.assertRaises(BrokenPipeError, stream.flush)
            os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


class FileTests(SynchronousTestCase):
    """The file that lines go to."""

    def test_reopened(self) -> None:
        """After it was moved away, lines go to a new one of its name when SIGUSR1 comes."""
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        path = Path(self.mktemp()).absolute()
        path.write_text("before\n")
        file = logs.LogFile(str(path))
        file.reopen_on_signal(_Reactor())  # type: ignore[arg-type]
        file.write("one\n")
        moved = path.rename(f"{path}.1")
        file.write("two\n")
        os.kill(os.getpid(), signal.SIGUSR1)
        file.write("three\n")
        file.flush()
        self.assertEqual((moved.read_text(), path.read_text()), ("before\none\ntwo\n", "three\n"))

    def test_cannot_be_reopened(self) -> None:
        """Where that is impossible, lines go on where they went."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        file = logs.LogFile(str(folder / "log"))
        folder = folder.rename(f"{folder}.1")
        self.assertRaises(OSError, file.reopen)
        file.write("still\n")
        file.flush()
        self.assertEqual((folder / "log").read_text(), "still\n")


class ConfigurationTests(SynchronousTestCase):
    """The section ``[log]``."""

    def test_default(self) -> None:
        """Without it, it is text, from info on."""
        self.assertEqual(parse(_CONFIG).log, Log(format="text", level="info", modules=()))

    def test_modules(self) -> None:
        """Modules are named with their levels, on one line or several."""
        text = _CONFIG + "[log]\nlevel = warn\nmodules = rtpush.broker = debug, twisted=error\n  autobahn=critical\n"
        levels = (("rtpush.broker", "debug"), ("twisted", "error"), ("autobahn", "critical"))
        self.assertEqual(parse(text).log, Log(level="warn", modules=levels))

    def test_bad(self) -> None:
        """What is no level, or no module, is refused, with what was expected."""
        for value in ("rtpush", "rtpush=", "=debug", "rtpush=loud", "rt push=debug", "rtpush=DEBUG"):
            with self.subTest(value=value):
                error = self.assertRaises(ConfigError, parse, f"{_CONFIG}[log]\nmodules = {value}\n")
                self.assertIn("expected a module and its level, such as rtpush.broker=debug", str(error))


class ObserverTests(SynchronousTestCase):
    """The observer that twistd gets."""

    def setUp(self) -> None:
        self.stream = StringIO()
        self.patch(logs.sys, "stdout", self.stream)

    def _log(self, config: str = "", worker: int | None = None, **twistd: Any) -> Logger:
        options = {"nodaemon": True, "logfile": None, **twistd}
        return Logger("rtpush.x", observer=logs.observer(parse(_CONFIG + config), options, worker, _Reactor()))

    def test_text(self) -> None:
        """Without more it is text for people, on the standard output."""
        self._log().info("hello", connection="c1")
        time, _, rest = self.stream.getvalue().partition(" ")
        self.assertRegex(time, r"^2[-0-9]{9}T[:.0-9]{12}Z$")
        self.assertEqual(rest, "info  rtpush.x [connection c1]: hello\n")

    def test_json(self) -> None:
        """It is JSON where that is wanted."""
        self._log("[log]\nformat = json\n").warn("hello")
        line = json.loads(self.stream.getvalue())
        self.assertEqual((line["level"], line["message"], line["node"]), ("warn", "hello", "n1"))

    def test_file(self) -> None:
        """It goes to a file where twistd is told one, or is a daemon."""
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        path = self.mktemp()
        self._log(logfile=path).info("hello")
        self.assertIn("hello", Path(path).read_text())
        self.assertEqual(self.stream.getvalue(), "")
        self.assertRaises(SystemExit, self._log, logfile="-", nodaemon=False)

    def test_worker(self) -> None:
        """What a worker writes, its parent reads back; anything else that it may write is no line."""
        self._log("[log]\nformat = json\n", worker=2).info("hello", connection="c1")
        line = logs.relay(self.stream.getvalue().rstrip("\n"))
        assert line is not None
        self.assertEqual((line.message, line.connection, line.node, line.worker), ("hello", "c1", "n1/2", 2))
        self.assertIn("[worker 2, connection c1]: hello", as_text(line))
        for other in ("hello", "", '{"ts": 1}', "\x1e{", "\x1e{}"):
            self.assertIsNone(logs.relay(other))

    def test_twistd(self) -> None:
        """twistd is given a name that leads to it; what its command line says comes first."""
        config = parse(_CONFIG)
        options: dict[str, Any] = {"nodaemon": True}
        logs.use(config, options, None, _Reactor())
        self.assertEqual(options["logger"], "rtpush.service.logs.chosen")
        Logger("rtpush.x", observer=logs.chosen()).info("hello")
        self.assertIn("hello", self.stream.getvalue())
        for given in ({"logger": "a.b"}, {"syslog": True}):
            before = dict(given)
            logs.use(config, given, None, _Reactor())
            self.assertEqual(given, before)

    def test_journal(self) -> None:
        """Where the standard output is systemd's journal, the line has a priority and no time."""
        with open(self.mktemp(), "w+") as file:
            status = os.fstat(file.fileno())
            self.patch(os, "environ", {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
            self.patch(logs.sys, "stdout", file)
            self._log().emit(LogLevel.error, "hello")
            file.seek(0)
            self.assertEqual(file.read(), "<3>rtpush.x: hello\n")
