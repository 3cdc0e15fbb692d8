"""What event streams and polls have in common: the channels are in the URL, and commands go to ``/emit``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from rtpush.client.emit import Emitter, post_commands
from rtpush.client.errors import BadAnswer, LinkLost, kept_out_by, lost_by, refused_by
from rtpush.client.link import Audience, Link, LinkContext
from rtpush.client.outbox import Command
from rtpush.client.wants import Want, channels_query, first_request
from rtpush.client.web import Answer, discard, read_answer
from rtpush.client.wire import Frame, Greeting, error_in
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.protocol.position import BadCursor, parse_cursor

__all__ = ["HttpLink"]

T = TypeVar("T")

#: Errors that are about one channel of a request.
_CHANNEL_ERRORS = (
    ErrorCode.UNAUTHORIZED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.UNKNOWN_CHANNEL,
    ErrorCode.BAD_CHANNEL,
    ErrorCode.BAD_CURSOR,
)


class HttpLink(Link):
    """A link whose requests name all channels that it follows: when these change, it asks again."""

    def __init__(self, context: LinkContext, audience: Audience, lost: Callable[[Link, LinkLost], Any]) -> None:
        super().__init__(context, audience, lost)
        self._emitter = Emitter(context, audience, self._emit_troubled)
        self._asked: list[Want] = []
        self._request: Deferred[Any] | None = None
        self._again: IDelayedCall | None = None

    def send(self, commands: Sequence[Command]) -> None:
        self._emitter.send(commands)

    def channels_changed(self) -> None:
        self._emitter.resume()
        wants = first_request(self._audience.wants())
        if [(want.channel, want.token) for want in wants] == [(want.channel, want.token) for want in self._asked]:
            return
        # What still comes is for the channels as they were; whoever needs it gets it again.
        self._stop_asking()
        if self._again is None:
            self._ask_again(0)
        else:
            self._again.reset(0)

    def token_changed(self) -> None:
        """A new request has the new token. What it follows goes on from where it is."""
        if self._asked:
            self._stop_asking()
            if self._again is None:
                self._ask_again(0)

    @abstractmethod
    def _follow(self, wants: Sequence[Want]) -> None:
        """Ask for these channels, at least one."""

    def _begin(self) -> None:
        wants = self._asked = first_request(self._audience.wants())
        if wants:
            self._follow(wants)
        else:
            # There is nothing to follow: that the server answers must do.
            self._ask(post_commands(self._context, [("ping", b"{}")]), self._idle)

    def _end(self) -> None:
        self._emitter.close()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._stop_asking()

    def _stop_asking(self) -> None:
        """Drop what was asked."""
        if self._request is not None:
            request, self._request = self._request, None
            request.cancel()

    def _ask_again(self, seconds: float) -> None:
        """
        Ask for the channels that are wanted then.

        That is a later turn even for 0 seconds, so that several channels that change in one make one request.
        """
        self._again = self._context.clock.callLater(seconds, self._restart)

    def _restart(self) -> None:
        self._again = None
        self._stop_asking()
        self._silence.within(self._context.open_timeout)
        self._begin()

    def _hear(self, frame: Frame) -> None:
        if frame.disconnect is not None and frame.disconnect.code == Disconnect.UNSUBSCRIBED.code:
            # The last channel of this request was ended, not the client.
            self.channels_changed()
        else:
            super()._hear(frame)

    def _ask(self, request: Coroutine[Deferred[Any], Any, T], then: Callable[[T], None]) -> None:
        """Make a request, and go on with its result; there is one at a time."""

        def settled(result: T | Failure) -> None:
            if self._request is not asked:
                # It was dropped.
                return
            self._request = None
            try:
                if isinstance(result, Failure):
                    self._failed(result)
                else:
                    then(result)
            except BadAnswer as error:
                self.lose(LinkLost(str(error)))

        asked: Deferred[Any] = Deferred.fromCoroutine(request)
        self._request = asked
        asked.addBoth(settled)

    def _idle(self, _: object) -> None:
        self._silence.stop()
        self._opened()

    def _greeted(self, greeting: Greeting) -> None:
        """Tell what the application says. Whoever hears it may close this link, or have it ask for other channels."""
        if greeting.data is not None and not self._ended:
            self._context.told(greeting.data)
        for channel, data in greeting.channel_data.items():
            if not self._ended:
                self._audience.told(channel, data)

    def _begins(self, cursor: str) -> None:
        """Tell where the channels begin; when all have a position, those that had to wait for that can join them."""
        try:
            positions = parse_cursor(cursor, len(self._asked))
        except BadCursor as error:
            raise BadAnswer(str(error)) from None
        for want, position in zip(self._asked, positions, strict=True):
            if position is not None:
                self._audience.begins(want.channel, position)
        if not self._ended:
            self.channels_changed()

    def _address(self, wants: Sequence[Want], **more: str) -> str:
        query = [*channels_query(wants), *more.items()]
        if self._context.info:
            query.append(("info", self._context.info.decode()))
        return f"{self._context.negotiation.urls[self.name]}?{urlencode(query)}"

    async def _get(self, url: str, headers: Mapping[str, str] | None = None) -> IResponse:
        """
        Ask for something, and return the response when its head is there.

        :raises LinkLost: if it is not a success, perhaps only for a while.
        :raises RtpushError: if the server refuses it for good.
        """
        response = await self._context.web.open("GET", url, headers)
        if response.code not in (200, 304):
            raise _refusal(await read_answer(response))
        return response

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, RtpushError):
            self.lose(lost_by(failure))
        elif any(want.channel == error.channel for want in self._asked):
            self._refused([(error.channel, error)])
        elif (error.kind is ErrorCode.INVALID_TOKEN or error.channel) and any(want.token for want in self._asked):
            # Also one that names another channel than the one that it was given for.
            self._ask(self._find_if_let_in(error), self._refused)
        elif error.kind in (ErrorCode.UNAUTHORIZED, ErrorCode.PERMISSION_DENIED):
            self._ask(self._find_if_let_in(error), self._refused)
        elif error.kind not in _CHANNEL_ERRORS:
            self.lose(refused_by(error))
        elif len(self._asked) == 1:
            self._refused([(self._asked[0].channel, error)])
        else:
            self._ask(self._find_refused(error), self._refused)

    async def _find_if_let_in(self, error: RtpushError) -> list[tuple[str, RtpushError]]:
        """
        Find the channels at fault.

        :raises LinkLost: if it is the client that is not let in.
        """
        self._silence.within(self._context.open_timeout)
        try:
            await post_commands(self._context, [("ping", b"{}")])
        except RtpushError as own:
            raise kept_out_by(own) from None
        if len(self._asked) == 1:
            return [(self._asked[0].channel, error)]
        return await self._find_refused(error)

    async def _find_refused(self, error: RtpushError) -> list[tuple[str, RtpushError]]:
        """Find the channels at fault by asking for each alone."""
        refused: list[tuple[str, RtpushError]] = []
        for want in self._asked:
            self._silence.within(self._context.open_timeout)
            try:
                response = await self._get(self._address([want], timeout="0"))
            except RtpushError as why:
                refused.append((want.channel, why))
            else:
                discard(response)
        if not refused:
            raise LinkLost(error.message)
        return refused

    def _refused(self, channels: Sequence[tuple[str, RtpushError]]) -> None:
        self._ask_again(0)
        for channel, error in channels:
            if not self._ended:
                self._audience.refused(channel, error)

    def _emit_troubled(self, why: LinkLost) -> None:
        """Without a channel, nothing but the commands shows that the server is gone."""
        if not self._asked:
            self.lose(why)


def _refusal(answer: Answer) -> LinkLost | RtpushError:
    error = error_in(answer.body)
    if error is not None and not error.kind.temporary:
        return error
    said = f"the server answered {answer.status}" if error is None else error.message
    return LinkLost(said, after=answer.retry_after)
