"""The way to the application: HTTP requests over connections that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import Interface, implementer

import rtpush
from rtpush.hooks.shapes import MAX_ANSWER_BYTES, BadAnswer, Reply

__all__ = ["HttpBackend", "IBackend", "authorities"]

#: Seconds for which a connection is kept that is not in use.
_KEPT_FOR = 30

#: How a request fails on a connection that the other side was just closing.
_STALE = (RequestTransmissionFailed, ResponseNeverReceived, ConnectionDone, ConnectionLost)


class IBackend(Interface):
    """What brings questions to the application."""

    def post(body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Deferred[Reply]:
        """
        Send a question; return the answer, of at most :data:`MAX_ANSWER_BYTES`.

        It is waited for until it is cancelled. Fails with :exc:`BadAnswer` if it is too large, and otherwise with
        whatever is wrong.
        """

    def close() -> Deferred[None]:
        """Close all connections."""


@implementer(IBackend)
class HttpBackend:
    """
    An application with a URL.

    :param url: It; redirections are not followed.
    :param connections: How many connections are kept.
    :param ca: Certificates, in PEM, of who may sign the application's; without them those of the system.
    :raises ValueError: if that cannot be read.
    """

    def __init__(self, reactor: Any, url: str, *, connections: int, timeout: float, ca: bytes = b"") -> None:
        self._url = url.encode("ascii")
        pool: Any = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = connections
        pool.cachedConnectionTimeout = _KEPT_FOR
        # It would repeat what is no POST; that is done here.
        pool.retryAutomatically = False
        # It would log each connection.
        pool._factory = type("QuietFactory", (pool._factory,), {"noisy": False})
        policy = BrowserLikePolicyForHTTPS(trustRoot=authorities(ca) if ca else None)
        self._pool = pool
        self._agent = cast(IAgent, Agent(reactor, policy, connectTimeout=timeout, pool=pool))

    def post(self, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Deferred[Reply]:
        fields = Headers({b"content-type": [b"application/json"], b"user-agent": [b"rtpush/" + _VERSION]})
        for name, value in headers:
            fields.addRawHeader(name, value)

        def again(failure: Failure) -> Deferred[Reply]:
            # A connection that was kept may be closed just when it is used. Of the question's id, the application
            # knows it again, should it have got it nevertheless.
            failure.trap(*_STALE)
            reasons: list[Failure] = getattr(failure.value, "reasons", [])
            if any(reason.check(CancelledError) for reason in reasons):
                return fail(failure)
            return self._send(body, fields)

        return self._send(body, fields).addErrback(again)

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = self._pool.closeCachedConnections().addCallback(lambda _: None)
        return closed

    def _send(self, body: bytes, fields: Headers) -> Deferred[Reply]:
        sent: Deferred[IResponse] = self._agent.request(b"POST", self._url, fields, _Body(body))
        return sent.addCallback(_reply)


_VERSION = rtpush.__version__.encode()


def authorities(pem: bytes) -> Any:
    """
    Return whom certificates in PEM let one trust.

    :raises ValueError: if there is none, or it cannot be read.
    """
    end = b"-----END CERTIFICATE-----"
    parts = [part + end for part in pem.split(end) if b"-----BEGIN CERTIFICATE-----" in part]
    if not parts:
        raise ValueError("there is no certificate in PEM in it")
    try:
        return trustRootFromCertificates([Certificate.loadPEM(part) for part in parts])
    except Exception:
        # What it raises is OpenSSL's, and different from version to version.
        raise ValueError("a certificate in it cannot be read") from None


@implementer(IBodyProducer)
class _Body:
    """A body that is all there."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """It is written already."""

    def resumeProducing(self) -> None:
        """It is written already."""

    def stopProducing(self) -> None:
        """It is written already."""


def _reply(response: IResponse) -> Deferred[Reply]:
    collector = _Collector(response.code)
    response.deliverBody(collector)
    return collector.done


class _Collector(Protocol):
    """Collects an answer, up to a bound."""

    def __init__(self, status: int) -> None:
        self.done: Deferred[Reply] = Deferred(lambda _: self._leave())
        self._status = status
        self._content = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > MAX_ANSWER_BYTES and not self.done.called:
            self.done.errback(BadAnswer(f"the answer is longer than {MAX_ANSWER_BYTES} bytes"))
            self._leave()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self.done.called:
            return
        # A server need not say how long an answer is: what comes until it closes is the answer then.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(Reply(self._status, bytes(self._content)))
        else:
            self.done.errback(reason)

    def _leave(self) -> None:
        transport = cast(Any, self.transport)
        # Twisted's has none of these for what was all there at once.
        if hasattr(transport, "abortConnection"):
            transport.abortConnection()
        else:
            transport.loseConnection()
