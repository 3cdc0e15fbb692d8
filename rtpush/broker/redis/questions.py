"""Nodes that ask each other, through Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rtpush.broker.redis.session import Session
from rtpush.errors import RtpushError
from rtpush.protocol.cluster import Answers, NodeStatus

__all__ = ["Questions"]

#: Seconds for the other nodes to answer.
_PATIENCE = 2.0


class _Question:
    """
    A question that is not answered by all yet.

    :ivar missing: The ids of those whose answers are awaited.
    """

    __slots__ = ("answers", "done", "missing")

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = dict.fromkeys(missing)
        self.answers: list[bytes] = []
        self.done: Deferred[None] = Deferred()


class Questions:
    """
    Asks and answers.

    On the common channel comes ``q INBOX NUMBER QUESTION``; on the inbox of who asked, ``a NUMBER NODE ANSWER``.

    :param common: The channel in Redis on which all nodes are spoken to.
    :param inbox: The one on which only this node is.
    :param answer: Answers for this node.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, *, common: str, inbox: str, answer: Callable[[bytes], Deferred[bytes]]
    ) -> None:
        self._clock = clock
        self._common = common
        self._inbox = inbox.encode()
        self._answer = answer
        self._open: dict[int, _Question] = {}
        self._count = 0

    async def ask(self, session: Session, question: bytes, others: Sequence[NodeStatus]) -> Answers:
        """
        Ask the other nodes.

        :param others: Those that live.
        """
        if not others:
            return Answers(())
        self._count += 1
        number = self._count
        asked = self._open[number] = _Question([other.id for other in others])
        try:
            await session.command("PUBLISH", self._common, b"q %s %d %s" % (self._inbox, number, question))
            await asked.done.addTimeout(_PATIENCE, self._clock, lambda result, _: None)
        finally:
            del self._open[number]
        return Answers(asked.answers, list(asked.missing))

    def took(self, raw: bytes, session: Session | None, node: str) -> None:
        """
        Take a question or an answer.

        :param node: What this node is called where it came from.
        """
        tag, first, second, rest = raw.split(b" ", 3)
        if tag == b"a":
            question = self._open.get(int(first))
            if question is not None and question.missing.pop(second.decode(), self) is None:
                question.answers.append(rest)
                if not question.missing and not question.done.called:
                    question.done.callback(None)
        elif first != self._inbox and session is not None:
            answered = self._answer(rest)
            answered.addCallback(self._reply, session, first, b"a %s %s " % (second, node.encode()))
            answered.addErrback(self._no_answer)

    @staticmethod
    def _reply(answer: bytes, session: Session, inbox: bytes, head: bytes) -> Any:
        return session.command("PUBLISH", inbox, head + answer)

    def _no_answer(self, failure: Any) -> None:
        if not failure.check(RtpushError):
            self._log.failure("a question of another node cannot be answered", failure=failure)
