"""What a server costs, as the kernel counts it: CPU, memory and stolen time of a process and its children."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from attrs import define, field

__all__ = ["TICK", "Meter", "cpu_seconds", "kernel_bytes", "process_tree", "pss_bytes", "settle", "waited_seconds"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
#: Seconds: the step in which the kernel tells CPU time.
TICK = 1 / _TICKS_PER_SECOND


def process_tree(pid: int) -> Iterator[int]:
    """Yield ``pid`` and all its living descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from process_tree(int(child))


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return the user and the system CPU seconds of a process tree (``/proc/PID/stat``, mostly in steps of 10 ms)."""
    user = system = 0
    for member in process_tree(pid):
        # The name in parentheses can itself hold spaces and parentheses: the fields begin after the last one.
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return user / _TICKS_PER_SECOND, system / _TICKS_PER_SECOND


def waited_seconds(pid: int) -> float:
    """Return how long the threads of a process tree were ready to run while something else had the core."""
    total = 0
    for member in process_tree(pid):
        for schedstat in Path(f"/proc/{member}/task").glob("*/schedstat"):
            total += int(schedstat.read_text().split()[1])
    return total / 1e9


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process tree: user-space memory only, not the kernel's socket buffers."""
    total = 0
    for member in process_tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def kernel_bytes() -> int:
    """Return what the kernel holds for all sockets of the machine: their buffers, and its own structures (slab)."""
    pages = 0
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            pages = int(line.split()[-1])
    slab = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Slab:"))
    return pages * os.sysconf("SC_PAGE_SIZE") + int(slab.split()[1]) * 1024


def settle(pid: int, quiet: float = 0.2, limit: float = 20.0, meanwhile: Callable[[], object] | None = None) -> None:
    """Wait until a process tree used at most one tick of CPU in ``quiet`` seconds; give up after ``limit``.

    ``meanwhile`` is called now and then: what keeps connections alive.
    """
    give_up = time.monotonic() + limit
    before = sum(cpu_seconds(pid))
    while time.monotonic() < give_up:
        time.sleep(quiet)
        if meanwhile is not None:
            meanwhile()
        now = sum(cpu_seconds(pid))
        if now - before <= TICK:
            return
        before = now


@define
class Meter:
    """Measures what happens inside its ``with`` block; used several times, it adds up.

    All attributes are seconds: the clock, the server's user and system CPU, this process's CPU, and the time for which
    the server wanted to run but could not.
    """

    pid: int
    wall: float = 0.0
    user: float = 0.0
    system: float = 0.0
    client: float = 0.0
    waited: float = 0.0
    _begun: tuple[float, float, float, float, float] = field(init=False, default=(0.0, 0.0, 0.0, 0.0, 0.0))

    @property
    def server(self) -> float:
        """The server's CPU seconds, user and system."""
        return self.user + self.system

    def __enter__(self) -> Self:
        self._begun = self._read()
        return self

    def __exit__(self, *failure: object) -> None:
        ended = self._read()
        wall, user, system, client, waited = (end - begin for end, begin in zip(ended, self._begun, strict=True))
        self.wall += wall
        self.user += user
        self.system += system
        self.client += client
        self.waited += waited

    def _read(self) -> tuple[float, float, float, float, float]:
        user, system = cpu_seconds(self.pid)
        return time.monotonic(), user, system, time.process_time(), waited_seconds(self.pid)
