"""A line of the log: what is in it, and how it looks to people and to machines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

__all__ = ["RELAYED", "LogLine", "as_json", "as_text", "for_journal"]

#: What an event has that is about a line which another process has made: that line.
RELAYED = "rtpush_line"

#: How systemd's journal knows how important a line is (sd-daemon(3)).
_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}

#: The longest message, in characters.
_LONGEST = 10_000


class LogLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """
    A line.

    :ivar ts: When, in seconds since 1970.
    :ivar level: ``debug``, ``info``, ``warn``, ``error`` or ``critical``.
    :ivar logger: Who says it: a module, or a class in one.
    :ivar connection: The id of the connection that it is about.
    :ivar request: The id of the request that it is about.
    :ivar node: The name of the node that says it.
    :ivar worker: The number of the worker that says it, if there are several.
    :ivar traceback: What had gone wrong, as Python tells it.
    """

    ts: float
    level: str
    logger: str
    message: str
    connection: str = ""
    request: str = ""
    node: str = ""
    worker: int = 0
    traceback: str = ""

    @classmethod
    def of(cls, event: LogEvent, node: str, worker: int = 0) -> LogLine:
        """Make one of an event of Twisted's log."""
        relayed = event.get(RELAYED)
        if isinstance(relayed, LogLine):
            return relayed
        failure = event.get("log_failure")
        traceback = failure.getTraceback().rstrip() if isinstance(failure, Failure) else ""
        message = formatEvent(event)
        if not message and isinstance(failure, Failure):
            message = failure.getErrorMessage()
        level = event.get("log_level", LogLevel.info)
        return cls(
            ts=event.get("log_time", 0.0),
            level=getattr(level, "name", "info"),
            logger=str(event.get("log_namespace") or "log"),
            message=message[:_LONGEST],
            connection=_text(event.get("connection")),
            request=_text(event.get("request")),
            node=node,
            worker=worker,
            traceback=traceback,
        )


def as_json(line: LogLine) -> str:
    """Return a line as an object of JSON."""
    fields: dict[str, Any] = {"ts": _moment(line.ts)}
    fields |= {name: value for name in line.__struct_fields__[1:] if (value := getattr(line, name))}
    return msgspec.json.encode(fields).decode()


def as_text(line: LogLine) -> str:
    """Return a line for people; a traceback follows below it, indented."""
    return f"{_moment(line.ts)} {line.level:<5} {_told(line)}{_below(line)}"


def for_journal(line: LogLine) -> str:
    """Return a line for systemd's journal, which knows the time by itself and asks for a priority."""
    mark = f"<{_PRIORITIES.get(line.level, 6)}>"
    return mark + f"\n{mark}".join(f"{_told(line)}{_below(line)}".split("\n"))


def _told(line: LogLine) -> str:
    about = [f"worker {line.worker}"] if line.worker else []
    about += [f"{name} {value}" for name in ("connection", "request") if (value := getattr(line, name))]
    ids = f" [{', '.join(about)}]" if about else ""
    return f"{line.logger}{ids}: {_plain(line.message)}"


def _below(line: LogLine) -> str:
    return "".join(f"\n    {_plain(each)}" for each in line.traceback.split("\n")) if line.traceback else ""


def _plain(text: str) -> str:
    """Escape what would begin another line, or tell the terminal something."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str:
    """Return an id; other things are called like it too."""
    return value if isinstance(value, str) else ""
