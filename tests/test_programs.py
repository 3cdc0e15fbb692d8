"""Tests of tests.programs."""

from __future__ import annotations

import contextlib
import io
import os

from twisted.trial.unittest import SynchronousTestCase

from tests import programs


class MainTests(SynchronousTestCase):
    """What is said and done about programs that are missing."""

    def setUp(self) -> None:
        """Have one program that is here and one that is not, and take down what would be installed."""
        self.patch(
            programs,
            "PROGRAMS",
            (
                programs.Program("sh", "dash", "all"),
                programs.Program("no-such-program", "no-such-package", "none at all"),
            ),
        )
        self.installed: list[list[str]] = []
        self.patch(programs, "_install", self.installed.append)
        self.patch(
            programs.shutil, "which", lambda name, path=None: None if name == "no-such-program" else f"/bin/{name}"
        )

    def _said(self, user: int) -> str:
        self.patch(os, "geteuid", lambda: user)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            programs.main()
        return said.getvalue()

    def test_not_root(self) -> None:
        """Without the right to install, what is missing is named, and which tests skip."""
        said = self._said(user=1000)
        self.assertEqual(self.installed, [])
        self.assertEqual(len(said.splitlines()), 1)
        for part in ("no-such-program", "no-such-package", "none at all"):
            self.assertIn(part, said)

    def test_root(self) -> None:
        """Root installs the packages of what is missing, and only those; what is missing then is named too."""
        said = self._said(user=0)
        self.assertEqual(self.installed, [["no-such-package"]])
        self.assertIn("no-such-program", said)

    def test_library(self) -> None:
        """A library is missing if it is not where its package has it, whatever commands there are."""
        here = programs.Program("no-such-program", "dash", "all", os.path.dirname(__file__))
        gone = programs.Program("sh", "no-such-library", "none at all", "/no/such/library")
        self.patch(programs, "PROGRAMS", (here, gone))
        self.assertIn("no-such-library", self._said(user=0))
        self.assertEqual(self.installed, [["no-such-library"]])

    def test_nothing_missing(self) -> None:
        """Where all is there, nothing is installed or said."""
        self.patch(programs, "PROGRAMS", programs.PROGRAMS[:1])
        self.assertEqual((self._said(user=0), self.installed), ("", []))
