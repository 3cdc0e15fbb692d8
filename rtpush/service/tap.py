"""``twistd rtpush``: its options and its service."""

from __future__ import annotations

import sys
from typing import Any, ClassVar, NoReturn, TextIO

from twisted.application.service import IService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as BaseOptions
from twisted.web.server import Site

from rtpush.registry.node import Node
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import Config, ConfigError, load

__all__ = ["CannotListen", "Options", "PushService", "makeService"]

#: Seconds for which farewells may go out before the process ends.
_FAREWELL = 0.5


class Options(BaseOptions):
    """The command line."""

    synopsis = "--config FILE [--check]"
    optParameters: ClassVar[Any] = [["config", "c", None, "The configuration file."]]
    optFlags: ClassVar[Any] = [["check", None, "Say whether the configuration is good, and end."]]

    configuration: Config

    def postOptions(self) -> None:
        """Read the configuration; a mistake in it is one line and exit code 1."""
        path = self["config"]
        if path is None:
            _die("rtpush: --config FILE is missing: expected a configuration file, such as conf/dev.ini")
        try:
            self.configuration = load(path)
        except ConfigError as error:
            _die(str(error))
        if self["check"]:
            sys.stdout.write(f"{path}: ok\n")
            raise SystemExit(0)


class CannotListen(Exception):
    """An address cannot be had."""


class PushService(Service):
    """
    A node and the ports that it listens on.

    :param foreground: Whether a person sees the standard error of this process.
    """

    _log = Logger()

    def __init__(self, config: Config, *, foreground: bool = True) -> None:
        self._config = config
        self._foreground = foreground
        self._ports: list[IListeningPort] = []
        self._node: Node | None = None

    def startService(self) -> None:
        """
        Start the node, then listen everywhere; one address that cannot be had ends the process.

        :raises CannotListen: in the background, where twistd tells it the process that has started this one.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._node = build_node(self._config, reactor)
        site = build_site(self._config, self._node, reactor)
        self._node.start().addErrback(self._failed)
        for address in self._config.server.listen:
            self._listen(address, site)

    def _listen(self, address: str, site: Site) -> None:
        try:
            listening = serverFromString(reactor, address).listen(site)
        except (ValueError, OSError) as error:
            self._cannot_listen(address, str(error))
        # A Deferred would keep what ends the process to itself.
        failures: list[Failure] = []
        listening.addCallback(self._listens, address).addErrback(failures.append)
        if failures:
            problem = failures[0].value
            cause = problem.socketError if isinstance(problem, CannotListenError) else problem
            self._cannot_listen(address, str(getattr(cause, "strerror", None) or cause))

    def _listens(self, port: IListeningPort, address: str) -> None:
        self._ports.append(port)
        self._log.info("listening on {address} ({host})", address=address, host=port.getHost())

    def _cannot_listen(self, address: str, reason: str) -> NoReturn:
        line = f"{address}: cannot listen: {reason}"
        if not self._foreground:
            raise CannotListen(line)
        self._log.critical("{line}", line=line)
        # sys.stderr is a part of the log by now.
        _die(line, sys.__stderr__)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the node cannot start", failure=failure)
        if IReactorCore.providedBy(reactor):
            reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Accept nobody any more, tell all clients to come back, and end."""
        super().stopService()  # type: ignore[no-untyped-call]
        node = self._node
        for port in self._ports:
            port.stopListening()
        if node is None:
            return deferLater(reactor, 0)
        node.leave_all()
        gone: Deferred[None] = deferLater(reactor, _FAREWELL if node.connections else 0.0)
        return gone.addCallback(lambda _: node.stop())


def _die(line: str, stderr: TextIO | None = None) -> NoReturn:
    """End with one line and exit code 1."""
    (stderr or sys.stderr).write(line + "\n")
    raise SystemExit(1)


def makeService(options: Options) -> IService:
    """Return what twistd runs."""
    twistd = options.parent
    service: IService = PushService(options.configuration, foreground=twistd is None or bool(twistd["nodaemon"]))
    return service
