"""
Recovery: what bringing a subscriber from its position to now takes, as pure rules.

A subscriber joins the channel first and keeps what arrives; then it reads history from its position; it delivers
history, then what arrived and history did not give, then it is live. These are the pieces of that; the registry puts
them together.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs

from rtpush.protocol.message import Message
from rtpush.protocol.position import Position

__all__ = ["Gap", "Page", "Tail", "gap_between", "unseen"]


class Gap(enum.Enum):
    """
    Why messages after a position do not come.

    The position could not be honoured, or (``SKIPPED``) the reader was too slow for them, and wants the newest alone.
    """

    EPOCH_CHANGED = "epoch_changed"
    HISTORY_LOST = "history_lost"
    POSITION_AHEAD = "position_ahead"
    SKIPPED = "skipped"


def gap_between(since: Position, top: Position, kept: int) -> Gap | None:
    """
    Tell whether what came after a position is still there.

    :param top: The newest position of the channel.
    :param kept: How many messages history holds; the newest of them is at ``top``.
    """
    if since.epoch != top.epoch:
        return Gap.EPOCH_CHANGED
    if since.offset > top.offset:
        return Gap.POSITION_AHEAD
    if since.offset < top.offset - kept:
        return Gap.HISTORY_LOST
    return None


@attrs.frozen(slots=True)
class Page:
    """
    A part of a channel's history.

    :ivar messages: Oldest first, contiguous.
    :ivar top: The newest position of the channel when this was read.
    :ivar gap: Why ``messages`` does not follow on the position that was asked for, if it does not.
    """

    messages: Sequence[Message]
    top: Position
    gap: Gap | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing came after this page when it was read."""
        return not self.messages or self.messages[-1].position == self.top


class Tail(enum.Enum):
    """How a message stands to the last one that was taken."""

    NEXT = "next"
    SEEN = "seen"
    BEYOND = "beyond"

    @classmethod
    def of(cls, position: Position, last: Position) -> Tail:
        """
        Compare a position with the last one.

        SEEN may be dropped; BEYOND means that some are missing, or that history began again.
        """
        if position.epoch != last.epoch:
            return cls.BEYOND
        if position.offset == last.offset + 1:
            return _NEXT
        return cls.SEEN if position.offset <= last.offset else cls.BEYOND


#: What is asked for most, and takes long to look up.
_NEXT = Tail.NEXT


def unseen(messages: Sequence[Message], last: Position) -> Sequence[Message] | None:
    """
    Return the positioned messages after ``last``; :obj:`None` if some between are missing.

    :param messages: In order, as they arrived.
    """
    rest: list[Message] = []
    for message in messages:
        if message.position is None:
            continue
        tail = Tail.of(message.position, last)
        if tail is Tail.BEYOND:
            return None
        if tail is Tail.NEXT:
            rest.append(message)
            last = message.position
    return rest
