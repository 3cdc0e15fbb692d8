"""Commands that wait for an answer, in order, across connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from rtpush.client.errors import NotDelivered, OutboxFull
from rtpush.client.wire import Frame, result_of

__all__ = ["Command", "Outbox"]


@attrs.define(eq=False)
class Command:
    """
    A command of the user: it is sent once a connection is open, and again on the next one if it had no answer.

    :ivar body: Its fields, as JSON.
    :ivar channel: The channel that it is for.
    :ivar again: Whether it may be sent twice.
    :ivar deadline: When it is given up, in the clock's seconds.
    """

    name: str
    body: bytes
    channel: str
    again: bool
    deadline: float
    result: Deferred[Any]
    sent: bool = False


class Outbox:
    """
    The commands of a client that have no answer yet.

    :param timeout: Seconds after which a command is given up. It must be shorter than the server's idempotency window,
        else a repetition may be taken for a new message.
    :param size: How many commands it holds.
    """

    def __init__(self, clock: IReactorTime, timeout: float, size: int) -> None:
        self._clock = clock
        self._timeout = timeout
        self._size = size
        self._commands: dict[Command, None] = {}
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, name: str, body: bytes, *, channel: str, again: bool) -> Command:
        """
        Take a command.

        :raises OutboxFull: if there are too many already.
        """
        if len(self._commands) >= self._size:
            raise OutboxFull(f"{self._size} commands wait for an answer already")
        command = Command(name, body, channel, again, self._clock.seconds() + self._timeout, Deferred(self._forget))
        self._commands[command] = None
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._expire)
        return command

    def unsent(self) -> list[Command]:
        """Return the commands that go out on a new connection, in order, and count them as sent."""
        commands = [command for command in self._commands if not command.sent]
        for command in commands:
            command.sent = True
        return commands

    def cut(self) -> None:
        """Hear that the connection is gone: what had no answer goes again, but for what must not go twice."""
        for command in list(self._commands):
            if command.sent and not command.again:
                self.failed(command, NotDelivered("the connection was cut before the answer came"))
            command.sent = False

    def answered(self, command: Command, reply: Frame) -> None:
        """Give a command its answer, if it still waits for one."""
        if self._remove(command):
            try:
                result = result_of(reply)
            except Exception as error:
                command.result.errback(error)
            else:
                command.result.callback(result)

    def failed(self, command: Command, error: Exception) -> None:
        """Give up a command, if it still waits."""
        if self._remove(command):
            command.result.errback(error)

    def close(self, why: Callable[[], Exception]) -> None:
        """Give up all commands."""
        for command in list(self._commands):
            self.failed(command, why())

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for command in list(self._commands):
            if command.deadline > now:
                self._timer = self._clock.callLater(command.deadline - now, self._expire)
                break
            self.failed(command, NotDelivered(f"no answer within {self._timeout:g} s"))

    def _forget(self, result: Deferred[Any]) -> None:
        """Drop the command whose result was cancelled; an answer that comes nevertheless is ignored."""
        for command in self._commands:
            if command.result is result:
                self._remove(command)
                return

    def _remove(self, command: Command) -> bool:
        if command not in self._commands:
            return False
        del self._commands[command]
        if not self._commands and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return True
