"""All servers and all scenarios, in the order of the table."""

from __future__ import annotations

from benchmarks.crossing import NODE_SCENARIOS
from benchmarks.foreign import FOREIGN_TARGETS
from benchmarks.mass import MASS_SCENARIOS
from benchmarks.nodes import NODE_TARGETS
from benchmarks.plain import PLAIN_TARGETS
from benchmarks.scenario import Scenario
from benchmarks.scenarios import SCENARIOS
from benchmarks.target import Target
from benchmarks.targets import Rtpush, RtpushJson
from benchmarks.workers import RtpushWorkers

__all__ = ["ALL_SCENARIOS", "ALL_TARGETS"]

ALL_TARGETS: tuple[type[Target], ...] = (
    Rtpush,
    RtpushJson,
    *PLAIN_TARGETS,
    *FOREIGN_TARGETS,
    *NODE_TARGETS,
    RtpushWorkers,
)
ALL_SCENARIOS: tuple[Scenario, ...] = (*SCENARIOS, *NODE_SCENARIOS, *MASS_SCENARIOS)
