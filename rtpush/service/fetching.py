"""Reading a small document from a web server."""

from __future__ import annotations

from typing import Any, NoReturn, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

import rtpush

__all__ = ["FetchError", "fetch", "web_agent"]

#: Seconds in which the whole document must have come.
_TIMEOUT = 10


class FetchError(Exception):
    """A document cannot be had. Its text is one line."""


def web_agent(reactor: Any) -> IAgent:
    """Return the agent that is used: certificates are checked, redirections are not followed."""
    return cast(IAgent, Agent(reactor, BrowserLikePolicyForHTTPS(), connectTimeout=_TIMEOUT))


def fetch(agent: IAgent, clock: IReactorTime, url: str, most: int) -> Deferred[bytes]:
    """
    Read a document.

    :param most: The most bytes that it may have.
    :returns: Its content. Fails with :exc:`FetchError` if it is longer, if it does not come in ten seconds, or if the
        status is another than 200; with what the agent fails with if the server cannot be reached.
    """
    headers = Headers({"Accept": ["application/json"], "User-Agent": [f"rtpush/{rtpush.__version__}"]})
    response: Deferred[IResponse] = agent.request(b"GET", url.encode("ascii"), headers, None)
    return response.addCallback(_body, most).addTimeout(_TIMEOUT, clock, _timed_out)


def _timed_out(_: object, timeout: float) -> NoReturn:
    raise FetchError(f"it has not come within {timeout:g} seconds")


def _body(response: IResponse, most: int) -> Deferred[bytes]:
    collector = _Collector(response.code, most)
    response.deliverBody(collector)
    return collector.done


class _Collector(Protocol):
    """Collects a body up to a bound."""

    def __init__(self, status: int, most: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._leave())
        self._content = bytearray()
        self._status = status
        self._most = most

    def connectionMade(self) -> None:
        if self._status != 200:
            self._fail(f"the answer has the status {self._status}: expected 200")

    def dataReceived(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > self._most:
            self._fail(f"it is longer than {self._most} bytes")

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self.done.called:
            return
        # A server need not say how long a document is: what comes until it closes is the document then.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._content))
        else:
            self.done.errback(reason)

    def _fail(self, problem: str) -> None:
        if not self.done.called:
            self.done.errback(FetchError(problem))
            self._leave()

    def _leave(self) -> None:
        cast(Any, self.transport).loseConnection()
