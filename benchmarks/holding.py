"""A load process that holds connections of all transports open: ``python -m benchmarks.holding PLAN``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.crowd import MARK, Plan, say
from benchmarks.errors import BenchmarkError
from benchmarks.frames import pong_frame, split_frame
from benchmarks.load import Client, Opening, http_get, response_body, websocket_request
from benchmarks.target import EVENTS

__all__ = ["Holding", "transport_of"]

_MARK = MARK.encode()
_PING, _CLOSE = 9, 8
_CURSOR = b'"cursor":"'
# So many processes do this at once that a few connections each are enough.
_WINDOW = 10
_BATCH = 200
# Seconds after which those come again that were told to come later.
_PAUSE = 2.0


def transport_of(number: int) -> str:
    """Return the transport of a connection: of ten, seven are WebSockets, two event streams, one polls."""
    return "wwwswwwswp"[number % 10]


class Guests(Client):
    """Connections that have more to do than to stay, while others are opened."""

    def __init__(self, source: str, reads: Callable[[int], bool]) -> None:
        """``reads(fd)`` sees to a connection, or returns False for one that has nothing to do yet."""
        super().__init__(source)
        self._reads = reads

    def attend(self, fd: int) -> None:
        if not self._reads(fd):
            super().attend(fd)


class Holding:
    """The connections of one process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._client = Guests(plan.source, self._read)
        self._address = ("127.0.0.1", plan.port)
        self._take: dict[int, Callable[[int, bytes], None]] = {}
        self._tails: dict[int, bytes] = {}
        self._polls: dict[int, str] = {}
        self.delivered = self.dropped = self.heartbeats = self.put_off = 0

    def open(self) -> None:
        """Open all connections, one transport after the other. Raises `BenchmarkError` if one is refused for good."""
        for transport, take in (("w", self._frames), ("s", self._events), ("p", self._answer)):
            left = [channel for number, channel in self._numbered() if transport_of(number) == transport]
            # So many at a time, that each is seen to before it can have had much to say.
            while batch := left[-_BATCH:]:
                del left[-_BATCH:]
                self._open(transport, batch, take)

    def _open(self, transport: str, channels: list[str], take: Callable[[int, bytes], None]) -> None:
        openings = [self._opening(transport, channel) for channel in channels]
        if transport == "p":
            opened = self._client.open_waiting(openings)
            self._polls |= dict(zip(opened, channels, strict=True))
        else:
            opened = {}
            while openings:
                put_off: list[Opening] = []
                opened |= self._client.open_each(openings, _WINDOW, put_off)
                self.put_off += len(put_off)
                openings = put_off
                time.sleep(_PAUSE if openings else 0.0)
        self._take |= dict.fromkeys(opened, take)

    def run(self) -> None:
        """Do what clients do until standard input ends; answer each line that comes there."""
        control = sys.stdin.fileno()
        self._client.epoll.register(control, 1)
        while True:
            for fd, _ in self._client.epoll.poll():
                if fd != control:
                    self._read(fd)
                elif not os.read(control, 64):
                    return
                else:
                    say(
                        {
                            "held": len(self._take),
                            "dropped": self.dropped,
                            "delivered": self.delivered,
                            "heartbeats": self.heartbeats,
                            "put off": self.put_off,
                            "cpu": time.process_time(),
                        }
                    )

    def _numbered(self) -> Iterator[tuple[int, str]]:
        channels = self._plan.channels
        for number in range(self._plan.first, self._plan.first + self._plan.count):
            # Not the number itself: of each channel, too, seven in ten are to be WebSockets.
            yield number, channels[number // 10 % len(channels)]

    def _opening(self, transport: str, channel: str) -> Opening:
        if transport == "w":
            return Opening(self._address, websocket_request(f"/ws?channel={channel}", "rtpush.raw"), b"\r\n\r\n")
        if transport == "s":
            return Opening(self._address, http_get(f"/sse?channel={channel}", EVENTS), b"event: open")
        return Opening(self._address, http_get(f"/poll?channel={channel}"), None)

    def _read(self, fd: int) -> bool:
        take = self._take.get(fd)
        if take is None:
            return False
        try:
            data = self._client.read(fd)
        except BenchmarkError:
            self._drop(fd)
        else:
            take(fd, self._tails.pop(fd, b"") + data)
        return True

    def _drop(self, fd: int) -> None:
        self.dropped += 1
        del self._take[fd]
        self._client.sockets.pop(fd).close()

    def _frames(self, fd: int, data: bytes) -> None:
        start = 0
        while (frame := split_frame(data, start, len(data))) is not None:
            opcode, payload, end = frame
            if opcode == _PING:
                self.heartbeats += 1
                self._client.sockets[fd].sendall(pong_frame(data[payload:end]))
            elif opcode == _CLOSE:
                self._drop(fd)
                return
            else:
                self.delivered += data.startswith(_MARK, payload)
            start = end
        if start < len(data):
            self._tails[fd] = data[start:]

    def _events(self, fd: int, data: bytes) -> None:
        whole, end, rest = data.rpartition(b"\n")
        self.delivered += whole.count(_MARK)
        self.heartbeats += data.startswith(b":")
        if rest or not end:
            self._tails[fd] = rest

    def _answer(self, fd: int, data: bytes) -> None:
        try:
            body = response_body(data)
        except BenchmarkError:
            self._drop(fd)
            return
        if body is None:
            self._tails[fd] = data
            return
        messages = body.count(_MARK)
        self.delivered += messages
        self.heartbeats += not messages
        start = body.index(_CURSOR) + len(_CURSOR)
        cursor = body[start : body.index(b'"', start)].decode()
        self._client.sockets[fd].sendall(http_get(f"/poll?channel={self._polls[fd]}&cursor={cursor}"))


def main(arguments: list[str]) -> None:
    """Run."""
    holding = Holding(Plan(**json.loads(arguments[0])))
    try:
        holding.open()
    except BenchmarkError as error:
        say({"error": str(error)})
        return
    say({})
    holding.run()


if __name__ == "__main__":
    main(sys.argv[1:])
