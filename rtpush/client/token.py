"""The token of a client: given once, or asked of the application whenever another one is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from rtpush.client.errors import LinkLost

__all__ = ["GivesToken", "Token"]

#: What gives a token: itself, or a promise of it.
GivesToken = Callable[[], str | Awaitable[str]]


class Token:
    """
    A token, and where another one comes from.

    :param given: The token, or what is called for one; :obj:`None` for a client without one.
    :ivar now: The token to show; nothing if there is none yet, or if it has ended.
    """

    def __init__(self, given: str | GivesToken | None) -> None:
        self._source = given if callable(given) else None
        self.now = given if isinstance(given, str) else None
        self._asking: Deferred[Any] | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def renews(self) -> bool:
        """Whether another one can be had."""
        return self._source is not None

    @property
    def is_given(self) -> bool:
        """Whether there is one, or will be."""
        return self._source is not None or self.now is not None

    @property
    def is_missing(self) -> bool:
        """Whether one must be had first."""
        return self._source is not None and self.now is None

    def forget(self) -> None:
        """It is no good any more: another one is needed."""
        if self._source is not None:
            self.now = None

    def ready(self) -> Deferred[None]:
        """Have a token in :attr:`now`, if there is to be one. Fails with :exc:`LinkLost` if none can be had."""
        return self.renew() if self.is_missing else succeed(None)

    def renew(self) -> Deferred[None]:
        """Ask the application for another one; who asks meanwhile gets the same. Fails as :meth:`ready` does."""
        assert self._source is not None
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._asking is None:
            self._asking = maybeDeferred(self._ask, self._source)
            self._asking.addCallback(self._take).addBoth(self._tell)
        return waiting

    @staticmethod
    def _ask(source: GivesToken) -> Any:
        given = source()
        if isinstance(given, str | Deferred):
            return given
        return Deferred.fromCoroutine(_awaited(given))

    def _take(self, token: Any) -> None:
        if not isinstance(token, str):
            raise TypeError(f"expected a string, got {type(token).__name__}")
        self.now = token

    def _tell(self, result: Failure | None) -> None:
        self._asking = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if isinstance(result, Failure):
                each.errback(LinkLost(f"there is no token: {result.getErrorMessage()}"))
            else:
                each.callback(None)


async def _awaited(given: Awaitable[Any]) -> Any:
    return await given
