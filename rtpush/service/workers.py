"""
The parent of workers: processes that accept connections from the same sockets. It opens those, and starts them.

It serves nobody, has them replaced when they end or hang (see ``worker``), and ends with them.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rtpush.service.board import Board
from rtpush.service.child import BOARD, FIRST_SOCKET, PULSE, Order, packed
from rtpush.service.config import Config
from rtpush.service.leaving import Plan
from rtpush.service.reloading import changed
from rtpush.service.settings.serving import AUTO
from rtpush.service.sockets import listen, secured
from rtpush.service.worker import LOOK, PATIENCE, Worker

__all__ = ["Workers", "worker_count"]

#: How many workers may end before they are ready, if none ever was. Then it is hopeless: it would be so forever.
_HOPELESS = 3

# In a terminal Ctrl-C reaches all processes: the workers leave it, and the end of the terminal, to the parent.
_PROGRAM = """
from signal import SIG_IGN, SIGHUP, SIGINT, signal
signal(SIGINT, SIG_IGN)
signal(SIGHUP, SIG_IGN)
from twisted.scripts.twistd import run
run()
"""


def worker_count(workers: int) -> int:
    """Return how many workers there are to be: as configured, or one for each processor that this process may use."""
    if workers != AUTO:
        return workers
    # Not every system can tell.
    allowed: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return (len(allowed(0)) if allowed is not None else os.cpu_count()) or 1


class Workers(Service):
    """
    The parent.

    :param count: How many workers there are.
    :param path: Where the configuration was read.
    :param text: The configuration as it was read.
    :param reactor_name: The name of the reactor that the workers are to use; empty for the default.
    :param give_up: Called when no worker can be started at all.
    :ivar config: The configuration.
    :ivar when_ready: Has a result when all workers are ready for clients.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: Config,
        count: int,
        path: str,
        text: str,
        *,
        reactor_name: str = "",
        chance: Callable[[], float] = random.random,
        give_up: Callable[[], object],
    ) -> None:
        self.config = config
        self.when_ready: Deferred[None] = Deferred()
        self._reactor = reactor
        self._give_up = give_up
        # The working directory may be another one when a worker is replaced.
        self._path = os.path.abspath(path)
        self._configuration = packed(text)
        #: Orders for each worker that starts.
        self._standing = b""
        self._reactor_name = reactor_name
        self._ports: list[Any] = []
        self._board: Board | None = None
        self._workers = [
            Worker(reactor, number, self._spawn, chance, self._is_ready, self._is_hopeless)
            for number in range(1, count + 1)
        ]
        #: How many workers have ended before they were ready. Nothing is counted when one has been.
        self._failures: int | None = 0
        self._is_hasty = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def startService(self) -> None:
        """
        Listen everywhere and start the workers.

        :raises CannotListen: if an address cannot be had; nothing is started then.
        """
        super().startService()  # type: ignore[no-untyped-call]
        for address in self.config.addresses:
            port: Any = listen(self._reactor, address, _SharedSocket(), self.config.tls_of(address))
            # Before the reactor can turn: so nothing is ever accepted here.
            port.stopReading()
            self._ports.append(port)
            self._log.info("listening on {address} ({host})", address=address, host=port.getHost())
        self._board = Board.of(len(self._workers))
        for worker in self._workers:
            worker.start()
        self._looking.start(LOOK, now=False)

    def hasten(self) -> None:
        """Let the end that is about to begin be one in haste."""
        self._is_hasty = True

    def end(self) -> None:
        """Let the end that has begun be over now."""
        for worker in self._workers:
            worker.end()

    def reload(self, text: str, config: Config) -> list[str]:
        """
        Have all workers go on with another configuration, and with the certificates that are in their files now.

        :returns: A line for each thing that stays as it is all the same.
        :raises CannotListen: if a certificate cannot be used. Nothing has changed then.
        """
        config, lines = changed(self.config, config)
        for address in config.addresses:
            secured(self._reactor, address, _SharedSocket(), config.tls_of(address))
        self.config = config
        self._standing = Order(reload=text).line()
        for worker in self._workers:
            worker.order(self._standing)
        return lines

    def stopService(self) -> Deferred[None]:
        """Ask all workers to end, and wait for them."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._looking.running:
            self._looking.stop()
        window = Plan.hasty().window if self._is_hasty else self.config.server.drain_window
        leave = Order(leave="hasty" if self._is_hasty else "slowly")
        ended = [worker.stop(leave.line(), window + PATIENCE) for worker in self._workers]
        done: Deferred[None] = gatherResults(ended).addCallback(self._ended)
        return done

    def _is_ready(self) -> None:
        self._failures = None
        if not self.when_ready.called and all(worker.was_ready for worker in self._workers):
            self.when_ready.callback(None)

    def _is_hopeless(self) -> bool:
        """Tell, when a worker has ended before it was ready, whether no other one is to be started."""
        if self._failures is None:
            return False
        self._failures += 1
        if self._failures == _HOPELESS:
            self._log.critical("no worker can be started: giving up")
            self._give_up()
        return self._failures >= _HOPELESS

    def _look(self) -> None:
        for worker in self._workers:
            worker.look(self.config.server.watchdog)

    def _ended(self, _: object) -> None:
        # Until now: where the workers end, they refuse connections when they have accepted the last one.
        for port in self._ports:
            port.stopListening()
        board, self._board = self._board, None
        if board is not None:
            board.close()

    def _spawn(self, number: int, protocol: ProcessProtocol) -> IProcessTransport:
        """Start a process."""
        options = ["-n", "--pidfile="]
        if self._reactor_name:
            # First: naming the logger imports it.
            options.insert(0, f"--reactor={self._reactor_name}")
        command = [sys.executable, "-c", _PROGRAM, *options, "rtpush", f"--config={self._path}", f"--worker={number}"]
        assert self._board is not None
        fds: dict[int, Any] = {0: "w", 1: "r", 2: "r", BOARD: self._board.fileno(), PULSE: "r"}
        fds.update((fd, port.fileno()) for fd, port in enumerate(self._ports, FIRST_SOCKET))
        process: IProcessTransport = self._reactor.spawnProcess(protocol, command[0], command, env=None, childFDs=fds)
        process.writeToChild(0, self._configuration + self._standing)
        return process


class _SharedSocket(Factory):
    """The factory of a port that accepts nothing."""

    noisy = False
