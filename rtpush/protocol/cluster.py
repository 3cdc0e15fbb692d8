"""What nodes know of each other."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

__all__ = ["Answers", "LinkStatus", "NodeStatus"]


@attrs.frozen(slots=True)
class NodeStatus:
    """
    What a node has told the others of itself.

    :ivar id: Its id, which no other process has or had.
    :ivar status: A JSON object.
    :ivar age: Seconds since it was told.
    """

    id: str
    status: bytes
    age: float


@attrs.frozen(slots=True)
class Answers:
    """
    What the other nodes answered to a question.

    :ivar answers: Those that came in time, in no order.
    :ivar missing: The ids of nodes that live and did not answer.
    """

    answers: Sequence[bytes]
    missing: Sequence[str] = ()


@attrs.frozen(slots=True, kw_only=True)
class LinkStatus:
    """
    How it is with a server that a broker uses.

    :ivar name: What it is called, as in the configuration, without secrets.
    :ivar is_up: Whether it is there and does what it should.
    :ivar sessions: How often a connection to it was made.
    :ivar lag: Seconds that what is published takes to arrive; while nothing arrives they grow.
    :ivar pending: How many answers of it are awaited.
    """

    name: str
    is_up: bool
    sessions: int
    lag: float
    pending: int
