"""Tests of rtpush.client.errors."""

from __future__ import annotations

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from rtpush.client.errors import LinkLost, ServerEnded, cause_of, lost_by


class LostTests(SynchronousTestCase):
    """Why something failed, in one line."""

    def test_unreachable(self) -> None:
        """Without a connection there is nobody to talk to by any transport."""
        for exception, reason in (
            (error.ConnectionRefusedError(), "connection refused"),
            (error.DNSLookupError("x"), "there is no such host"),
            (error.TimeoutError(), "no connection in time"),
            (error.NoRouteError(osError=113), "no route to host"),
        ):
            lost = lost_by(Failure(exception))
            self.assertTrue(lost.unreachable)
            self.assertIn(reason, str(lost))
            self.assertNotIn("\n", str(lost))

    def test_cut(self) -> None:
        """A connection that breaks says so, also inside what the HTTP client makes of it."""
        cut = Failure(error.ConnectionLost())
        for failure in (cut, Failure(ResponseNeverReceived([cut])), Failure(ResponseFailed([cut, cut]))):
            lost = lost_by(failure)
            self.assertEqual((str(lost), lost.unreachable), ("the connection was cut", False))

    def test_others(self) -> None:
        """Anything else says what it is, on one line."""
        self.assertEqual(str(lost_by(Failure(ValueError("Bad\n  thing.")))), "bad thing")
        self.assertEqual(str(lost_by(Failure(ValueError()))), "ValueError")
        self.assertEqual(str(lost_by(Failure(ValueError("TLS failed")))), "TLS failed")
        openssl = ValueError([("SSL routines", "", "certificate verify failed")])
        self.assertEqual(str(lost_by(Failure(openssl))), "TLS: certificate verify failed")
        mine = LinkLost("mine")
        self.assertIs(lost_by(Failure(mine)), mine)

    def test_cancelled(self) -> None:
        """A cancelled request is known as such, also inside what the HTTP client makes of it."""
        wrapped = Failure(ResponseFailed([Failure(CancelledError())]))
        self.assertIsInstance(cause_of(wrapped), CancelledError)

    def test_server_ended(self) -> None:
        """The code is in the text, if there is one."""
        self.assertEqual(str(ServerEnded(4500, "banned")), "banned (4500)")
        self.assertEqual(str(ServerEnded(None, "banned")), "banned")
