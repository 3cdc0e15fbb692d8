"""An application that is a real web server, in the process of the test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.support.certificates import Issued

__all__ = ["Backend", "is_signed_with"]


def is_signed_with(secret: bytes, headers: dict[str, str], body: bytes) -> list[bool]:
    """Tell of each signature whether it was made with a secret."""
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    made = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return [each == f"v1,{made}" for each in headers["webhook-signature"].split(" ")]


class Backend(Resource):
    """
    Answers questions.

    :param answer: Returns what is answered to what was said: an object, a status with bytes, or nothing to say nothing.
    :ivar said: What was said, in order.
    :ivar headers: The headers of each.
    :ivar bodies: The bodies of each.
    """

    isLeaf = True

    def __init__(self, test: TestCase, answer: Callable[[Any], Any], *, certificate: Issued | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.said: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.connections: set[Any] = set()
        self.silent: list[Request] = []
        self._test = test
        self._certificate = certificate
        self._port: IListeningPort | None = None
        self.port = 0
        self.listen()
        test.addCleanup(self.close)

    @property
    def url(self) -> str:
        """Where it is."""
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://localhost:{self.port}/hook?from=rtpush"

    def listen(self) -> None:
        """Be there."""
        site = Site(self)
        site.noisy = False
        if self._certificate is None:
            self._port = reactor.listenTCP(self.port, site, interface="127.0.0.1")
        else:
            context = DefaultOpenSSLContextFactory(self._certificate.key, self._certificate.certificate)
            self._port = reactor.listenSSL(self.port, site, context, interface="127.0.0.1")
        self.port = self._port.getHost().port

    async def close(self) -> None:
        """Be away, with all connections."""
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        for each in list(self.connections):
            if each.connected:
                each.abortConnection()

    def events(self) -> list[str]:
        """Return what was asked about, in order."""
        return [each["event"] for each in self.said]

    def render_POST(self, request: Request) -> Any:
        """Answer one."""
        transport: Any = request.channel.transport
        self.connections.add(transport)
        body = request.content.read()
        self.bodies.append(body)
        self.headers.append(
            {name.decode().lower(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()}
        )
        self.said.append(json.loads(body))
        answer = self.answer(self.said[-1])
        if answer is None:
            self.silent.append(request)
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        if isinstance(answer, Deferred):
            gone: list[object] = []
            request.notifyFinish().addErrback(gone.append)
            answer.addCallback(lambda _: gone or self._finish(request, {}))
            return NOT_DONE_YET
        self._finish(request, answer)
        return NOT_DONE_YET

    @staticmethod
    def _finish(request: Request, answer: Any) -> None:
        status, content = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
        request.setResponseCode(status)
        if status == 302:
            request.setHeader(b"location", b"/elsewhere")
        request.write(content)
        request.finish()
