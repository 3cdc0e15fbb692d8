"""What the numbers hold for: the machine, its state, and how its cores and open files are shared out."""

from __future__ import annotations

import os
import platform
import resource
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["describe", "raise_file_limit", "share_cores"]

# What a server and this process need besides the measured connections: listeners, logs, libraries, publishers.
_FILES_MARGIN = 500


def describe() -> dict[str, str]:
    """Return the facts that a reader needs to judge the numbers."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 1024**2:.1f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load average at the start": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def share_cores() -> tuple[int | None, int | None]:
    """Return the core for the client and the core for the server; None and None where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[-1]) if len(cores) > 1 else (None, None)


def raise_file_limit() -> int:
    """Let this process and its children open as many files as they may; return how many connections fit in that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _FILES_MARGIN
