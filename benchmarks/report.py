"""All that was measured in a run, as values; `tables` and `plot` show it to readers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from attrs import asdict, define, field

from benchmarks.aims import AIMS, Verdict
from benchmarks.scenario import Figure, Sample, Scale, Scenario
from benchmarks.target import Target

__all__ = ["BUSY", "Report"]

#: The share of its core above which the client may be what limits.
BUSY = 0.9
_DISTURBED = 0.05


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

    def value(self, scenario: Scenario, target: str, figure: Figure) -> float | None:
        """Return the median of a figure in base units, or None if there is none."""
        samples = self.samples.get((scenario.name, target), ())
        values = [sample.values[figure.key] for sample in samples if figure.key in sample.values]
        return statistics.median(values) if values else None

    def verdict(self, scenario: Scenario, figure: Figure) -> Verdict | None:
        """Judge a figure by its aim; None if it has none, or none that can be told."""
        aim = AIMS.get(figure.key)
        return None if aim is None else aim.verdict(figure, lambda target: self.value(scenario, target, figure))

    def client_share(self, scenario: Scenario, target: Target) -> float | None:
        """Return the share of its core that the client took, or None if nothing was measured."""
        samples = self.samples.get((scenario.name, target.name))
        return statistics.median(sample.client_busy for sample in samples) if samples else None

    def marks(self, scenario: Scenario, target: Target) -> str:
        """Return ``c`` if the client was the bottleneck, and ``d`` if others were on the server's core."""
        samples = self.samples[scenario.name, target.name]
        client = all(each.client_busy > BUSY > each.server_busy for each in samples)
        disturbed = statistics.median(each.disturbed for each in samples) > _DISTURBED
        return ("c" if client else "") + ("d" if disturbed else "")

    def to_json(self) -> dict[str, object]:
        """Return everything, in base units (seconds, bytes, per second)."""
        figures = [(scenario, figure) for scenario in self.scenarios for figure in scenario.figures]
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
                    if (value := self.value(scenario, target.name, figure)) is not None
                }
                for scenario, figure in figures
            },
            "aims": {
                figure.key: asdict(verdict)
                for scenario, figure in figures
                if (verdict := self.verdict(scenario, figure)) is not None
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
