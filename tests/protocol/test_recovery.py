"""Tests of rtpush.protocol.recovery."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Gap, Page, Tail, gap_between, unseen

_epochs = st.sampled_from(["a", "b"])
_small = st.integers(0, 12)
_positions = st.builds(Position, _epochs, _small)


def message(position: Position | None) -> Message:
    """Return a message at a position, or a volatile one."""
    return Message("a", Payload(b"1", Kind.JSON), None, position)


class GapTests(SynchronousTestCase):
    """Whether what came after a position is still there."""

    @given(_positions, _positions, _small)
    def test_against_list(self, since: Position, top: Position, kept: int) -> None:
        """There is no gap exactly if the messages after the position are the newest ones of those that are kept."""
        kept = min(kept, top.offset)
        held = list(range(top.offset - kept + 1, top.offset + 1))
        wanted = list(range(since.offset + 1, top.offset + 1))
        gap = gap_between(since, top, kept)
        if since.epoch != top.epoch:
            self.assertIs(gap, Gap.EPOCH_CHANGED)
        elif since.offset > top.offset:
            self.assertIs(gap, Gap.POSITION_AHEAD)
        elif set(wanted) <= set(held):
            self.assertIsNone(gap)
        else:
            self.assertIs(gap, Gap.HISTORY_LOST)

    def test_words(self) -> None:
        """The reasons are those of the protocol."""
        self.assertEqual({gap.value for gap in Gap}, {"epoch_changed", "history_lost", "position_ahead", "skipped"})


class PageTests(SynchronousTestCase):
    """A part of history."""

    @given(st.integers(0, 5), st.integers(0, 5))
    def test_complete(self, count: int, more: int) -> None:
        """A page is complete if its last message is the newest there is, or if it has none."""
        top = Position("a", count + more)
        page = Page([message(Position("a", offset)) for offset in range(1, count + 1)], top)
        self.assertIs(page.complete, count == 0 or more == 0)


class TailTests(SynchronousTestCase):
    """How a message stands to the last one."""

    @given(_positions, _positions)
    def test_of(self, position: Position, last: Position) -> None:
        """The next offset is next, a lower or equal one was seen, anything else is beyond."""
        tail = Tail.of(position, last)
        if position.epoch != last.epoch:
            self.assertIs(tail, Tail.BEYOND)
        elif position.offset <= last.offset:
            self.assertIs(tail, Tail.SEEN)
        else:
            self.assertIs(tail, Tail.NEXT if position.offset - last.offset == 1 else Tail.BEYOND)


class UnseenTests(SynchronousTestCase):
    """What of the messages that arrived was not delivered yet."""

    @given(st.lists(st.none() | st.builds(Position, st.just("a"), st.integers(1, 12))), _small)
    def test_never_a_hole(self, arrived: list[Position | None], last: int) -> None:
        """What is given follows on the last one without a hole; if that cannot be, nothing is given."""
        rest = unseen([message(position) for position in arrived], Position("a", last))
        offsets = [position.offset for position in arrived if position is not None]
        reached, possible = last, True
        for offset in offsets:
            possible = possible and offset <= reached + 1
            reached = max(reached, offset)
        if possible:
            assert rest is not None
            self.assertEqual([each.offset for each in rest], list(range(last + 1, reached + 1)))
        else:
            self.assertIsNone(rest)

    @given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
    def test_overlap(self, first: int, count: int, read: int) -> None:
        """What history gave already is left out, and only that."""
        arrived = [message(Position("a", offset)) for offset in range(first + 1, first + count + 1)]
        rest = unseen(arrived, Position("a", read))
        if count and read < first:
            self.assertIsNone(rest)
        else:
            assert rest is not None
            expected = [offset for offset in range(first + 1, first + count + 1) if offset > read]
            self.assertEqual([each.offset for each in rest], expected)

    def test_other_epoch(self) -> None:
        """A message of another epoch means that some are missing."""
        self.assertIsNone(unseen([message(Position("b", 8))], Position("a", 7)))

    def test_volatile(self) -> None:
        """Messages without a position are not recovered."""
        self.assertEqual(unseen([message(None), message(None)], Position("a", 7)), [])
