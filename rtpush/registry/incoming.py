"""What has come of requests and messages that are not complete: bounded for all clients together."""

from __future__ import annotations

from typing import Protocol

from rtpush.registry.counts import Counts

__all__ = ["FREE_BYTES", "Incoming", "Sender"]

#: What a client may hold without being counted: most requests and messages are smaller.
FREE_BYTES = 16384


class Sender(Protocol):
    """A connection that something comes on."""

    def give_up(self) -> None:
        """Drop what has come of something that is not complete, and end."""


class Incoming:
    """
    The bytes of what is not complete, by connection.

    Each may have as much as its limit says, and there are very many connections: so what all have together has a bound
    too. Beyond it, the one ends on which nothing more has come for the longest time.

    :param most: The most bytes. What is below :data:`FREE_BYTES` on a connection is not counted.
    """

    def __init__(self, most: int, counts: Counts) -> None:
        self.most = most
        self._counts = counts
        #: In the order in which something came last.
        self._sizes: dict[Sender, int] = {}
        self.total = 0

    def hold(self, sender: Sender, size: int) -> None:
        """A connection holds so many bytes now, since something has come; others may have to go for that."""
        before = self._sizes.pop(sender, 0)
        self.total -= before
        if size <= FREE_BYTES:
            return
        self._sizes[sender] = size
        self.total += size
        while self.total > self.most:
            silent = next(iter(self._sizes))
            self.drop(silent)
            self._counts.limited["incoming_bytes"] += 1
            silent.give_up()

    def drop(self, sender: Sender) -> None:
        """A connection holds nothing any more."""
        if self._sizes:
            self.total -= self._sizes.pop(sender, 0)
