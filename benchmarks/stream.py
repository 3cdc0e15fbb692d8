"""Messages on several channels at a steady rate: publishes each when it is due, and sees when it comes out."""

from __future__ import annotations

import re
import select
import time
from collections import deque
from collections.abc import Iterator, Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.frames import pong_frame, split_frame
from benchmarks.load import STALLED, Client, Opening, Sending, closes

__all__ = ["Stream"]

_NUMBER = re.compile(rb"<(\d{10})>")
_NUMBER_BYTES = 12
_PING = b"\x89"


class Stream:
    """One subscriber and one publishing connection for each channel, all in one client.

    Messages are known by a number in their payload, so that it does not matter in what they are wrapped. A connection
    has one message under way; one that is due before the last was answered waits, and that counts.
    """

    def __init__(self, client: Client, followers: Sequence[Opening], sending: Sending, channels: Sequence[str]) -> None:
        self._client = client
        self._channels = channels
        self._sending = sending
        self._answered = sending.whole(1)
        self._tails = {fd: rest for opening in followers for fd, rest in client.open(opening, 1).items()}
        self._last = dict.fromkeys(self._tails, -1)
        self._senders = [_connected(client, sending.opening) for _ in channels]
        self._answers = dict.fromkeys(self._senders, b"")
        self._waiting: dict[int, deque[bytes]] = {fd: deque() for fd in self._senders}
        self._sent = self._seen = 0

    def run(self, payloads: Iterator[str], seconds: float, rate: float) -> list[float]:
        """Publish ``rate`` messages a second; return the seconds from when each was due until it was delivered.

        Raises `BenchmarkError` if one is lost, doubled or overtaken by a later one of its channel.
        """
        first = self._sent
        until = first + max(1, int(seconds * rate))
        begun = time.monotonic() + 0.01
        due = [begun + number / rate for number in range(until - first)]
        latencies: list[float] = []
        clients = [self._client.epoll.fileno()]
        while self._seen < until or any(self._answers.values()):
            now = time.monotonic()
            while self._sent < until and due[self._sent - first] <= now:
                self._publish(next(payloads))
            if now > due[-1] + STALLED:
                raise BenchmarkError(f"only {self._seen - first} of {until - first} messages came")
            pause = max(0.0, due[self._sent - first] - now) if self._sent < until else 1.0
            # epoll waits for whole milliseconds, but select() waits for less, and an epoll can be selected.
            if not select.select(clients, (), (), pause)[0]:
                continue
            for fd, _ in self._client.epoll.poll(0, 256):
                if fd in self._answers:
                    self._take_answer(fd)
                    continue
                for number in self._take(fd):
                    latencies.append(time.monotonic() - due[number - first])
        return latencies

    def _publish(self, payload: str) -> None:
        number, self._sent = self._sent, self._sent + 1
        place = number % len(self._channels)
        marked = f"<{number:010d}>{payload}"[: len(payload)]
        request = self._sending.request(self._channels[place], marked)
        fd = self._senders[place]
        self._waiting[fd].append(request)
        if len(self._waiting[fd]) == 1:
            self._client.sockets[fd].sendall(request)

    def _take_answer(self, fd: int) -> None:
        data = self._answers[fd] + self._client.read(fd)
        data = self._ponged(fd, data)
        if not data or not self._answered(data):
            self._answers[fd] = data
            return
        waiting = self._waiting[fd]
        waiting.popleft()
        if closes(data):
            del self._answers[fd], self._waiting[fd]
            place = self._senders.index(fd)
            self._senders[place] = fd = self._client.renew(fd, self._sending.opening.address)
            self._waiting[fd] = waiting
        self._answers[fd] = b""
        if waiting:
            self._client.sockets[fd].sendall(waiting[0])

    def _take(self, fd: int) -> Iterator[int]:
        data = self._ponged(fd, self._tails[fd] + self._client.read(fd))
        end = 0
        for found in _NUMBER.finditer(data):
            number, end = int(found[1]), found.end()
            if number <= self._last[fd]:
                raise BenchmarkError(f"message {number} came after message {self._last[fd]}")
            self._last[fd] = number
            self._seen += 1
            yield number
        self._tails[fd] = data[max(end, len(data) - _NUMBER_BYTES) :]

    def _ponged(self, fd: int, data: bytes) -> bytes:
        """Answer a heartbeat that stands alone, as it does on a connection with nothing else under way."""
        if data.startswith(_PING) and (frame := split_frame(data, 0, len(data))) is not None:
            self._client.sockets[fd].sendall(pong_frame(data[frame[1] : frame[2]]))
            return data[frame[2] :]
        return data


def _connected(client: Client, opening: Opening) -> int:
    return next(iter(client.open(opening, 1))) if opening.request else client.connect(opening.address)
