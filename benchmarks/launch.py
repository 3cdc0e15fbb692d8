"""Starts a server as a process of its own, and ends it whatever happens."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from ctypes import CDLL
from pathlib import Path
from signal import SIGKILL, SIGTERM

from benchmarks.errors import BenchmarkError

__all__ = ["ALL_CORES", "await_answer", "await_listening", "free_port", "launched"]

# Read when this is imported: before the client takes one for itself.
ALL_CORES = frozenset(os.sched_getaffinity(0))

_ROOT = Path(__file__).resolve().parent.parent
_STARTING = 20.0
_STOPPING = 3.0
_ANSWERING = 1.0
_PR_SET_PDEATHSIG = 1
_LIBC = CDLL(None)


def free_port() -> int:
    """Return a TCP port that nobody has at this moment, and that the kernel gives to no connection meanwhile."""
    first_of_the_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(first_of_the_kernel, 11_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@contextmanager
def launched(
    name: str,
    command: Sequence[str],
    port: int | None,
    directory: Path,
    cores: Collection[int] = ALL_CORES,
    patience: float = _STOPPING,
) -> Iterator[int]:
    """Run a server on these cores until the ``with`` block ends; its value is the process id.

    The block begins when something listens on ``port``, or at once if there is none to wait for. What the server says
    goes to a file in ``directory``. It dies with this process, too. When it is told to end it has so many seconds
    of ``patience``. Raises `BenchmarkError` if it does not start.
    """
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.sched_setaffinity(0, cores)

    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=prepare,
            start_new_session=True,
        )
    try:
        if port is not None:
            await_listening(port, lambda: process.poll() is None, lambda: f"{name} did not start: {_last_line(log)}")
        yield process.pid
    except BenchmarkError as error:
        if process.poll() is not None:
            raise BenchmarkError(f"{error}; {name} ended with {process.returncode}: {_last_line(log)}") from None
        raise
    finally:
        _stop(process, patience)


def await_listening(port: int, running: Callable[[], bool], problem: Callable[[], str]) -> None:
    """Wait until something listens on a port. Raises `BenchmarkError` with the problem if that takes too long."""
    give_up = time.monotonic() + _STARTING
    while time.monotonic() < give_up and running():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise BenchmarkError(problem())


def await_answer(port: int, path: str) -> None:
    """Wait until a GET request is answered with success. Raises `BenchmarkError` if that takes too long."""
    give_up = time.monotonic() + _STARTING
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWERING)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            # It does not listen, or not answer, yet.
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise BenchmarkError(f"a server does not answer GET {path}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def _stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a server and its children, which are in a process group of their own."""
    try:
        os.killpg(process.pid, SIGTERM)
        process.wait(patience)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:
        try:
            os.killpg(process.pid, SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
