"""The client's side of polls, long and short."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from twisted.python.failure import Failure

from rtpush.client.errors import LinkLost
from rtpush.client.http_link import HttpLink
from rtpush.client.link import Audience, Link, LinkContext
from rtpush.client.wants import Want
from rtpush.client.web import read_answer
from rtpush.client.wire import Frame, PollAnswer, read

__all__ = ["LongPollLink", "ShortPollLink"]

#: A poll that was held so long and then failed was cut on its way: it can be made again at once.
_HELD = 1.0
#: How long to wait after an answer that came at once and says nothing.
_REST = 1.0


class _PollLink(HttpLink):
    """Follows channels by asking again and again."""

    #: Sent with each poll.
    _headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: LinkContext, audience: Audience, lost: Callable[[Link, LinkLost], Any]) -> None:
        super().__init__(context, audience, lost)
        self._asked_at = 0.0
        self._asked_hold = 0.0
        self._etag: tuple[str, str] = ("", "")

    def token_changed(self) -> None:
        """The next poll has it."""

    @abstractmethod
    def _hold(self) -> float:
        """Return for how long the server may hold the polls after the first."""

    @abstractmethod
    def _rest(self, heard: bool) -> float:
        """Return how long to wait before the next poll, after an answer that had something in it or not."""

    def _held(self) -> float:
        """Return for how long the poll has been waiting."""
        return self._context.clock.seconds() - self._asked_at

    def _follow(self, wants: Sequence[Want]) -> None:
        # A channel gets its position before a poll is held: else a cut would lose what comes meanwhile.
        at_once = self._is_opening or any(want.position is None for want in wants)
        hold = self._asked_hold = 0.0 if at_once else self._hold()
        self._asked_at = self._context.clock.seconds()
        # A poll is answered in time, never later: what comes on top is for the way.
        self._silence.within(self._context.open_timeout if self._is_opening else hold + self._context.negotiation.grace)
        self._ask(self._poll(self._address(wants, timeout=f"{hold:g}")), self._answered)

    async def _poll(self, url: str) -> PollAnswer | None:
        """Ask, and return the answer; nothing if that is what there is."""
        unless = {"If-None-Match": self._etag[1]} if url == self._etag[0] else {}
        answer = await read_answer(await self._get(url, {**self._headers, **unless}))
        if answer.status == 304:
            return None
        etag = answer.headers.getRawHeaders("etag")
        if etag:
            self._etag = (url, etag[0])
        return read(answer.body, PollAnswer)

    def _answered(self, answer: PollAnswer | None) -> None:
        self._silence.stop()
        self._opened()
        if answer is not None:
            self._greeted(answer)
        frames = [] if answer is None else _frames(answer)
        for frame in frames:
            # What hears of one may close this link, or have it ask for other channels.
            if self._ended or self._again is not None:
                return
            self._hear(frame)
        if answer is not None and answer.unsubscribed is None and not self._ended:
            self._begins(answer.cursor)
        if not self._ended and self._again is None:
            self._ask_again(self._rest(bool(frames)))

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        cut = isinstance(error, LinkLost) and not error.unreachable and error.after is None
        if cut and not self._is_opening and self._held() >= _HELD:
            # The way is cut after a while, as by a proxy with a short timeout; the next poll will do.
            self._ask_again(0)
        else:
            super()._failed(failure)


class LongPollLink(_PollLink):
    """Polls that the server holds until there is something to tell."""

    name = "longpoll"
    _headers = {"Cache-Control": "no-cache"}

    def _hold(self) -> float:
        return self._context.negotiation.hold

    def _rest(self, heard: bool) -> float:
        # An empty answer that was not held is not what was asked for, nor is one that leaves a channel without a
        # position: don't ask as fast as the network allows.
        in_vain = self._asked_hold > 0 or any(want.position is None for want in self._audience.wants())
        return _REST if in_vain and not heard and self._held() < _HELD else 0.0


class ShortPollLink(_PollLink):
    """Polls that are answered at once, one now and then; caches on the way may answer them."""

    name = "shortpoll"

    def _hold(self) -> float:
        return 0.0

    def _rest(self, heard: bool) -> float:
        return self._context.negotiation.pause


def _frames(answer: PollAnswer) -> list[Frame]:
    """Return what an answer tells, in the order in which to hear it."""
    frames = [Frame(gap=gap) for gap in answer.gaps]
    frames += [Frame(message=envelope) for envelope in answer.messages]
    if answer.unsubscribed is not None:
        frames.append(Frame(unsubscribed=answer.unsubscribed))
    if answer.disconnect is not None:
        frames.append(Frame(disconnect=answer.disconnect))
    return frames
