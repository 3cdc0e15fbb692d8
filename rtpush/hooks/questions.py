"""Questions to the application: so many at once, each with its time, and none while there is no use in it."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.hooks.backend import IBackend
from rtpush.hooks.breaker import Breaker
from rtpush.hooks.settings import HookSettings
from rtpush.hooks.shapes import BadAnswer, Question, Reply
from rtpush.hooks.signing import signed
from rtpush.registry.counts import HookCounts
from rtpush.registry.guests import Denied

__all__ = ["NoAnswer", "Questions", "Skipped", "new_id"]

T = TypeVar("T")

#: How many questions wait at most, for each that may be asked at once.
_WAITING_FOR_EACH = 10


class NoAnswer(Exception):
    """The application gave no good answer in time. It was logged."""


class Skipped(NoAnswer):
    """It was not even asked."""


class _Pending(Generic[T]):
    """A question and who waits for its answer."""

    __slots__ = ("begun", "is_late", "question", "read", "result", "sent", "timer")

    def __init__(self, question: Question, read: Callable[[Reply], T]) -> None:
        self.question = question
        self.read = read
        self.result: Deferred[T] = Deferred()
        self.timer: Any = None
        self.sent: Deferred[Any] | None = None
        self.begun = 0.0
        self.is_late = False


class Questions:
    """
    Asks.

    :param now: Tells the seconds since 1970.
    :param chance: Gives random numbers, at least 0 and below 1.
    """

    _log = Logger()

    def __init__(
        self,
        settings: HookSettings,
        backend: IBackend,
        clock: IReactorTime,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        counts: HookCounts,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._clock = clock
        self._now = now
        self._counts = counts
        self.breaker = Breaker(settings.failures, settings.pause, chance)
        self._in_flight = 0
        self._waiting: deque[_Pending[Any]] = deque()
        self._is_sending = False

    @property
    def pending(self) -> int:
        """How many are asked, or wait for it."""
        return self._in_flight + len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether some wait for others."""
        return bool(self._waiting)

    @property
    def is_shut(self) -> bool:
        """Whether nothing is asked now."""
        return self.breaker.blocks(self._clock.seconds())

    def ask(self, question: Question, read: Callable[[Reply], T]) -> Deferred[T]:
        """
        Ask one.

        :param read: Reads the answer; raises :exc:`Denied` or :exc:`BadAnswer`.
        :returns: What ``read`` gives. Fails with :exc:`Denied` or :exc:`NoAnswer`.
        """
        if self.is_shut:
            return self._skip(question, "the application has failed too often, and is not asked for a while")
        if len(self._waiting) >= self._settings.max_in_flight * _WAITING_FOR_EACH:
            return self._skip(question, "too many questions wait for the application")
        pending = _Pending(question, read)
        pending.timer = self._clock.callLater(self._settings.timeout, self._late, pending)
        self._waiting.append(pending)
        self._send_waiting()
        return pending.result

    def _skip(self, question: Question, why: str) -> Deferred[Any]:
        self._counts.add(question.event, "skipped")
        return fail(Skipped(why))

    def _send_waiting(self) -> None:
        if self._is_sending:
            return
        self._is_sending = True
        try:
            while self._waiting and self._in_flight < self._settings.max_in_flight:
                pending = self._waiting.popleft()
                if pending.timer.getTime() <= self._clock.seconds():
                    # Its time is over in this same moment.
                    self._pass_over(pending, "it was not its turn in time")
                else:
                    self._send(pending)
        finally:
            self._is_sending = False

    def _send(self, pending: _Pending[Any]) -> None:
        question = pending.question
        if not self.breaker.let_through(self._clock.seconds()):
            self._pass_over(pending, "the application has failed too often meanwhile")
            return
        self._in_flight += 1
        pending.begun = self._clock.seconds()
        pending.sent = maybeDeferred(self._post, question)
        pending.sent.addCallback(pending.read).addBoth(self._answered, pending)

    def _post(self, question: Question) -> Deferred[Reply]:
        body = msgspec.json.encode(question)
        headers = signed(self._settings.secrets, question.id, int(self._now()), body)
        posted: Deferred[Reply] = self._backend.post(body, headers)
        return posted

    def _answered(self, outcome: Any, pending: _Pending[Any]) -> None:
        now = self._clock.seconds()
        self._in_flight -= 1
        self._counts.seconds.observe(now - pending.begun)
        self._end(pending)
        event = pending.question.event
        if not isinstance(outcome, Failure) or outcome.check(Denied):
            self._counts.add(event, "denied" if isinstance(outcome, Failure) else "allowed")
            if self.breaker.succeeded():
                self._log.info("the application answers again: it is asked as before")
        else:
            self._counts.add(event, "failed")
            self._tell(outcome, pending)
            if self.breaker.failed(now):
                self._log.warn(
                    "the application has failed {failures} times in a row: it is left alone for {pause:g} s",
                    failures=self._settings.failures,
                    pause=self._settings.pause,
                )
            outcome = Failure(NoAnswer("the application gave no good answer"))
        if isinstance(outcome, Failure):
            pending.result.errback(outcome)
        else:
            pending.result.callback(outcome)
        self._send_waiting()

    def _late(self, pending: _Pending[Any]) -> None:
        """The time of a question is over."""
        if pending.sent is not None:
            pending.is_late = True
            pending.sent.cancel()
            return
        self._waiting.remove(pending)
        self._pass_over(pending, "it was not its turn in time")

    def _pass_over(self, pending: _Pending[Any], why: str) -> None:
        self._end(pending)
        self._counts.add(pending.question.event, "skipped")
        pending.result.errback(Failure(Skipped(why)))

    @staticmethod
    def _end(pending: _Pending[Any]) -> None:
        if pending.timer.active():
            pending.timer.cancel()

    def _tell(self, failure: Failure, pending: _Pending[Any]) -> None:
        """Log what went wrong, in one line, which shows nothing of what was asked and answered."""
        question, known = pending.question, failure.check(BadAnswer)
        if pending.is_late:
            problem = f"no answer within {self._settings.timeout:g} seconds"
        else:
            problem = str(failure.value) if known else f"{type(failure.value).__name__}: {failure.getErrorMessage()}"
        self._log.warn(
            "asking the application about {event} failed: {problem}",
            event=question.event,
            problem=problem[:300],
            connection=question.connection,
        )


def new_id() -> str:
    """Return an id for a question."""
    return f"msg_{secrets.token_urlsafe(18)}"
