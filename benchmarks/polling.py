"""Many waiting long polls: each is answered with one message, and polls again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.errors import BenchmarkError
from benchmarks.load import Client, Opening, Publisher, response_body

__all__ = ["PollCycle"]


class PollCycle:
    """Pollers of one channel on connections that are kept, and a publisher to it."""

    def __init__(
        self,
        client: Client,
        poll: Callable[[bytes], Opening],
        cursor: Callable[[bytes], bytes],
        pollers: int,
        publisher: Publisher,
    ) -> None:
        """``poll(cursor)`` begins at a cursor (empty: at now), ``cursor(response)`` is the one that an answer gives."""
        self._client = client
        self._poll = poll
        self._cursor = cursor
        self._publisher = publisher
        self._partial = client.open(poll(b""), pollers)
        # All answers to one message give the same cursor, so that the next request is built once.
        self._next = b""
        self._request = b""

    def run(self, requests: Iterator[bytes], seconds: float) -> int:
        """Publish the next message whenever all polls were answered, for so long; return the polls answered."""
        answered = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._publisher.send(next(requests))
            missing = len(self._partial)
            while missing:
                missing -= sum(map(self._receive, self._client.readable()))
            self._publisher.finish()
            answered += len(self._partial)
        return answered

    def _receive(self, fd: int) -> bool:
        data = self._partial[fd] + self._client.read(fd)
        body = response_body(data)
        if body is None:
            self._partial[fd] = data
            return False
        self._partial[fd] = b""
        cursor = self._cursor(data)
        if cursor != self._next:
            if b'"messages":[]' in body:
                raise BenchmarkError("a long poll was answered without a message")
            self._next, self._request = cursor, self._poll(cursor).request
        self._client.sockets[fd].sendall(self._request)
        return True
