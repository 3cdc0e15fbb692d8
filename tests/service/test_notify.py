"""Tests of rtpush.service.notify."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.notify import Notifier


class NotifierTests(SynchronousTestCase):
    """What systemd hears."""

    def setUp(self) -> None:
        self.clock = Clock()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/notify"
        self.socket = self._listen(self.path)

    def _listen(self, name: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listening.close)
        listening.bind(name)
        listening.setblocking(False)
        return listening

    def _said(self) -> list[list[str]]:
        """Return the lines of all that was said."""
        said = []
        while True:
            try:
                said.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return said

    def _notifier(self, **environment: str) -> Notifier:
        notifier = Notifier.of({"NOTIFY_SOCKET": self.path, **environment}, self.clock)
        self.addCleanup(notifier.stop)
        return notifier

    def test_life(self) -> None:
        """It says when it is ready, when it reads its configuration again, and that it ends."""
        notifier = self._notifier()
        notifier.start()
        notifier.ready("serving")
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        notifier.reloading()
        notifier.ready("serving on")
        notifier.stopping(2.5)
        ready, reloading, again, stopping = self._said()
        self.assertEqual(ready, ["READY=1", "STATUS=serving"])
        self.assertEqual(reloading[0], "RELOADING=1")
        name, _, microseconds = reloading[1].partition("=")
        self.assertEqual(name, "MONOTONIC_USEC")
        self.assertLess(abs(int(microseconds) / 1e6 - before), 5.0)
        self.assertEqual(again, ["READY=1", "STATUS=serving on"])
        self.assertEqual(stopping, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=2500000", "STATUS=leaving"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog(self) -> None:
        """It shows twice in the time that it lives, until it stops."""
        notifier = self._notifier(WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
        notifier.start()
        self.clock.pump([2.5] * 4)
        self.assertEqual(self._said(), [["WATCHDOG=1"]] * 3)
        notifier.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog_of_another(self) -> None:
        """What is meant for another process is no matter of this one."""
        for environment in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "often"}):
            with self.subTest(environment):
                self._notifier(**{"WATCHDOG_USEC": "10000000", **environment}).start()
                self.assertEqual((self._said(), self.clock.getDelayedCalls()), ([], []))

    def test_environment(self) -> None:
        """Nothing of it is left for the processes that this one starts."""
        environment = {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "/bin"}
        Notifier.of(environment, self.clock).stop()
        self.assertEqual(environment, {"PATH": "/bin"})

    def test_abstract(self) -> None:
        """The name may be one that is in no file system."""
        name = f"rtpush-{secrets.token_hex(8)}"
        self.socket = self._listen(f"\0{name}")
        notifier = Notifier.of({"NOTIFY_SOCKET": f"@{name}"}, self.clock)
        self.addCleanup(notifier.stop)
        notifier.ready("x")
        self.assertEqual(len(self._said()), 1)

    def test_nobody(self) -> None:
        """Without systemd, or when it is gone, nothing happens."""
        for environment in ({}, {"NOTIFY_SOCKET": f"{self.path}.nowhere"}):
            notifier = Notifier.of(environment, self.clock)
            notifier.start()
            notifier.ready("x")
            notifier.reloading()
            notifier.stopping(1.0)
            notifier.stop()
            notifier.stopping(1.0)
        self.assertEqual(self._said(), [])
