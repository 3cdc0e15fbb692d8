"""Runs tests under trial and reports each result through a pipe to :mod:`tests.run`, which starts this."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner
from twisted.trial.util import DEFAULT_TIMEOUT_DURATION

__all__ = ["main"]


class ReportingReporter(TreeReporter):
    """
    Trial's usual reporter, which also writes a line of JSON to a pipe for what happens.

    :cvar pipe: The file descriptor.
    """

    pipe: int

    def _say(self, **event: object) -> None:
        os.write(self.pipe, json.dumps(event).encode() + b"\n")

    def startTest(self, test: Any) -> None:
        """Report the test, and after how many seconds trial will end it."""
        timeout = test.getTimeout() if hasattr(test, "getTimeout") else None
        self._say(start=test.id(), timeout=timeout or DEFAULT_TIMEOUT_DURATION)
        super().startTest(test)

    def addSuccess(self, test: Any) -> None:
        """Report a test that passed."""
        self._say(test=test.id(), outcome="passed")
        super().addSuccess(test)

    def addError(self, test: Any, error: Any) -> None:
        """Report an error."""
        self._say(test=test.id(), outcome="failed")
        super().addError(test, error)

    def addFailure(self, test: Any, fail: Any) -> None:
        """Report a failure."""
        self._say(test=test.id(), outcome="failed")
        super().addFailure(test, fail)

    def addSkip(self, test: Any, reason: Any) -> None:
        """Report a test that was skipped."""
        self._say(test=test.id(), outcome="skipped")
        super().addSkip(test, reason)

    def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
        """Report a test that is known to fail and did."""
        self._say(test=test.id(), outcome="skipped")
        super().addExpectedFailure(test, error, todo)

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        """Report a test that is said to fail and did not."""
        self._say(test=test.id(), outcome="failed")
        super().addUnexpectedSuccess(test, todo)


def main(pipe: int, names: list[str]) -> None:
    """Run the named tests."""
    faulthandler.enable()
    os.set_inheritable(pipe, False)
    ReportingReporter.pipe = pipe
    directory = Path(__file__).resolve().parents[1] / "_trial_temp"
    suite = TestLoader().loadByNames(names, recurse=True)
    TrialRunner(ReportingReporter, realTimeErrors=True, workingDirectory=str(directory)).run(suite)
    os.write(pipe, b'{"done": true}\n')


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
