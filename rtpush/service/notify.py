"""Telling systemd how this process does: sd_notify(3), without a library."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

__all__ = ["Notifier"]


class Notifier:
    """
    Tells systemd, if that has started this process and wants to hear.

    :param address: Where systemd listens; empty if it does not.
    :param watchdog: Seconds within which it must hear that this process lives; 0 if it does not look.
    """

    def __init__(self, address: str, watchdog: float, clock: IReactorTime) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._beating = LoopingCall(self.tell, "WATCHDOG=1")
        self._beating.clock = clock
        self._watchdog = watchdog
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    @classmethod
    def of(cls, environment: MutableMapping[str, str], clock: IReactorTime) -> Notifier:
        """Make one of what systemd has put into the environment, and take that out: no child has a part in it."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_meant = microseconds.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if is_meant else 0.0, clock)

    def start(self) -> None:
        """Show from now on that the reactor turns."""
        if self._watchdog and self._socket is not None:
            self._beating.start(self._watchdog / 2)

    def stop(self) -> None:
        """Show it no more."""
        if self._beating.running:
            self._beating.stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self, status: str) -> None:
        """This process does its work."""
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is read again; :meth:`ready` says when that is done."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """The end begins, and may take so many seconds."""
        self.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=leaving")

    def tell(self, *lines: str) -> None:
        """Say something, in the words of sd_notify."""
        if self._socket is not None:
            try:
                self._socket.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                # It is of no use to say so: whoever was to hear this sees to it.
                pass
