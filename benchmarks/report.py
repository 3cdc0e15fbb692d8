"""Prints what was measured: one table for a reader, one JSON object for programs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import chain

from attrs import asdict, define, field

from benchmarks.scenarios import Figure, Sample, Scale, Scenario
from benchmarks.targets import Target

__all__ = ["Report"]

_BUSY = 0.9
_DISTURBED = 0.05


def shown(value: float) -> str:
    """Return a number with three significant digits and thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


@define
class Report:
    """All samples of a run, by scenario and target, and the errors of those that gave none."""

    machine: Mapping[str, str]
    scale: Scale
    targets: Sequence[Target]
    scenarios: Sequence[Scenario]
    samples: dict[tuple[str, str], list[Sample]] = field(factory=dict)
    errors: dict[tuple[str, str], str] = field(factory=dict)

    def add(self, scenario: Scenario, target: Target, sample: Sample) -> None:
        """Keep a sample."""
        self.samples.setdefault((scenario.name, target.name), []).append(sample)

    def value(self, scenario: Scenario, target: Target, figure: Figure) -> float | None:
        """Return the median of a figure in base units, or None if there is none."""
        samples = self.samples.get((scenario.name, target.name), ())
        values = [sample.values[figure.key] for sample in samples if figure.key in sample.values]
        return statistics.median(values) if values else None

    def to_json(self) -> dict[str, object]:
        """Return everything, in base units (seconds, bytes, per second)."""
        return {
            "machine": dict(self.machine),
            "scale": asdict(self.scale),
            "targets": {
                target.name: {"title": target.title, "settings": target.settings, "versions": target.versions()}
                for target in self.targets
            },
            "figures": {
                figure.key: {
                    target.name: value
                    for target in self.targets
                    if (value := self.value(scenario, target, figure)) is not None
                }
                for scenario in self.scenarios
                for figure in scenario.figures
            },
            "samples": [
                {"scenario": scenario, "target": target, "round": number, **asdict(sample)}
                for (scenario, target), samples in self.samples.items()
                for number, sample in enumerate(samples, 1)
            ],
            "errors": [
                {"scenario": scenario, "target": target, "error": error}
                for (scenario, target), error in self.errors.items()
            ],
        }

    def text(self) -> str:
        """Return the whole report as text."""
        groups = dict.fromkeys(scenario.group for scenario in self.scenarios)
        return "\n".join((*self._heading(), *chain.from_iterable(map(self._table, groups)), "", *self._legend()))

    def _heading(self) -> list[str]:
        scale = self.scale
        sizes = (
            f"connections for memory: {scale.connections:,}; subscribers and pollers: {scale.subscribers:,}; "
            f"payload: {scale.payload_bytes} bytes; {scale.seconds:g} s a measurement; seed {scale.seed}"
        )
        return [
            *(f"{name}: {value}" for name, value in self.machine.items()),
            sizes,
            *(f"{target.title}: {target.settings} ({target.versions()})" for target in self.targets),
        ]

    def _table(self, group: str) -> list[str]:
        scenarios = [scenario for scenario in self.scenarios if scenario.group == group]
        targets = [each for each in self.targets if any(scenario.needs <= each.abilities for scenario in scenarios)]
        ratios = self._ratios(targets)
        rows = [["", "", *(target.title for target in targets), *(title for title, _, _ in ratios)]]
        for scenario in scenarios:
            for figure in scenario.figures:
                cells = [self._cell(scenario, target, figure) for target in targets]
                cells += [self._ratio(scenario, figure, one, other) for _, one, other in ratios]
                if any(cells):
                    sense = "less" if figure.less_is_better else "more"
                    rows.append([figure.title, ", ".join(filter(None, (figure.unit, f"{sense} is better"))), *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return ["", lines[0], "-" * max(map(len, lines)), *lines[1:]]

    def _ratios(self, targets: Sequence[Target]) -> list[tuple[str, Target, Target]]:
        """Return the pairs whose quotient is shown: rtpush by the limit, and rtpush by every other peer.

        Where there are two nodes, what is compared is those.
        """
        named = {target.name: target for target in targets}
        if (nodes := named.get("rtpush-redis")) is not None:
            peers = [named[name] for name in ("redis", "rtpush") if name in named]
            return [(f"{nodes.title} : {peer.title}", nodes, peer) for peer in peers]
        if "rtpush" not in named:
            return []
        limit = next((name for name in ("limit-c", "limit-py") if name in named), None)
        others = [name for name in named if not name.startswith(("rtpush", "limit-", "redis"))]
        return [
            (f"rtpush : {named[name].title}", named["rtpush"], named[name])
            for name in (limit, *others)
            if name is not None
        ]

    def _cell(self, scenario: Scenario, target: Target, figure: Figure) -> str:
        if (scenario.name, target.name) in self.errors:
            return "failed"
        value = self.value(scenario, target, figure)
        if value is None:
            return ""
        samples = self.samples[scenario.name, target.name]
        marks = "c" if all(each.client_busy > _BUSY > each.server_busy for each in samples) else ""
        marks += "d" if statistics.median(each.disturbed for each in samples) > _DISTURBED else ""
        return shown(value * figure.factor) + (f" {marks}" if marks else "")

    def _ratio(self, scenario: Scenario, figure: Figure, one: Target, other: Target) -> str:
        above, below = self.value(scenario, one, figure), self.value(scenario, other, figure)
        return f"{above / below:.2f}" if above is not None and below else ""

    def _legend(self) -> list[str]:
        return [
            "Memory: growth of the server's user-space memory (PSS) a connection. CPU: user and system of the server.",
            "A ratio is the first's figure divided by the second's, whichever way is better.",
            "c: the client was the bottleneck, and the server can do more. d: other programs used the server's core.",
            *(f"failed: {scenario} of {target}: {error}" for (scenario, target), error in self.errors.items()),
        ]
