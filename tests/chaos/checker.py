"""
The proof: from what was written down of a run, what broke a promise.

Per channel and client each message comes once and in order, or a gap is told; what was acknowledged has come, or a gap
that was told covers it; a gap is told only where Redis could lose something; and at the end everybody is up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from rtpush.protocol.position import Position
from tests.chaos.history import Acknowledged, Began, Gap, Got, Loss, View

__all__ = ["Violation", "violations_of"]


@attrs.frozen(order=True)
class Violation:
    """
    A promise that was broken.

    :ivar time: When that was seen.
    :ivar who: The client or publisher who saw it.
    :ivar channel: In which channel.
    :ivar what: What is wrong.
    """

    time: float
    who: str
    channel: str
    what: str

    def __str__(self) -> str:
        return f"at {self.time:.3f} s, {self.who}, {self.channel}: {self.what}"


def violations_of(
    views: Iterable[View],
    acknowledged: Mapping[str, Sequence[Acknowledged]],
    losses: Sequence[Loss],
    end: float,
    kept: Mapping[str, int] | None = None,
) -> list[Violation]:
    """
    Return what is wrong, in the order of time.

    :param acknowledged: By channel, in the order of time. The last one of each was sent when all was well again and
        everything else was acknowledged.
    :param losses: When something could be lost; if never, everybody must have got everything.
    :param end: The time at which everybody had to be up to date.
    :param kept: How many messages are kept of those channels of which not all are: who misses more is told of a gap.
    """
    found: list[Violation] = []
    by_channel: dict[str, list[View]] = {channel: [] for channel in acknowledged}
    for view in views:
        by_channel[view.channel].append(view)
    for channel, theirs in by_channel.items():
        found += _Channel(channel, acknowledged[channel], losses, end, (kept or {}).get(channel)).check(theirs)
    return sorted(found)


class _Channel:
    """One channel; it knows which message is where."""

    def __init__(
        self, name: str, acknowledged: Sequence[Acknowledged], losses: Sequence[Loss], end: float, kept: int | None
    ) -> None:
        self._name = name
        self._acknowledged = acknowledged
        self._losses = losses
        self._end = end
        self._kept = kept
        self._last = acknowledged[-1].position
        #: Which message is where, by the word of whom it was heard first.
        self._places: dict[Position, tuple[int, str]] = {}

    def check(self, views: Sequence[View]) -> Iterator[Violation]:
        """Yield what is wrong."""
        yield from self._check_publishers()
        for view in views:
            yield from _Chain(self, view).check()

    def violation(self, time: float, who: str, what: str) -> Violation:
        """Return one of this channel."""
        return Violation(time, who, self._name, what)

    def may_have_missed(self, before: Position | None, after: Position) -> bool:
        """Tell whether between two positions are more messages than are kept."""
        return (
            self._kept is not None
            and before is not None
            and before.epoch == after.epoch
            and after.offset - before.offset > self._kept
        )

    def may_have_lost(self, since: float, until: float) -> bool:
        """Tell whether something could be lost in a time."""
        return any(loss.begin <= until and loss.end >= since for loss in self._losses)

    def place(self, position: Position, number: int, who: str) -> str:
        """Hear who says that a message is somewhere; return what is wrong with that."""
        if self._losses and position.epoch != self._last.epoch:
            # A master that was lost and the one after it may both have had a message there, before the epoch ended.
            return ""
        known, by = self._places.setdefault(position, (number, who))
        return "" if known == number else f"message {number} at {position}, where {by} has {known}"

    def _check_publishers(self) -> Iterator[Violation]:
        at: dict[tuple[str, str], Position] = {}
        for each in self._acknowledged:
            if wrong := self.place(each.position, each.number, each.publisher):
                yield self.violation(each.time, each.publisher, f"acknowledged: {wrong}")
            key = (each.publisher, each.position.epoch)
            before = at.get(key)
            is_certain = not self._losses or each.position.epoch == self._last.epoch
            if is_certain and before is not None and before.offset >= each.position.offset:
                yield self.violation(
                    each.time,
                    each.publisher,
                    f"message {each.number} is at {each.position}, but the one before it is at {before}",
                )
            at[key] = each.position

    def check_end(self, who: str, position: Position | None, number: int | None) -> Iterator[Violation]:
        """Check that a client is up to date."""
        if position != self._last:
            yield self.violation(
                self._end, who, f"at {position} in the end, not at {self._last}; the last that came is message {number}"
            )

    def missing(self, view: View, segments: Sequence[_Segment]) -> Iterator[Violation]:
        """Check that what was acknowledged has come, or is covered by a gap."""
        numbers = {number for segment in segments for number in segment.numbers}
        for each in self._acknowledged:
            if each.number in numbers:
                continue
            # Where something was lost, two masters may each have had a message in the same place: who saw one of them
            # was told of the gap at the end of their epoch.
            for segment in segments[-1:] if self._losses else segments:
                if segment.covers(each.position):
                    yield self.violation(
                        each.time,
                        view.who,
                        f"message {each.number}, acknowledged at {each.position}, did not come, nor was a gap told",
                    )
                    break
            else:
                if (
                    not self._losses
                    and self._kept is None
                    and not (view.start is None or each.position.offset <= view.start.offset)
                ):
                    yield self.violation(each.time, view.who, f"message {each.number} at {each.position} did not come")


@attrs.define
class _Segment:
    """What came between two gaps: all of an epoch after a position, up to another."""

    begin: Position
    end: Position
    numbers: set[int] = attrs.field(factory=set)

    def covers(self, position: Position) -> bool:
        """Tell whether a message at a position would belong to it."""
        return position.epoch == self.begin.epoch and self.begin.offset < position.offset <= self.end.offset


class _Chain:
    """What one client saw, step by step."""

    def __init__(self, channel: _Channel, view: View) -> None:
        self._channel = channel
        self._view = view
        self._position = view.start
        self._segments: list[_Segment] = [] if view.start is None else [_Segment(view.start, view.start)]
        self._seen_at = 0.0

    def check(self) -> Iterator[Violation]:
        """Yield what is wrong."""
        for entry in self._view.entries:
            if self._position is None:
                # It says only now where it began.
                before = 0 if isinstance(entry, Began | Gap) else 1
                self._go_to(Position(entry.position.epoch, entry.position.offset - before))
            if isinstance(entry, Gap):
                yield from self._gap(entry.time, entry.position, entry.reason)
            elif isinstance(entry, Began):
                if not entry.recovered:
                    yield from self._gap(entry.time, entry.position, "not recovered")
                elif entry.position != self._position:
                    yield self._wrong(
                        entry.time, f"begins at {entry.position}, not at {self._position}: no gap is told"
                    )
                    self._go_to(entry.position)
            else:
                yield from self._got(entry.time, entry.position, entry.number)
            self._seen_at = entry.time
        came = [entry.number for entry in self._view.entries if isinstance(entry, Got)]
        yield from self._channel.check_end(self._view.who, self._position, came[-1] if came else None)
        yield from self._channel.missing(self._view, self._segments)

    def _got(self, time: float, position: Position, number: int) -> Iterator[Violation]:
        before = self._position
        assert before is not None
        if position.epoch != before.epoch:
            yield self._wrong(time, f"message {number} at {position} after {before}: another epoch, and no gap is told")
            self._go_to(position)
        elif position.offset <= before.offset:
            yield self._wrong(time, f"message {number} at {position} after {before}: again, or out of order")
        elif position.offset > before.offset + 1:
            yield self._wrong(time, f"message {number} at {position} after {before}: a loss, and no gap is told")
        segment = self._segments[-1]
        if number in segment.numbers:
            yield self._wrong(time, f"message {number} twice, again at {position}")
        segment.numbers.add(number)
        if wrong := self._channel.place(position, number, self._view.who):
            yield self._wrong(time, wrong)
        if position.offset > segment.end.offset:
            segment.end = position
        self._position = position

    def _gap(self, time: float, position: Position, reason: str) -> Iterator[Violation]:
        if position == self._position and not self._segments[-1].numbers and len(self._segments) > 1:
            # The same gap, told twice: at the beginning of a stream, and in it; or it was cut before the end of that.
            return
        missed = self._channel.may_have_missed(self._position, position)
        if not missed and not self._channel.may_have_lost(self._seen_at, time):
            yield self._wrong(time, f"a gap to {position} that nothing excuses, after {self._position}: {reason}")
        self._go_to(position)

    def _go_to(self, position: Position) -> None:
        self._position = position
        self._segments.append(_Segment(position, position))

    def _wrong(self, time: float, what: str) -> Violation:
        return self._channel.violation(time, self._view.who, what)
