"""
Lets faults happen for a while: ``python -m tests.chaos``.

The exit status is 0 if no promise was broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from random import SystemRandom

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestSuite, TrialRunner
from twisted.trial.unittest import TestCase

from tests.chaos.run import Run
from tests.chaos.schedule import PROFILES

__all__ = ["main"]


def _told(run: Run) -> str:
    return "\n".join([run.command, *map(str, run.schedule)])


def main(arguments: list[str]) -> int:
    """Do as many runs as asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Let faults happen, and prove what came of it."
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="how long faults happen, in each run (default 2)")
    parser.add_argument("--seed", type=int, help="what decides the faults (default: by chance)")
    parser.add_argument(
        "--profile", choices=[*PROFILES, "all"], default="all", help="what befalls Redis (default: all)"
    )
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes there are (default 3)")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other (default 1)")
    parser.add_argument("--show", action="store_true", help="print the schedules, and do nothing")
    options = parser.parse_args(arguments)
    first = SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    seconds = options.minutes * 60

    class Chaos(TestCase):
        """One run for each seed and profile."""

        timeout = seconds + 240

        def runTest(self) -> None:
            """There is a test for each run."""

    runs = [
        (seed, profile)
        for seed in range(first, first + options.runs)
        for profile in (PROFILES if options.profile == "all" else [options.profile])
    ]
    for seed, profile in runs:
        name = f"test_{profile}_{seed}"

        async def test(case: TestCase, seed: int = seed, profile: str = profile) -> None:
            run = Run(case, seed, seconds, profile, options.nodes)
            sys.stdout.write(f"\n{_told(run)}\n")
            await run.go()

        setattr(Chaos, name, test)
    if options.show:
        for seed, profile in runs:
            sys.stdout.write(_told(Run(Chaos(), seed, seconds, profile, options.nodes)) + "\n")
        return 0
    suite = TestSuite([Chaos(f"test_{profile}_{seed}") for seed, profile in runs])
    with tempfile.TemporaryDirectory(prefix="rtpush-chaos-") as directory:
        runner = TrialRunner(TreeReporter, realTimeErrors=True, workingDirectory=f"{directory}/trial")
        result = runner.run(suite)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
