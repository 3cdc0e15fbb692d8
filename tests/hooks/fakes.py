"""An application that is asked without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from rtpush.hooks.backend import IBackend
from rtpush.hooks.shapes import Reply

__all__ = ["Asked", "FakeBackend"]


@attrs.define(eq=False)
class Asked:
    """
    A question that has come.

    :ivar answered: Where the answer goes.
    """

    headers: dict[str, str]
    body: bytes
    answered: Deferred[Reply]

    @property
    def said(self) -> Any:
        """What it says."""
        return json.loads(self.body)

    def answer(self, content: Any, status: int = 200) -> None:
        """Answer it."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answered.callback(Reply(status, body))


@implementer(IBackend)
class FakeBackend:
    """
    Answers each event as it was told, or not before it is told.

    :ivar asked: All questions that have come.
    :ivar answers: What is answered, by event: an object, bytes, an exception, or a status with one of these.
    """

    def __init__(self, **answers: Any) -> None:
        self.asked: list[Asked] = []
        self.answers = answers
        self.closed = 0

    def post(self, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Deferred[Reply]:
        asked = Asked({name.decode(): value.decode() for name, value in headers}, body, Deferred())
        self.asked.append(asked)
        answer = self.answers.get(asked.said["event"])
        if isinstance(answer, Exception):
            asked.answered.errback(answer)
        elif isinstance(answer, tuple):
            asked.answer(answer[1], answer[0])
        elif answer is not None:
            asked.answer(answer)
        return asked.answered

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    def events(self) -> list[str]:
        """Return what was asked about, in order."""
        return [each.said["event"] for each in self.asked]

    def of(self, event: str) -> list[Any]:
        """Return what the questions about an event have said."""
        return [each.said for each in self.asked if each.said["event"] == event]

    def waiting(self) -> list[Asked]:
        """Return the questions that have no answer yet."""
        return [each for each in self.asked if not each.answered.called]
