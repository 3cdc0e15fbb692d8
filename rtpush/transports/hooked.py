"""A WebSocket for commands where the application is asked: it comes in with its first command, or stays out."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from rtpush.auth.permissions import Grant
from rtpush.errors import Disconnect, ErrorCode, RtpushError, reconnects
from rtpush.protocol.commands import Connect, Publish, Request, Subscribe
from rtpush.protocol.lifecycle import State
from rtpush.registry.connection import Connection
from rtpush.registry.credentials import Credentials
from rtpush.registry.guests import Denied, Guest, let_in
from rtpush.transports.following import Following, checked_info
from rtpush.transports.http import error_of
from rtpush.transports.websocket import CommandWebSocket

__all__ = ["HookedWebSocket"]

_ENDS = {
    ErrorCode.UNAVAILABLE: Disconnect.TRY_AGAIN_LATER,
    ErrorCode.LIMIT_EXCEEDED: Disconnect.LIMIT_EXCEEDED,
    ErrorCode.TOKEN_EXPIRED: Disconnect.TOKEN_EXPIRED,
    ErrorCode.TOKEN_REVOKED: Disconnect.TOKEN_REVOKED,
}


class HookedWebSocket(CommandWebSocket):
    """
    A WebSocket whose client the application knows, or is asked about before its first command is done.

    What it may subscribe to and publish is asked elsewhere; here the other commands keep their order among these.

    :ivar guest: The client.
    """

    guest: Guest

    def begin(self, connection: Connection, following: Following | None, head: bytes) -> None:
        self.guest.connection = connection.id
        super().begin(connection, following, head)

    def _do(self, request: Request) -> None:
        guest = self.guest
        if not guest.is_in and not isinstance(request.command, Connect):
            self._enter(request, lambda: super(HookedWebSocket, self)._do(request))
        elif guest.line.is_busy and not isinstance(request.command, Publish | Subscribe):
            turn = guest.line.put(succeed(None))
            turn.addCallback(lambda _: self._do_in_turn(request)).addErrback(self._failed, request)
            self.connection.doing(turn)
        else:
            if isinstance(request.command, Connect) and not guest.is_in:
                guest.data = checked_info(self.codec.json(request.command.data))
            super()._do(request)
            self.give_way()

    def _do_in_turn(self, request: Request) -> None:
        if self.connection.state is State.OPEN:
            super()._do(request)

    def _connect(self, request: Request, info: bytes, grant: Grant | None = None) -> None:
        if self.guest.is_in:
            self._identify(info or self.connection.info, grant)
            self._welcome_guest(request)
        else:
            self._identify(info, grant)
            self.guest.info = info
            self._enter(request, lambda: self._welcome_guest(request))

    def _welcome_guest(self, request: Request) -> None:
        # It is said once, and then not kept.
        data, self.guest.data = self.guest.data, b""
        self._welcome(request, **({"data": msgspec.json.decode(data)} if data else {}))

    def _enter(self, request: Request, then: Callable[[], None]) -> None:
        """Ask whether the client may come in, and go on with a command if so. All that comes after it waits."""
        node, shown = self.connection.node, self.connection.credentials
        if node.hooks is None:
            # It was turned off meanwhile.
            then()
            return
        token = None if shown is None else shown.grant
        for_channels = [] if shown is None else [grant for grant in shown.grants() if grant.channel]
        entered: Deferred[None] = let_in(node, self.guest, token, for_channels).addCallback(self._entered)
        entered.addCallbacks(lambda _: self._go_on_with(request, then), self._kept_out, errbackArgs=(request,))
        entered.addErrback(lambda failure: self.connection.failed("connecting", failure))
        if not entered.called:
            self.connection.doing(entered, alone=True)

    def _entered(self, credentials: Credentials) -> None:
        connection = self.connection
        if connection.state is not State.OPEN:
            credentials.detach()
            return
        try:
            connection.node.limiter.own(connection, credentials.user)
        except RtpushError as error:
            credentials.ends_by(_ends(error).code, error.kind.name.lower())
            credentials.detach()
            raise
        if connection.credentials is not None:
            connection.credentials.detach()
        connection.introduce(credentials, self.guest.info)

    def _go_on_with(self, request: Request, then: Callable[[], None]) -> None:
        if self.connection.state is State.OPEN:
            try:
                then()
            except RtpushError as error:
                self._error(request.id, error)

    def _kept_out(self, failure: Failure, request: Request) -> None:
        error = error_of(failure)
        if error is None:
            self.connection.failed("connecting", failure)
            return
        if self.connection.state is not State.OPEN:
            return
        self._error(request.id, error)
        why = _ends(error)
        if isinstance(error, Denied) and 4000 <= error.code <= 4999:
            # The application chooses the code, and so whether the client comes back.
            why = Disconnect.RECONNECT if reconnects(error.code) else Disconnect.PERMISSION_DENIED
            self.connection.disconnect(why, code=error.code, reason=error.message)
        else:
            self.connection.disconnect(why, reason=error.kind.name.lower())


def _ends(error: RtpushError) -> Disconnect:
    """Return how a connection ends that is not let in."""
    return _ENDS.get(error.kind, Disconnect.PERMISSION_DENIED)
