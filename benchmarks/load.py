"""The client: many raw sockets on one epoll in one process, with requests that are built once and sent in bulk.

It does only what it must, so that it is cheaper than any server that it measures: no TLS, no headers looked at beyond a
status and a length, the same WebSocket key for all.
"""

from __future__ import annotations

import itertools
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from attrs import frozen

from benchmarks.errors import BenchmarkError
from benchmarks.frames import pong_frame, split_frame

__all__ = [
    "OPENING_WINDOW",
    "Client",
    "Following",
    "Opening",
    "Publisher",
    "Sending",
    "closes",
    "http_get",
    "http_post",
    "response_body",
    "websocket_request",
]

#: How many connections are opened at once, if nothing else is said: less than 50, Twisted's usual listen backlog.
#: Beyond that the kernel drops connection attempts and repeats them a second later.
OPENING_WINDOW = 40
STALLED = 15.0
_PING = b"\x89"
_READ_BYTES = 1 << 16
_IP_BIND_ADDRESS_NO_PORT = 24
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Each client has a loopback address of its own, so that ports still in TIME_WAIT from the ones before are no limit.
_SOURCES = itertools.cycle([f"127.0.{high}.{low}" for high in (1, 2) for low in range(1, 251)])


@frozen
class Opening:
    """How a connection begins: where, with what, and what ends the server's answer to it (None: it is left waiting).

    `replies` are for protocols that talk before that: what is awaited, and what is then sent.
    """

    address: tuple[str, int]
    request: bytes
    ready: bytes | None
    replies: tuple[tuple[bytes, bytes], ...] = ()


@frozen
class Sending:
    """How messages are published.

    ``request(channel, payload)`` is sent, ``whole(messages)`` returns what tells whether so many were answered. An
    opening without a request is a connection that sends nothing before the first message.
    """

    opening: Opening
    request: Callable[[str, str], bytes]
    whole: Callable[[int], Callable[[bytes], bool]]


@frozen
class Following:
    """How a connection follows many channels: how it begins, what it sends, and what confirms each channel."""

    opening: Opening
    request: bytes
    confirmation: bytes


def http_get(path: str, accept: str = "*/*") -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n".encode()


def http_post(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Return a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def websocket_request(path: str, subprotocol: str | None = None) -> bytes:
    """Return a WebSocket handshake (RFC 6455, section 4.1)."""
    offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    ).encode()


