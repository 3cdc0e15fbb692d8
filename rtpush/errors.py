"""
Error and disconnect codes: the one table, for every transport and the server API.

``docs/protocol.rst`` shows the same table; a test compares them.
"""

from __future__ import annotations

import enum
from typing import Any

__all__ = ["Disconnect", "ErrorCode", "RtpushError", "reconnects"]


class ErrorCode(enum.Enum):
    """What can be wrong with a request or command: ``(code, HTTP status, temporary)``."""

    INTERNAL = (100, 500, True)
    UNAUTHORIZED = (101, 401, False)
    PERMISSION_DENIED = (102, 403, False)
    BAD_REQUEST = (103, 400, False)
    UNKNOWN_CHANNEL = (104, 404, False)
    BAD_CHANNEL = (105, 400, False)
    BAD_CURSOR = (106, 400, False)
    NOT_AVAILABLE = (107, 404, False)
    ALREADY_SUBSCRIBED = (108, 409, False)
    NOT_SUBSCRIBED = (109, 409, False)
    MESSAGE_TOO_LARGE = (110, 413, False)
    LIMIT_EXCEEDED = (111, 429, True)
    UNAVAILABLE = (112, 503, True)
    METHOD_NOT_ALLOWED = (113, 405, False)
    NOT_FOUND = (114, 404, False)
    ORIGIN_NOT_ALLOWED = (115, 403, False)
    UPGRADE_REQUIRED = (116, 426, False)
    INVALID_TOKEN = (117, 401, False)
    TOKEN_EXPIRED = (118, 401, False)
    TOKEN_REVOKED = (119, 401, False)
    URL_TOO_LONG = (120, 414, False)
    HEAD_TOO_LARGE = (121, 431, False)

    def __init__(self, code: int, status: int, temporary: bool) -> None:
        self.code = code
        self.status = status
        self.temporary = temporary


class RtpushError(Exception):
    """
    An error that its cause is told about.

    :param kind: Its row in the table.
    :param message: One line: what is wrong, where, and what was expected.
    :param channel: The channel whose token it is about, if it is about one.
    :param code: The code that is told; that of its row, unless the application has given one (``deny`` of hooks).
    """

    def __init__(self, kind: ErrorCode, message: str, *, channel: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = kind.code if code is None else code
        self.message = message
        self.channel = channel

    def as_dict(self) -> dict[str, Any]:
        """Return the object that stands behind ``"error"`` on every transport."""
        told = {
            "code": self.code,
            "name": self.kind.name.lower(),
            "message": self.message,
            "temporary": self.kind.temporary,
        }
        return told | {"channel": self.channel} if self.channel else told


class Disconnect(enum.Enum):
    """Why the server ends a connection: ``(code, whether the client comes back)``."""

    INTERNAL_ERROR = (1011, True)
    SERVICE_RESTART = (1012, True)
    TRY_AGAIN_LATER = (1013, True)
    SLOW_READER = (4000, True)
    NO_HEARTBEAT = (4001, True)
    GAP = (4002, True)
    RECONNECT = (4003, True)
    TOKEN_EXPIRED = (4004, True)
    LIMIT_EXCEEDED = (4005, True)
    DISCONNECTED = (4500, False)
    UNSUBSCRIBED = (4501, False)
    TOKEN_REVOKED = (4502, False)
    PERMISSION_DENIED = (4503, False)

    def __init__(self, code: int, reconnect: bool) -> None:
        self.code = code
        self.reconnect = reconnect

    @property
    def reason(self) -> str:
        """The name as it goes over the wire."""
        return self.name.lower()

    @classmethod
    def of(cls, code: int) -> Disconnect:
        """Return the one with a code."""
        return next(each for each in cls if each.code == code)


#: The close codes of RFC 6455 section 7.4.1 that blame the client: it would only be closed again.
_CLIENT_IS_WRONG = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


def reconnects(code: int) -> bool:
    """Tell whether a client that was closed with this code comes back."""
    return not (4500 <= code <= 4999 or code in _CLIENT_IS_WRONG)
