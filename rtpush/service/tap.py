"""``twistd rtpush``: its options and its service."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn, TextIO, cast

import attrs
from twisted.application.service import IService, MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as BaseOptions

from rtpush.registry.node import Node
from rtpush.service.assemble import build_node, build_site
from rtpush.service.child import FIRST_SOCKET, ParentWatch, unpacked
from rtpush.service.config import Config, ConfigError, parse, read
from rtpush.service.sockets import CannotListen, listen, listen_inherited
from rtpush.service.workers import Workers, worker_count

__all__ = ["Options", "PushService", "makeService"]

#: Seconds for which farewells may go out before the process ends.
_FAREWELL = 0.5


class Options(BaseOptions):
    """The command line."""

    synopsis = "--config FILE [--check]"
    optParameters: ClassVar[Any] = [
        ["config", "c", None, "The configuration file."],
        ["worker", None, None, "Not for you: rtpush starts its workers with it.", int],
    ]
    optFlags: ClassVar[Any] = [["check", None, "Say whether the configuration is good, and end."]]

    configuration: Config
    configuration_text: str

    def postOptions(self) -> None:
        """Read the configuration; a mistake in it is one line and exit code 1."""
        path = self["config"]
        if path is None:
            _die("rtpush: --config FILE is missing: expected a configuration file, such as conf/dev.ini")
        try:
            self.configuration_text = read(path) if self["worker"] is None else unpacked(sys.stdin.buffer)
            self.configuration = parse(self.configuration_text, path)
        except ConfigError as error:
            _die(str(error))
        except ValueError:
            _die("rtpush: --worker is for rtpush itself: expected the configuration on the standard input")
        if self["check"]:
            sys.stdout.write(f"{path}: ok\n")
            raise SystemExit(0)


class PushService(Service):
    """
    A node and the ports that it listens on.

    :param sockets: File descriptors to accept connections from, in the order of the listen addresses: if another
        process has opened them.
    """

    _log = Logger()

    def __init__(self, config: Config, sockets: Sequence[int] = ()) -> None:
        self._config = config
        self._sockets = sockets
        self._ports: list[IListeningPort] = []
        self._node: Node | None = None

    def startService(self) -> None:
        """
        Start the node, then listen everywhere.

        :raises CannotListen: if an address cannot be had.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._node = build_node(self._config, reactor)
        site = build_site(self._config, self._node, reactor)
        self._node.start().addErrback(self._failed)
        for index, address in enumerate(self._config.server.listen):
            if self._sockets:
                port = listen_inherited(reactor, self._sockets[index], address, site)
            else:
                port = listen(reactor, address, site)
            self._ports.append(port)
            self._log.info("listening on {address} ({host})", address=address, host=port.getHost())
        _spare_collections()

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


class _Foreground(MultiService):
    """What runs in the foreground: where a person sees it, one line is enough on why it does not start."""

    _log = Logger()

    def startService(self) -> None:
        """Start it, or end the process with one line and exit code 1."""
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except CannotListen as error:
            self._log.critical("{line}", line=str(error))
            # sys.stderr is a part of the log by now.
            _die(str(error), sys.__stderr__)


def _spare_collections() -> None:
    """
    Have the garbage collector look at less, and less often.

    What is there now stays; and of what comes, little is in cycles: a look at every few hundred objects, as Python
    takes by itself, would go through all connections again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _die(line: str, stderr: TextIO | None = None) -> NoReturn:
    """End with one line and exit code 1."""
    (stderr or sys.stderr).write(line + "\n")
    raise SystemExit(1)


def makeService(options: Options) -> IService:
    """Return what twistd runs."""
    config, twistd = options.configuration, options.parent
    count = worker_count(config.server.workers)
    service: Any
    if options["worker"] is not None:
        service = _worker(config, options["worker"])
    elif count > 1:
        service = Workers(
            reactor,
            config.server.listen,
            count,
            options["config"],
            options.configuration_text,
            reactor_name=(twistd and twistd.get("reactor")) or "",
        )
    else:
        service = PushService(config)
    if twistd is not None and not twistd["nodaemon"]:
        # What it raises as it starts is told, by twistd, to the process that has started this one.
        return cast(IService, service)
    foreground: Any = _Foreground()  # type: ignore[no-untyped-call]
    foreground.addService(service)
    return cast(IService, foreground)


def _worker(config: Config, number: int) -> IService:
    """Return what a worker runs."""
    server = config.server
    if server.node:
        config = attrs.evolve(config, server=attrs.evolve(server, node=f"{server.node}/{number}"))
    service: Any = MultiService()
    service.addService(ParentWatch(reactor, _stop))
    service.addService(PushService(config, range(FIRST_SOCKET, FIRST_SOCKET + len(server.listen))))
    return cast(IService, service)


def _stop() -> None:
    try:
        cast(IReactorCore, reactor).stop()
    except ReactorNotRunning:
        # It stops already.
        pass
