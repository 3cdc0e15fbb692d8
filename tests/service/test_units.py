"""The units of systemd that are shipped."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.settings.serving import Server
from tests.support.processes import program
from tests.support.shipped import CONF

_UNITS = ("rtpush.service", "rtpush.socket")


class UnitTests(SynchronousTestCase):
    """``conf/rtpush.service`` and ``conf/rtpush.socket``."""

    def _analyze(self, *arguments: str) -> str:
        command = [program("systemd-analyze"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_verify(self) -> None:
        """systemd has nothing to say against them, but that the program is not there where they say."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for unit in _UNITS:
            text = CONF.joinpath(unit).read_text().replace("/opt/rtpush/bin/twistd", shutil.which("true") or "")
            directory.joinpath(unit).write_text(text)
        self.assertEqual(self._analyze("verify", "--man=no", *(str(directory / unit) for unit in _UNITS)), "")

    def test_security(self) -> None:
        """The exposure is the one that is quoted."""
        said = self._analyze("security", "--offline=true", str(CONF / "rtpush.service"))
        found = re.search(r"exposure level for rtpush.service: ([0-9.]+)", said)
        assert found is not None, said
        quoted = (CONF / "rtpush.service", CONF.parent / "docs" / "operations.rst")
        for path in quoted:
            self.assertIn(f"an exposure of {found[1]}", " ".join(path.read_text().split()))

    def test_time_to_stop(self) -> None:
        """There is more time to stop than clients have to leave."""
        found = re.search(r"^TimeoutStopSec=(\d+)$", CONF.joinpath("rtpush.service").read_text(), re.MULTILINE)
        assert found is not None
        self.assertGreater(int(found[1]), Server(listen=()).drain_window + 5)
