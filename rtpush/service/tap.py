"""``twistd rtpush``: its options and its service."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn, TextIO, cast

import attrs
from twisted.application.service import IService, MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as BaseOptions

from rtpush.auth.keys import KeyMistake
from rtpush.metrics.process import GcWatch
from rtpush.protocol.addresses import TrustedProxies
from rtpush.registry.node import Node
from rtpush.service import logs
from rtpush.service.assemble import Gather, build_api_site, build_node, build_site, reconfigure
from rtpush.service.board import Board, SharedSamples
from rtpush.service.child import BOARD, FIRST_SOCKET, Order, ParentWatch, Pulse, unpacked
from rtpush.service.config import Config, ConfigError, parse, read
from rtpush.service.ending import end, fail
from rtpush.service.leaving import AllSites, Leaving, Plan
from rtpush.service.life import Life, Served, on_signals
from rtpush.service.listeners import Listeners
from rtpush.service.notify import Notifier
from rtpush.service.reloading import changed
from rtpush.service.sockets import CannotListen
from rtpush.service.workers import Workers, worker_count
from rtpush.transports.site import PushSite

__all__ = ["Options", "PushService", "makeService"]


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
            # Without a buffer: the orders that come later are to be left in the pipe.
            stdin: Any = sys.stdin.buffer
            self.configuration_text = read(path) if self["worker"] is None else unpacked(stdin.raw)
            self.configuration = parse(self.configuration_text, path)
        except ConfigError as error:
            _die(str(error))
        except ValueError:
            _die("rtpush: --worker is for rtpush itself: expected the configuration on the standard input")
        if self["check"]:
            sys.stdout.write(f"{path}: ok\n")
            raise SystemExit(0)
        if self.parent is not None:
            logs.use(self.configuration, self.parent, self["worker"], reactor)


class PushService(Service):
    """
    A node and the ports that it listens on.

    :param sockets: File descriptors to accept connections from, in the order of the listen addresses: if another
        process has opened them.
    :param worker: The number of this process, if it is one of several workers.
    """

    _log = Logger()

    def __init__(self, config: Config, sockets: Sequence[int] = (), worker: int | None = None) -> None:
        self.config = config
        self.when_ready: Deferred[None] = Deferred()
        #: Whether all processes that share its sockets end when it does.
        self.is_last = worker is None
        self._worker = worker
        self._shared: SharedSamples | None = None
        self._gc_watch: GcWatch | None = None
        public = len(config.server.listen)
        self._listeners = Listeners(reactor, config.server.listen, sockets[:public], self._proxies)
        self._api_listeners = Listeners(reactor, config.api.listen, sockets[public:], self._proxies)
        self._node: Node | None = None
        self._site: PushSite | None = None
        self._api_site: PushSite | None = None
        self._leaving: Leaving | None = None
        self._is_hasty = False

    def startService(self) -> None:
        """
        Start the node, then listen everywhere.

        :raises CannotListen: if an address cannot be had.
        """
        super().startService()  # type: ignore[no-untyped-call]
        node = self._node = build_node(self.config, reactor)
        self._watch(node)
        self._site = build_site(self.config, node, reactor, self._gather)
        started = node.start()
        self._listeners.open(self._site, self.config.tls_of)
        if self.config.api.listen:
            self._api_site = build_api_site(self.config, node, reactor, self._gather)
            self._api_listeners.open(self._api_site, self.config.tls_of)
        started.addCallbacks(self._ready, self._failed)
        _spare_collections()

    def hasten(self) -> None:
        """Let the end that is about to begin be one in haste."""
        self._is_hasty = True

    def end(self) -> None:
        """Let the end that has begun be over now."""
        if self._leaving is not None:
            self._leaving.end()

    def reload(self, text: str, config: Config) -> list[str]:
        """
        Go on with another configuration, and with the certificates that are in their files now.

        :returns: A line for each thing that stays as it is all the same.
        :raises CannotListen: if a certificate cannot be used. Nothing has changed then.
        :raises ConfigError: if a key cannot be used. Nothing has changed then.
        """
        assert self._node is not None and self._site is not None
        config, lines = changed(self.config, config)
        renewed = self._listeners.renewed(self._site, config.tls_of)
        if self._api_site is not None:
            renewed += self._api_listeners.renewed(self._api_site, config.tls_of)
        try:
            reconfigure(config, self._node, self._site, self._gather, self._api_site)
        except KeyMistake as mistake:
            # A file has changed since the configuration was read.
            raise ConfigError("[auth] keys", None, str(mistake)) from mistake
        self.config = config
        for port, factory in renewed:
            port.serve_with(factory)
        return lines

    @property
    def _gather(self) -> Gather | None:
        return None if self._shared is None else self._shared.gather

    def _proxies(self) -> TrustedProxies:
        return TrustedProxies() if self._node is None else self._node.proxies

    def _watch(self, node: Node) -> None:
        """Count what is not counted by the node itself, and share it with the other workers."""
        self._gc_watch = GcWatch(node.counts.pauses)
        self._gc_watch.start()
        if self._worker is not None:
            self._shared = SharedSamples(reactor, Board(BOARD), self._worker, node)
            self._shared.start()

    def _watch_no_more(self) -> None:
        if self._gc_watch is not None:
            self._gc_watch.stop()
        if self._shared is not None:
            self._shared.stop()

    def _ready(self, _: object) -> None:
        self.when_ready.callback(None)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the node cannot start", failure=failure)
        fail()

    def stopService(self) -> Deferred[None]:
        """Tell all clients to go to other nodes, or to come back, and end when they have gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._node is None or self._site is None:
            return succeed(None)
        server = self.config.server
        plan = Plan(server.drain_window, server.drain_notice, spread=server.drain_window)
        site = self._site if self._api_site is None else AllSites([self._site, self._api_site])
        self._leaving = Leaving(
            reactor, self._node, site, self._close, Plan.hasty() if self._is_hasty else plan
        )
        return self._leaving.begin().addCallback(self._left)

    def _close(self) -> None:
        self._listeners.close(for_all=self.is_last)
        self._api_listeners.close(for_all=self.is_last)

    def _left(self, _: object) -> Deferred[None]:
        assert self._node is not None
        self._close()
        self._watch_no_more()
        return self._node.stop()


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
    if options["worker"] is not None:
        service: Any = _worker(config, options["worker"])
    else:
        served = _served(options)
        service = Life(reactor, served, options["config"], Notifier.of(os.environ, cast(IReactorTime, reactor)))
    if twistd is not None and not twistd["nodaemon"]:
        # What it raises as it starts is told, by twistd, to the process that has started this one.
        return cast(IService, service)
    foreground: Any = _Foreground()  # type: ignore[no-untyped-call]
    foreground.addService(service)
    return cast(IService, foreground)


