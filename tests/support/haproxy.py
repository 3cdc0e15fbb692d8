"""A real HAProxy before nodes, with the configuration that is shipped."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.ports import reserved_port
from tests.support.processes import Process, program
from tests.support.shipped import shipped
from tests.support.waiting import soon, until

__all__ = ["HAProxy"]

_NODES = """\
    server node1 127.0.0.1:8081 cookie node1
    server node2 127.0.0.1:8082 cookie node2
"""


class HAProxy:
    """
    A HAProxy before nodes, which it knows as ``node1``, ``node2`` and so on.

    It differs from the one that is shipped only in where it is and who runs it, and in that it checks more often.

    :ivar port: Where it listens, on 127.0.0.1.
    :ivar url: The same as a URL.
    :ivar process: The program.
    """

    def __init__(self, test: TestCase, ports: Sequence[int]) -> None:
        command = program("haproxy")
        self.port = reserved_port(test)
        self.url = f"http://127.0.0.1:{self.port}/"
        self._names = [f"node{number}" for number in range(1, len(ports) + 1)]
        # Not in the directory of trial: the path of a socket has to be short.
        directory = tempfile.mkdtemp(prefix="rtpush-haproxy-")
        test.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self._socket = os.path.join(directory, "admin.sock")
        nodes = (
            f"    server {name} 127.0.0.1:{port} cookie {name}\n" for name, port in zip(self._names, ports, strict=True)
        )
        config = Path(directory, "haproxy.cfg")
        config.write_text(
            shipped(
                "haproxy.cfg",
                {
                    "    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n": "",
                    "/run/haproxy/admin.sock": self._socket,
                    "bind :8000\n": f"bind 127.0.0.1:{self.port}\n",
                    " inter 2s fastinter 500ms downinter 500ms ": " inter 100ms fastinter 50ms downinter 50ms ",
                    _NODES: "".join(nodes),
                },
            )
        )
        # In the foreground, as one process.
        self.process = Process(test, [command, "-db", "-f", str(config)])

    @classmethod
    async def start(cls, test: TestCase, ports: Sequence[int]) -> HAProxy:
        """Start one before the nodes on ports of 127.0.0.1, and let it see which of them are ready."""
        haproxy = cls(test, ports)
        await until(haproxy._is_ready, "HAProxy to start", seen=lambda: str(haproxy.process))
        return haproxy

    async def command(self, line: str) -> str:
        """Give a command to the runtime socket; return its answer."""
        answer = _Answer()
        connection = await connectProtocol(UNIXClientEndpoint(reactor, self._socket), answer)
        connection.transport.write(line.encode() + b"\n")
        return await soon(answer.complete)

    async def statistics(self) -> dict[str, dict[str, str]]:
        """Return what HAProxy counts of each node, by the names of ``show stat``."""
        table = (await self.command("show stat")).lstrip("# ").strip().splitlines()
        rows = {row["svname"]: row for row in csv.DictReader(table) if row["pxname"] == "nodes"}
        return {name: rows[name] for name in self._names}

    async def becomes(self, node: str, status: str) -> None:
        """Wait until a node has a status, such as ``UP``, ``DOWN``, ``DRAIN`` or ``MAINT``."""
        seen = ""

        async def has_it() -> bool:
            nonlocal seen
            seen = (await self.statistics())[node]["status"]
            return seen == status

        await until(has_it, f"HAProxy to find {node} {status}", seen=lambda: f"it is {seen}")

    async def _is_ready(self) -> bool:
        if self.process.code is not None:
            raise AssertionError(f"HAProxy has ended: {self.process}")
        try:
            nodes = await self.statistics()
        except ConnectError:
            return False
        # While it is not sure it says how far it is, as in "UP 1/2": so it does before the first check.
        return not any("/" in node["status"] for node in nodes.values())


class _Answer(Protocol):
    """What the runtime socket answers to one command, after which it closes."""

    def __init__(self) -> None:
        self.complete: Deferred[str] = Deferred()
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.complete.callback(self._data.decode())
