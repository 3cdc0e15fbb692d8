"""
The life of a process: it starts, is told by signals what to do, ends; and systemd hears of all that.

``SIGTERM`` ends it in good order, ``SIGINT`` (Ctrl-C) in haste, and a second one of them at once. ``SIGHUP`` has it
read its configuration again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from rtpush.service.config import Config, ConfigError, parse, read
from rtpush.service.notify import Notifier
from rtpush.service.sockets import CannotListen

__all__ = ["Life", "Served", "on_signals"]

#: Seconds that the end may take after the window in which clients leave.
_GRACE = 10.0


_log = Logger()


class Served(Protocol):
    """What serves: a node, or the parent of several."""

    #: What it serves by.
    config: Config

    #: Has a result when it is ready for clients.
    when_ready: Deferred[None]

    def startService(self) -> None:
        """Begin."""

    def stopService(self) -> Deferred[None]:
        """End in good order."""

    def hasten(self) -> None:
        """Let the end that is about to begin be one in haste."""

    def end(self) -> None:
        """Let the end that has begun be over now."""

    def reload(self, text: str, config: Config) -> list[str]:
        """
        Go on with another configuration.

        :param text: The configuration as it was read.
        :returns: A line for each thing that stays as it is all the same.
        :raises CannotListen: if it cannot be used. Nothing has changed then.
        """


class Life(Service):
    """
    The life of what serves.

    :param path: Where the configuration is.
    :param text: The configuration itself.
    """

    _log = Logger()

    def __init__(self, reactor: Any, served: Served, path: str, notifier: Notifier) -> None:
        self._reactor = reactor
        self._served = served
        # The working directory may be another one by the time when it is read again.
        self._path = os.path.abspath(path)
        self._notifier = notifier

    def startService(self) -> None:
        """Begin to serve."""
        on_signals(self._reactor, self._leave, self._served.end, self._reload)
        self._served.startService()
        super().startService()  # type: ignore[no-untyped-call]
        self._notifier.start()
        self._served.when_ready.addCallback(lambda _: self._tell_ready())

    def stopService(self) -> Deferred[None]:
        """End in good order."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._notifier.stopping(self._served.config.server.drain_window + _GRACE)
        return self._served.stopService().addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._notifier.stop()
        return result

    def _tell_ready(self) -> None:
        if self.running:
            self._notifier.ready(f"serving at {', '.join(self._served.config.addresses)}")

    def _leave(self, number: int) -> None:
        if number == signal.SIGINT:
            self._served.hasten()

    def _reload(self) -> None:
        if not self.running:
            return
        self._notifier.reloading()
        try:
            text = read(self._path)
            lines = self._served.reload(text, parse(text, self._path))
        except (ConfigError, CannotListen) as error:
            self._log.error("the configuration stays as it is: {error}", error=str(error))
        else:
            for line in lines:
                self._log.warn("{line}", line=line)
            self._log.info("the configuration was read again")
        self._tell_ready()


def on_signals(
    reactor: Any,
    first: Callable[[int], object],
    again: Callable[[], object],
    hang_up: Callable[[], object] | None = None,
) -> None:
    """
    Say what signals do.

    :param first: Called with ``SIGTERM`` or ``SIGINT`` before the reactor ends for it.
    :param again: Called when there is another one.
    :param hang_up: Called on ``SIGHUP``.
    """
    is_ending = False

    def install() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Where it is ignored, it stays so.
            if callable(signal.getsignal(number)):
                signal.signal(number, ending)

    def ending(number: int, frame: Any) -> None:
        nonlocal is_ending
        if is_ending:
            reactor.callFromThread(again)
        else:
            is_ending = True
            first(number)
            reactor.callFromThread(stop, number)

    def stop(number: int) -> None:
        # As Twisted does it, where it would be an error that a worker was told meanwhile by its parent, too.
        _log.info("received {name}, ending", name=signal.Signals(number).name)
        # By which twistd ends then.
        reactor._exitSignal = number
        try:
            reactor.stop()
        except ReactorNotRunning:
            pass

    had_terminal = os.isatty(0)

    def hung_up(number: int, frame: Any) -> None:
        if had_terminal and not os.isatty(0):
            # The terminal is gone. Nobody has asked for anything, and nobody sees this process any more.
            os.kill(os.getpid(), signal.SIGINT)
        elif hang_up is not None:
            reactor.callFromThread(hang_up)

    def begun() -> None:
        nonlocal is_ending
        is_ending = True

    if hang_up is not None:
        signal.signal(signal.SIGHUP, hung_up)
    # Later than the reactor installs its own.
    reactor.callWhenRunning(install)
    # The end may have another reason.
    reactor.addSystemEventTrigger("before", "shutdown", begun)
