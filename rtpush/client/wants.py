"""What a connection is to follow, and how that is said on each transport. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from rtpush.protocol.position import Position, format_cursor

__all__ = ["Want", "channels_query", "first_request", "subscribe_body"]


@attrs.frozen(slots=True)
class Want:
    """
    A channel that is to be followed.

    :ivar position: After which position; :obj:`None` if there is none yet.
    :ivar earliest: Without a position: whether to begin at the oldest message kept, not at now.
    :ivar token: The token for this channel, if it has one of its own.
    """

    channel: str
    position: Position | None = None
    earliest: bool = False
    token: str | None = None


def subscribe_body(want: Want) -> bytes:
    """Return the fields of the command ``subscribe``."""
    fields: dict[str, Any] = {"channel": want.channel}
    if want.position is not None:
        fields["cursor"] = str(want.position)
    elif want.earliest:
        fields["since"] = "earliest"
    if want.token is not None:
        fields["token"] = want.token
    return msgspec.json.encode(fields)


def first_request(wants: Sequence[Want]) -> list[Want]:
    """
    Return those that one request can ask for, so that the answer gives a position to those that have none.

    A request has either a cursor, in which a channel without a position begins at now, or ``since=earliest`` for all of
    its channels. So those that begin at now come first, then those that begin at the oldest message, alone; when all
    have a position, they go together.
    """
    now = [want for want in wants if want.position is not None or not want.earliest]
    earliest = [want for want in wants if want.position is None and want.earliest]
    return now if any(want.position is None for want in now) else earliest or now


def channels_query(wants: Sequence[Want]) -> list[tuple[str, str]]:
    """Return the query of a request that :func:`first_request` gave."""
    query = [("channel", want.channel) for want in wants]
    query += [("channel_token", want.token) for want in wants if want.token is not None]
    if any(want.position is not None for want in wants):
        query.append(("cursor", format_cursor(want.position for want in wants)))
    elif any(want.earliest for want in wants):
        query.append(("since", "earliest"))
    return query
