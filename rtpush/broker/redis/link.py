"""A link: keeps a session with a Redis, making it anew whenever it is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.broker.redis.protocol import unavailable
from rtpush.broker.redis.session import Dialler, Session
from rtpush.errors import RtpushError
from rtpush.protocol.backoff import Backoff

__all__ = ["Link"]

#: How the node comes back to a Redis that is away: at once at first, since it may only have been cut.
_BACKOFF = Backoff(base=0.05, maximum=3.0, jitter=0.1)

#: Seconds between two lines in the log about the same problem.
_REMINDER = 60.0


class Link:
    """
    Keeps a session.

    :param receive: Gets the channel and the record of all that is published where a session follows.
    :param restore: Brings a new session to where the last one was; only then it is there for all.
    :param ready: Called when a session is there for all.
    :param timeout: Seconds for Redis to answer.
    :param patience: Seconds for which one may wait for a session.
    :ivar session: The session, when there is one that is good.
    :ivar problem: What is wrong, in one line, when there is none.
    :ivar sessions: How many good ones there were.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        dialler: Dialler,
        *,
        timeout: float,
        patience: float,
        chance: Callable[[], float],
        receive: Callable[[bytes, bytes], None],
        restore: Callable[[Session], Awaitable[None]],
        ready: Callable[[], None],
    ) -> None:
        self.name = dialler.address.name
        self.session: Session | None = None
        self.problem: str | None = "it is not connected yet"
        self.sessions = 0
        self._clock = clock
        self._dialler = dialler
        self._timeout = timeout
        self._patience = patience
        self._chance = chance
        self._receive = receive
        self._restore = restore
        self._ready = ready
        #: The same as ``session``, and before it is good.
        self._current: Session | None = None
        self._logged: tuple[str, float] | None = None
        self._waiting: list[tuple[float, Deferred[Session]]] = []
        self._keeping: Deferred[None] | None = None
        self._running = False
        self._is_asking = False

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._keeping = Deferred.fromCoroutine(self._keep())

    def stop(self) -> None:
        """End, at once."""
        self._running = False
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.addErrback(lambda failure: failure.trap(CancelledError))
            keeping.cancel()
        if self._current is not None:
            self._current.abort("this node is leaving")
        self._end("this node is leaving")
        waiting, self._waiting = self._waiting, []
        for _, deferred in waiting:
            deferred.errback(self.away())

    @property
    def is_open(self) -> bool:
        """Whether there is a session, be it that it is still being restored."""
        return self._current is not None

    def away(self) -> RtpushError:
        """Return the error that says why there is no session."""
        return unavailable(f"Redis {self.name} is away: {self.problem or 'it does not answer'}")

    def soon(self) -> Deferred[Session]:
        """Return the session; if there is none, wait for it."""
        if self.session is not None:
            return succeed(self.session)
        waiting: Deferred[Session] = Deferred()
        self._waiting.append((self._clock.seconds() + self._patience, waiting))
        return waiting

    def tick(self) -> None:
        """See whether what should have come by now has."""
        now = self._clock.seconds()
        late = [waiting for waiting in self._waiting if waiting[0] <= now]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > now]
        for _, deferred in late:
            deferred.errback(self.away())
        session = self._current
        if session is None:
            return
        since = session.waits_since()
        if since is not None and now - since > self._timeout:
            session.abort(f"it has not answered for {self._timeout:g} s")
        elif self._dialler.address.master and not self._is_asking:
            self._is_asking = True
            self._dialler.master().addBoth(self._compare_master, session)

    def _compare_master(self, master: Any, session: Session) -> None:
        """
        Leave a server that the others have left: it may not know yet that it is no master any more, and what it takes
        until then is lost.
        """
        self._is_asking = False
        if isinstance(master, tuple) and session is self._current and session.place != master:
            session.abort(f"the sentinels have made {master[0]}:{master[1]} the master")

    async def _keep(self) -> None:
        attempt = 0
        while self._running:
            try:
                self._current = await self._dialler.open(self._receive)
                await self._restore(self._current)
                self._begin(self._current)
                attempt = 0
                problem = await self._current.lost
            except RtpushError as error:
                problem = error.message
            except Exception:
                if self._is_stopped():
                    return
                self._log.failure("Redis {name}: the connection cannot be restored", name=self.name)
                problem = "it cannot be used"
            if self._current is not None:
                self._current.abort(problem)
                self._current = None
            if self._is_stopped():
                return
            self._end(problem)
            await self._sleep(_BACKOFF.delay(attempt, self._chance()))
            attempt += 1

    def _is_stopped(self) -> bool:
        return not self._running

    async def _sleep(self, seconds: float) -> None:
        slept: Deferred[None] = Deferred()
        call = self._clock.callLater(seconds, slept.callback, None)
        try:
            await slept
        finally:
            if call.active():
                call.cancel()

    def _begin(self, session: Session) -> None:
        self.session = session
        self.sessions += 1
        self.problem = None
        if self._logged is None or self._logged[0]:
            self._log.info("Redis {name}: connected", name=self.name)
            self._logged = ("", 0.0)
        waiting, self._waiting = self._waiting, []
        for _, deferred in waiting:
            deferred.callback(session)
        self._ready()

    def _end(self, problem: str) -> None:
        self.session = None
        self.problem = problem
        now = self._clock.seconds()
        if self._running and (
            self._logged is None or self._logged[0] != problem or now - self._logged[1] >= _REMINDER
        ):
            self._logged = (problem, now)
            self._log.warn("Redis {name}: {problem}; trying again", name=self.name, problem=problem)
