"""Tests of rtpush.metrics.exposition: read back by the parsers of Prometheus's own library."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from rtpush.metrics.exposition import expose
from rtpush.metrics.samples import Sample, Samples
from rtpush.metrics.table import METRICS, Kind
from rtpush.registry.counts import BOUNDS, Histogram

_OPENMETRICS = "application/openmetrics-text; version=1.0.0; q=0.8, text/plain;version=0.0.4;q=0.5, */*;q=0.1"


def _samples() -> Samples:
    """Return a sample of each metric."""
    histogram = Histogram()
    histogram.observe(0.3)
    histogram.observe(7)
    return {
        metric.name: [
            Sample.of(histogram)
            if metric.kind is Kind.HISTOGRAM
            else Sample(tuple(f"{label} of\n" for label in metric.labels), 3)
        ]
        for metric in METRICS
    }


def _families(text: bytes) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


class ExpositionTests(SynchronousTestCase):
    """The text that Prometheus reads."""

    def test_text(self) -> None:
        """All metrics are there in the text format, with their kinds, their words and a label for the worker."""
        text, content_type = expose({"1": _samples(), "2": _samples()}, "")
        self.assertEqual(content_type, "text/plain; version=0.0.4; charset=utf-8")
        families = _families(text)
        for metric in METRICS:
            with self.subTest(name=metric.name):
                family = families[metric.name]
                self.assertEqual((family.type, family.documentation), (metric.kind.value, metric.doc))
                self.assertEqual({sample.labels["worker"] for sample in family.samples}, {"1", "2"})
                for sample in family.samples:
                    self.assertEqual(set(sample.labels) - {"worker", "le"}, set(metric.labels))
                    for label in metric.labels:
                        self.assertEqual(sample.labels[label], f"{label} of\n")

    def test_openmetrics(self) -> None:
        """Who understands OpenMetrics gets that, which its strict parser takes."""
        text, content_type = expose({"1": _samples()}, _OPENMETRICS)
        self.assertTrue(content_type.startswith("application/openmetrics-text; version=1.0.0"), content_type)
        families = {family.name: family for family in openmetrics.text_string_to_metric_families(text.decode())}
        self.assertEqual(set(families), {metric.name for metric in METRICS})
        self.assertEqual(families["rtpush_fanout_seconds"].unit, "seconds")

    def test_histogram(self) -> None:
        """Buckets count all that is not above their bound, and the last one counts all."""
        text, _ = expose({"1": _samples()}, "")
        samples = _families(text)["rtpush_fanout_seconds"].samples
        buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
        self.assertEqual(list(buckets), [*map(str, BOUNDS), "+Inf"])
        self.assertEqual([buckets[le] for le in ("0.25", "0.5", "5.0", "+Inf")], [0, 1, 1, 2])
        others = {sample.name: sample.value for sample in samples if not sample.name.endswith("_bucket")}
        self.assertEqual(others, {"rtpush_fanout_seconds_count": 2, "rtpush_fanout_seconds_sum": 7.3})

    def test_together(self) -> None:
        """What all workers say together has no label for the worker."""
        text, _ = expose({"": _samples()}, "")
        self.assertNotIn(b"worker=", text)
        self.assertEqual(_families(text)["rtpush_ready"].samples[0].labels, {})
