"""``POST /emit``: a client on SSE or polling does by a request what a WebSocket client does in a frame."""

from __future__ import annotations

from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.codecs import JSON, BadCommand
from rtpush.protocol.commands import Publish
from rtpush.registry.credentials import Credentials
from rtpush.registry.node import Node
from rtpush.transports.commands import error_reply, perform
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.http import Request, answer_json, finish_with, peer_of, read_body
from rtpush.transports.query import query_of
from rtpush.transports.tokens import with_credentials

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
        return with_credentials(
            self._node, request, query_of(request), lambda credentials: self._answer(request, credentials), "emit"
        )

    def _answer(self, request: Request, credentials: Credentials | None) -> bytes | int:
        body = read_body(request)
        # What is too much is not even read.
        commands = list(islice(JSON.requests(body), _MAX_COMMANDS + 1))
        if not 1 <= len(commands) <= _MAX_COMMANDS:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"expected 1 to {_MAX_COMMANDS} commands")
        single = not body.lstrip(b" \t\r\n").startswith(b"[")
        peer = peer_of(request, self._node)
        replies = gatherResults(
            [self._do(command, single, peer, credentials) for command in commands], consumeErrors=True
        )
        return finish_with(request, replies.addCallback(lambda done: answer_json(request, done[0] if single else done)))

    def _do(
        self, command: Any, single: bool, peer: str, credentials: Credentials | None
    ) -> Deferred[dict[str, Any]]:
        """Do one command; an error is the reply to it, unless it is the only one, when it is that of the request."""
        if isinstance(command, BadCommand):
            name, id_ = "error", command.id
            done: Deferred[Any] = maybeDeferred(_raise, command.error)
        else:
            name, id_ = command.name, command.id
            done = maybeDeferred(self._perform, command, peer, credentials)
        done.addCallback(lambda content: {name: content})
        if not single:
            done.addErrback(error_reply, self._node)
        if id_ is not None:
            done.addCallback(lambda reply: {"id": id_, **reply})
        return done

    def _perform(self, command: Any, peer: str, credentials: Credentials | None) -> Deferred[dict[str, Any]]:
        if peer:
            self._node.limiter.ask(peer, publishes=isinstance(command.command, Publish))
        return perform(self._node, JSON, command, credentials, "emit")


def _raise(error: RtpushError) -> None:
    raise error
