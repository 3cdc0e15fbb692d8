"""
Watches very many connections for the reactor, which sees one descriptor for all of them.

Twisted's reactor spends more on telling a connection that it can be read than most of what comes deserves: a context
for the log, a look into three tables, a delayed call for what is to be done at the end of the turn. Here it is an epoll
set of our own, which the reactor's set contains.

A system call leaves little of ours in the processor's caches, and to fetch it anew takes as long as what is done with
it. So a turn has three parts: what came on some connections is read, then it is worked on, then what is to be answered
is written.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Polling", "Watched", "polling_of"]

#: The most connections that are served before what else there is; and the most that are read before what came is
#: worked on, which is kept meanwhile.
_MOST_AT_ONCE = 512
_MOST_READ = 64

#: The most connections that have something to be written at the end of a turn.
_MOST_WRITTEN = 256

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
    def read(self) -> bytes | Exception | None: ...
    def take(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
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
        #: What is to be done at the end of a turn.
        self._after: list[Callable[[], object]] = []
        #: Whether a turn goes on, with that still to come.
        self._is_serving = False
        #: Whether what is to be written is kept for the end of a turn; and who has something.
        self._is_gathering = False
        self._written: list[Watched] = []
        self.callLater = reactor.callLater

    def soon(self, call: Callable[[], object]) -> None:
        """Have something called when this turn's connections are served, or in the reactor's next turn."""
        if not self._after and not self._is_serving:
            self._reactor.callLater(0, self._finish)
        self._after.append(call)

    def gather(self, watched: Watched) -> bool:
        """
        Have a connection flushed at the end of this turn, where what is written goes out together.

        :returns: Whether that will be; else it may write at once.
        """
        if not self._is_gathering:
            return False
        self._written.append(watched)
        if len(self._written) >= _MOST_WRITTEN:
            self._flush()
        return True

    def look(self, watched: Sequence[Watched]) -> None:
        """Read what may have come on some connections, without being told that there is something."""
        self._serve([(one, _READ) for one in watched])
        self._finish()

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
        events = self._epoll.poll(0, _MOST_AT_ONCE)
        watched = self._watched
        for start in range(0, len(events), _MOST_READ):
            some = events[start : start + _MOST_READ]
            # Those before them may have ended some.
            self._serve([(one, event) for fd, event in some if (one := watched.get(fd)) is not None])
        self._finish()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
        for watched in list(self._watched.values()):
            watched.connectionLost(reason)

    def _serve(self, able: Sequence[tuple[Watched, int]]) -> None:
        """Serve connections that can be read or written."""
        self._is_serving = self._is_gathering = True
        came: list[tuple[Watched, bytes]] = []
        writable: list[Watched] = []
        for one, event in able:
            if event & _READ:
                data = one.read()
                if isinstance(data, bytes):
                    came.append((one, data))
                elif data is not None:
                    self._end(one, data, is_reading=True)
                    continue
            elif event & ~_WRITE:
                # An error, or an end, that reading would not meet.
                is_reading = bool(one.events & _READ)
                self._end(one, CONNECTION_DONE if is_reading else CONNECTION_LOST, is_reading)
                continue
            if event & _WRITE:
                writable.append(one)
        for one, data in came:
            try:
                one.take(data)
            except Exception as error:
                self._failed(one, error)
        # Last, since an error ends a connection, and what it has said before counts.
        for one in writable:
            if one.events & _WRITE:
                self._write(one)
        self._is_serving = False

    def _write(self, one: Watched) -> None:
        try:
            why = one.doWrite()
        except Exception as error:
            self._failed(one, error)
        else:
            if why is not None:
                self._end(one, why, is_reading=False)

    def _finish(self) -> None:
        """Do what is left for the end of a turn."""
        after, self._after = self._after, []
        self._is_gathering = True
        for call in after:
            try:
                call()
            except Exception:
                self._log.failure("the end of a turn failed")
        self._is_gathering = False
        self._flush()

    def _flush(self) -> None:
        written, self._written = self._written, []
        for one in written:
            try:
                one.flush()
            except Exception as error:
                self._failed(one, error)

    def _failed(self, one: Watched, error: Exception) -> None:
        # A WebSocket has a connection of the registry.
        connection = getattr(getattr(one, "protocol", None), "connection", None)
        self._log.failure("a connection failed", connection=getattr(connection, "id", None))
        self._end(one, error, is_reading=False)

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
