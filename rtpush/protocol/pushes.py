"""What the server tells a client besides messages: the same on every transport."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import msgspec

from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Gap

__all__ = [
    "Disconnected",
    "GapPush",
    "Joined",
    "Left",
    "PresenceEntry",
    "Push",
    "Subscribed",
    "SubscribedWithData",
    "TokenExpiring",
    "Unsubscribed",
]


@attrs.frozen(slots=True)
class PresenceEntry:
    """
    A connection as the others in a channel see it.

    :ivar info: What the client said of itself: JSON text, or nothing.
    :ivar user: Whose it is, as its token says; or nothing.
    """

    connection: str
    transport: str
    info: bytes = b""
    user: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        entry: dict[str, Any] = {"connection": self.connection, "transport": self.transport}
        if self.user:
            entry["user"] = self.user
        if self.info:
            entry["info"] = msgspec.json.decode(self.info)
        return entry


@attrs.frozen
class Subscribed:
    """A subscription begins: the next message is the one after ``position``."""

    name: ClassVar[str] = "subscribed"
    channel: str
    position: Position
    recovered: bool

    def with_data(self, data: bytes) -> SubscribedWithData:
        """Return the same with what the application says to the client: JSON."""
        return SubscribedWithData(self.channel, self.position, self.recovered, data)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        return {
            "channel": self.channel,
            "epoch": self.position.epoch,
            "offset": self.position.offset,
            "recovered": self.recovered,
        }


@attrs.frozen
class SubscribedWithData(Subscribed):
    """The same, with what the application says to the client about it: JSON."""

    data: bytes

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        return {**Subscribed.as_dict(self), "data": msgspec.json.decode(self.data)}


@attrs.frozen(slots=True)
class GapPush:
    """Recovery was not possible: the stream goes on after ``position``."""

    name: ClassVar[str] = "gap"
    channel: str
    position: Position
    reason: Gap

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        return {
            "channel": self.channel,
            "epoch": self.position.epoch,
            "offset": self.position.offset,
            "reason": self.reason.value,
        }


@attrs.frozen(slots=True)
class Unsubscribed:
    """The server ended a subscription."""

    name: ClassVar[str] = "unsubscribed"
    channel: str
    code: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        return {"channel": self.channel, "code": self.code, "reason": self.reason}


@attrs.frozen(slots=True)
class Joined:
    """Another connection subscribed."""

    name: ClassVar[str] = "join"
    channel: str
    entry: PresenceEntry

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        return {"channel": self.channel, **self.entry.as_dict()}


@attrs.frozen(slots=True)
class Left:
    """Another connection is no longer subscribed."""

    name: ClassVar[str] = "leave"
    channel: str
    entry: PresenceEntry

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        return {"channel": self.channel, **self.entry.as_dict()}


@attrs.frozen(slots=True)
class TokenExpiring:
    """
    A token ends soon: the client is to give a new one.

    :ivar channel: The channel that it is for; nothing for the token of the connection.
    :ivar left: Seconds until then.
    """

    name: ClassVar[str] = "token_expiring"
    channel: str
    left: float

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        told: dict[str, Any] = {"expires_in": round(self.left, 3)}
        return {"channel": self.channel, **told} if self.channel else told


@attrs.frozen(slots=True)
class Disconnected:
    """
    The server ends the connection.

    :ivar after: Seconds after which the client is asked to come back; :obj:`None` leaves that to its own backoff.
    """

    name: ClassVar[str] = "disconnect"
    code: int
    reason: str
    reconnect: bool
    after: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the object that goes over the wire."""
        told: dict[str, Any] = {"code": self.code, "reason": self.reason, "reconnect": self.reconnect}
        if self.after is not None:
            told["after"] = round(self.after, 3)
        return told


Push = Subscribed | GapPush | Unsubscribed | Joined | Left | TokenExpiring | Disconnected
