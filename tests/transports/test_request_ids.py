"""The ids of requests that fail here: in the log, and in the answer."""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody
from twisted.web.http_headers import Headers

from rtpush.errors import ErrorCode, RtpushError
from rtpush.service.loglines import LogLine
from rtpush.testing import InMemoryServer


class RequestIdTests(SynchronousTestCase):
    """``X-Request-ID``."""

    def setUp(self) -> None:
        self.server = InMemoryServer()
        self.addCleanup(self.server.close)
        self.lines: list[LogLine] = []
        observer = lambda event: self.lines.append(LogLine.of(event, ""))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def _break(self, error: Exception) -> None:
        """Have something go wrong with whoever subscribes."""

        def broken(*arguments: Any) -> None:
            raise error

        self.patch(self.server.node.namespaces, "of", broken)

    def _ask(self, path: str, given: str | None = None) -> tuple[int, str | None]:
        headers = Headers({} if given is None else {"x-request-id": [given]})
        asked = self.server.agent().request(b"GET", f"{self.server.url}{path}".encode(), headers)
        self.server.advance()
        answer = self.successResultOf(asked)
        read = readBody(answer)
        self.server.advance()
        self.successResultOf(read)
        ids = answer.headers.getRawHeaders("x-request-id") or [None]
        self.assertEqual(len(ids), 1)
        return answer.code, ids[0]

    def _logged(self) -> LogLine:
        """Return the only line, which is about a failure."""
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        [line] = self.lines
        self.lines.clear()
        return line

    def test_given(self) -> None:
        """The client's own id is the one that is logged and answered."""
        self._break(ZeroDivisionError())
        self.assertEqual(self._ask("poll?channel=demo:a&timeout=0&token=secret", "Ab-1.2_3:4/5"), (500, "Ab-1.2_3:4/5"))
        line = self._logged()
        self.assertEqual((line.request, line.message), ("Ab-1.2_3:4/5", "GET /poll failed"))
        self.assertNotIn("secret", line.traceback)

    def test_made(self) -> None:
        """Without one, or with one that might be anything, one is made."""
        self._break(ZeroDivisionError())
        made = set()
        for given in (None, "x" * 65, "a b", "\xe4", ""):
            status, id_ = self._ask("poll?channel=demo:a&timeout=0", given)
            assert id_ is not None
            self.assertEqual(status, 500)
            self.assertEqual(self._logged().request, id_)
            self.assertRegex(id_, r"^[A-Za-z0-9_-]{12}$")
            made.add(id_)
        self.assertEqual(len(made), 5)

    def test_not_ours(self) -> None:
        """What is the client's fault has none; what is only for now has one, though nothing is logged."""
        self.assertEqual(self._ask("poll?channel=nothing:a&timeout=0", "r1"), (404, None))
        self.assertEqual(self._ask("poll?channel=demo:a&timeout=0", "r1"), (200, None))
        self._break(RtpushError(ErrorCode.UNAVAILABLE, "away"))
        self.assertEqual(self._ask("poll?channel=demo:a&timeout=0", "r1"), (503, "r1"))
        self.assertEqual(self.lines, [])
