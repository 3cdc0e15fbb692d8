"""Tests of rtpush.metrics.samples."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from rtpush.metrics.samples import Sample, Samples, carried, summed
from rtpush.registry.counts import Histogram


def _histogram(*seconds: float) -> Sample:
    histogram = Histogram()
    for each in seconds:
        histogram.observe(each)
    return Sample.of(histogram)


class SumTests(SynchronousTestCase):
    """What several processes say together."""

    def test_sums(self) -> None:
        """What is counted is added up, for each value of the labels; what is not everywhere is there."""
        one: Samples = {
            "rtpush_published_messages": [Sample(("api",), 2), Sample(("emit",), 1)],
            "rtpush_fanout_seconds": [_histogram(0.1, 9)],
        }
        other: Samples = {
            "rtpush_published_messages": [Sample(("api",), 3)],
            "rtpush_fanout_seconds": [_histogram(0.1)],
            "rtpush_channels": [Sample((), 4)],
        }
        together = summed([one, other])
        self.assertEqual(
            together,
            {
                "rtpush_published_messages": [Sample(("api",), 5), Sample(("emit",), 1)],
                "rtpush_fanout_seconds": [_histogram(0.1, 9, 0.1)],
                "rtpush_channels": [Sample((), 4)],
            },
        )
        self.assertEqual(one["rtpush_published_messages"][0].value, 2)

    def test_the_worst(self) -> None:
        """Of what cannot be added up the worst counts."""
        together = summed(
            {"rtpush_ready": [Sample((), ready)], "rtpush_broker_lag_seconds": [Sample(("r",), lag)]}
            for ready, lag in ((1, 0.2), (0, 0.1))
        )
        self.assertEqual(together["rtpush_ready"], [Sample((), 0)])
        self.assertEqual(together["rtpush_broker_lag_seconds"], [Sample(("r",), 0.2)])

    def test_unknown(self) -> None:
        """A metric of another version is left out."""
        self.assertEqual(summed([{"rtpush_of_tomorrow": [Sample((), 1)]}]), {})

    def test_carried(self) -> None:
        """What grows goes on from before; what goes up and down is what it is now."""
        before: Samples = {
            "rtpush_accepted_sockets": [Sample((), 10)],
            "rtpush_channels": [Sample((), 7)],
            "rtpush_paused_connections": [Sample((), 7)],
            "rtpush_loop_lag_seconds": [_histogram(1)],
        }
        now: Samples = {
            "rtpush_accepted_sockets": [Sample((), 1)],
            "rtpush_channels": [Sample((), 2)],
            "rtpush_loop_lag_seconds": [_histogram(2)],
        }
        self.assertEqual(
            carried(before, now),
            {
                "rtpush_accepted_sockets": [Sample((), 11)],
                "rtpush_channels": [Sample((), 2)],
                "rtpush_loop_lag_seconds": [_histogram(1, 2)],
            },
        )

    def test_json(self) -> None:
        """Samples go to other processes and come back as they were."""
        samples: Samples = {"rtpush_fanout_seconds": [_histogram(0.3)], "rtpush_channels": [Sample((), 2)]}
        data = msgspec.json.encode(samples)
        self.assertEqual(msgspec.json.decode(data, type=dict[str, list[Sample]]), samples)
