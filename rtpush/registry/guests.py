"""Clients as the application hears of them, where it is asked about them (``[hooks]``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs
from twisted.internet.defer import Deferred

from rtpush.auth.origin import Origins
from rtpush.auth.permissions import Grant
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication
from rtpush.registry.credentials import Credentials
from rtpush.registry.line import Line

if TYPE_CHECKING:
    from rtpush.registry.node import Node

__all__ = ["Denied", "Given", "Guest", "Hooks", "let_in"]

#: Transports on which a client stays: the application is told when it leaves.
_STAYING = frozenset({"websocket", "sse"})


class Denied(RtpushError):
    """
    The application says no.

    :param code: The code that it gives for that.
    """

    def __init__(self, kind: ErrorCode, message: str, code: int) -> None:
        super().__init__(kind, message, code=code)


class Guest:
    """
    A client that the application is asked about. There is one for a connection, or for a request that is none.

    :ivar connection: The id of its connection; empty if there is none.
    :ivar headers: Those of its request that the application wants to see: names in lower case, and values.
    :ivar token: What tells its token from others, without being it; empty if it has shown none.
    :ivar user: Whose it is, as far as that is known.
    :ivar info: What it says of itself, or what is said of it: JSON, or nothing.
    :ivar data: What it says to the application with ``connect``; then what that says to it: JSON, or nothing.
    :ivar is_in: Whether the application has let it in, and it has not left.
    :ivar line: What it waits for.
    :ivar ending: How its connection ends, as far as that is known: a code and a reason.
    """

    __slots__ = (
        "address", "connection", "data", "ending", "headers", "info", "is_in", "line", "token", "transport", "user"
    )

    def __init__(
        self,
        transport: str,
        *,
        address: str = "",
        connection: str = "",
        headers: tuple[tuple[str, str], ...] = (),
        token: str = "",
        info: bytes = b"",
    ) -> None:
        self.transport = transport
        self.address = address
        self.connection = connection
        self.headers = headers
        self.token = token
        self.user = ""
        self.info = info
        self.data = b""
        self.is_in = False
        self.line = Line()
        self.ending: tuple[int, str] | None = None

    @property
    def stays(self) -> bool:
        """Whether it is one that stays, and whose leaving is something to tell."""
        return self.transport in _STAYING


@attrs.frozen(weakref_slot=False)
class Given:
    """
    What the application gives to a client that it lets in.

    :ivar grant: Who it is, and what it may do, in the shape of what a token grants; nothing if nothing is said of that.
    :ivar data: JSON for the client, or nothing.
    """

    grant: Grant | None = None
    data: bytes = b""


class Hooks(Protocol):
    """
    What asks the application, and tells it.

    All that is asked may fail with :exc:`RtpushError`: :exc:`Denied`, or ``unavailable``.

    :ivar headers: The names of the headers that it wants to see, in lower case.
    :ivar origins: The pages whose visitors' cookies it may see.
    :ivar is_shut: Whether it is not asked for a while, since it has failed too often.
    :ivar is_busy: Whether questions wait for others.
    :ivar pending: How much is asked or told now.
    """

    @property
    def headers(self) -> tuple[str, ...]: ...
    @property
    def origins(self) -> Origins: ...
    @property
    def is_shut(self) -> bool: ...
    @property
    def is_busy(self) -> bool: ...
    @property
    def pending(self) -> int: ...

    def connect(self, guest: Guest, is_good: Callable[[Grant], bool], /) -> Deferred[Given]:
        """
        Ask whether a client may come in.

        :param is_good: Tells whether what was given before still holds.
        """

    def subscribe(self, guest: Guest, channel: str, /) -> Deferred[bytes]:
        """Ask whether it may subscribe, in its turn; return what the application says to it: JSON, or nothing."""

    def publish(self, guest: Guest, publication: Publication, /) -> Deferred[Publication]:
        """Ask whether it may publish, in its turn; return what is to be published."""

    def left(self, guest: Guest, /) -> None:
        """Tell that it has left."""

    def stop(self) -> Deferred[None]:
        """Tell what is still to be told, and end."""


def let_in(
    node: Node, guest: Guest, token: Grant | None, for_channels: list[Grant] | None = None
) -> Deferred[Credentials]:
    """
    Ask the application whether a client may come in.

    :param token: What its token grants, if it has shown one.
    :param for_channels: What its tokens for single channels grant.
    :returns: What it has by its tokens and by the application's word. Fails with :exc:`RtpushError`.
    """
    hooks = node.hooks
    assert hooks is not None
    guest.user = "" if token is None else token.user

    def come(given: Given) -> Credentials:
        if given.grant is not None:
            node.not_revoked(given.grant)
            if given.grant.expires is not None and given.grant.expires <= node.now():
                raise RtpushError(ErrorCode.UNAUTHORIZED, "the time is over for which the application lets you in")
        # From here on it is told when the client leaves.
        guest.is_in = True
        try:
            return Credentials(node, token, for_channels or (), guest=guest, given=given)
        except RtpushError:
            guest.ending = (1008, "permission_denied")
            hooks.left(guest)
            raise

    return hooks.connect(guest, node.is_good).addCallback(come)
