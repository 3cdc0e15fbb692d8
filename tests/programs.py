"""
The programs that tests use beside Python: which are there, and getting those that are not from Debian's packages.

``python -m tests.programs`` installs what is missing where it is root on Debian; elsewhere it names what is missing,
and which tests that skips. It always succeeds: a test whose program is missing skips.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

__all__ = ["PROGRAMS", "Program", "find", "main"]


@attrs.frozen
class Program:
    """
    A program that tests use, or a library of one.

    :ivar name: The command.
    :ivar package: The package of Debian that has it.
    :ivar tests: Which tests skip without it.
    :ivar path: Where the library is; nothing for a command.
    """

    name: str
    package: str
    tests: str
    path: str = ""


PROGRAMS = (
    Program("redis-server", "redis-server", "those of the Redis engine"),
    Program("chromium", "chromium", "those in a browser"),
    Program("chromedriver", "chromium-driver", "those in a browser"),
    Program("nginx", "nginx", "those through a proxy"),
    Program("haproxy", "haproxy", "those through HAProxy"),
    Program("node", "nodejs", "those of the JavaScript client"),
    Program("redis of Node", "node-redis", "those of Redis from Node", "/usr/share/nodejs/redis"),
    Program("curl", "curl", "those of what the README shows"),
    Program("systemd-socket-activate", "systemd", "those of sockets that systemd opens"),
    Program("systemd-analyze", "systemd", "those of the units of systemd"),
)

_POLICY = Path("/usr/sbin/policy-rc.d")


def find(name: str) -> str | None:
    """Return where a program is, also where only root has it on the path, or None."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def _missing() -> list[Program]:
    return [
        program for program in PROGRAMS if not (Path(program.path).exists() if program.path else find(program.name))
    ]


@contextlib.contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep Debian from starting the servers that it installs: the tests start their own."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _install(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_off():
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *command], stdin=subprocess.DEVNULL, env=environment, check=False)


def main() -> None:
    """Install what is missing if that can be done, and name what is missing then."""
    missing = _missing()
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(sorted({program.package for program in missing}))
        missing = _missing()
    for program in missing:
        print(
            f"{program.name} is missing (Debian's package is {program.package}): tests skip, namely {program.tests}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
