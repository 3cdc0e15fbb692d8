"""Tests of rtpush.cli.command."""

from __future__ import annotations

import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from rtpush import __version__
from rtpush.cli import main
from rtpush.cli.command import COMMANDS, command_line
from tests.cli.program import ProgramCase


class UsageTests(SynchronousTestCase):
    """Command lines that are wrong."""

    def test_usage(self) -> None:
        """A command line that is wrong is exit code 2, and says how it is right."""
        for arguments, told in (
            ("", "COMMAND"),
            ("publish", "CHANNEL"),
            ("publish demo:a 1 --url ftp://x", "bad URL"),
            ("subscribe a,b", "bad channel name"),
            ("subscribe a b --cursor k3f9:1", "1 positions for 2 channels"),
            ("subscribe a --cursor k3f9:1 --since earliest", "not allowed with"),
            ("subscribe a --transport pigeon", "pigeon"),
            ("subscribe a --count 0", "not a positive number"),
            ("publish a 1 --whole", "not allowed with"),
            ("disconnect", "required"),
            ("check --connect", "expected a configuration FILE"),
            ("bench --connections 0", "not a whole number"),
            ("simulate", "KIND"),
            ("simulate drain --notice 20", "expected less than --window"),
            ("plan --users many", "not a whole number"),
            ("plan --figures nowhere", "--measure writes it"),
            ("token make", "--config"),
        ):
            with self.subTest(arguments=arguments):
                self.patch(sys, "stderr", StringIO())
                self.patch(sys, "stdout", StringIO())
                exited = self.assertRaises(SystemExit, main, arguments.split())
                self.assertEqual((exited.code, sys.stdout.getvalue()), (2, ""))
                self.assertIn(told, sys.stderr.getvalue())

    def test_each_has_help(self) -> None:
        """Each command can be asked how it is used, and says so without a server."""
        for name in COMMANDS:
            with self.subTest(command=name):
                self.patch(sys, "stdout", StringIO())
                exited = self.assertRaises(SystemExit, command_line(name).parse_args, [name, "--help"])
                self.assertEqual(exited.code, 0)
                self.assertIn(f"usage: rtpush {name}", sys.stdout.getvalue())

    def test_all_have_json(self) -> None:
        """All commands can answer in JSON."""
        for name in COMMANDS:
            with self.subTest(command=name):
                arguments = [name, *{"simulate": ["storm"], "token": ["make"]}.get(name, []), "--help"]
                self.patch(sys, "stdout", StringIO())
                self.assertRaises(SystemExit, command_line(name).parse_args, arguments)
                self.assertIn("--json", sys.stdout.getvalue())


class VersionTests(ProgramCase):
    """``rtpush --version``."""

    async def test_version(self) -> None:
        """The version is that of the package."""
        process = await self.run_it("--version")
        self.assertEqual((process.code, process.out), (0, f"rtpush {__version__}\n".encode()))
