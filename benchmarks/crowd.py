"""Load processes: each has a limit of open files of its own, so that many make a crowd that one could not.

A process is started with a plan, says on a line of JSON when all its connections are open, answers each line that it
is sent with what it has seen, and ends with its standard input.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from benchmarks.errors import BenchmarkError

__all__ = ["MARK", "Crowd", "Plan", "crowd", "say"]

#: What every payload begins with, so that messages can be counted without knowing what they are wrapped in.
MARK = "<bench>"

#: With the margin for all else below the 20,000 open files that a process may often have, and the ports of an address.
_EACH = 18_000
_ROOT = Path(__file__).resolve().parent.parent


@frozen
class Plan:
    """What one load process does: connections ``first`` to ``first + count`` of all, from an address of its own."""

    port: int
    source: str
    first: int
    count: int
    channels: Sequence[str]
    #: `returning` only: whether clients come back as the server asks, or all at once.
    asked: bool = True


class Crowd:
    """All load processes of a measurement."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = processes

    def heard(self) -> list[Mapping[str, Any]]:
        """Return the next line of each. Raises `BenchmarkError` for one that failed."""
        return [self._heard(process) for process in self._processes]

    def ask(self) -> list[Mapping[str, Any]]:
        """Ask each what it has seen so far."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        return self.heard()

    def total(self, key: str, answers: Sequence[Mapping[str, Any]]) -> float:
        """Add up a number over all."""
        return sum(float(answer[key]) for answer in answers)

    def _heard(self, process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        answer: Mapping[str, Any] = json.loads(line) if line else {"error": "a load process ended"}
        if "error" in answer:
            raise BenchmarkError(str(answer["error"]))
        return answer


@contextmanager
def crowd(module: str, port: int, count: int, channels: Sequence[str], *, asked: bool = True) -> Iterator[Crowd]:
    """Run as many load processes as ``count`` connections need; the block begins when all are open."""
    number = max(2, math.ceil(count / _EACH))
    with ExitStack() as running:
        processes = []
        for place in range(number):
            first, until = count * place // number, count * (place + 1) // number
            plan = Plan(port, f"127.0.3.{place + 1}", first, until - first, channels, asked)
            process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(asdict(plan))],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            running.enter_context(process)
            # Before it is waited for.
            running.callback(process.kill)
            processes.append(process)
        everybody = Crowd(processes)
        everybody.heard()
        yield everybody


def say(what: Mapping[str, object]) -> None:
    """Tell the parent, from a load process."""
    print(json.dumps(what), flush=True)
