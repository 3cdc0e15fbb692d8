"""The bounded queue of a connection that does not take its bytes as fast as they come."""

from __future__ import annotations

from collections import deque

__all__ = ["Outbox"]


class Outbox:
    """
    Bytes that wait until the transport's own buffer is empty again.

    :param limit: Bytes; one item may be larger if nothing else waits, so that every message can pass.
    """

    __slots__ = ("_items", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[bytes] = deque()
        self.size = 0

    def put(self, data: bytes) -> bool:
        """Take bytes, or refuse them whole if there is no room."""
        if self._items and self.size + len(data) > self._limit:
            return False
        self._items.append(data)
        self.size += len(data)
        return True

    def pop(self) -> bytes | None:
        """Give back the oldest bytes; nothing if it is empty."""
        if not self._items:
            return None
        data = self._items.popleft()
        self.size -= len(data)
        return data
