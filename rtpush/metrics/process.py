"""What the system and the interpreter tell of this process."""

from __future__ import annotations

import gc
import os
import resource
import time
from typing import Any

from rtpush.metrics.samples import Sample, Samples
from rtpush.registry.counts import Histogram

__all__ = ["GcWatch", "process_samples"]

_STARTED = time.time()


class GcWatch:
    """
    Sees how long collections of garbage take.

    :param pauses: Where they are counted.
    """

    def __init__(self, pauses: Histogram) -> None:
        self._pauses = pauses
        self._began = 0.0

    def start(self) -> None:
        """Begin."""
        gc.callbacks.append(self._called)

    def stop(self) -> None:
        """End."""
        gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: Any) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self._pauses.observe(time.perf_counter() - self._began)


def process_samples() -> Samples:
    """Return what there is to say; less on systems that tell less."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    samples: Samples = {
        "process_cpu_seconds": [Sample((), usage.ru_utime + usage.ru_stime)],
        "process_start_time_seconds": [Sample((), _STARTED)],
    }
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY:
        samples["process_max_fds"] = [Sample((), most)]
    collections = [(str(generation), each) for generation, each in enumerate(gc.get_stats())]
    samples["python_gc_collections"] = [Sample((number,), each["collections"]) for number, each in collections]
    samples["python_gc_objects_collected"] = [Sample((number,), each["collected"]) for number, each in collections]
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        samples["process_resident_memory_bytes"] = [Sample((), pages * resource.getpagesize())]
        # Since Linux 6.2 their number is there; a list of 100,000 takes too long.
        samples["process_open_fds"] = [Sample((), os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")))]
    except OSError:
        # There is no such thing here.
        pass
    return samples
