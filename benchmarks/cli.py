"""The command ``python -m benchmarks``: picks servers and scenarios, runs them side by side, prints the table."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.crossing import NODE_SCENARIOS
from benchmarks.errors import BenchmarkError
from benchmarks.machine import describe, raise_file_limit, share_cores
from benchmarks.nodes import NODE_TARGETS
from benchmarks.report import Report
from benchmarks.scenarios import SCENARIOS, Scale, Scenario
from benchmarks.targets import TARGETS, Target

__all__ = ["main"]

ALL_TARGETS = (*TARGETS, *NODE_TARGETS)
ALL_SCENARIOS = (*SCENARIOS, *NODE_SCENARIOS)

_RESULTS = Path(__file__).resolve().parent / "results"


def parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    servers = [target.name for target in ALL_TARGETS]
    scenarios = [scenario.name for scenario in ALL_SCENARIOS]
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure rtpush next to bare send(), plain Autobahn and Redis alone, in one run on this machine.",
    )
    options.add_argument("--quick", action="store_true", help="less of everything: under two minutes")
    options.add_argument(
        "--servers", type=_names(servers), default=servers, metavar="NAMES", help=f"of {','.join(servers)} (all)"
    )
    options.add_argument("--nodes", action="store_true", help="only what is measured across nodes, through Redis")
    options.add_argument(
        "--scenarios", type=_names(scenarios), default=scenarios, metavar="NAMES", help=f"of {','.join(scenarios)}"
    )
    options.add_argument("--connections", type=_positive, metavar="N", help="for memory (default 10000; quick 1000)")
    options.add_argument("--subscribers", type=_positive, metavar="N", help="for fan-out and polls (default 1000)")
    options.add_argument("--handshakes", type=_positive, metavar="N", help="a round (default 2000; quick 1000)")
    options.add_argument("--storm", type=_positive, metavar="N", help="channels followed (default 20000; quick 2000)")
    options.add_argument("--seconds", type=float, metavar="S", help="a measurement (default 3; quick 0.7)")
    options.add_argument("--rounds", type=_positive, metavar="N", help="the median counts (default 3; quick 1)")
    options.add_argument("--seed", type=int, default=1, metavar="N", help="of the payloads (default 1)")
    options.add_argument("--json", type=Path, metavar="FILE", help="default: a dated file in benchmarks/results")
    return options


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 1 if a measurement failed, else 0."""
    options = parser().parse_args(arguments)
    # Whatever ends this process has to end it by unwinding, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    machine = describe()
    room = raise_file_limit()
    quick = options.quick
    scale = Scale(
        connections=min(room, options.connections or (1_000 if quick else 10_000)),
        subscribers=min(room, options.subscribers or 1_000),
        handshakes=min(room, options.handshakes or (1_000 if quick else 2_000)),
        storm=options.storm or (2_000 if quick else 20_000),
        seconds=options.seconds or (0.7 if quick else 3.0),
        seed=options.seed,
    )
    scenarios = [scenario for scenario in ALL_SCENARIOS if scenario.name in options.scenarios]
    if options.nodes:
        scenarios = [scenario for scenario in scenarios if scenario in NODE_SCENARIOS]
    targets = []
    for kind in ALL_TARGETS:
        if kind.name in options.servers and any(scenario.needs <= kind.abilities for scenario in scenarios):
            lacking = kind.missing()
            if lacking is None:
                targets.append(kind())
            else:
                print(f"{kind.name}: left out, this machine has no {lacking}", file=sys.stderr)
    report = Report(machine, scale, targets, scenarios)
    try:
        run(report, options.rounds or (1 if quick else 3))
    except KeyboardInterrupt:
        print("interrupted: what there is so far", file=sys.stderr)
        report.errors["run", "all"] = "interrupted"
    print(report.text())
    path = options.json or _RESULTS / f"{machine['date'][:19].replace(' ', '-').replace(':', '')}.json"
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    print(f"written to {path}", file=sys.stderr)
    return 1 if report.errors else 0


def run(report: Report, rounds: int) -> None:
    """Measure each scenario on each target that can do it, the targets of a scenario right after one another."""
    client_core, server_core = share_cores()
    if client_core is not None:
        os.sched_setaffinity(0, {client_core})
    # The collector would stop the client now and then; it makes no cycles to speak of.
    gc.disable()
    for scenario in report.scenarios:
        able = [target for target in report.targets if scenario.needs <= target.abilities]
        for number in range(rounds if scenario.repeat else 1):
            for target in able:
                if (scenario.name, target.name) not in report.errors:
                    print(f"{scenario.name} {number + 1}: {target.name}", file=sys.stderr)
                    _measure(report, scenario, target, server_core)
                    gc.collect()


def _measure(report: Report, scenario: Scenario, target: Target, core: int | None) -> None:
    try:
        with target.running(core):
            report.add(scenario, target, scenario.measure(target, report.scale))
    except BenchmarkError as error:
        report.errors[scenario.name, target.name] = str(error)
