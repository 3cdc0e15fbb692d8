"""Commands over ``POST /emit``: how a client on an event stream or on polls says something."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from rtpush.client.errors import BadAnswer, LinkLost, NotDelivered
from rtpush.client.link import Audience, LinkContext
from rtpush.client.outbox import Command
from rtpush.client.wire import Frame, command_json, error_in, read_replies
from rtpush.errors import ErrorCode, RtpushError

__all__ = ["Emitter", "post_commands"]

#: How many commands, and how many bytes, go into one request; a larger command goes alone.
_BATCH = 50
_BATCH_BYTES = 65536

#: How many bytes of tokens for channels are in the URL of one; a longer token goes alone.
_URL_BYTES = 4096

#: How long a request may take. A second one fits into the time after which a command is given up.
_TIMEOUT = 25.0

#: How long a request waits for another token.
_TOKEN_PAUSE = 1.0


async def post_commands(
    context: LinkContext, commands: Sequence[tuple[str, bytes]], tokens: Sequence[str] = ()
) -> list[Frame]:
    """
    Send commands (name and fields of each) in one request, and return their replies.

    :param tokens: Those for single channels.
    :raises LinkLost: if that failed, perhaps only for a while.
    :raises RtpushError: if the server refused the request as a whole.
    """
    body = b"[" + b",".join(command_json(index + 1, *command) for index, command in enumerate(commands)) + b"]"
    headers = {"Content-Type": "application/json"}
    url = context.negotiation.emit
    if tokens:
        url += f"?{urlencode([('channel_token', token) for token in tokens])}"
    answer = await context.web.request("POST", url, _TIMEOUT, headers, body)
    if answer.status == 200:
        try:
            return read_replies(answer.body, len(commands))
        except BadAnswer as bad:
            raise LinkLost(str(bad)) from None
    error = error_in(answer.body)
    is_over = error is not None and error.kind is ErrorCode.TOKEN_EXPIRED and not error.channel
    if error is not None and is_over and context.web.token.renews:
        context.token_ends()
        raise LinkLost(error.message, after=_TOKEN_PAUSE)
    if error is not None and not error.kind.temporary:
        raise error
    raise LinkLost(f"the server answered {answer.status} to a command", after=answer.retry_after)


class Emitter:
    """
    Sends commands in order: what comes while a request is on its way goes together with the next one.

    A request that fails for a while is made again: the idempotency keys of its commands make that safe.

    :param audience: Knows the tokens for single channels. What is for a channel waits for its token.
    :param troubled: Called with what went wrong when a request failed for a while.
    """

    def __init__(self, context: LinkContext, audience: Audience, troubled: Callable[[LinkLost], None]) -> None:
        self._context = context
        self._audience = audience
        self._troubled = troubled
        self._waiting: deque[Command] = deque()
        self._request: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._failures = 0

    def send(self, commands: Sequence[Command]) -> None:
        """Send these after those before."""
        self._waiting.extend(commands)
        # In a later turn: what is sent in this one goes together.
        self._schedule(0)

    def resume(self) -> None:
        """Hear that there may be a token for which something has waited."""
        self._schedule(0)

    def close(self) -> None:
        """Send nothing more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._request is not None:
            self._request.cancel()

    def _schedule(self, seconds: float) -> None:
        if self._waiting and self._timer is None and self._request is None:
            self._timer = self._context.clock.callLater(seconds, self._next)

    def _next(self) -> None:
        self._timer = None
        batch = self._take_batch()
        if not batch:
            return
        tokens = self._tokens_for(batch)
        self._request = Deferred.fromCoroutine(
            post_commands(self._context, [(command.name, command.body) for command in batch], tokens)
        )
        self._request.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch, tokens))

    def _tokens_for(self, batch: Sequence[Command]) -> list[str]:
        """Return the tokens of the channels of these commands."""
        tokens = [self._audience.token_for(command.channel) for command in batch]
        return list(dict.fromkeys(token.now for token in tokens if token is not None and token.now is not None))

    def _take_batch(self) -> list[Command]:
        """Take the commands that go next, in their order; without those that wait for the token of their channel."""
        batch: list[Command] = []
        tokens: set[str] = set()
        left: deque[Command] = deque()
        size = shown = 0
        while self._waiting:
            command = self._waiting.popleft()
            token = self._audience.token_for(command.channel)
            own = None if token is None or token.now in tokens else token.now
            if command.result.called:
                # It was given up.
                continue
            if token is not None and token.is_missing:
                left.append(command)
                continue
            size += len(command.body)
            shown += len(own or "")
            if batch and (len(batch) == _BATCH or size > _BATCH_BYTES or shown > _URL_BYTES):
                left.append(command)
                break
            batch.append(command)
            tokens.update([] if own is None else [own])
        self._waiting.extendleft(reversed(left))
        return batch

    def _answered(self, replies: list[Frame], batch: list[Command]) -> None:
        self._request = None
        self._failures = 0
        for command, reply in zip(batch, replies, strict=True):
            self._context.outbox.answered(command, reply)
        self._schedule(0)

    def _failed(self, failure: Failure, batch: list[Command], tokens: list[str]) -> None:
        self._request = None
        error = failure.value
        if isinstance(error, RtpushError) and error.channel:
            self._audience.refused(error.channel, error)
        if isinstance(error, LinkLost):
            self._waiting.extendleft(command for command in reversed(batch) if command.again)
            for command in batch:
                if not command.again:
                    self._context.outbox.failed(command, NotDelivered(str(error)))
            self._troubled(error)
            self._schedule(self._pause(error))
        elif isinstance(error, RtpushError) and error.channel and self._tokens_for(batch) != tokens:
            # Nothing of it was done. Without this token, or with another one, it may be.
            self._waiting.extendleft(reversed(batch))
            self._schedule(0)
        elif isinstance(error, RtpushError):
            for command in batch:
                self._context.outbox.failed(command, error)
            self._schedule(0)

    def _pause(self, lost: LinkLost) -> float:
        """Return how long to wait after a request that failed for a while."""
        if lost.after is not None:
            return lost.after
        self._failures += 1
        return self._context.negotiation.backoff.delay(self._failures - 1, self._context.chance())
