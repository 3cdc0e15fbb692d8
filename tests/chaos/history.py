"""What is written down of a run: what each client was told, what publishers were, and all that happened, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from rtpush.protocol.position import Position

__all__ = ["Acknowledged", "Began", "Entry", "Gap", "Got", "Loss", "Timeline", "View"]


@attrs.frozen(slots=True)
class Began:
    """The server said where delivery begins, and whether that is where the client was."""

    time: float
    position: Position
    recovered: bool


@attrs.frozen(slots=True)
class Got:
    """A message came. Its number is its own in the channel."""

    time: float
    position: Position
    number: int


@attrs.frozen(slots=True)
class Gap:
    """The client was told that the stream goes on elsewhere."""

    time: float
    position: Position
    reason: str


Entry = Began | Got | Gap


@attrs.frozen(slots=True)
class Acknowledged:
    """A publisher was told where its message is. What one publisher sends in a row it sends one after the other."""

    time: float
    publisher: str
    number: int
    position: Position


@attrs.frozen(slots=True)
class Loss:
    """A time in which Redis could lose what it had acknowledged, or nodes could find out."""

    begin: float
    end: float


@attrs.define
class View:
    """
    What a client saw of a channel.

    :ivar start: Where it began; nothing if that was not said, so that it began with the first that it got.
    """

    who: str
    channel: str
    start: Position | None
    entries: list[Entry] = attrs.field(factory=list)


class Timeline:
    """
    All that happened and is not a message.

    :param now: Tells the time, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begin = now()
        self.events: list[tuple[float, str, str]] = []

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._now() - self._begin

    def note(self, who: str, what: object) -> None:
        """Write down what happened just now."""
        self.events.append((self.now, who, str(what)))

    def around(self, time: float, who: str, view: Sequence[Entry] = (), *, seconds: float = 4.0) -> list[str]:
        """
        Tell what happened around a time: to one client, and to all that is no client.

        :param who: The client, whose name is the beginning of those of what happened to it.
        :param view: What the client was told.
        """
        found = [
            (at, f"{name}: {what}")
            for at, name, what in self.events
            if time - seconds <= at <= time + seconds / 2 and (not name.startswith("client") or name == who)
        ]
        near = [entry for entry in view if time - seconds <= entry.time <= time + seconds / 2]
        # Of many messages those nearest to the time say most.
        near = sorted(near, key=lambda entry: abs(entry.time - time))[:40]
        for entry in near:
            found.append((entry.time, f"{who}: {_told(entry)}"))
        return [f"{at:8.3f} s  {what}" for at, what in sorted(found, key=lambda each: each[0])]


def _told(entry: Entry) -> str:
    if isinstance(entry, Got):
        return f"message {entry.number} at {entry.position}"
    if isinstance(entry, Gap):
        return f"GAP, on at {entry.position}: {entry.reason}"
    return f"begins at {entry.position}, {'recovered' if entry.recovered else 'NOT RECOVERED'}"
