"""Strangers who mean no good, on plain sockets, and a witness who is to notice nothing of them."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator

from tests.support.wire import TEXT, Frames, Response, frame, handshake

__all__ = ["Witness", "connected", "ended", "open_websocket"]

#: Seconds that anything may take.
_PATIENCE = 30.0


def connected(port: int, *, receive_buffer: int = 0) -> socket.socket:
    """Return a connection to a port of this machine."""
    connection = socket.socket()
    connection.settimeout(_PATIENCE)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", port))
    return connection


def open_websocket(port: int, request: bytes, *, receive_buffer: int = 0) -> tuple[socket.socket, int]:
    """Send a handshake; return the connection and the status of the answer."""
    connection = connected(port, receive_buffer=receive_buffer)
    connection.sendall(request)
    response = Response()
    while not response.status:
        data = connection.recv(65536)
        if not data:
            raise AssertionError("there was no answer")
        response.feed(data)
    return connection, response.status


def ended(connections: list[socket.socket], *, drip: bytes = b"", every: float = 1.0, limit: float) -> Iterator[float]:
    """
    Wait until connections are closed; yield after how many seconds each one was.

    :param drip: What is sent on those that are open, every so many seconds.
    :param limit: Seconds after which it is over, whatever is open.
    """
    selector = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    begun = dripped = time.monotonic()
    while selector.get_map() and time.monotonic() - begun < limit:
        for key, _ in selector.select(0.1):
            connection = key.fileobj  # type: ignore[assignment]
            try:
                is_over = not connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                is_over = True
            if is_over:
                selector.unregister(connection)
                connection.close()
                yield time.monotonic() - begun
        if drip and time.monotonic() - dripped >= every:
            dripped = time.monotonic()
            for key in selector.get_map().values():
                with contextlib.suppress(OSError):
                    key.fileobj.send(drip)  # type: ignore[union-attr]
    selector.close()


class Witness:
    """
    A client that publishes to a channel that it follows, again and again, and measures how long each message takes.

    :ivar times: Those times, in seconds.
    """

    def __init__(self, port: int) -> None:
        self.times: list[float] = []
        self._connection, status = open_websocket(port, handshake("/ws", {"channel": "demo:witness"}))
        if status != 101:
            raise AssertionError(f"the witness got {status}")
        self._frames = Frames()
        self._is_over = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> str:
        """End it; return what is told of its times."""
        self._is_over.set()
        self._thread.join(_PATIENCE)
        self._connection.close()
        if self._problem is not None:
            raise AssertionError("the witness was disturbed") from self._problem
        times = sorted(self.times)
        if not times:
            raise AssertionError("the witness has heard nothing")
        median, late = times[len(times) // 2], times[int(len(times) * 0.99)]
        return f"another client: median {median * 1000:.1f} ms, p99 {late * 1000:.1f} ms of {len(times)} messages"

    def _run(self) -> None:
        try:
            number = 0
            while not self._is_over.wait(0.01):
                number += 1
                begun = time.monotonic()
                command = {"publish": {"channel": "demo:witness", "data": number}}
                self._connection.sendall(frame(TEXT, json.dumps(command).encode()))
                self._wait_for(number)
                self.times.append(time.monotonic() - begun)
        except BaseException as problem:
            self._problem = problem

    def _wait_for(self, number: int) -> None:
        while True:
            data = self._connection.recv(65536)
            if not data:
                raise AssertionError("the connection of the witness has ended")
            for opcode, payload in self._frames.feed(data):
                if opcode == TEXT and json.loads(payload).get("message", {}).get("data") == number:
                    return
