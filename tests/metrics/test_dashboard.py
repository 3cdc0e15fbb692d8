"""Tests of conf/grafana.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from rtpush.metrics.exposition import expose
from rtpush.metrics.sampling import node_samples
from rtpush.metrics.table import METRICS, WORKER
from rtpush.testing import InMemoryServer

_DASHBOARD = Path(__file__).resolve().parents[2] / "conf" / "grafana.json"

#: What is asked for in an expression: a name, and the labels that it is chosen by.
_SELECTOR = re.compile(r"\b([a-z]+_[a-z_]+)\{([^}]*)\}")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")


def _expressions(dashboard: Any) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


class DashboardTests(SynchronousTestCase):
    """The dashboard that is shipped."""

    def setUp(self) -> None:
        self.dashboard = json.loads(_DASHBOARD.read_text())

    def _exposed(self) -> dict[str, set[str]]:
        """Return the names of all series of a server, and their labels."""
        server = InMemoryServer()
        self.addCleanup(server.close)
        text, _ = expose({"1": node_samples(server.node)}, "")
        exposed: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                exposed.setdefault(sample.name, set()).update(sample.labels)
        for metric in METRICS:
            # Without a broker that has servers there is no series of theirs.
            exposed.setdefault(metric.series, {*metric.labels, WORKER})
        return exposed

    def test_metrics(self) -> None:
        """Each metric that it names is one that a server has, with the labels that are asked for."""
        exposed = self._exposed()
        for expression in _expressions(self.dashboard):
            with self.subTest(expression=expression):
                selectors = _SELECTOR.findall(expression)
                self.assertTrue(selectors)
                labels = {"job", "instance"}
                for name, chosen in selectors:
                    self.assertIn(name, exposed)
                    labels |= exposed[name]
                    self.assertLessEqual(set(re.findall(r"(\w+)=", chosen)), {"job", "instance", *exposed[name]})
                for group in _GROUPING.findall(expression):
                    self.assertLessEqual({label.strip() for label in group.split(",")}, labels)

    def test_complete(self) -> None:
        """Each metric that a server has is on it."""
        named = {name for expression in _expressions(self.dashboard) for name, _ in _SELECTOR.findall(expression)}
        for metric in METRICS:
            with self.subTest(name=metric.name):
                self.assertTrue(named & {metric.series, f"{metric.name}_bucket", f"{metric.name}_sum"})

    def test_panels(self) -> None:
        """No two panels are in one place, and all ask the data source that is chosen."""
        taken: set[tuple[int, int]] = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertEqual(cells & taken, set(), panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
            if panel["type"] != "row":
                self.assertEqual(panel["datasource"]["uid"], "${datasource}")
        ids = [panel["id"] for panel in self.dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    def test_variables(self) -> None:
        """The data source, the job, the node and the worker can be chosen."""
        names = [variable["name"] for variable in self.dashboard["templating"]["list"]]
        self.assertEqual(names, ["datasource", "job", "instance", "worker"])
