"""Questions: how many at once, for how long, and when not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rtpush.hooks.questions import NoAnswer, Questions, Skipped
from rtpush.hooks.settings import HookSettings
from rtpush.hooks.shapes import Question, read_subscribe
from rtpush.hooks.signing import Secret
from rtpush.hooks.telling import Telling
from rtpush.registry.counts import HookCounts
from rtpush.registry.guests import Denied
from tests.hooks.fakes import FakeBackend


class _TestCase(SynchronousTestCase):
    settings = HookSettings(
        url="http://app.example/", secrets=(Secret(b"s" * 32),), max_in_flight=2, failures=3, pause=10.0
    )

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.backend = FakeBackend()
        self.counts = HookCounts()
        self.questions = Questions(
            self.settings,
            self.backend,
            self.clock,
            now=self.clock.seconds,
            chance=lambda: 0.0,
            counts=self.counts,
        )
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def ask(self, id_: str = "id", event: str = "subscribe") -> Deferred[bytes]:
        """Ask something."""
        question = Question(
            event=event,
            id=id_,
            time=5.0,
            node="n",
            transport="sse",
            connection="c-1",
            headers={"cookie": "very-secret"},
        )
        return self.questions.ask(question, read_subscribe)

    def lines(self) -> list[str | None]:
        """Return what was logged."""
        return [formatEvent(each) for each in self.logged if each.get("log_namespace", "").startswith("rtpush.hooks")]


class AskTests(_TestCase):
    """One question."""

    def test_signed(self) -> None:
        """It is signed as it is sent, and says when."""
        self.ask()
        [asked] = self.backend.asked
        mac = hmac.new(b"s" * 32, b"id.1000." + asked.body, hashlib.sha256).digest()
        self.assertEqual(
            asked.headers,
            {
                "webhook-id": "id",
                "webhook-timestamp": "1000",
                "webhook-signature": "v1," + base64.b64encode(mac).decode(),
            },
        )

    def test_outcomes(self) -> None:
        """What comes of it is counted, and a failure is logged with the connection, without what was said."""
        for answer, fails in (({"data": 1}, None), ({"deny": {}}, Denied), ({"oops": "private"}, NoAnswer)):
            result = self.ask()
            self.clock.advance(0.25)
            self.backend.asked[-1].answer(answer)
            if fails is None:
                self.assertEqual(self.successResultOf(result), b"1")
            else:
                self.failureResultOf(result, fails)
        expected = {("subscribe", outcome): 1 for outcome in ("allowed", "denied", "failed")}
        self.assertEqual(self.counts.outcomes, expected)
        self.assertEqual(self.counts.seconds.sum, 0.75)
        [line] = self.lines()
        self.assertIn("asking the application about subscribe failed", line or "")
        self.assertEqual(self.logged[-1]["connection"], "c-1")
        self.assertNotIn("secret", str(self.logged))
        self.assertNotIn("private", str(self.logged))

    def test_timeout(self) -> None:
        """What takes too long is cancelled, and fails; an answer that comes later is nobody's."""
        result = self.ask()
        self.clock.advance(1.9)
        self.assertNoResult(result)
        self.clock.advance(0.2)
        self.failureResultOf(result, NoAnswer)
        self.assertEqual(self.questions.pending, 0)
        self.assertIn("no answer within 2 seconds", self.lines()[0] or "")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unreachable(self) -> None:
        """So does what cannot be sent."""
        self.backend.answers["subscribe"] = ConnectionRefusedError("no")
        self.failureResultOf(self.ask(), NoAnswer)
        self.assertIn("ConnectionRefusedError", self.lines()[0] or "")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BoundTests(_TestCase):
    """Many questions."""

    def test_in_flight(self) -> None:
        """So many are asked at once; the others wait for their turn, in order."""
        results = [self.ask(str(n)) for n in range(5)]
        self.assertEqual([each.said["id"] for each in self.backend.asked], ["0", "1"])
        self.assertEqual(self.questions.pending, 5)
        self.backend.asked[1].answer({})
        self.assertEqual([each.said["id"] for each in self.backend.asked], ["0", "1", "2"])
        for n in (0, 2, 3, 4):
            self.backend.asked[n].answer({})
        self.assertEqual([self.successResultOf(each) for each in results], [b""] * 5)
        self.assertEqual(self.questions.pending, 0)

    def test_waiting(self) -> None:
        """Ten times as many wait; more fail at once, and say so."""
        results = [self.ask() for _ in range(23)]
        self.failureResultOf(results[-1], Skipped)
        self.assertEqual(self.counts.outcomes, {("subscribe", "skipped"): 1})
        for each in results[:-1]:
            self.assertNoResult(each)

    def test_waited_too_long(self) -> None:
        """Who waits has no more time than who is asked, and is not held against the application."""
        results = [self.ask() for _ in range(4)]
        self.clock.advance(2.0)
        for each in results:
            self.failureResultOf(each, NoAnswer)
        self.assertEqual(self.questions.pending, 0)
        self.assertEqual(len(self.backend.asked), 2)
        self.assertFalse(self.questions.breaker.is_open)

    def test_breaker(self) -> None:
        """After some failures nothing is asked for a while; then one, on which it depends."""
        self.backend.answers["subscribe"] = (500, {})
        for _ in range(3):
            self.failureResultOf(self.ask(), NoAnswer)
        self.failureResultOf(self.ask(), Skipped)
        self.assertEqual(len(self.backend.asked), 3)
        self.clock.advance(10.0)
        self.backend.answers.clear()
        first, second = self.ask(), self.ask()
        self.failureResultOf(second, Skipped)
        self.backend.asked[-1].answer({})
        self.successResultOf(first)
        self.assertFalse(self.questions.is_shut)
        self.assertEqual(sum("left alone" in (line or "") for line in self.lines()), 1)
        self.assertEqual(sum("answers again" in (line or "") for line in self.lines()), 1)

    def test_breaker_and_those_who_wait(self) -> None:
        """Who waits when it opens fails at once."""
        results = [self.ask() for _ in range(10)]
        for n in range(3):
            self.backend.asked[n].answer({}, 500)
        for each in [*results[:3], *results[4:]]:
            self.failureResultOf(each, NoAnswer)
        self.assertEqual(len(self.backend.asked), 4)
        self.assertEqual(self.questions.pending, 1)


