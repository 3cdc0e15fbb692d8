"""
The lifecycle of a connection.

Two rules: a connection is in exactly one state, and moves only by a row of the table below.
A connection is CONNECTING until its transport has accepted it, OPEN while messages may go to it, CLOSING from the
moment that either side decided to end it, and CLOSED when its transport is gone. Nothing leaves CLOSED.
"""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "Event", "IllegalTransition", "State", "next_state"]


class State(enum.Enum):
    """Where a connection is in its life."""

    # There is one of each, and its own hash is quicker than that of its name.
    __hash__ = object.__hash__

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Event(enum.Enum):
    """What happens to a connection."""

    __hash__ = object.__hash__

    ACCEPTED = "accepted"
    CLOSE = "close"
    LOST = "lost"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CONNECTING, Event.ACCEPTED): State.OPEN,
    (State.CONNECTING, Event.CLOSE): State.CLOSING,
    (State.CONNECTING, Event.LOST): State.CLOSED,
    (State.OPEN, Event.CLOSE): State.CLOSING,
    (State.OPEN, Event.LOST): State.CLOSED,
    (State.CLOSING, Event.CLOSE): State.CLOSING,
    (State.CLOSING, Event.LOST): State.CLOSED,
}


class IllegalTransition(Exception):
    """An event came in a state in which it cannot happen."""


def next_state(state: State, event: Event) -> State:
    """
    Return the state after an event.

    :raises IllegalTransition: if the table has no row for it.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.name} in state {state.name}") from None
