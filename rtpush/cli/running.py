"""Running a command that needs the reactor, until it is done or a signal ends it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from rtpush.cli.exits import Exit, Failed, Unusable
from rtpush.cli.output import complain
from rtpush.client import ClientClosed, LinkLost, NotDelivered, OutboxFull, ServerEnded
from rtpush.errors import RtpushError

__all__ = ["Command", "Task", "code_of", "run_task"]


class Task(Protocol):
    """What a command does while the reactor runs."""

    def run(self) -> Deferred[int]:
        """Do it; the result is the exit code."""

    def stop(self) -> Deferred[None]:
        """End it: what is not done by now is not done."""


class Command:
    """
    A task that is one coroutine: what it raises decides on the exit code.

    :param reactor: The reactor.
    :param options: What the command line says.
    """

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self.reactor = reactor
        self.options = options
        self._running: Deferred[int] | None = None

    async def main(self) -> int:
        """Do it, and return the exit code."""
        raise NotImplementedError

    def close(self) -> Deferred[None]:
        """Let go of what was opened, however it ended."""
        return succeed(None)

    def run(self) -> Deferred[int]:
        """Do it; the result is the exit code."""
        self._running = Deferred.fromCoroutine(self.main())
        return self._running

    def stop(self) -> Deferred[None]:
        """End it."""
        if self._running is not None:
            self._running.cancel()
        return maybeDeferred(self.close)


def run_task(make: Callable[[Any, argparse.Namespace], Task], options: argparse.Namespace) -> int:
    """
    Run a task until it is done or a signal ends it, and return the exit code.

    :raises Unusable: if it cannot be made of these options.
    """
    # Importing the reactor installs it, so that comes after the command line is known to be good.
    from twisted.internet import reactor as installed

    reactor: Any = installed
    try:
        task = make(reactor, options)
    except ValueError as error:
        raise Unusable(str(error)) from error
    codes: list[int] = []

    def done(result: int | Failure) -> None:
        codes.append(_code(result) if isinstance(result, Failure) else result)
        try:
            reactor.stop()
        except ReactorNotRunning:
            # A signal has stopped it already.
            pass

    reactor.addSystemEventTrigger("before", "shutdown", task.stop)
    reactor.callWhenRunning(lambda: task.run().addBoth(done))
    reactor.run()
    return codes[0] if codes else Exit.INTERRUPTED


def code_of(error: BaseException | None) -> Exit | None:
    """Return the exit code for what went wrong; :obj:`None` if that is a mistake of ours."""
    if isinstance(error, Failed):
        return error.code
    if isinstance(error, RtpushError | ServerEnded):
        return Exit.REFUSED
    if isinstance(error, LinkLost | ClientClosed | NotDelivered):
        return Exit.UNREACHABLE
    return Exit.FAILED if isinstance(error, OutboxFull) else None


def _code(failure: Failure) -> int:
    error = failure.value
    if isinstance(error, CancelledError):
        return Exit.INTERRUPTED
    code = code_of(error)
    complain(f"this is a mistake in rtpush: {error!r}" if code is None else str(error))
    return Exit.FAILED if code is None else code
