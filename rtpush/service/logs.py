"""
The log: which events of Twisted's are written, how, and where.

twistd writes to a file, or to the standard output in the foreground. So does this, in the format that the configuration
names. A worker hands its lines to its parent, which writes them with its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

import msgspec
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver, LogEvent, LogLevel, LogLevelFilterPredicate, PredicateResult
from zope.interface import implementer

from rtpush.service.loglines import RELAYED, LogLine, as_json, as_text, for_journal
from rtpush.service.repeats import Repeats
from rtpush.service.schema import Config
from rtpush.service.settings.watching import Log

__all__ = ["LogFile", "LogWriter", "chosen", "levels", "observer", "relay", "use"]

#: What stands before a line that a worker hands to its parent: nothing else begins so (RFC 7464).
_MARK = "\x1e"


class LogFile:
    """
    A file that lines are added to.

    :param path: It; the file is opened anew by :meth:`reopen`, after somebody else has moved it away.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()

    def write(self, text: str) -> None:
        """Write."""
        self._file.write(text)

    def flush(self) -> None:
        """Let nothing that was written wait."""
        self._file.flush()

    def reopen(self) -> None:
        """Go on in a file with this path, be it the same or another one."""
        # If that is impossible, this one is as good as it was.
        opened = self._open()
        self._file.close()
        self._file = opened

    def reopen_on_signal(self, reactor: IReactorFromThreads) -> None:
        """Reopen it each time when SIGUSR1 comes."""
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(self.reopen))

    def _open(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace")


@implementer(ILogObserver)
class LogWriter:
    """
    Writes the lines that are to be written.

    :param file: Where to.
    :param look: How a line looks.
    :param wanted: Which events are wanted.
    :param name: Returns what this node is called.
    :param worker: The number of this worker, if there are several.
    """

    def __init__(
        self,
        file: LogFile | TextIO,
        look: Callable[[LogLine], str],
        wanted: LogLevelFilterPredicate,
        repeats: Repeats,
        name: Callable[[], str],
        worker: int = 0,
    ) -> None:
        self._file = file
        self._look = look
        self._wanted = wanted
        self._repeats = repeats
        self._name = name
        self._worker = worker

    def __call__(self, event: LogEvent) -> None:
        if RELAYED in event:
            # Whose it is, has looked at it already.
            self._write(LogLine.of(event, ""))
            return
        if self._wanted(event) is PredicateResult.no:
            return
        line = LogLine.of(event, self._name(), self._worker)
        if not line.message and not line.traceback:
            return
        if self._repeats.passes(_kind(event), lambda count: self._tell_more(line, count)):
            self._write(line)

    def _tell_more(self, line: LogLine, count: int) -> None:
        line.message = f"... {count} more like this in the last minute: {line.message}"
        line.traceback = ""
        self._write(line)

    def _write(self, line: LogLine) -> None:
        try:
            self._file.write(self._look(line) + "\n")
            self._file.flush()
        except OSError:
            # The disk is full, or who reads it is gone: that is no reason to stop.
            pass


def use(config: Config, twistd: Any, worker: int | None, reactor: Any) -> None:
    """
    Have twistd log as a configuration says, unless its command line says how to.

    :param twistd: The options of twistd.
    :param worker: The number of this process, if it is a worker.
    """
    if twistd.get("logger") is None and not twistd.get("syslog"):
        # It takes a name, and calls what has it when it begins to log.
        _chosen.append(lambda: observer(config, twistd, worker, reactor))
        twistd["logger"] = f"{__name__}.chosen"


#: What makes the observer of this process, when that is known.
_chosen: list[Callable[[], LogWriter]] = []


def chosen() -> LogWriter:
    """Return the observer that :func:`use` was called for."""
    return _chosen[-1]()


def observer(config: Config, twistd: Any, worker: int | None, reactor: Any) -> LogWriter:
    """Return the observer for a configuration and a command line."""
    server = config.server
    file: Any = sys.stdout if worker is not None else _output(twistd, reactor)
    look = _for_parent if worker is not None else as_json if config.log.format == "json" else as_text
    if look is as_text and _is_journal(file):
        look = for_journal
    return LogWriter(
        file,
        look,
        levels(config.log),
        Repeats(reactor.seconds, reactor.callLater),
        lambda: f"{server.node}/{worker}" if server.node and worker else server.name,
        worker or 0,
    )


def levels(log: Log) -> LogLevelFilterPredicate:
    """Return what tells which events are wanted."""
    wanted = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(log.level))
    for module, level in log.modules:
        wanted.setLogLevelForNamespace(module, LogLevel.levelWithName(level))
    return wanted


def relay(text: str) -> LogLine | None:
    """Return the line that a worker has handed over by some text; nothing if that is something else."""
    if not text.startswith(_MARK):
        return None
    try:
        return msgspec.json.decode(text[1:], type=LogLine)
    except msgspec.DecodeError:
        return None


def _for_parent(line: LogLine) -> str:
    return _MARK + msgspec.json.encode(line).decode()


def _output(twistd: Any, reactor: Any) -> Any:
    """Return where twistd would write."""
    path = twistd.get("logfile")
    if twistd.get("nodaemon") and path in (None, "", "-"):
        return sys.stdout
    if path == "-":
        sys.exit("rtpush: a daemon cannot log to the standard output: expected the name of a file after --logfile")
    file = LogFile(path or "twistd.log")
    file.reopen_on_signal(reactor)
    return file


def _is_journal(file: LogFile | TextIO) -> bool:
    """Tell whether what is written to a file goes to systemd's journal (systemd.exec(5), ``JOURNAL_STREAM``)."""
    if isinstance(file, LogFile):
        return False
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _kind(event: LogEvent) -> tuple[object, ...]:
    """Return what events have in common that say the same of different things."""
    failure = event.get("log_failure")
    return (
        event.get("log_namespace"),
        event.get("log_level"),
        event.get("log_format"),
        None if failure is None else failure.type,
    )
