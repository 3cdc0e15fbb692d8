"""Judging what subscribers got: whether each message came once and in order, or its loss was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtpush.protocol.position import Position
from tests.support.followers import Gap, Got

__all__ = ["faults_of"]


def faults_of(
    acknowledged: Mapping[int, Position], logs: Mapping[str, Sequence[Got | Gap]], *, lossless: bool
) -> list[str]:
    """
    Tell what is wrong with what subscribers of a channel got.

    From its beginning each must have got one message after the other, none twice in an epoch, or have been told of a
    gap wherever it goes on elsewhere; it must have got to the end; and in the epoch of the end all must have seen the
    same messages in the same places, which are those where their publishers were told that they are. Without loss there
    is no gap at all, and everybody has got everything.

    :param acknowledged: Where each message is, by its number. All begin after the lowest, and end with the highest.
    :param logs: What each subscriber got, by its name.
    """
    begin, end = min(acknowledged), max(acknowledged)
    last = acknowledged[end]
    #: Which message is where in the epoch of the end.
    places = {place.offset: number for number, place in acknowledged.items() if place.epoch == last.epoch}
    found: list[str] = []
    for who, log in logs.items():
        position = acknowledged[begin]
        seen: set[tuple[str, int]] = set()
        for entry in log:
            if isinstance(entry, Gap):
                if lossless:
                    found.append(f"{who}: a gap at {entry.position}: {entry.reason}")
            elif entry.position != Position(position.epoch, position.offset + 1):
                found.append(f"{who}: {entry.position} after {position}")
            position = entry.position
            if isinstance(entry, Got):
                if (position.epoch, entry.number) in seen:
                    found.append(f"{who}: message {entry.number} twice, again at {position}")
                seen.add((position.epoch, entry.number))
                if position.epoch == last.epoch and places.setdefault(position.offset, entry.number) != entry.number:
                    found.append(f"{who}: message {entry.number} at {position}, not {places[position.offset]}")
        if position != last:
            found.append(f"{who}: at {position} in the end, not at {last}")
        missing = {number for number in acknowledged if number != begin} - {number for _, number in seen}
        if lossless and missing:
            found.append(f"{who}: without {len(missing)} messages: {sorted(missing)[:10]}")
    return found
