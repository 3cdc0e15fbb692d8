"""Tests of rtpush.protocol.negotiate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.negotiate import TRANSPORTS, Direction, choose

_some = st.lists(st.sampled_from(TRANSPORTS), unique=True)


def ranked(direction: Direction, *, without: tuple[str, ...] = ()) -> list[str]:
    """Return the order for a client that can do everything but some."""
    supported = [name for name in TRANSPORTS if name not in without]
    choice = choose(direction, offered=TRANSPORTS, supported=supported)
    return [name for name, _ in choice.ranked]


class NegotiateTests(SynchronousTestCase):
    """The rule that ranks transports."""

    def test_rule(self) -> None:
        """Both talk: WebSocket. Only the server pushes: SSE. Rare changes: short polls. Long polls come last."""
        self.assertEqual(ranked(Direction.DUPLEX), ["websocket", "sse", "longpoll"])
        self.assertEqual(ranked(Direction.PUSH), ["sse", "websocket", "longpoll"])
        self.assertEqual(ranked(Direction.RARE), ["shortpoll", "sse", "longpoll"])

    def test_better_than_nothing(self) -> None:
        """A client that can do nothing but what is not ranked gets that."""
        self.assertEqual(ranked(Direction.DUPLEX, without=("websocket", "sse", "longpoll")), ["shortpoll"])
        self.assertEqual(ranked(Direction.RARE, without=("shortpoll", "sse", "longpoll")), ["websocket"])

    def test_reasons_of_exclusion(self) -> None:
        """Whoever is missing is told whether the server or the client cannot do it."""
        choice = choose(Direction.DUPLEX, offered=["websocket"], supported=["websocket", "longpoll"])
        excluded = dict(choice.excluded)
        self.assertIn("switched off", excluded["longpoll"])
        self.assertIn("switched off", excluded["sse"])
        choice = choose(Direction.DUPLEX, offered=TRANSPORTS, supported=["websocket"])
        self.assertIn("the client can do", dict(choice.excluded)["sse"])

    @given(st.sampled_from(Direction), _some, _some)
    def test_complete(self, direction: Direction, offered: list[str], supported: list[str]) -> None:
        """Each transport is ranked or excluded, once and with a reason; only what both can do is ranked."""
        choice = choose(direction, offered=offered, supported=supported)
        named = [name for name, _ in (*choice.ranked, *choice.excluded)]
        self.assertEqual(sorted(named), sorted(TRANSPORTS))
        self.assertTrue(all(reason for _, reason in (*choice.ranked, *choice.excluded)))
        possible = set(offered) & set(supported)
        self.assertLessEqual({name for name, _ in choice.ranked}, possible)
        self.assertEqual(bool(choice.ranked), bool(possible))
