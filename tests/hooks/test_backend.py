"""Requests to a real web server."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import DNSLookupError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseNeverReceived

from rtpush.hooks.backend import HttpBackend, authorities
from rtpush.hooks.shapes import MAX_ANSWER_BYTES, BadAnswer
from tests.hooks.backends import Backend
from tests.support.certificates import issue
from tests.support.waiting import soon, until


class BackendTests(TestCase):
    """What comes of a request."""

    timeout = 30

    def backend(self, answer: Any, **more: Any) -> tuple[HttpBackend, Backend]:
        """Start an application, and return the way to it."""
        ca = more.pop("ca", b"")
        there = Backend(self, answer, **more)
        backend = HttpBackend(reactor, there.url, connections=5, timeout=5.0, ca=ca)
        self.addCleanup(backend.close)
        return backend, there

    async def test_answer(self) -> None:
        """The body and the headers arrive as they are; so does the answer, with its status."""
        backend, there = self.backend(lambda said: (418, b'{"tea": 1}'))
        reply = await soon(backend.post(b'{"event": "x"}', [(b"webhook-id", b"7")]))
        self.assertEqual((reply.status, reply.body), (418, b'{"tea": 1}'))
        self.assertEqual(there.bodies, [b'{"event": "x"}'])
        [headers] = there.headers
        self.assertEqual((headers["webhook-id"], headers["content-type"]), ("7", "application/json"))
        self.assertTrue(headers["user-agent"].startswith("rtpush/"))

    async def test_kept(self) -> None:
        """One connection serves for many requests, one after the other."""
        backend, there = self.backend(lambda said: {})
        for _ in range(5):
            await soon(backend.post(b"{}", []))
        self.assertEqual(len(there.connections), 1)

    async def test_stale(self) -> None:
        """A connection that was closed meanwhile is nobody's failure."""
        backend, there = self.backend(lambda said: {})
        for _ in range(3):
            await soon(backend.post(b"{}", []))
            for each in there.connections:
                each.abortConnection()
        self.assertEqual(len(there.said), 3)

    async def test_broken(self) -> None:
        """One that is broken each time is tried twice, and then fails."""
        backend, there = self.backend(lambda said: [each.abortConnection() for each in there.connections] and None)
        await self.assertFailure(soon(backend.post(b"{}", [])), ResponseNeverReceived)
        self.assertEqual(len(there.said), 2)

    async def test_large(self) -> None:
        """What is too large is not read to its end."""
        backend, _ = self.backend(lambda said: (200, b"x" * (MAX_ANSWER_BYTES * 50)))
        await self.assertFailure(soon(backend.post(b"{}", [])), BadAnswer)
        backend, _ = self.backend(lambda said: (200, b"x" * MAX_ANSWER_BYTES))
        self.assertEqual(len((await soon(backend.post(b"{}", []))).body), MAX_ANSWER_BYTES)

    async def test_redirection(self) -> None:
        """Nobody is sent elsewhere."""
        backend, there = self.backend(lambda said: (302, b""))
        self.assertEqual((await soon(backend.post(b"{}", []))).status, 302)
        self.assertEqual(len(there.said), 1)

    async def test_cancelled(self) -> None:
        """What is not waited for any more is given up, and not tried again."""
        backend, there = self.backend(lambda said: None)
        posted = backend.post(b"{}", [])
        await until(lambda: there.silent, "the question")
        posted.cancel()
        failure: list[Any] = []
        posted.addErrback(failure.append)
        self.assertTrue(failure)
        await until(lambda: all(not each.connected for each in there.connections), "the connection's end")
        self.assertEqual(len(there.said), 1)

    async def test_cancelled_before(self) -> None:
        """Also before there is a connection."""
        backend, _ = self.backend(lambda said: {})
        posted = backend.post(b"{}", [])
        posted.cancel()
        # What it is called depends on how far it came.
        await self.assertFailure(soon(posted), CancelledError, DNSLookupError)

    async def test_tls(self) -> None:
        """Over TLS, whoever is not signed by the authority that is named gets nothing."""
        authority = issue(self, "authority", authority=True)
        certificate = issue(self, "localhost", by=authority)
        backend, there = self.backend(lambda said: {}, certificate=certificate, ca=authority.pem.encode())
        self.assertEqual((await soon(backend.post(b"{}", []))).status, 200)
        for ca in (b"", issue(self, "other", authority=True).pem.encode()):
            stranger, there = self.backend(lambda said: {}, certificate=certificate, ca=ca)
            posted: Deferred[Any] = gatherResults([stranger.post(b"{}", [])], consumeErrors=True)
            await self.assertFailure(soon(posted), Exception)
            self.assertEqual(there.said, [])


class AuthoritiesTests(SynchronousTestCase):
    """Whom certificates let one trust."""

    def test_bad(self) -> None:
        """What is no certificate is refused in one line."""
        for pem in (b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            self.assertNotIn("\n", str(self.assertRaises(ValueError, authorities, pem)))
