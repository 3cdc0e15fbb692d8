"""Reading an event stream bit by bit (WHATWG HTML, section 9.2.6). Pure."""

from __future__ import annotations

import codecs

import attrs

__all__ = ["Event", "EventTooLarge", "SseParser"]


class EventTooLarge(ValueError):
    """An event is larger than is allowed."""


@attrs.frozen(slots=True)
class Event:
    """
    One event of the stream.

    :ivar name: ``message`` if the event has no name.
    :ivar id: The last id that the stream had: it may be that of an earlier event.
    """

    name: str
    data: str
    id: str


class SseParser:
    """
    Turns bytes into events, however the bytes are cut.

    The field ``retry`` is passed over: it is for clients that have no backoff of their own.

    :param max_event: How many characters an event may have, with all its fields.
    """

    def __init__(self, max_event: int) -> None:
        self._max_event = max_event
        # "utf-8-sig" takes away one byte order mark at the beginning; bad bytes become U+FFFD.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest: list[str] = []
        self._rest_size = 0
        self._after_cr = False
        self._size = 0
        self._name = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, data: bytes) -> list[Event]:
        """
        Take the next bytes; return the events that they complete.

        :raises EventTooLarge: if what has not been completed yet is too large.
        """
        text = self._decoder.decode(data)
        if not text:
            return []
        if self._after_cr and text[0] == "\n":
            # The second half of a CRLF whose first half ended a line already.
            text = text[1:]
        self._after_cr = text.endswith("\r")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        events: list[Event] = []
        for line in lines[:-1]:
            if self._rest:
                self._rest.append(line)
                line = "".join(self._rest)
                self._rest.clear()
                self._rest_size = 0
            if (event := self._line(line)) is not None:
                events.append(event)
        if lines[-1]:
            self._rest.append(lines[-1])
            self._rest_size += len(lines[-1])
            self._check_size(self._size + self._rest_size)
        return events

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        self._check_size(self._size)
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _check_size(self, size: int) -> None:
        if size > self._max_event:
            raise EventTooLarge(f"an event of the stream is larger than {self._max_event} characters")

    def _dispatch(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        # An event without data is none; its id counts nevertheless.
        return Event(name or "message", "\n".join(data), self._id) if data else None
