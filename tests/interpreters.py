"""
Lists every Python that is here from 3.11 on, one of each version: those on the path, then those of pyenv.

A line for each: the version, a space and the path. It runs by itself (``python3 tests/interpreters.py``).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["interpreters"]

_OLDEST = (3, 11)
_NAME = re.compile(r"python3(\.[0-9]+)?")


def _candidates() -> Iterator[Path]:
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def interpreters() -> dict[tuple[int, int], Path]:
    """Return a Python of each version, oldest first."""
    found: dict[tuple[int, int], Path] = {}
    for path in _candidates():
        # It must be asked: what stands there may be only a shim that says that it is not installed.
        answer = subprocess.run(
            [path, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode == 0:
            major, minor = map(int, answer.stdout.split())
            if (major, minor) >= _OLDEST:
                found.setdefault((major, minor), path)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    for (major, minor), path in interpreters().items():
        print(f"{major}.{minor} {path}")
