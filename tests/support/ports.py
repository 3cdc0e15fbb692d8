"""Ports for programs that cannot tell which one they took."""

from __future__ import annotations

import socket

from twisted.trial.unittest import TestCase

__all__ = ["reserved_port"]


def reserved_port(test: TestCase) -> int:
    """
    Return a port of 127.0.0.1 that nobody else gets before the test ends.

    It stays bound, but does not listen: on Linux a program that sets ``SO_REUSEADDR`` or ``SO_REUSEPORT``, as servers
    do, can listen there all the same.
    """
    reservation = socket.socket()
    test.addCleanup(reservation.close)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reservation.bind(("127.0.0.1", 0))
    port: int = reservation.getsockname()[1]
    return port
