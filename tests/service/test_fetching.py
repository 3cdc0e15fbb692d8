"""Tests of rtpush.service.fetching."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import ResponseFailed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.util import Redirect

from rtpush.service.fetching import FetchError, fetch, web_agent


class _Answers(Resource):
    """A site: what it answers depends on the path."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render_GET(self, request: Any) -> Any:
        self.requests.append(request)
        match request.path:
            case b"/exact":
                return b"x" * 1000
            case b"/chunks":
                for _ in range(10):
                    request.write(b"x" * 100)
                request.finish()
            case b"/begun":
                request.write(b"x" * 500)
            case b"/endless":
                request.write(b"x" * 1001)
            case b"/error":
                request.setResponseCode(500)
                return b"x" * 100_000
            case b"/elsewhere":
                return Redirect(b"/exact").render(request)
            case b"/cut":
                request.setHeader("content-length", "1000")
                request.write(b"x" * 500)
                request.channel.loseConnection()
        return NOT_DONE_YET


class FetchTests(TestCase):
    """Reading a document."""

    def setUp(self) -> None:
        self.answers = _Answers()
        self.port: Any = reactor.listenTCP(0, Site(self.answers), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(self.port.stopListening)
        self.clock = Clock()

    def get(self, path: str) -> Any:
        """Read a path of the site, a thousand bytes at most."""
        return fetch(web_agent(reactor), self.clock, f"http://127.0.0.1:{self.port.getHost().port}{path}", 1000)

    @inlineCallbacks
    def test_good(self) -> Any:
        """A document comes whole, in one piece or in several. The server is told who asks, and for what."""
        for path in ("/exact", "/chunks"):
            content = yield self.get(path)
            self.assertEqual(content, b"x" * 1000)
        self.assertEqual(self.answers.requests[0].getHeader("accept"), "application/json")
        self.assertIn("rtpush/", self.answers.requests[0].getHeader("user-agent"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @inlineCallbacks
    def test_bad(self) -> Any:
        """One that is too long, has another status, is elsewhere or is cut off is none."""
        for path, said in (("/endless", "longer than 1000"), ("/error", "status 500"), ("/elsewhere", "status 302")):
            failure = yield self.assertFailure(self.get(path), FetchError)
            self.assertIn(said, str(failure))
        yield self.assertFailure(self.get("/cut"), ResponseFailed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @inlineCallbacks
    def test_slow(self) -> Any:
        """One that does not come in ten seconds is given up."""
        for path in ("/never", "/begun"):
            waiting = self.get(path)
            self.clock.advance(9.9)
            self.assertNoResult(waiting)
            self.clock.advance(0.1)
            failure = yield self.assertFailure(waiting, FetchError)
            self.assertIn("within 10 seconds", str(failure))

    @inlineCallbacks
    def test_nobody(self) -> Any:
        """A server that is not there is an error like others."""
        port = self.port.getHost().port
        yield self.port.stopListening()
        url = f"http://127.0.0.1:{port}/"
        yield self.assertFailure(fetch(web_agent(reactor), self.clock, url, 1000), ConnectError)
