"""Gets the peers that are no part of this package, and finds those that are there.

``python -m benchmarks --install-peers``. Packages of PyPI and npm go into a folder of their own, ``benchmarks/.peers``,
Debian's to where Debian has them.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["DEBIAN_PACKAGES", "install_peers", "installed_in_node", "node_modules", "python_with"]

#: Packages of Debian that are peers.
DEBIAN_PACKAGES = ("nginx", "libnginx-mod-nchan", "pushpin")

_FOLDER = Path(__file__).resolve().parent / ".peers"
_PYTHON = _FOLDER / "python" / "bin" / "python"
_PYTHON_PACKAGES = ("socketify", "python-socketio", "uvicorn", "uvloop", "httptools", "websockets")
_NODE_PACKAGES = ("ws", "socket.io", "bufferutil")
_POLICY = Path("/usr/sbin/policy-rc.d")


@functools.cache
def python_with(packages: Sequence[str]) -> str | None:
    """Return a Python in which all packages are installed: of the peers' folder or this one; None if neither has."""
    asked = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    for python in (str(_PYTHON), sys.executable):
        if Path(python).exists():
            done = subprocess.run([python, "-c", asked, *packages], capture_output=True, check=False)
            if not done.returncode:
                return python
    return None


def node_modules() -> Path:
    """Return where the packages of npm are."""
    return _FOLDER / "node" / "node_modules"


def installed_in_node(package: str) -> str | None:
    """Return the version of a package of npm, or None if it is not there."""
    described = node_modules() / package / "package.json"
    return str(json.loads(described.read_text())["version"]) if described.exists() else None


def install_peers() -> int:
    """Install what can be installed here; return 1 if something could not, else 0. A line says what is done."""
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / ".gitignore").write_text("*\n")
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # One by one: socketify has no build for every machine.
    ok = _run(sys.executable, "-m", "venv", str(_PYTHON.parent.parent))
    for package in _PYTHON_PACKAGES:
        ok &= _run(str(_PYTHON), *pip, package)
    if shutil.which("npm"):
        options = ("--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(_FOLDER / "node"))
        ok &= _run("npm", "install", *options, *_NODE_PACKAGES)
    else:
        print("npm is not here: ws and socket.io are left out", file=sys.stderr)
        ok = False
    return 0 if _install_from_debian() and ok else 1


def _install_from_debian() -> bool:
    if shutil.which("apt-get") is None or os.geteuid():
        print(f"as root on Debian: apt-get install {' '.join(DEBIAN_PACKAGES)}", file=sys.stderr)
        return False
    # Debian starts the servers that it installs, unless it is told not to; the benchmark starts its own.
    silenced = not _POLICY.exists()
    if silenced:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        return _run("apt-get", "-q", "-y", "install", "--no-install-recommends", *DEBIAN_PACKAGES)
    finally:
        if silenced:
            _POLICY.unlink()


def _run(*command: str) -> bool:
    print(" ".join(command), file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return not subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