class TellTests(_TestCase):
    """What is only told."""

    def setUp(self) -> None:
        super().setUp()
        self.telling = Telling(self.questions, self.clock, self.counts)

    def tell(self, id_: str = "id") -> None:
        """Tell something."""
        self.telling.tell(Question(event="disconnect", id=id_, time=5.0, node="n", transport="sse"))

    def ids(self) -> list[str]:
        """Return what has come."""
        return [json.loads(each.body)["id"] for each in self.backend.asked]

    def test_told(self) -> None:
        """It is told once if it is heard."""
        self.tell()
        self.backend.asked[0].answer(b"thanks", 204)
        self.clock.advance(100)
        self.assertEqual((self.ids(), self.telling.pending), (["id"], 0))

    def test_again(self) -> None:
        """It is told twice more if it is not heard, with the same id, and then no more."""
        self.backend.answers["disconnect"] = (500, {})
        self.tell()
        for seconds, times in ((0.9, 1), (0.2, 2), (4.8, 2), (0.2, 3), (100, 3)):
            self.clock.advance(seconds)
            self.assertEqual(self.ids(), ["id"] * times)
        self.assertEqual(self.telling.pending, 0)
        self.assertIn("was not told of disconnect", str(self.lines()))

    def test_later(self) -> None:
        """While the application is left alone all waits, and is told when it is there again."""
        self.backend.answers["subscribe"] = (500, {})
        for _ in range(3):
            self.failureResultOf(self.ask(), NoAnswer)
        self.backend.answers["disconnect"] = {}
        for n in range(5):
            self.tell(str(n))
        self.clock.pump([1.0] * 9)
        self.assertEqual(len(self.backend.asked), 3)
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.ids()[3:], ["0", "1", "2", "3", "4"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bound(self) -> None:
        """What is too much is dropped and counted."""
        for n in range(10_005):
            self.tell(str(n))
        self.assertEqual(self.telling.pending, 10_000)
        self.assertEqual(self.counts.outcomes["disconnect", "skipped"], 5)

    def test_room_for_others(self) -> None:
        """What does not get its turn among questions stays, and is told later."""
        others = [self.ask() for _ in range(22)]
        self.tell()
        self.assertEqual(self.telling.pending, 1)
        self.backend.answers["disconnect"] = {}
        self.clock.advance(2.0)
        for each in others:
            self.failureResultOf(each, NoAnswer)
        self.clock.pump([1.0] * 12)
        self.assertEqual(self.ids()[-1], "id")
        self.assertEqual(self.telling.pending, 0)

    def test_finish(self) -> None:
        """At the end it is waited for what is still to be told, for some seconds."""
        self.successResultOf(self.telling.finish(2.0))
        for settle in (True, False):
            telling = Telling(self.questions, self.clock, self.counts)
            telling.tell(Question(event="disconnect", id="x", time=5.0, node="n", transport="sse"))
            done = telling.finish(1.0)
            self.assertNoResult(done)
            if settle:
                self.backend.waiting()[-1].answer({})
            else:
                self.clock.advance(1.0)
            self.successResultOf(done)
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])
