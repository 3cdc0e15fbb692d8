"""A load process whose WebSocket clients come back when the server has left them.

``python -m benchmarks.returning PLAN``. They come back as rtpush's clients do: after what the farewell asks for, then
by the backoff formula; or all at once.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import re
import select
import socket
import sys
import time

from attrs import define

from benchmarks.crowd import MARK, Plan, say
from benchmarks.load import websocket_request

__all__ = ["Returning"]

_MARK = MARK.encode()
_AFTER = re.compile(rb'"after":([0-9.]+)')
_POSITION = re.compile(rb'"epoch":"([^"]+)","offset":(\d+)')
_WINDOW = 40
# Seconds; as the server's defaults, which its clients get from /negotiate.
_BASE, _MAX, _JITTER = 1.0, 30.0, 1.0


@define
class Visitor:
    """One client: where it was, and how often it has failed to come back."""

    channel: str
    cursor: str = ""
    attempt: int = 0
    data: bytes = b""
    after: float | None = None
    #: When the first message came after its return.
    served: float | None = None


class Returning:
    """The clients of one process."""

    def __init__(self, plan: Plan) -> None:
        channels = plan.channels
        self._address = ("127.0.0.1", plan.port)
        self._source = plan.source
        self._asked = plan.asked
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        #: The numbers of those who are connected, or about to be.
        self._numbers: dict[int, int] = {}
        self._all = [Visitor(channels[(plan.first + number) % len(channels)]) for number in range(plan.count)]
        self._waiting: list[tuple[float, int]] = []
        self._attempts = 0
        self._requests: dict[str, bytes] = {}

    def open(self) -> None:
        """Let all come, some at a time, and wait until each knows where it is."""
        left = list(range(len(self._all)))
        coming: set[int] = set()
        while left or coming:
            while left and len(coming) < _WINDOW:
                number = left.pop()
                coming.add(number)
                self._connect(number)
            self._turn(0.1)
            coming = {number for number in coming if not self._all[number].cursor}

    def run(self) -> None:
        """Do what clients do until standard input ends; answer each line that comes there."""
        control = sys.stdin.fileno()
        self._epoll.register(control, select.EPOLLIN)
        while True:
            for fd in self._turn(0.5):
                if fd == control:
                    if not os.read(control, 64):
                        return
                    served = [visitor.served for visitor in self._all if visitor.served is not None]
                    say({"served": served, "attempts": self._attempts})

    def _turn(self, longest: float) -> list[int]:
        """Do what is due and what has come; return the file descriptors that are nobody's."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._connect(heapq.heappop(self._waiting)[1])
        if self._waiting:
            longest = max(0.0, min(longest, self._waiting[0][0] - now))
        others = []
        for fd, event in self._epoll.poll(longest):
            if fd not in self._numbers:
                others.append(fd)
            elif event & select.EPOLLOUT and not event & select.EPOLLERR:
                self._connected(fd)
            else:
                self._read(fd)
        return others

    def _connect(self, number: int) -> None:
        each = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        each.bind((self._source, 0))
        each.connect_ex(self._address)
        fd = each.fileno()
        self._sockets[fd] = each
        self._numbers[fd] = number
        self._epoll.register(fd, select.EPOLLOUT)

    def _connected(self, fd: int) -> None:
        visitor = self._all[self._numbers[fd]]
        where = f"channel={visitor.channel}" + (f"&cursor={visitor.cursor}" if visitor.cursor else "")
        if where not in self._requests:
            self._requests[where] = websocket_request(f"/ws?{where}", "rtpush.v1")
        self._epoll.modify(fd, select.EPOLLIN)
        try:
            self._sockets[fd].send(self._requests[where])
        except OSError:
            self._gone(fd)

    def _read(self, fd: int) -> None:
        visitor = self._all[self._numbers[fd]]
        try:
            data = self._sockets[fd].recv(65536)
        except OSError:
            data = b""
        if not data:
            self._gone(fd)
            return
        data = visitor.data + data
        visitor.data = b"" if visitor.served else data
        after = _AFTER.search(data)
        if after is not None:
            visitor.after = float(after[1])
        if not visitor.cursor:
            position = _POSITION.search(data)
            if position is not None:
                visitor.cursor = f"{position[1].decode()}:{position[2].decode()}"
                visitor.data = b""
        elif visitor.served is None and _MARK in data:
            visitor.served = time.monotonic()

    def _gone(self, fd: int) -> None:
        number = self._numbers.pop(fd)
        visitor = self._all[number]
        self._sockets.pop(fd).close()
        self._attempts += 1
        heapq.heappush(self._waiting, (time.monotonic() + self._pause(visitor), number))
        visitor.after, visitor.data = None, b""

    def _pause(self, visitor: Visitor) -> float:
        """Return the seconds after which a client comes back."""
        if not self._asked:
            # At once; where nobody listens, every second.
            pause = 1.0 if visitor.attempt else 0.0
            visitor.attempt += 1
            return pause
        if visitor.after is not None:
            return visitor.after
        pause = min(_BASE * 2.0**visitor.attempt, _MAX) + random.uniform(0, _JITTER)
        visitor.attempt += 1
        return pause


def main(arguments: list[str]) -> None:
    """Run."""
    returning = Returning(Plan(**json.loads(arguments[0])))
    returning.open()
    say({})
    returning.run()


if __name__ == "__main__":
    main(sys.argv[1:])
