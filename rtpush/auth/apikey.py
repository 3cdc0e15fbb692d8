"""API keys: what a backend shows to use the server API."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Protocol

from rtpush.errors import ErrorCode, RtpushError

__all__ = ["ApiKeys"]


class _Headed(Protocol):
    """A request, as far as it matters here."""

    def getHeader(self, key: bytes, /) -> bytes | None:
        """Return the value of a header field."""


class ApiKeys:
    """
    The keys that open the server API.

    :param keys: Any of them does. Without one the API is closed.
    :param open_: Whether no key is needed.
    """

    def __init__(self, keys: Iterable[str], *, open_: bool) -> None:
        self._keys = [key.encode() for key in keys]
        self._open = open_

    def check(self, request: _Headed) -> None:
        """
        Let a request pass that has a key: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

        :raises RtpushError: ``unauthorized`` if it has none, or a wrong one.
        """
        if self._open:
            return
        if not self._keys:
            raise RtpushError(ErrorCode.UNAUTHORIZED, "the server API is closed: the config has no key in [api] keys")
        given = self._given(request)
        if given is None:
            raise RtpushError(
                ErrorCode.UNAUTHORIZED, "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
            )
        # All keys are compared, each in constant time, so that the time tells nothing.
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        if not any(matches):
            raise RtpushError(ErrorCode.UNAUTHORIZED, "this API key is not known")

    @staticmethod
    def _given(request: _Headed) -> bytes | None:
        key: bytes | None = request.getHeader(b"x-api-key")
        if key is not None:
            return key
        scheme, _, token = (request.getHeader(b"authorization") or b"").partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" and token.strip() else None
