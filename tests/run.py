"""
Runs the tests, and says on the last line how many passed.

``python -m tests.run [--fast] [--checks] [--limit SECONDS] [NAME …]``: names are what ``trial`` takes; without one, all
tests run. ``--fast`` leaves out those that start real servers and browsers; ``--checks`` adds lint and types, each of
which counts as a test.

The tests themselves run under trial in a process of their own (:mod:`tests.trial_run`), which reports each result
through a pipe. This one watches: a test that hangs, even where no timeout of trial's can help, fails by its name, and
at the end no process is left that the tests have started.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

__all__ = ["SLOW", "main", "names_of_fast_tests"]

ROOT = Path(__file__).resolve().parents[1]

#: The packages and modules of tests that start real servers and browsers.
SLOW = (
    "broker.redis",
    "chaos.test_namespaces",
    "chaos.test_proxy",
    "chaos.test_run",
    "cli",
    "conformance",
    "hardening",
    "integration",
    "test_benchmarks",
)

#: What is run by itself, so that each lot takes about as long as the others.
LONG = (("integration",), ("transports", "service"), tuple(name for name in SLOW if name != "integration"))

#: Seconds for the whole run.
RUN_LIMIT = 900.0

#: Seconds for a test to end after the time at which trial should have ended it.
GRACE = 30.0

#: Seconds for what the tests have started to end by itself.
PATIENCE = 3.0

_CHECKS = {
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
}

_PR_SET_CHILD_SUBREAPER = 36


def names_of_fast_tests() -> list[str]:
    """Return the modules and packages of tests that need neither real servers nor a browser."""
    return _fast(ROOT / "tests", "")


def _lots(names: Sequence[str]) -> list[list[str]]:
    """Divide tests into lots of about the same length."""
    lots = [[name for name in names if name.removeprefix("tests.") in lot] for lot in LONG]
    return [*lots, [name for name in names if not any(name in lot for lot in lots)]]


def _exists(name: str) -> bool:
    path = ROOT.joinpath("tests", *name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def _fast(folder: Path, prefix: str) -> list[str]:
    names = []
    for path in sorted(folder.iterdir()):
        name = f"{prefix}{path.stem}"
        is_package = (path / "__init__.py").exists()
        if name in SLOW or not (is_package or (path.suffix == ".py" and path.stem.startswith("test_"))):
            continue
        if any(slow.startswith(f"{name}.") for slow in SLOW):
            names += _fast(path, f"{name}.")
        else:
            names.append(f"tests.{name}")
    return names


class Run:
    """One run: what passed, failed and was skipped so far."""

    def __init__(self, limit: float) -> None:
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self._end = time.monotonic() + limit
        self._children: list[subprocess.Popen[bytes]] = []

    def check(self, name: str, command: list[str]) -> None:
        """Run a checking tool of this Python's environment; it counts as a test."""
        print(f"{name}: {' '.join(command)}", flush=True)
        started = time.monotonic()
        try:
            status = subprocess.run(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                timeout=self._end - started,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped, the run has taken too long", flush=True)
            status = 1
        self.seconds[name] = time.monotonic() - started
        self.outcomes[name] = "failed" if status else "passed"

    def tests(self, names: Sequence[str], *meanwhile: Sequence[str]) -> None:
        """
        Run tests, and take down what happens to each.

        :param meanwhile: Other tests, each lot in a process of its own; what they print comes at the end. Those that
            start servers mostly wait, and those that do not mostly compute.
        """
        with contextlib.ExitStack() as stack:
            outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in meanwhile]
            beside = [
                threading.Thread(target=self._in_a_process, args=each) for each in zip(meanwhile, outputs, strict=True)
            ]
            for thread in beside:
                thread.start()
            try:
                self._in_a_process(names, None)
                for thread in beside:
                    thread.join()
            except BaseException:
                # Then the threads end, too.
                for child in self._children:
                    child.kill()
                raise
            finally:
                for thread, output in zip(beside, outputs, strict=True):
                    thread.join()
                    output.seek(0)
                    sys.stdout.write(output.read().decode(errors="replace"))

    def _in_a_process(self, names: Sequence[str], output: IO[bytes] | None) -> None:
        reader, writer = os.pipe()
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.trial_run", str(writer), *names],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writer],
            start_new_session=True,
        )
        os.close(writer)
        self._children.append(child)
        try:
            self._watch(child, reader)
        finally:
            child.kill()
            child.wait()
            os.close(reader)

    def _watch(self, child: subprocess.Popen[bytes], reader: int) -> None:
        current, started, limit = "loading the tests", time.monotonic(), self._end
        pending = b""
        while True:
            if not select.select([reader], [], [], max(0.0, min(limit, self._end) - time.monotonic()))[0]:
                self._stop(child, current, "it hangs" if limit < self._end else "the run has taken too long")
                return
            data = os.read(reader, 65536)
            if not data:
                self.outcomes[current] = "failed"
                print(f"\n{current}: the process that runs the tests has ended, with status {child.wait()}", flush=True)
                return
            *lines, pending = (pending + data).split(b"\n")
            for event in map(json.loads, lines):
                if "outcome" in event:
                    self._note(event["test"], event["outcome"])
                    continue
                now = time.monotonic()
                self.seconds[current] = now - started
                if "done" in event:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(5)
                    return
                current, started, limit = event["start"], now, now + event["timeout"] + GRACE

    def _note(self, test: str, outcome: str) -> None:
        # A test may fail in more than one way, and one that was skipped may fail when it cleans up.
        if self.outcomes.get(test) != "failed":
            self.outcomes[test] = outcome

    def _stop(self, child: subprocess.Popen[bytes], current: str, why: str) -> None:
        self.outcomes[current] = "failed"
        print(f"\n{current}: stopped, {why}", flush=True)
        # It says then where each of its threads is.
        child.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)

    def report(self) -> bool:
        """Print what there is to say, the count last; return whether all is well."""
        slowest = sorted(self.seconds.items(), key=lambda item: -item[1])[:10]
        for name, seconds in slowest:
            if seconds >= 1:
                print(f"{seconds:6.1f} s  {name}")
        for name, outcome in self.outcomes.items():
            if outcome == "failed":
                print(f"failed: {name}")
        count = collections.Counter(self.outcomes.values())
        ran = any(outcome == "passed" for name, outcome in self.outcomes.items() if name not in _CHECKS)
        if not ran:
            print("no test ran")
        skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
        print(f"{count['passed']} passed, {count['failed']} failed{skipped}", flush=True)
        return ran and not count["failed"]


