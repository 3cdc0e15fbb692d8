"""HTTP for the client: one agent with persistent connections, over endpoints that can be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConsumer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from rtpush import __version__
from rtpush.client.errors import LinkLost, cause_of, lost_by
from rtpush.client.token import Token

__all__ = ["Answer", "DirectEndpoints", "Web", "discard", "read_answer"]

#: The largest answer that is taken, in bytes: a page of very large messages.
_MAX_ANSWER = 256 * 1024 * 1024


@attrs.frozen
class Answer:
    """What came back for a request."""

    status: int
    headers: Headers
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """The seconds of ``Retry-After``, if it gives seconds (RFC 9110, section 10.2.3)."""
        value = self.headers.getRawHeaders(b"retry-after", [b""])[0].strip()
        return float(value[:9]) if value.isdigit() else None


@implementer(IAgentEndpointFactory)
class DirectEndpoints:
    """Straight connections: TCP, and TLS for https and wss."""

    def __init__(self, reactor: Any, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint of a URL's host and port."""
        host = uri.host.decode("ascii").strip("[]")
        endpoint = HostnameEndpoint(self._reactor, host, uri.port, timeout=self._timeout)
        if uri.scheme in (b"https", b"wss"):
            return wrapClientTLS(optionsForClientTLS(host), endpoint)
        return endpoint


class Web:
    """
    Requests to a server.

    :param endpoints: Gives the endpoint for a URL, as for :meth:`twisted.web.client.Agent.usingEndpointFactory`.
    :param headers: Sent with every request.
    :ivar token: Sent with every request too, if there is one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoints: IAgentEndpointFactory,
        headers: Mapping[str, str],
        token: Token | None = None,
    ) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._pool = HTTPConnectionPool(clock, persistent=True)
        self._agent = Agent.usingEndpointFactory(clock, endpoints, self._pool)
        self.headers = {"User-Agent": f"rtpush/{__version__}", **headers}
        self.token = Token(None) if token is None else token

    def endpoint(self, url: str) -> IStreamClientEndpoint:
        """Return the endpoint for a URL."""
        return cast(IStreamClientEndpoint, self._endpoints.endpointForURI(_uri(url)))

    def open(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Deferred[IResponse]:
        """
        Send a request; the result is there when the head of the answer is.

        Whoever takes it must consume its body. Fails with :exc:`LinkLost`.
        """
        shown = {} if self.token.now is None else {"Authorization": f"Bearer {self.token.now}"}
        fields = Headers({name: [value] for name, value in {**self.headers, **shown, **(headers or {})}.items()})
        producer = None if body is None else _Body(body)
        response: Deferred[IResponse] = self._agent.request(method.encode(), url.encode("ascii"), fields, producer)
        return response.addErrback(_as_lost)

    def request(
        self,
        method: str,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Deferred[Answer]:
        """Send a request; the result is the whole answer. Fails with :exc:`LinkLost`, after ``timeout`` seconds too."""

        def too_late(_: Answer | Failure, seconds: float) -> Answer | Failure:
            return Failure(LinkLost(f"no answer within {seconds:g} s"))

        answer = self.open(method, url, headers, body).addCallback(read_answer)
        return answer.addTimeout(timeout, self._clock, onTimeoutCancel=too_late)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for later."""
        return cast("Deferred[None]", self._pool.closeCachedConnections())


def read_answer(response: IResponse) -> Deferred[Answer]:
    """Read the whole body of a response. Fails with :exc:`LinkLost`; cancelling it closes the connection."""
    body: Deferred[bytes] = Deferred(lambda _: reader.cancel())
    reader = _BodyReader(body)
    response.deliverBody(reader)
    return body.addCallback(lambda data: Answer(response.code, response.headers, data))


def discard(response: IResponse) -> None:
    """Drop a response that nobody reads to its end, and its connection."""
    response.deliverBody(_Closer())


class _Closer(Protocol):
    """Closes the connection of a body."""

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class _BodyReader(Protocol):
    """Collects a body."""

    def __init__(self, result: Deferred[bytes]) -> None:
        self._result = result
        self._pieces: list[bytes] = []
        self._size = 0
        self._done = False

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MAX_ANSWER:
            self.cancel()
            self._result.errback(LinkLost(f"an answer is larger than {_MAX_ANSWER} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done:
            return
        self._done = True
        if reason.check(ResponseDone, PotentialDataLoss):
            self._result.callback(b"".join(self._pieces))
        else:
            self._result.errback(lost_by(reason))

    def cancel(self) -> None:
        self._done = True
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _Body:
    """A body that is there already."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing to pause: all was written at once."""

    def resumeProducing(self) -> None:
        """There is nothing to resume."""

    def stopProducing(self) -> None:
        """There is nothing to stop."""


def _as_lost(failure: Failure) -> Failure:
    cause = cause_of(failure)
    return Failure(cause if isinstance(cause, CancelledError) else lost_by(failure))


def _uri(url: str) -> URI:
    return cast(URI, URI.fromBytes(url.encode("ascii")))
