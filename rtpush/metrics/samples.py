"""Samples: the values of all metrics at a moment, of one process or of several together."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rtpush.metrics.table import BY_NAME, Kind, Merge
from rtpush.registry.counts import Histogram

__all__ = ["Sample", "Samples", "carried", "summed"]


class Sample(msgspec.Struct, array_like=True):
    """
    One value.

    :ivar labels: The values of the metric's labels, in their order.
    :ivar value: It; of a histogram, the sum of all that was observed.
    :ivar buckets: Of a histogram, how often each of its ranges was met.
    """

    labels: tuple[str, ...]
    value: float
    buckets: tuple[int, ...] = ()

    @classmethod
    def of(cls, histogram: Histogram) -> Sample:
        """Return what a histogram says."""
        return cls((), histogram.sum, tuple(histogram.buckets))


#: What there is of each metric, by its name.
Samples = dict[str, list[Sample]]

_MERGE = {Merge.LEAST: min, Merge.MOST: max}


def summed(several: Iterable[Samples]) -> Samples:
    """Return what processes say together."""
    found: dict[str, dict[tuple[str, ...], Sample]] = {}
    for samples in several:
        for name, each in samples.items():
            # Another version of rtpush may know another one, for the time of an upgrade.
            if name in BY_NAME:
                _add(found.setdefault(name, {}), each, BY_NAME[name].merge)
    return {name: list(merged.values()) for name, merged in found.items()}


def carried(before: Samples, now: Samples) -> Samples:
    """Return samples in which what grows goes on from where it was before."""
    grown = {name: each for name, each in before.items() if name in BY_NAME and BY_NAME[name].kind is not Kind.GAUGE}
    # What goes up and down is in one of them alone.
    return summed([grown, now])


def _add(found: dict[tuple[str, ...], Sample], samples: Iterable[Sample], merge: Merge) -> None:
    for sample in samples:
        other = found.get(sample.labels)
        if other is None:
            found[sample.labels] = sample
        elif merge is not Merge.SUM:
            found[sample.labels] = Sample(sample.labels, _MERGE[merge](other.value, sample.value))
        else:
            buckets = tuple(map(sum, zip(other.buckets, sample.buckets, strict=True)))
            found[sample.labels] = Sample(sample.labels, other.value + sample.value, buckets)
