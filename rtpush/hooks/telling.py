"""What the application is told, and nobody waits for: in order, with a few attempts, up to a bound."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.hooks.questions import NoAnswer, Questions, Skipped
from rtpush.hooks.shapes import Question, read_told
from rtpush.registry.counts import HookCounts

__all__ = ["Telling"]

#: How many things wait to be told at most; and how many are told at once.
_MOST = 10_000
_AT_ONCE = 10

#: Seconds until something is told again that was not heard.
_AGAIN = (1.0, 5.0)

#: Seconds until it is looked again whether the application is asked anything.
_LOOK_AGAIN = 1.0


class Telling:
    """Tells."""

    _log = Logger()

    def __init__(self, questions: Questions, clock: IReactorTime, counts: HookCounts) -> None:
        self._questions = questions
        self._clock = clock
        self._counts = counts
        self._waiting: deque[tuple[Question, int]] = deque()
        self._under_way = 0
        #: How many wait for their next attempt.
        self._later = 0
        self._timer: Any = None
        self._when_done: list[Deferred[None]] = []
        self._is_ending = False

    @property
    def pending(self) -> int:
        """How much is still to be told."""
        return len(self._waiting) + self._under_way + self._later

    def tell(self, question: Question) -> None:
        """Tell something. If there is too much, it is dropped."""
        if self.pending >= _MOST:
            self._drop(question)
            return
        self._waiting.append((question, 0))
        self._go_on()

    def finish(self, within: float) -> Deferred[None]:
        """Tell what is left, as far as that is possible within some seconds, and then no more."""
        if not self.pending:
            self._is_ending = True
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._when_done.append(done)
        timer = self._clock.callLater(within, self._end)
        done.addCallback(lambda _: timer.cancel() if timer.active() else None)
        return done

    def _look(self) -> None:
        self._timer = None
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._under_way < _AT_ONCE and self._timer is None and not self._is_ending:
            if self._questions.is_shut:
                self._look_again()
                return
            question, attempt = self._waiting.popleft()
            self._under_way += 1
            told = self._questions.ask(question, read_told)
            told.addErrback(self._failed, question, attempt).addBoth(self._done)

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(_LOOK_AGAIN, self._look)

    def _failed(self, failure: Failure, question: Question, attempt: int) -> None:
        if failure.check(Skipped) and not self._is_ending:
            # It is as if it had not been its turn.
            self._waiting.appendleft((question, attempt))
            self._look_again()
        elif failure.check(NoAnswer) is None or attempt >= len(_AGAIN) or self._is_ending:
            self._log.warn(
                "the application was not told of {event}", event=question.event, connection=question.connection
            )
        else:
            self._later += 1
            self._clock.callLater(_AGAIN[attempt], self._again, question, attempt + 1)

    def _again(self, question: Question, attempt: int) -> None:
        self._later -= 1
        if not self._is_ending:
            self._waiting.append((question, attempt))
            self._go_on()

    def _done(self, _: object) -> None:
        self._under_way -= 1
        self._go_on()
        if not self.pending:
            self._end()

    def _end(self) -> None:
        waiting, self._when_done = self._when_done, []
        if not waiting:
            return
        self._is_ending = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for question, _ in self._waiting:
            self._drop(question)
        self._waiting.clear()
        for each in waiting:
            each.callback(None)

    def _drop(self, question: Question) -> None:
        self._counts.add(question.event, "skipped")
        self._log.warn("too much is to be told to the application: {event} is dropped", event=question.event)
