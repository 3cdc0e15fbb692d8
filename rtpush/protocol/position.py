"""
Positions and cursors: where a subscriber is in one channel, and in all the channels that it follows.

A position is ``epoch:offset``; a cursor joins positions by commas, in the order in which the request names its
channels, with ``-`` for a channel that begins at now.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

__all__ = ["MAX_OFFSET", "BadCursor", "Position", "format_cursor", "parse_cursor"]

#: The largest offset: the largest integer that JavaScript holds exactly.
MAX_OFFSET = 2**53 - 1

_POSITION = re.compile(r"([A-Za-z0-9_]{1,32}):(0|[1-9][0-9]{0,15})", re.ASCII)

#: What a cursor says for a channel that begins at now.
_NOW = "-"


class BadCursor(ValueError):
    """A text is not a position or cursor of the form that was expected."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """
    The place of a message in its channel.

    Offsets count 1, 2, 3…; offset 0 is the place before the first message. Positions of different epochs have no order.
    """

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """
        Read ``epoch:offset``.

        :raises BadCursor: if the text is anything else.
        """
        match = _POSITION.fullmatch(text)
        if match is None or (offset := int(match[2])) > MAX_OFFSET:
            raise BadCursor(f"not a position: {text[:60]!r}; expected epoch:offset, as in k3f9:7")
        return cls(match[1], offset)

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


def parse_cursor(text: str, channels: int) -> list[Position | None]:
    """
    Read a cursor for a number of channels; :obj:`None` stands for "from now".

    :raises BadCursor: if it is malformed or does not have one position for each channel.
    """
    parts = text.split(",", channels)
    if len(parts) != channels:
        raise BadCursor(f"the cursor has {text.count(',') + 1} positions for {channels} channels")
    return [None if part == _NOW else Position.parse(part) for part in parts]


def format_cursor(positions: Iterable[Position | None]) -> str:
    """Write a cursor: the opposite of :func:`parse_cursor`."""
    return ",".join(_NOW if position is None else str(position) for position in positions)
