"""Tests of rtpush.client.ladder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.ladder import Ladder


class LadderTests(SynchronousTestCase):
    """Which transport is used."""

    def setUp(self) -> None:
        self.ladder = Ladder(["websocket", "sse", "longpoll"])

    def test_begins_at_the_top(self) -> None:
        """Without experience the best comes first, and there is nothing better."""
        self.assertEqual(self.ladder.order(), ["websocket", "sse", "longpoll"])
        self.assertEqual(self.ladder.better(), [])

    def test_remembers(self) -> None:
        """What worked is tried first, then what is below it, then what is above."""
        self.ladder.opened("sse")
        self.assertEqual(self.ladder.order(), ["sse", "longpoll", "websocket"])
        self.assertEqual(self.ladder.better(), ["websocket"])

    def test_steps_down(self) -> None:
        """Three short lives in a row lead one rung down."""
        self.ladder.opened("websocket")
        self.ladder.lost(9.9)
        self.ladder.lost(0.0)
        self.assertEqual(self.ladder.current, "websocket")
        self.ladder.lost(1.0)
        self.assertEqual(self.ladder.current, "sse")

    def test_long_life_forgives(self) -> None:
        """Only short lives in a row count."""
        for lived in (1.0, 1.0, 10.0, 1.0, 1.0):
            self.ladder.lost(lived)
        self.assertEqual(self.ladder.current, "websocket")

    def test_one_chance(self) -> None:
        """A transport that was left after short lives is left after one more, until it lived longer."""
        for _ in range(3):
            self.ladder.lost(1.0)
        self.ladder.opened("websocket")
        self.ladder.lost(1.0)
        self.assertEqual(self.ladder.current, "sse")
        self.ladder.opened("websocket")
        self.ladder.lost(100.0)
        self.ladder.lost(1.0)
        self.assertEqual(self.ladder.current, "websocket")

    def test_lowest_rung(self) -> None:
        """Below the lowest there is nothing."""
        self.ladder.opened("longpoll")
        for _ in range(7):
            self.ladder.lost(1.0)
        self.assertEqual(self.ladder.current, "longpoll")

    def test_climb_delay(self) -> None:
        """The time until the next climb doubles when one came to nothing, up to an hour."""
        self.assertEqual(self.ladder.climb_delay, 60.0)
        self.ladder.climb_failed()
        self.assertEqual(self.ladder.climb_delay, 120.0)
        for _ in range(2000):
            self.ladder.climb_failed()
        self.assertEqual(self.ladder.climb_delay, 3600.0)

    def test_stepping_down_delays_the_climb(self) -> None:
        """A climb that ended in short lives came to nothing too."""
        for _ in range(3):
            self.ladder.lost(1.0)
        self.assertEqual(self.ladder.climb_delay, 120.0)

    def test_long_life_at_the_top(self) -> None:
        """Climbs that failed delay no more once the best one has lived long; on a lower one they still do."""
        self.ladder.climb_failed()
        self.ladder.opened("sse")
        self.ladder.lost(100.0)
        self.assertEqual(self.ladder.climb_delay, 120.0)
        self.ladder.opened("websocket")
        self.ladder.lost(100.0)
        self.assertEqual(self.ladder.climb_delay, 60.0)

    def test_offer(self) -> None:
        """Of a new list, what worked is kept if it is there; else the best is next."""
        self.ladder.opened("sse")
        self.ladder.offer(["sse", "longpoll"])
        self.assertEqual(self.ladder.order(), ["sse", "longpoll"])
        self.ladder.offer(["longpoll", "shortpoll"])
        self.assertEqual(self.ladder.order(), ["longpoll", "shortpoll"])

    @given(st.lists(st.one_of(st.floats(0, 30), st.sampled_from(["websocket", "sse", "longpoll"]))))
    def test_whatever_happens(self, events: list[float | str]) -> None:
        """Whatever happens, each transport is tried in each round, and what is better is above the current one."""
        ladder = Ladder(["websocket", "sse", "longpoll"])
        for event in events:
            if isinstance(event, str):
                ladder.opened(event)
            else:
                ladder.lost(event)
            self.assertEqual(sorted(ladder.order()), ["longpoll", "sse", "websocket"])
            self.assertEqual(ladder.order()[0], ladder.current)
            self.assertNotIn(ladder.current, ladder.better())
