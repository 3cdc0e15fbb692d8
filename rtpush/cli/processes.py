"""What a process costs, as Linux counts it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from rtpush.cli.exits import Failed

__all__ = ["can_measure", "cpu_seconds", "kernel_socket_bytes", "machine", "memory_bytes", "user_bytes"]


def can_measure() -> bool:
    """Tell whether this system counts what is needed."""
    return Path("/proc/self/schedstat").exists() and Path("/proc/self/smaps_rollup").exists()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads together, to the microsecond."""
    total = 0
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(schedstat.read_text().split()[0])
    return total / 1e9


def user_bytes(pid: int) -> int:
    """Return how much user-space memory a process has, with its part of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Failed(f"nothing says how much memory process {pid} has")


def kernel_socket_bytes() -> int:
    """Return what the kernel holds in its own structures and in socket buffers, for all of the machine."""
    pages = 0
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            pages = int(line.split()[-1])
    return _meminfo("Slab") + pages * os.sysconf("SC_PAGE_SIZE")


def memory_bytes() -> int:
    """Return how much memory this machine has."""
    if Path("/proc/meminfo").exists():
        return _meminfo("MemTotal")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def machine() -> str:
    """Return which machine this is, in a few words."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} cores of {model}, {platform.system()}, Python {platform.python_version()}"


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
