"""What the benchmark makes of its figures: aims, tables and the plot."""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.aims import AIMS, Aim
from benchmarks.catalogue import ALL_SCENARIOS, ALL_TARGETS
from benchmarks.foreign import Nchan
from benchmarks.plain import Autobahn, LimitPython
from benchmarks.plot import plot
from benchmarks.report import Report
from benchmarks.scenario import Figure, Sample, Scale
from benchmarks.scenarios import SCENARIOS
from benchmarks.tables import as_rst, as_text, shown
from benchmarks.target import Target
from benchmarks.targets import Rtpush


class AimTests(SynchronousTestCase):
    """Aims are judged."""

    less = Figure("x", "x", "µs", True, 1e6)
    more = Figure("x", "x", "/s", False)

    def word(self, aim: Aim, figure: Figure, **values: float) -> str | None:
        """Return the verdict's word."""
        verdict = aim.verdict(figure, values.get)
        return None if verdict is None else verdict.word

    def test_bounds(self) -> None:
        """The bound itself is met; the stretch is beyond it; both ways."""
        aim = Aim(10, 5)
        words = [self.word(aim, self.less, rtpush=value / 1e6) for value in (10.5, 9.5, 4.5)]
        self.assertEqual(words, ["not met", "met", "stretch met"])
        aim = Aim(10, 20)
        self.assertEqual(
            [self.word(aim, self.more, rtpush=value) for value in (9, 10, 20)], ["not met", "met", "stretch met"]
        )

    def test_of_the_limit(self) -> None:
        """A multiple of the limit is judged by the limit of the same run, and not without it."""
        aim = Aim(1.5, limit="limit")
        self.assertEqual(self.word(aim, self.less, rtpush=14e-6, limit=10e-6), "met")
        self.assertEqual(self.word(aim, self.less, rtpush=16e-6, limit=10e-6), "not met")
        self.assertIsNone(self.word(aim, self.less, rtpush=16e-6))

    def test_not_measured(self) -> None:
        """Without a figure there is nothing to judge."""
        self.assertEqual(self.word(Aim(10), self.less), "")

    def test_each_is_of_a_figure(self) -> None:
        """No aim is for a figure or a server that does not exist, or that cannot be measured there."""
        scenarios = {figure.key: scenario for scenario in ALL_SCENARIOS for figure in scenario.figures}
        targets = {kind.name: kind for kind in ALL_TARGETS}
        for key, aim in AIMS.items():
            for name in (aim.target, aim.limit or aim.target):
                self.assertLessEqual(scenarios[key].needs, targets[name].abilities, key)


class ReportTests(SynchronousTestCase):
    """Tables and plot."""

    def setUp(self) -> None:
        """Make a report of one scenario: rtpush, the limit, and one that failed."""
        self.targets: list[Target] = [Rtpush(), LimitPython(), Autobahn()]
        self.scenario = next(scenario for scenario in SCENARIOS if scenario.name == "fanout")
        self.report = Report({"date": "today <now>"}, Scale(), self.targets, [self.scenario])
        for cost in (9e-6, 4e-6, 3e-6):
            self.report.add(self.scenario, self.targets[0], Sample({"delivery-cpu": cost}))
        limit = Sample({"delivery-cpu": 2e-6}, server_busy=0.5, client_busy=0.99)
        self.report.add(self.scenario, self.targets[1], limit)
        self.report.errors[self.scenario.name, "autobahn"] = "it broke"

    def test_medians_ratios_and_marks(self) -> None:
        """A cell is the median of its rounds; a ratio is rtpush by the limit; who was the bottleneck is said."""
        text = as_text(self.report)
        row = next(line for line in text.splitlines() if line.startswith(self.scenario.figures[0].title))
        self.assertEqual(row.split("limit)")[1].split(), ["4.00", "2.00", "c", "failed", "2.00"])
        self.assertIn("failed: fanout of autobahn: it broke", text)
        self.assertIn("fanout of limit-py: the client took 99% of its core", text)

    def test_rst(self) -> None:
        """The same as reStructuredText: a row for the heading and for the figure, a cell for each column."""
        lines = as_rst(self.report).splitlines()
        table = lines[lines.index(".. list-table::") :]
        cells = [line[:6] for line in table[3 : table.index("", 3)]]
        self.assertEqual(cells, ["   * -", *["     -"] * 7] * 2)

    def test_peers_apart(self) -> None:
        """Other projects have a table of their own, beside rtpush; what one cannot do is a dash."""
        nchan = Nchan()
        batch = next(scenario for scenario in SCENARIOS if scenario.name == "publish-batch")
        report = Report({}, Scale(), [self.targets[0], nchan], [self.scenario, batch])
        report.add(self.scenario, nchan, Sample({"delivery-cpu": 7e-6}))
        report.add(batch, self.targets[0], Sample({"publishes-batch": 1000.0, "publish-batch-cpu": 1e-3}))
        lines = as_text(report).splitlines()
        peers = lines[lines.index("one server: other projects") :]
        self.assertTrue(any(line.startswith(batch.figures[0].title) and line.endswith("–") for line in peers))
        self.assertTrue(any(line.startswith(self.scenario.figures[0].title) and "7.00" in line for line in peers))

    def test_plot(self) -> None:
        """The plot is well-formed, and has a bar for each that was measured."""
        drawing = ElementTree.fromstring(plot(self.report))
        bars = [each for each in drawing.iter() if each.get("class", "").startswith("bar")]
        self.assertEqual(len(bars), 2)
        self.assertLess(float(bars[0].get("width", "")), float(bars[1].get("width", "")))

    def test_nothing_to_plot(self) -> None:
        """Without a figure to compare there is no plot."""
        self.assertEqual(plot(Report({}, Scale(), self.targets, [self.scenario])), "")

    def test_three_digits(self) -> None:
        """Numbers are shown as a reader needs them."""
        self.assertEqual([shown(n) for n in (123456.7, 123.4, 12.34, 1.234, 0.1234, 0.01234, 0)],
                         ["123,457", "123", "12.3", "1.23", "0.12", "0.012", "0.00"])  # fmt: skip
