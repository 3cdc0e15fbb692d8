"""
Watches very many connections for the reactor, which sees one descriptor for all of them.

Twisted's reactor spends more on telling a connection that it can be read than most of what comes deserves: a context
for the log, a look into three tables, a delayed call for what is to be done at the end of the turn. Here it is an epoll
set of our own, which the reactor's set contains.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Polling", "Watched", "polling_of"]

#: The most connections that are served before what else there is.
_MOST_AT_ONCE = 512

_READ = getattr(select, "EPOLLIN", 0)
_WRITE = getattr(select, "EPOLLOUT", 0)

#: What ends a connection has been the same since Twisted began, so that one failure does for all.
_FAILURES: dict[type[Exception], Failure] = {
    ConnectionDone: Failure(CONNECTION_DONE),
    ConnectionLost: Failure(CONNECTION_LOST),
}


class Watched(Protocol):
    """
    What is watched.

    :ivar events: What for; it belongs to :class:`Polling`.
    """

    events: int

    def fileno(self) -> int: ...
    def doRead(self) -> Any: ...
    def doWrite(self) -> Any: ...
    def readConnectionLost(self, reason: Failure) -> None: ...
    def connectionLost(self, reason: Failure) -> None: ...


@implementer(IReadDescriptor)
class Polling:
    """
    An epoll set within the reactor's.

    To connections it is what the reactor is: they say what they wait for, and are told when it is there, as
    :class:`twisted.internet.interfaces.IReactorFDSet` has it.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        #: What is to be done at the end of a turn; nothing outside of one.
        self._after: list[Callable[[], object]] | None = None
        self.callLater = reactor.callLater

    def soon(self, call: Callable[[], object]) -> None:
        """Have something called when this turn's connections are served, or in the reactor's next turn."""
        if self._after is not None:
            self._after.append(call)
        else:
            self._reactor.callLater(0, call)

    def look(self, watched: Watched) -> None:
        """Read what may have come on a connection, without being told that there is something."""
        self._serve(watched, _READ)

    # IReactorFDSet, as far as connections use it

    def addReader(self, watched: Watched) -> None:
        self._watch(watched, watched.events | _READ)

    def removeReader(self, watched: Watched) -> None:
        self._watch(watched, watched.events & ~_READ)

    def addWriter(self, watched: Watched) -> None:
        self._watch(watched, watched.events | _WRITE)

    def removeWriter(self, watched: Watched) -> None:
        self._watch(watched, watched.events & ~_WRITE)

    def _watch(self, watched: Watched, events: int) -> None:
        before = watched.events
        if events == before:
            return
        fd = watched.fileno()
        if not before:
            self._epoll.register(fd, events)
            # Each time, which is nothing if it is there already: others may have removed all that the reactor watches.
            self._reactor.addReader(self)
            self._watched[fd] = watched
        elif events:
            self._epoll.modify(fd, events)
        else:
            self._epoll.unregister(fd)
            del self._watched[fd]
            if not self._watched:
                self._reactor.removeReader(self)
        watched.events = events

    # What the reactor calls

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "connections"

    def doRead(self) -> None:
        self._after = []
        watched = self._watched
        for fd, event in self._epoll.poll(0, _MOST_AT_ONCE):
            one = watched.get(fd)
            if one is not None:
                self._serve(one, event)
        after, self._after = self._after, None
        for call in after:
            try:
                call()
            except Exception:
                self._log.failure("the end of a turn failed")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
        for watched in list(self._watched.values()):
            watched.connectionLost(reason)

    def _serve(self, one: Watched, event: int) -> None:
        is_reading = bool(event & _READ)
        try:
            if is_reading:
                why = one.doRead()
            elif event & ~_WRITE:
                # An error, or an end, that reading would not meet.
                is_reading = bool(one.events & _READ)
                why = CONNECTION_DONE if is_reading else CONNECTION_LOST
            else:
                why = None
            if why is None and event & _WRITE:
                is_reading = False
                why = one.doWrite()
        except Exception as error:
            # A WebSocket has a connection of the registry.
            connection = getattr(getattr(one, "protocol", None), "connection", None)
            self._log.failure("a connection failed", connection=getattr(connection, "id", None))
            why = error
        if why is not None:
            self._end(one, why, is_reading)

    def _end(self, one: Watched, why: Exception, is_reading: bool) -> None:
        try:
            self.removeReader(one)
            if is_reading and isinstance(why, ConnectionDone):
                one.readConnectionLost(_FAILURES[ConnectionDone])
            else:
                one.connectionLost(_FAILURES.get(type(why)) or Failure(why))
        except Exception:
            self._log.failure("the end of a connection failed")




#: There is one for each reactor, which keeps it.
_NAME = "_rtpush_polling"


def polling_of(reactor: Any) -> Any:
    """Return what watches connections for a reactor: the reactor itself where the system has no epoll."""
    if not hasattr(select, "epoll") or not IReactorFDSet.providedBy(reactor):
        return reactor
    polling = getattr(reactor, _NAME, None)
    if polling is None:
        polling = Polling(reactor)
        setattr(reactor, _NAME, polling)
    return polling
