"""The command ``python -m benchmarks``: picks servers and scenarios, runs them side by side, writes the table."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.catalogue import ALL_SCENARIOS, ALL_TARGETS
from benchmarks.errors import BenchmarkError
from benchmarks.install import install_peers
from benchmarks.machine import describe, raise_file_limit, share_cores
from benchmarks.output import write
from benchmarks.report import Report
from benchmarks.scenario import Scale, Scenario
from benchmarks.target import Target

__all__ = ["main"]

_RESULTS = Path(__file__).resolve().parent / "results"


def parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    servers = [target.name for target in ALL_TARGETS]
    scenarios = [scenario.name for scenario in ALL_SCENARIOS]
    slow = [scenario.name for scenario in ALL_SCENARIOS if not scenario.quick]
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure rtpush next to the kernel's limit and to other servers, in one run on this machine.",
    )
    options.add_argument(
        "--quick",
        action="store_true",
        help=f"less of all, and without other projects' servers and {', '.join(slow)}: under two minutes",
    )
    options.add_argument("--peers", action="store_true", help="other projects' servers in a quick run, too")
    options.add_argument("--install-peers", action="store_true", help="install those that are missing; measure nothing")
    options.add_argument("--servers", type=_names(servers), metavar="NAMES", help=f"of {','.join(servers)}")
    options.add_argument("--scenarios", type=_names(scenarios), metavar="NAMES", help=f"of {','.join(scenarios)}")
    options.add_argument("--nodes", action="store_true", help="only what is measured across nodes, through Redis")
    options.add_argument("--connections", type=_positive, metavar="N", help="for memory (default 10000; quick 1000)")
    options.add_argument("--subscribers", type=_positive, metavar="N", help="for fan-out and polls (default 1000)")
    options.add_argument("--channels", type=_positive, metavar="N", help="with one subscriber each (default 1000)")
    options.add_argument("--handshakes", type=_positive, metavar="N", help="in a storm (default 10000; quick 1000)")
    options.add_argument("--storm", type=_positive, metavar="N", help="channels followed (default 20000; quick 2000)")
    options.add_argument("--many", type=_positive, metavar="N", help="connections that are held (default 4000)")
    options.add_argument("--minutes", type=float, metavar="M", help="for how long they are held (default 0.5)")
    options.add_argument("--returning", type=_positive, metavar="N", help="clients that come back (default 4000)")
    options.add_argument("--seconds", type=float, metavar="S", help="a measurement (default 3; quick 0.7)")
    options.add_argument("--rounds", type=_positive, metavar="N", help="the median counts (default 3; quick 1)")
    options.add_argument("--seed", type=int, default=1, metavar="N", help="of the payloads (default 1)")
    options.add_argument(
        "--output", type=Path, metavar="PATH", help="PATH.txt, .rst, .json and .svg (default: dated, in results)"
    )
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
    """Run the command; return 1 if a measurement of ours failed, else 0."""
    options = parser().parse_args(arguments)
    if options.install_peers:
        return install_peers()
    # Whatever ends this process has to end it by unwinding, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    machine = describe()
    room = raise_file_limit()
    quick = options.quick
    scale = Scale(
        connections=min(room, options.connections or (1_000 if quick else 10_000)),
        subscribers=min(room, options.subscribers or 1_000),
        handshakes=min(room, options.handshakes or (1_000 if quick else 10_000)),
        channels=min(room, options.channels or 1_000),
        storm=options.storm or (2_000 if quick else 20_000),
        many=options.many or 4_000,
        minutes=options.minutes or 0.5,
        returning=options.returning or 4_000,
        seconds=options.seconds or (0.7 if quick else 3.0),
        seed=options.seed,
    )
    scenarios = _scenarios(options)
    report = Report(machine, scale, _targets(options, scenarios), scenarios)
    try:
        run(report, options.rounds or (1 if quick else 3))
    except KeyboardInterrupt:
        print("interrupted: what there is so far", file=sys.stderr)
        report.errors["run", "all"] = "interrupted"
    stem = f"{machine['date'][:19].replace(' ', '-').replace(':', '')}"
    text, written = write(report, options.output or _RESULTS / stem)
    print(text)
    print(f"written: {' '.join(map(str, written))}", file=sys.stderr)
    # Another project's server that fails is a result.
    peers = {target.name for target in report.targets if target.peer}
    return 1 if any(name not in peers for _, name in report.errors) else 0


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    asked_for = {"many"} if options.many or options.minutes else set()
    asked_for |= {"return"} if options.returning else set()
    names = options.scenarios or [
        scenario.name for scenario in ALL_SCENARIOS if scenario.quick or not options.quick or scenario.name in asked_for
    ]
    return [
        scenario
        for scenario in ALL_SCENARIOS
        if scenario.name in names and (scenario.group == "nodes" or not options.nodes)
    ]


def _targets(options: argparse.Namespace, scenarios: Sequence[Scenario]) -> list[Target]:
    targets = []
    for kind in ALL_TARGETS:
        if options.servers:
            wanted = kind.name in options.servers
        else:
            wanted = not options.quick or (kind.quick and (options.peers or not kind.peer))
        if wanted and any(scenario.needs <= kind.abilities for scenario in scenarios):
            lacking = kind.missing()
            if lacking is None:
                targets.append(kind())
            else:
                print(f"{kind.name}: left out, this machine has no {lacking}", file=sys.stderr)
    return targets


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
        scenario.prepare(target, report.scale)
        with target.running(core):
            report.add(scenario, target, scenario.measure(target, report.scale))
    except BenchmarkError as error:
        report.errors[scenario.name, target.name] = str(error)
