"""Network namespaces, where the machine lets us make them: a node at a cable of its own, which can be pulled out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from twisted.trial.unittest import TestCase

__all__ = ["Cable", "why_not"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=10)


def why_not() -> str:
    """Return why there can be no cables here; empty if there can."""
    if shutil.which("ip") is None:
        return "there is no ip program"
    name = f"rtpush-{os.getpid()}-x"
    try:
        _ip("netns", "add", name)
        try:
            _ip("link", "add", "rtpx0", "type", "veth", "peer", "name", "rtpx1")
            _ip("link", "del", "rtpx0")
        finally:
            _ip("netns", "del", name)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        return said.decode(errors="replace").strip() or str(error)
    return ""


class Cable:
    """
    A cable to a namespace of its own.

    While it is out, packets are lost in both directions: nobody hears that anything has ended.

    :ivar host: The address at this end.
    :ivar inside: The address at the other end.
    :ivar command: What a program begins with that is to run at the other end.
    """

    def __init__(self, test: TestCase, index: int) -> None:
        # Different for each process that does this, as far as there is room for it.
        number = os.getpid() * 4 + index
        self._name = f"rtpush-{os.getpid()}-{index}"
        self._ends = (f"rtp{number}a", f"rtp{number}b")
        net = f"10.{64 + (number >> 14) % 64}.{(number >> 6) % 256}.{(number * 4) % 256}".rpartition(".")
        self.host, self.inside = (f"{net[0]}.{int(net[2]) + end}" for end in (1, 2))
        self.command: Sequence[str] = ("ip", "netns", "exec", self._name)
        _ip("netns", "add", self._name)
        test.addCleanup(_ip, "netns", "del", self._name)
        _ip("link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1], "netns", self._name)
        _ip("addr", "add", f"{self.host}/30", "dev", self._ends[0])
        _ip("link", "set", self._ends[0], "up")
        self._inside("addr", "add", f"{self.inside}/30", "dev", self._ends[1])
        self._inside("link", "set", "lo", "up")
        self.plug()

    def pull(self) -> None:
        """Pull it out."""
        self._inside("link", "set", self._ends[1], "down")

    def plug(self) -> None:
        """Plug it in."""
        self._inside("link", "set", self._ends[1], "up")

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self._name, *arguments)
