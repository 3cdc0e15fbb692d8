"""Server-sent events as bytes (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re

__all__ = ["HEARTBEAT", "event", "retry"]

#: A comment: what an idle stream sends, so that both ends and all between see that it lives.
HEARTBEAT = b":\n\n"

# The stream ends a line at CRLF, LF or CR, so a lone CR in a text arrives as a line break too.
_LINE_END = re.compile(rb"\r\n|\n|\r")


def event(data: bytes, *, name: str | None = None, cursor: str | None = None) -> bytes:
    """
    Return one event.

    :param data: UTF-8 without NUL; each of its lines becomes a ``data`` line.
    :param name: The ``event`` field; must not contain a line break.
    :param cursor: The ``id`` field.
    """
    head = ("" if cursor is None else f"id: {cursor}\n") + ("" if name is None else f"event: {name}\n")
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return head.encode() + b"data: " + data + b"\n\n"


def retry(seconds: float) -> bytes:
    """Return the field that sets after how long an ``EventSource`` reconnects."""
    return b"retry: %d\n" % round(seconds * 1000)