def _adopt_orphans() -> None:
    """Become the parent of all that our children leave behind, so that it can be found."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants() -> list[int]:
    children = collections.defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name is in parentheses and may hold anything; state and parent come after it.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] != "Z":
                children[int(fields[1])].append(int(entry.parent.name))
    found, left = [], [os.getpid()]
    while left:
        found += (ours := children[left.pop()])
        left += ours
    return found


def _end_leftovers() -> None:
    """End every process that the tests have left, and name it."""
    patience = time.monotonic() + PATIENCE
    while (left := _descendants()) and time.monotonic() < patience:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            print(f"left running by a test: {command[:150]}")
    while left := _descendants():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description="Run the tests.")
    parser.add_argument("--fast", action="store_true", help="leave out what starts real servers and browsers")
    parser.add_argument("--checks", action="store_true", help="add lint and types")
    parser.add_argument(
        "--limit", type=float, default=RUN_LIMIT, help="seconds for the whole run (default %(default)s)"
    )
    parser.add_argument("names", nargs="*", help="what to run, as for trial (default: all)")
    options = parser.parse_args(arguments)
    fast, slow = names_of_fast_tests(), [f"tests.{name}" for name in SLOW if _exists(name)]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _adopt_orphans()
    run = Run(options.limit)
    try:
        if options.checks:
            for name, command in _CHECKS.items():
                run.check(name, command)
        if options.names or options.fast:
            run.tests(options.names or fast)
        else:
            run.tests(*_lots([*slow, *fast]))
    except KeyboardInterrupt:
        run.outcomes["interrupted"] = "failed"
    finally:
        _end_leftovers()
        well = run.report()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
