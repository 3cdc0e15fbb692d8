"""The query of a request."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from rtpush.errors import ErrorCode, RtpushError

if TYPE_CHECKING:
    from rtpush.transports.http import Request

__all__ = ["Query", "query_of"]

#: The most parameters of a query.
_MAX_PARAMETERS = 1000

#: How many queries are remembered, and the longest of them, in bytes.
_MAX_KNOWN = 1000
_MAX_KNOWN_SIZE = 512


class Query:
    """
    The query of a request: every parameter at most once, but those that may be several.

    :param query: As it is in the URL, after the question mark.
    :raises RtpushError: ``bad_request`` if it is not URL-encoded UTF-8, or has too many parameters.
    """

    __slots__ = ("_values",)

    def __init__(self, query: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        parts = query.split(b"&", _MAX_PARAMETERS)
        if len(parts) > _MAX_PARAMETERS:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"the query has more than {_MAX_PARAMETERS} parameters")
        try:
            for part in parts:
                name, _, value = part.partition(b"=")
                if part:
                    self._values.setdefault(_plain(name), []).append(_plain(value))
        except UnicodeDecodeError:
            raise RtpushError(ErrorCode.BAD_REQUEST, "the query is not URL-encoded UTF-8") from None

    def one(self, *names: str) -> str | None:
        """
        Return a parameter that may be given once, under any of some names.

        :raises RtpushError: ``bad_request`` if it is there more than once.
        """
        values = [value for name in names for value in self._values.get(name, ())]
        if len(values) > 1:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"{names[0]} is given {len(values)} times, expected once")
        return values[0] if values else None

    def several(self, name: str) -> list[str]:
        """Return a parameter that may be repeated or joined by commas."""
        return [part for value in self._values.get(name, ()) for part in value.split(",")]

    def number(self, name: str, default: float) -> float:
        """
        Return a parameter that is a number of seconds.

        :raises RtpushError: ``bad_request`` if it is not a number of at least 0.
        """
        if name not in self._values:
            return default
        text = self.one(name) or ""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise RtpushError(ErrorCode.BAD_REQUEST, f"{name} is {text[:40]!r}, expected a number of seconds")
        return value


def _plain(text: bytes) -> str:
    """Decode a name or value of a query (WHATWG URL, application/x-www-form-urlencoded)."""
    if b"%" in text or b"+" in text:
        text = unquote_to_bytes(text.replace(b"+", b" "))
    return text.decode()


def query_of(request: Request) -> Query:
    """
    Return the query of a request. Many clients send the same, which is read once.

    :raises RtpushError: ``bad_request`` if it is not URL-encoded UTF-8, or has too many parameters.
    """
    query = request.uri.partition(b"?")[2]
    # What has a token in it is a client's own, and is not kept.
    return _known(query) if len(query) <= _MAX_KNOWN_SIZE and b"token=" not in query else Query(query)


_known = lru_cache(_MAX_KNOWN)(Query)
