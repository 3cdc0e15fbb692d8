"""One publisher, many WebSocket subscribers: counts what is delivered, and how soon."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice

from benchmarks.errors import BenchmarkError
from benchmarks.frames import FrameCounter, pong_frame
from benchmarks.load import STALLED, Client, Publisher

__all__ = ["FanOut"]

_EVENTS = 4096
_WATCHED_OF = 20


class FanOut:
    """Subscribers of one channel, and a publisher to it. What is published must come to each of them exactly once.

    Client and server share one kernel, and a socket that is read while the server writes to the next ones makes those
    writes dearer. `run` and `run_single` therefore read late, in bulk: they measure the server, not this client.
    """

    def __init__(self, client: Client, subscribers: Mapping[int, bytes], publisher: Publisher) -> None:
        """``subscribers`` are those that `Client.open` has opened."""
        self._client = client
        self._publisher = publisher
        self._counter = FrameCounter(self._pinged)
        self._seen = {fd: self._counter.feed(fd, rest) for fd, rest in subscribers.items()}
        self._read_into = {fd: client.sockets[fd].recv_into for fd in self._seen}
        self._pause = 0.002
        if any(self._seen.values()):
            raise BenchmarkError("a message came before any was published")

    def run(self, requests: Iterator[bytes], seconds: float, in_flight: int) -> tuple[int, list[float]]:
        """Publish for so long with at most ``in_flight`` messages undelivered; none may be missing in the end.

        Return how many were delivered, and for every 20th subscriber the seconds that each message took to it.
        """
        subscribers = len(self._seen)
        publisher = self._publisher
        first = next(iter(self._seen.values()))
        watched = set(islice(self._seen, 0, None, _WATCHED_OF))
        sent: list[float] = []
        latencies: list[float] = []
        received = 0
        end = time.monotonic() + seconds
        while (publishing := time.monotonic() < end) or received < len(sent) * subscribers:
            delivered = received / subscribers
            if publishing and publisher.idle and len(sent) - delivered < in_flight:
                sent.append(time.monotonic())
                publisher.send(next(requests))
            elif publisher.busy and len(sent) - publisher.busy - delivered < in_flight / 2:
                # Reading is cheapest when many messages wait in each socket.
                publisher.receive()
            else:
                for fd in self._client.readable():
                    count = self._take(fd)
                    received += count
                    if fd in watched:
                        now = time.monotonic()
                        until = self._seen[fd] - first
                        latencies += [now - begun for begun in sent[until - count : until]]
        publisher.finish()
        return received, latencies

    def run_single(self, requests: Iterator[bytes], seconds: float) -> int:
        """Publish one message, wait until all have it, publish the next, for so long; return the deliveries."""
        subscribers = len(self._seen)
        received = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._publisher.send(next(requests))
            time.sleep(self._pause)
            missing = subscribers - self._collect()
            if missing:
                # Next time the server gets longer before the client begins to read.
                self._pause *= 1.5
                while missing:
                    missing -= self._collect()
            self._publisher.finish()
            received += subscribers
        return received

    def run_paced(self, requests: Iterator[bytes], seconds: float, rate: float) -> list[float]:
        """Publish ``rate`` messages a second; return for each delivery the seconds since its message was due."""
        begun = time.monotonic()
        due = [begun + number / rate for number in range(max(1, int(seconds * rate)))]
        first = next(iter(self._seen.values()))
        latencies: list[float] = []
        sent = 0
        while len(latencies) < len(due) * len(self._seen):
            now = time.monotonic()
            if now > due[-1] + STALLED:
                raise BenchmarkError(f"only {len(latencies)} of {len(due) * len(self._seen)} deliveries came")
            if sent < len(due) and due[sent] <= now:
                self._publisher.finish()
                self._publisher.send(next(requests))
                sent += 1
            pause = max(0.0, due[sent] - now) if sent < len(due) else 1.0
            for fd, _ in self._client.epoll.poll(pause, _EVENTS):
                number = self._seen[fd] - first
                for late in range(number, number + self._take(fd)):
                    latencies.append(time.monotonic() - due[late])
        self._publisher.finish()
        return latencies

    def check(self, request: bytes, payload: bytes) -> None:
        """Publish one last message and see that it is the next thing that every subscriber gets.

        Raises `BenchmarkError` if a message was lost, doubled or changed on the way.
        """
        if len(set(self._seen.values())) != 1:
            raise BenchmarkError("not every subscriber got every message once")
        self._publisher.send(request)
        missing = set(self._seen)
        while missing:
            for fd in self._client.readable():
                data = self._client.read(fd)
                if self._counter.feed(fd, data):
                    if payload not in data or fd not in missing:
                        raise BenchmarkError("a subscriber got something else than what was published")
                    missing.remove(fd)
        self._publisher.finish()

    def _collect(self) -> int:
        """Read once from every subscriber that can be read, waiting for at least one; return the deliveries."""
        return sum(map(self._take, self._client.readable()))

    def _take(self, fd: int) -> int:
        try:
            length = self._read_into[fd](self._counter.buffer)
        except OSError as error:
            raise BenchmarkError(f"the server cut a subscriber: {error.strerror}") from None
        if not length:
            raise BenchmarkError("the server closed a subscriber's connection")
        count = self._counter.take(fd, length)
        self._seen[fd] += count
        return count

    def _pinged(self, fd: int, payload: bytes) -> None:
        self._client.sockets[fd].sendall(pong_frame(payload))
