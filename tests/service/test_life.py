"""Tests of rtpush.service.life: what signals do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.life import on_signals


class _Reactor:
    """As much of a reactor as ends."""

    _exitSignal: int | None = None

    def __init__(self) -> None:
        self.is_running = True
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        call()

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        self.begun = call

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        self.calls.append((call, arguments))

    def stop(self) -> None:
        if not self.is_running:
            raise ReactorNotRunning
        self.is_running = False

    def turn(self) -> None:
        """Do what was to be done."""
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


class SignalTests(SynchronousTestCase):
    """``SIGTERM`` and ``SIGINT``."""

    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda number, frame: None)
        self.reactor = _Reactor()
        self.first: list[int] = []
        self.again: list[None] = []
        on_signals(self.reactor, self.first.append, lambda: self.again.append(None))

    def test_ends(self) -> None:
        """The first one ends the reactor, and twistd ends by it; the next one says that it is to be over."""
        os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(self.first, [signal.SIGINT])
        self.reactor.turn()
        self.assertEqual((self.reactor.is_running, self.reactor._exitSignal), (False, signal.SIGINT))
        os.kill(os.getpid(), signal.SIGTERM)
        self.reactor.turn()
        self.assertEqual((len(self.first), len(self.again)), (1, 1))

    def test_told_too(self) -> None:
        """A process that ends already, since its parent has had the same signal, has no trouble with it."""
        os.kill(os.getpid(), signal.SIGTERM)
        self.reactor.stop()
        self.reactor.turn()
        self.assertFalse(self.reactor.is_running)

    def test_ignored(self) -> None:
        """What is ignored stays so."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        on_signals(self.reactor, self.first.append, lambda: None)
        os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(self.first, [])
