"""Many channels with one WebSocket each: publishes to one after the other, and counts what comes out of each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.frames import FrameCounter, pong_frame
from benchmarks.load import Client, Publisher

__all__ = ["Pairs"]


class Pairs:
    """The subscribers, in the order of their channels, and a publisher to all of them.

    The subscribers are read late, so that the client's reading is not in the way of what the server does.
    """

    def __init__(self, client: Client, opened: Mapping[int, bytes], publisher: Publisher) -> None:
        """``opened`` are those that `Client.open_each` has opened for one channel after the other."""
        self._client = client
        self._publisher = publisher
        self._counter = FrameCounter(lambda fd, payload: client.sockets[fd].sendall(pong_frame(payload)))
        # They were opened in this order, though not each was answered in it.
        self._channels = [fd for fd in client.sockets if fd in opened]
        self._seen = {fd: self._counter.feed(fd, opened[fd]) for fd in self._channels}
        if any(self._seen.values()):
            raise BenchmarkError("a message came before any was published")

    def run(self, requests: Sequence[bytes], seconds: float) -> int:
        """Send the requests, one for each channel, again and again for so long; return how many were delivered.

        Raises `BenchmarkError` if one is lost, doubled, or goes to another's subscriber.
        """
        publisher = self._publisher
        expected = dict(self._seen)
        published = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for fd, request in zip(self._channels, requests, strict=True):
                while not publisher.idle:
                    publisher.receive()
                publisher.send(request)
                expected[fd] += 1
            published += len(requests)
            self._read()
        publisher.finish()
        while sum(self._seen.values()) < sum(expected.values()):
            for fd in self._client.readable():
                self._take(fd)
        if self._seen != expected:
            raise BenchmarkError("a message came to another channel's subscriber")
        return published

    def _read(self) -> None:
        for fd, _ in self._client.epoll.poll(0, len(self._seen)):
            self._take(fd)

    def _take(self, fd: int) -> None:
        self._seen[fd] += self._counter.feed(fd, self._client.read(fd))
