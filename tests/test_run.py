"""Tests of tests.run: a run that counts wrongly would hide what fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import run

_SAMPLE = """
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, TestCase


class SampleTests(TestCase):
    timeout = 0.2

{body}
"""


class RunTests(SynchronousTestCase):
    """The count and the exit status of runs of small samples."""

    def run_sample(self, body: str, *arguments: str) -> tuple[int, list[str]]:
        """Run a sample of tests; return the exit status and the lines of the output."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        sample = (directory / "test_sample.py").resolve()
        sample.write_text(_SAMPLE.format(body=body))
        start = "import sys; from tests import run; run.GRACE = run.PATIENCE = 0.5; sys.exit(run.main(sys.argv[1:]))"
        result = subprocess.run(
            [sys.executable, "-c", start, *arguments, str(sample)],
            cwd=run.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return result.returncode, result.stdout.splitlines()

    def test_passed(self) -> None:
        """A run in which all tests pass succeeds."""
        status, lines = self.run_sample("    def test_a(self): pass\n    def test_b(self): pass")
        self.assertEqual((status, lines[-1]), (0, "2 passed, 0 failed"))

    def test_failed(self) -> None:
        """Failures, errors, errors of cleanup and tests that time out are failed tests, each once, with its name."""
        status, lines = self.run_sample(
            "    def test_good(self): pass\n"
            "    def test_bad(self): self.fail()\n"
            "    def test_error(self): self.addCleanup(lambda: 1 / 0); 1 / 0\n"
            "    def test_skipped(self): raise SkipTest('no such thing')\n"
            "    def test_unclean(self):\n"
            "        from twisted.internet import reactor\n"
            "        reactor.callLater(100, print)\n"
            "    def test_late(self): return Deferred()\n"
        )
        self.assertEqual((status, lines[-1]), (1, "1 passed, 4 failed, 1 skipped"))
        self.assertIn("failed: test_sample.SampleTests.test_unclean", lines)
        self.assertIn("failed: test_sample.SampleTests.test_late", lines)

    def test_broken_module(self) -> None:
        """A module that cannot be imported has failed."""
        status, lines = self.run_sample("    import there_is_no_such_module")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))

    def test_none(self) -> None:
        """A run without tests, or in which all are skipped, does not succeed."""
        self.assertEqual(self.run_sample("    pass")[0], 1)
        status, lines = self.run_sample("    def test_skipped(self): raise SkipTest('')")
        self.assertEqual((status, lines[-2:]), (1, ["no test ran", "0 passed, 0 failed, 1 skipped"]))

    def test_hang(self) -> None:
        """A test that blocks is stopped and has failed, and its stack is shown; those before it still count."""
        status, lines = self.run_sample("    def test_a(self): pass\n    def test_b(self):\n        while True: pass")
        self.assertEqual((status, lines[-1]), (1, "1 passed, 1 failed"))
        self.assertIn("test_sample.SampleTests.test_b: stopped, it hangs", lines)
        self.assertTrue(any("in test_b" in line for line in lines))

    def test_limit(self) -> None:
        """A run that takes too long is stopped and has failed."""
        status, lines = self.run_sample("    timeout = 60\n    def test_a(self): return Deferred()", "--limit", "2")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))
        self.assertTrue(any("the run has taken too long" in line for line in lines))

    def test_crash(self) -> None:
        """When the process of the tests ends early, the test that ran has failed."""
        status, lines = self.run_sample("    def test_a(self):\n        import os\n        os._exit(0)")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))
        self.assertIn("failed: test_sample.SampleTests.test_a", lines)

    def test_leftovers(self) -> None:
        """What a test leaves running is named and ended, also if it has a session of its own."""
        pids = Path(self.mktemp()).resolve()
        status, lines = self.run_sample(
            "    def test_a(self):\n"
            "        import pathlib, subprocess\n"
            "        process = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
            f"        pathlib.Path({str(pids)!r}).write_text(str(process.pid))\n"
            "        process.returncode = 0\n"
        )
        self.assertEqual((status, lines[-1]), (0, "1 passed, 0 failed"))
        self.assertIn("left running by a test: sleep 1000 ", lines)
        self.assertRaises(ProcessLookupError, os.kill, int(pids.read_text()), 0)


class CompleteTests(SynchronousTestCase):
    """No test is forgotten."""

    def test_packages(self) -> None:
        """Every module of tests is in a package, where trial finds it."""
        for module in (run.ROOT / "tests").rglob("test_*.py"):
            for folder in module.relative_to(run.ROOT).parents[:-1]:
                self.assertTrue((run.ROOT / folder / "__init__.py").exists(), f"{folder} has no __init__.py")

    def test_fast(self) -> None:
        """The fast tests are all but those in the slow packages."""
        names = run.names_of_fast_tests()
        for module in (run.ROOT / "tests").rglob("test_*.py"):
            dotted = ".".join(module.relative_to(run.ROOT).with_suffix("").parts)
            is_fast = any(f"{dotted}.".startswith(f"{name}.") for name in names)
            is_slow = any(f"{dotted}.".startswith(f"tests.{slow}.") for slow in run.SLOW)
            self.assertNotEqual(is_fast, is_slow, dotted)
