"""Tests of rtpush.metrics.table."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rtpush.metrics.table import BY_NAME, METRICS, WORKER, Kind

_DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.rst"

_ENTRY = re.compile(r"^``(\w+)`` \((\w+)(?:: ([\w, ]+))?\)\n((?:    .+\n)+)", re.MULTILINE)


class TableTests(SynchronousTestCase):
    """The table of all metrics."""

    def test_documented(self) -> None:
        """docs/metrics.rst has all metrics, in the order and the words of the table."""
        documented = [
            (name, kind, labels or "", " ".join(doc.split()))
            for name, kind, labels, doc in _ENTRY.findall(_DOCS.read_text())
        ]
        table = [(metric.series, metric.kind.value, ", ".join(metric.labels), metric.doc) for metric in METRICS]
        self.assertEqual(documented, table)

    def test_names(self) -> None:
        """Each name is there once and says the unit; what Prometheus adds to names is none of theirs."""
        self.assertEqual(len(BY_NAME), len(METRICS))
        for metric in METRICS:
            with self.subTest(name=metric.name):
                self.assertRegex(metric.name, r"^(rtpush|process|python)_[a-z_]+$")
                self.assertNotRegex(metric.name, r"_(total|count|sum|bucket)$")
                self.assertEqual(metric.kind is Kind.COUNTER, metric.series.endswith("_total"))
                if metric.kind is Kind.HISTOGRAM:
                    self.assertEqual(metric.unit, "seconds")

    def test_labels(self) -> None:
        """No label is for channels, clients or anything else of which there may be any number."""
        labels = {label for metric in METRICS for label in metric.labels}
        bounded = {
            "transport", "state", "code", "reason", "road", "namespace", "outcome", "policy", "server", "limit", "event"
        }
        self.assertEqual(labels - bounded, {"node", "version", "generation"})
        self.assertNotIn(WORKER, labels)
