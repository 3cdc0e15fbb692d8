"""Tests of tests.chaos.namespaces, where there can be cables."""

from __future__ import annotations

import sys
from random import Random

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SkipTest, TestCase

from tests.chaos.namespaces import Cable, why_not
from tests.chaos.proxy import HarmfulProxy
from tests.support.processes import Process
from tests.support.waiting import until

_ECHO = """
import socket, sys
listening = socket.create_server((sys.argv[1], 0))
print(f"port={listening.getsockname()[1]}", flush=True)
connection, _ = listening.accept()
while data := connection.recv(100):
    print(data.decode(), flush=True)
    connection.send(data)
"""


class _Client(Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class CableTests(TestCase):
    """A program at the other end of a cable."""

    timeout = 30

    async def test_pull(self) -> None:
        """What is said while it is out comes when it is plugged in again, on the same connection."""
        if reason := why_not():
            raise SkipTest(f"no network namespaces: {reason}")
        cable = Cable(self, 0)
        process = Process(self, [*cable.command, sys.executable, "-c", _ECHO, cable.inside])
        port = int((await process.says(rb"port=(\d+)"))[1])
        proxy = HarmfulProxy(port, Random(1), host=cable.inside)
        await proxy.start(self)
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port), _Client())
        client.transport.write(b"before")
        await until(lambda: client.data == b"before", "the echo")
        cable.pull()
        client.transport.write(b"after")
        # It is on its way as long as the cable is out: the kernel has it.
        await until(lambda: not any(pair.outer.said for pair in proxy.pairs), "it to be sent")
        self.assertNotIn(b"after", process.out)
        cable.plug()
        await until(lambda: client.data == b"beforeafter", "the echo")
        client.transport.loseConnection()
        await process.ended()
