"""``POST /emit``: a client on SSE or polling does by a request what a WebSocket client does in a frame."""

from __future__ import annotations

from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import Access
from rtpush.protocol.codecs import JSON, BadCommand
from rtpush.registry.node import Node
from rtpush.transports.commands import error_reply, perform
from rtpush.transports.http import Endpoint, Request, answer_json, finish_with, read_body

__all__ = ["EmitResource"]

#: How many commands one request may hold.
_MAX_COMMANDS = 1000


class EmitResource(Endpoint):
    """Does the commands of clients that have no other way to send them."""

    methods = (b"POST",)

    def __init__(self, node: Node, origins: Origins) -> None:
        super().__init__(origins)
        self._node = node

    def answer(self, request: Request) -> bytes | int:
        body = read_body(request)
        # What is too much is not even read.
        commands = list(islice(JSON.requests(body), _MAX_COMMANDS + 1))
        if not 1 <= len(commands) <= _MAX_COMMANDS:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"expected 1 to {_MAX_COMMANDS} commands")
        single = not body.lstrip(b" \t\r\n").startswith(b"[")
        replies = gatherResults([self._do(command, single) for command in commands], consumeErrors=True)
        return finish_with(request, replies.addCallback(lambda done: answer_json(request, done[0] if single else done)))

    def _do(self, command: Any, single: bool) -> Deferred[dict[str, Any]]:
        """Do one command; an error is the reply to it, unless it is the only one, when it is that of the request."""
        if isinstance(command, BadCommand):
            name, id_ = "error", command.id
            done: Deferred[Any] = maybeDeferred(_raise, command.error)
        else:
            name, id_ = command.name, command.id
            done = maybeDeferred(perform, self._node, JSON, command, Access.ANYONE)
        done.addCallback(lambda content: {name: content})
        if not single:
            done.addErrback(error_reply)
        if id_ is not None:
            done.addCallback(lambda reply: {"id": id_, **reply})
        return done


def _raise(error: RtpushError) -> None:
    raise error