def response_body(data: bytes) -> bytes | None:
    """Return the body of a whole HTTP response, or None while some of it is missing.

    Raises `BenchmarkError` for a status other than 2xx, and for a response without a length.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    if data[9:10] != b"2":
        raise BenchmarkError(
            f"a request was answered {data[:head_end].splitlines()[0]!r} {data[head_end + 4 :][:200]!r}"
        )
    found = _LENGTH.search(data, 0, head_end)
    if found is None:
        raise BenchmarkError("a request was answered without a Content-Length")
    body_start = head_end + 4
    body_end = body_start + int(found[1])
    return data[body_start:body_end] if len(data) >= body_end else None


def closes(response: bytes) -> bool:
    """Tell whether an HTTP response is the last on its connection."""
    return b"\r\nConnection: close\r\n" in response


class Client:
    """Sockets on one epoll. Use as a context manager: leaving it closes them all."""

    def __init__(self, source: str | None = None) -> None:
        """``source`` is the loopback address that it connects from."""
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self._source = source or next(_SOURCES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket and the epoll."""
        self.epoll.close()
        for each in self.sockets.values():
            each.close()
        self.sockets.clear()

    def connect(self, address: tuple[str, int], request: bytes = b"") -> int:
        """Connect, send ``request`` and return the file descriptor. Raises `BenchmarkError` if it is refused."""
        each = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        each.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        each.bind((self._source, 0))
        # On loopback the connection is made when this returns, though it says EINPROGRESS; unless the backlog is full.
        each.connect_ex(address)
        try:
            each.send(request)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(each, select.POLLOUT)
            if not waiting.poll(STALLED * 1000):
                each.close()
                raise BenchmarkError("the server does not accept connections") from None
            each.send(request)
        except OSError as error:
            each.close()
            raise BenchmarkError(f"cannot connect to {address[0]}:{address[1]}: {error.strerror}") from None
        fd = each.fileno()
        self.sockets[fd] = each
        self.epoll.register(fd, select.EPOLLIN)
        return fd

    def renew(self, fd: int, address: tuple[str, int]) -> int:
        """Close a connection that the server ends after its answer, and connect again; return the file descriptor."""
        self.sockets.pop(fd).close()
        return self.connect(address)

    def open(self, opening: Opening, count: int, window: int = OPENING_WINDOW) -> dict[int, bytes]:
        """Open ``count`` connections and wait for their answers; return what came after each, by file descriptor.

        ``window`` are opened at once.
        """
        openings = itertools.repeat(opening, count)
        return self.open_each(openings, window) if opening.ready else self.open_waiting(openings, window)

    def open_each(
        self, openings: Iterable[Opening], window: int = OPENING_WINDOW, put_off: list[Opening] | None = None
    ) -> dict[int, bytes]:
        """Open a connection for each, in this order, and wait for their answers; return what came after each.

        Raises `BenchmarkError` if one is refused; but those that are to come again later (503) are added to
        ``put_off``, if there is such a list.
        """
        left = iter(openings)
        pending: dict[int, tuple[Opening, int, bytes]] = {}
        opened: dict[int, bytes] = {}
        while True:
            for opening in itertools.islice(left, window - len(pending)):
                pending[self.connect(opening.address, opening.request)] = opening, 0, b""
            if not pending:
                return opened
            for fd in self.readable():
                if fd not in pending:
                    self.attend(fd)
                    continue
                opening, step, data = pending.pop(fd)
                data += self.read(fd)
                steps = (*opening.replies, (opening.ready or b"", b""))
                awaited, reply = steps[step]
                end = data.find(awaited)
                if not step and data.startswith(b"HTTP/") and data[9:12] not in b"101 200":
                    if put_off is None or data[9:12] != b"503":
                        raise BenchmarkError(f"refused a connection: {data[:200]!r}")
                    self.sockets.pop(fd).close()
                    put_off.append(opening)
                elif end < 0:
                    pending[fd] = opening, step, data
                elif step + 1 < len(steps):
                    self.sockets[fd].sendall(reply)
                    pending[fd] = opening, step + 1, data[end + len(awaited) :]
                else:
                    opened[fd] = data[end + len(awaited) :]

    def open_waiting(self, openings: Iterable[Opening], window: int = OPENING_WINDOW) -> dict[int, bytes]:
        """Open a connection for each, in this order, that is left without an answer."""
        opened: dict[int, bytes] = {}
        left = iter(openings)
        while batch := list(itertools.islice(left, window)):
            for opening in batch:
                opened[self.connect(opening.address, opening.request)] = b""
            # These have no answer that shows that they were accepted; but one that comes after them has.
            last = self.connect(batch[0].address, http_get("/"))
            while last in self.sockets:
                for fd in self.readable():
                    if fd == last:
                        self.read(fd)
                        self.sockets.pop(fd).close()
                    else:
                        self.attend(fd)
        return opened

    def stay(self) -> None:
        """Answer the heartbeats that came on open connections. Raises `BenchmarkError` if one was ended."""
        for fd, _ in self.epoll.poll(0, len(self.sockets) + 1):
            self.attend(fd)

    def attend(self, fd: int) -> None:
        """Read what came on an open connection that is idle, and answer a heartbeat. Raises `BenchmarkError`."""
        data = self.read(fd)
        if data.startswith(_PING) and (frame := split_frame(data, 0, len(data))) is not None:
            self.sockets[fd].sendall(pong_frame(data[frame[1] : frame[2]]))
        elif data.startswith(b"HTTP/"):
            raise BenchmarkError(f"a poll that should wait was answered: {data[:200]!r}")
        # The comments of an event stream ask for nothing.

    def readable(self) -> Iterator[int]:
        """Yield the sockets that can be read. Raises `BenchmarkError` if for long there is none."""
        events = self.epoll.poll(STALLED, 4096)
        if not events:
            raise BenchmarkError(f"nothing came from the server for {STALLED:g} s")
        for fd, _ in events:
            yield fd

    def read(self, fd: int) -> bytes:
        """Return what has come. Raises `BenchmarkError` at the end of the stream."""
        try:
            data = self.sockets[fd].recv(_READ_BYTES)
        except OSError as error:
            raise BenchmarkError(f"the server cut a connection: {error.strerror}") from None
        if not data:
            raise BenchmarkError("the server closed a connection")
        return data


class Publisher(Client):
    """Kept connections with one request each under way; ``idle`` are those that wait for work.

    ``whole`` tells whether an answer is complete, or raises `BenchmarkError`; without it this is HTTP.
    """

    def __init__(
        self, address: tuple[str, int], connections: int, whole: Callable[[bytes], bool] | None = None
    ) -> None:
        super().__init__()
        self._address = address
        self._whole = whole or (lambda data: response_body(data) is not None)
        self._partial = {self.connect(address): b"" for _ in range(connections)}
        self.idle = deque(self._partial)

    @property
    def busy(self) -> int:
        """How many requests are under way."""
        return len(self._partial) - len(self.idle)

    def send(self, request: bytes) -> None:
        """Send a request on an idle connection."""
        self.sockets[self.idle.popleft()].sendall(request)

    def receive(self) -> int:
        """Wait for answers; return how many were completed. Raises `BenchmarkError` for a refusal."""
        completed = 0
        for fd in self.readable():
            data = self._partial[fd] + self.read(fd)
            if self._whole(data):
                if closes(data):
                    del self._partial[fd]
                    fd = self.renew(fd, self._address)
                self._partial[fd] = b""
                self.idle.append(fd)
                completed += 1
            else:
                self._partial[fd] = data
        return completed

    def run(self, requests: Iterator[bytes], seconds: float) -> int:
        """Keep every connection busy for so long; return how many requests were answered."""
        end = time.monotonic() + seconds
        answered = 0
        while time.monotonic() < end:
            while self.idle:
                self.send(next(requests))
            answered += self.receive()
        return answered + self.finish()

    def finish(self) -> int:
        """Wait until every request under way was answered; return how many those were."""
        answered = 0
        while self.busy:
            answered += self.receive()
        return answered
