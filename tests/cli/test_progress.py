"""Tests of rtpush.cli.progress."""

from __future__ import annotations

from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from rtpush.cli.progress import Progress


class Terminal(StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    """How far long work is."""

    def test_terminal(self) -> None:
        """On a terminal there is one line with a bar, which is wiped out at the end."""
        stream = Terminal()
        with Progress("working", 4, stream) as progress:
            progress.update(2, "half")
        self.assertIn("half [###############...............]  50%", stream.getvalue())
        self.assertTrue(stream.getvalue().endswith("\r\x1b[K"))
        self.assertNotIn("\n", stream.getvalue())

    def test_elsewhere(self) -> None:
        """Into a file or pipe nothing is written."""
        stream = StringIO()
        with Progress("working", 4, stream) as progress:
            progress.update(4)
        self.assertEqual(stream.getvalue(), "")
