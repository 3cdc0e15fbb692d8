"""Tests of rtpush.protocol.history."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.history import History
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position

#: Quarters of seconds, so that sums are exact.
_quarters = st.integers(0, 40).map(lambda quarters: quarters / 4)
_offsets = st.integers(0, 120)
_limits = st.integers(0, 30) | st.just(10_000)


def message(position: Position) -> Message:
    """Return a message at a position."""
    return Message("a", Payload(b"%d" % position.offset, Kind.JSON), None, position)


def offsets(messages: list[Message]) -> list[int]:
    """Return the offsets of messages."""
    return [each.offset for each in messages]


class HistoryAgainstModel(RuleBasedStateMachine):
    """A history, and next to it a plain list of ``(offset, time)`` that is filtered anew at each step."""

    @initialize(size=st.integers(0, 12), ttl=st.integers(1, 40).map(lambda quarters: quarters / 4))
    def begin(self, size: int, ttl: float) -> None:
        """Choose the bounds."""
        self.size = size
        self.ttl = ttl
        self.now = 1000.0
        self.kept: list[tuple[int, float]] = []
        self.top = 0
        self.history = History("k3f9", size, ttl)

    def bound(self) -> None:
        """Apply both bounds to the model."""
        fresh = [(offset, time) for offset, time in self.kept if self.now - time < self.ttl]
        self.kept = fresh[-self.size :] if self.size else []

    @rule(count=st.integers(1, 30))
    def append(self, count: int) -> None:
        """Add messages."""
        for _ in range(count):
            position = self.history.next_position()
            self.history.append(message(position), self.now)
            self.top += 1
            assert position == Position("k3f9", self.top)
            self.kept.append((self.top, self.now))
            self.bound()

    @rule(seconds=_quarters)
    def wait(self, seconds: float) -> None:
        """Let time pass, and drop what is too old."""
        self.now += seconds
        self.bound()
        due = self.history.expire(self.now)
        assert due == (self.kept[0][1] + self.ttl if self.kept else None)
        assert due is None or due > self.now

    @rule(size=st.integers(0, 12))
    def resize(self, size: int) -> None:
        """Give it another size."""
        self.size = self.history.size = size
        self.kept = self.kept[-size:] if size else []

    @rule(offset=_offsets, limit=_limits)
    def after(self, offset: int, limit: int) -> None:
        """Read forward."""
        expected = [kept for kept, _ in self.kept if kept > offset][:limit]
        assert offsets(self.history.after(offset, limit)) == expected

    @rule(offset=_offsets, limit=_limits)
    def before(self, offset: int, limit: int) -> None:
        """Read backward."""
        expected = [kept for kept, _ in self.kept if kept < offset][::-1][:limit]
        assert offsets(self.history.before(offset, limit)) == expected

    @invariant()
    def same(self) -> None:
        """The model and the history hold the same."""
        assert len(self.history) == len(self.kept) <= self.size
        assert self.history.top == self.top
        assert self.history.position == Position("k3f9", self.top)
        assert offsets(self.history.after(0, 10_000)) == [offset for offset, _ in self.kept]

    @invariant()
    def bounded(self) -> None:
        """There is not much more room than is needed, and nothing in what is not."""
        places = self.history._messages
        assert len(places) <= 2 * len(self.history) + 1
        assert sum(each is not None for each in places) == len(self.history)


class HistoryTests(SynchronousTestCase):
    """The history of one channel."""

    def test_against_model(self) -> None:
        """Any sequence of operations gives what a plain list gives."""
        run_state_machine_as_test(HistoryAgainstModel, settings=settings(max_examples=60, stateful_step_count=25))

    def test_without_size(self) -> None:
        """A history that keeps nothing counts offsets all the same."""
        history = History("k3f9", 0, 10)
        for _ in range(3):
            history.append(message(history.next_position()), 0)
        self.assertEqual((len(history), history.top), (0, 3))
        self.assertIsNone(history.expire(0))
        self.assertEqual(history.after(0, 10), [])
        self.assertEqual(history.before(10, 10), [])

    def test_message_goes_with_its_place(self) -> None:
        """A message that was dropped is not held by the history any more."""
        history = History("k3f9", 2, 10)
        for _ in range(1000):
            history.append(message(history.next_position()), 0)
        held = [each for each in history._messages if each is not None]
        self.assertEqual(offsets(held), [999, 1000])

    def test_bounds_are_changed(self) -> None:
        """Other bounds count from the next message on."""
        history = History("k3f9", 5, 10)

        def add(count: int) -> None:
            for _ in range(count):
                history.append(message(history.next_position()), 0)

        add(5)
        history.size = 3
        add(1)
        self.assertEqual(offsets(history.after(0, 10)), [4, 5, 6])
        history.size = 4
        add(2)
        self.assertEqual(offsets(history.after(0, 10)), [5, 6, 7, 8])
        history.size = 0
        add(1)
        self.assertEqual((history.after(0, 10), history.top), ([], 9))
        history.size = 2
        add(1)
        self.assertEqual(offsets(history.after(0, 10)), [10])