def _served(options: Options) -> Served:
    """Return what serves: a node, or the parent of several."""
    config, twistd = options.configuration, options.parent
    count = worker_count(config.server.workers)
    if count == 1:
        return PushService(config)
    return Workers(
        reactor,
        config,
        count,
        options["config"],
        options.configuration_text,
        reactor_name=(twistd and twistd.get("reactor")) or "",
        give_up=fail,
    )


def _worker(config: Config, number: int) -> IService:
    """Return what a worker runs."""
    sockets = range(FIRST_SOCKET, FIRST_SOCKET + len(config.addresses))
    served = PushService(_named(config, number), sockets, number)
    pulse = Pulse(cast(IReactorTime, reactor))
    served.when_ready.addCallback(lambda _: pulse.start())

    def told(order: Order) -> None:
        if order.reload is not None:
            try:
                # What stays as it is all the same, the parent has said.
                served.reload(order.reload, _named(parse(order.reload), number))
            except (ConfigError, CannotListen) as error:
                # The files have changed once more since the parent has read them.
                Logger().error("the configuration stays as it is: {error}", error=str(error))
        if order.leave:
            served.is_last = True
            if order.leave == "hasty":
                served.hasten()
            end()
        if order.end:
            served.end()

    service: Any = MultiService()
    service.addService(ParentWatch(cast(IReactorFDSet, reactor), told, lambda: told(Order(leave="hasty"))))
    service.addService(served)
    # Once is enough, however often it is said: what is to be over now, the parent says.
    on_signals(reactor, lambda number: None, lambda: None)
    return cast(IService, service)


def _named(config: Config, number: int) -> Config:
    """Return the configuration of a worker, which has a name of its own."""
    server = config.server
    return attrs.evolve(config, server=attrs.evolve(server, node=f"{server.node}/{number}")) if server.node else config
