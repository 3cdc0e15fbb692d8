"""What can go wrong on the client's side. What the server says is wrong is :class:`rtpush.errors.RtpushError`."""

from __future__ import annotations

import attrs
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from rtpush.errors import Disconnect, ErrorCode, RtpushError, reconnects

__all__ = [
    "FINAL_ERRORS",
    "BadAnswer",
    "ClientClosed",
    "LinkLost",
    "NotDelivered",
    "OutboxFull",
    "ServerEnded",
    "cause_of",
    "kept_out_by",
    "lost_by",
    "refused_by",
]


#: There was no connection at all; what the operating system says of the last of these is as good as anything.
_UNREACHABLE: dict[type[Exception], str] = {
    error.ConnectionRefusedError: "connection refused",
    error.TimeoutError: "no connection in time",
    error.DNSLookupError: "there is no such host",
    error.ConnectError: "",
}


#: Errors that no other transport and no repetition mends.
FINAL_ERRORS = frozenset(
    {
        ErrorCode.UNAUTHORIZED,
        ErrorCode.ORIGIN_NOT_ALLOWED,
        ErrorCode.INVALID_TOKEN,
        ErrorCode.TOKEN_REVOKED,
    }
)


class BadAnswer(ValueError):
    """What came from the server is not what the protocol says."""


class ClientClosed(Exception):
    """The client was closed, by its user or because the server said not to come back."""


class ServerEnded(Exception):
    """
    The server ended a subscription, or said that this client is not to come back.

    :ivar code: The disconnect code.
    """

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason if code is None else f"{reason} ({code})")
        self.code = code
        self.reason = reason


class OutboxFull(Exception):
    """Too many commands wait for a connection."""


class NotDelivered(Exception):
    """
    A command got no answer: none came in time, or the connection broke after it was sent and it must not be sent twice.

    It may have reached the server nevertheless.
    """


@attrs.define(slots=False, eq=False)
class LinkLost(Exception):
    """
    A connection could not be opened, or broke.

    :ivar reason: One line.
    :ivar code: The disconnect or close code, if the server gave one.
    :ivar comes_back: False if the server said not to come back.
    :ivar after: Seconds after which the server wants to see us again.
    :ivar unreachable: Whether there was no server to talk to at all, so that no other transport will fare better.
    """

    reason: str
    code: int | None = None
    comes_back: bool = True
    after: float | None = None
    unreachable: bool = False

    def __str__(self) -> str:
        return self.reason


def refused_by(error: RtpushError) -> LinkLost:
    """Return what an error of the server means for a connection: whether it is worth while to come back."""
    code = Disconnect.TOKEN_EXPIRED.code if error.kind is ErrorCode.TOKEN_EXPIRED else None
    return LinkLost(error.message, code, comes_back=error.kind not in FINAL_ERRORS)


def kept_out_by(error: RtpushError) -> LinkLost:
    """Return what an error means for a client that is not let in: the application's code may say that it comes back."""
    if error.kind is not ErrorCode.PERMISSION_DENIED:
        return refused_by(error)
    code = error.code if 4000 <= error.code <= 4999 else Disconnect.PERMISSION_DENIED.code
    return LinkLost(error.message, code, comes_back=reconnects(code))


def lost_by(failure: Failure) -> LinkLost:
    """Say why a request or connection failed, in one line."""
    cause = cause_of(failure)
    if isinstance(cause, LinkLost):
        return cause
    for kind, reason in _UNREACHABLE.items():
        if isinstance(cause, kind):
            return LinkLost(reason or _line(cause), unreachable=True)
    if isinstance(cause, error.ConnectionClosed):
        return LinkLost("the connection was cut")
    return LinkLost(_line(cause))


def cause_of(failure: Failure) -> BaseException | None:
    """Return the exception in a failure, out of what the HTTP client wraps it in."""
    cause = failure.value
    while isinstance(cause, ResponseFailed) and cause.reasons:
        cause = cause.reasons[0].value
    return cause


def _line(cause: BaseException | None) -> str:
    """Return what an exception says, without the full stop, on one line."""
    said = cause.args[0] if cause is not None and cause.args else None
    if isinstance(said, list) and said:
        # OpenSSL's way: a list of (library, function, reason).
        return f"TLS: {said[-1][-1]}"
    text = " ".join(str(cause).split()).rstrip(".")
    if not text:
        return type(cause).__name__
    # Unless it is an abbreviation.
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
