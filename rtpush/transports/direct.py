"""
Writing to a socket at once.

``transport.write`` of Twisted keeps the bytes and asks the reactor when they can be sent: three system calls and a turn
of the loop for what one ``send`` does nearly always. So that is tried first, where nothing waits before it; what the
kernel does not take goes the ordinary way.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Server

__all__ = ["write_now"]


def write_now(transport: Any, data: bytes) -> None:
    """
    Write bytes: at once if this is a plain TCP connection with an empty buffer, else by ``transport.write``.

    An error of the socket is left to the reactor, which sees it at the next event and tells the protocol then: not in
    the middle of a loop over many connections.
    """
    if (
        isinstance(transport, Server)
        and transport.connected
        and not transport.disconnecting
        and not transport.dataBuffer
        and not transport._tempDataBuffer
    ):
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)
