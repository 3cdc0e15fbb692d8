"""Tests of the package as it is installed: away from this tree, from any directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import twisted
from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]

#: What is built into the package.
_SOURCES = ("setup.cfg", "setup.py", "pyproject.toml", "README.rst", "LICENSE", "conf", "rtpush", "twisted")


def _output(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise AssertionError(f"{command}: exit status {result.returncode}\n{result.stdout}")
    return result.stdout


class InstalledTests(SynchronousTestCase):
    """rtpush built, and installed into an environment that has all else from this one."""

    def setUp(self) -> None:
        """Copy the sources and make the environment."""
        try:
            import setuptools.command.bdist_wheel  # noqa: F401
        except ImportError:
            raise SkipTest("setuptools is missing, or older than 70.1") from None
        self.home = Path(self.mktemp()).resolve()
        self.sources = self.home / "sources"
        self.sources.mkdir(parents=True)
        for name in _SOURCES:
            origin = ROOT / name
            if origin.is_dir():
                shutil.copytree(
                    origin, self.sources / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache")
                )
            else:
                shutil.copy(origin, self.sources)
        self.elsewhere = self.home / "elsewhere"
        self.elsewhere.mkdir()
        venv.create(self.home / "venv", with_pip=False)
        self.bin = self.home / "venv" / "bin"
        (packages,) = (self.home / "venv").glob("lib/python*/site-packages")
        # A plain path: the .pth files there, among them that of an editable rtpush, are not followed.
        (packages / "others.pth").write_text(f"{Path(twisted.__file__).parents[1]}\n")

    def _install(self, *what: str | Path) -> None:
        _output(
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.bin / "python"),
            *("install", "--no-deps", "--no-build-isolation", "--no-index", *what),
            cwd=self.elsewhere,
        )

    def _assert_works(self) -> None:
        twistd = (self.bin / "python", "-c", "from twisted.scripts.twistd import run; run()")
        help_text = _output(*twistd, "--help", cwd=self.elsewhere)
        self.assertEqual([line.split()[:1] for line in help_text.splitlines()].count(["rtpush"]), 1, help_text)
        _output(*twistd, "rtpush", "--config", ROOT / "conf" / "prod.ini", "--check", cwd=self.elsewhere)
        self.assertIn("subscribe", _output(self.bin / "rtpush", "--help", cwd=self.elsewhere))

    def test_wheel(self) -> None:
        """A built package has all files, and no others; installed, twistd finds its plugin and the command works."""
        _output(
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"),
            *("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", self.home, self.sources),
            cwd=self.elsewhere,
        )
        (wheel,) = self.home.glob("*.whl")
        names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        source = {
            str(path.relative_to(self.sources))
            for folder in ("rtpush", "twisted")
            for path in (self.sources / folder).rglob("*")
            if path.is_file()
        }
        shared = {path.name for path in (self.sources / "conf").iterdir() if path.name != "dev.ini"}
        self.assertEqual({name for name in names if ".data/" not in name}, source)
        self.assertEqual(
            {name.partition(".data/")[2] for name in names - source}, {f"data/share/rtpush/{name}" for name in shared}
        )
        self._install(wheel)
        self._assert_works()
        self.assertEqual({path.name for path in (self.home / "venv" / "share" / "rtpush").iterdir()}, shared)

    def test_editable(self) -> None:
        """An editable install works from any directory too."""
        self._install("--editable", self.sources)
        self._assert_works()
