"""The command as users run it, against a node in the process of the test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import load
from tests.support.processes import Process
from tests.support.waiting import within

__all__ = ["CONFIG", "KEY", "ROOT", "SECRET", "ProgramCase"]

ROOT = Path(__file__).resolve().parents[2]

KEY = "correct-horse-battery"

#: What tokens are signed with.
SECRET = "0123456789abcdef0123456789abcdef"

#: Commands that talk to no server.
ALONE = ("--version", "token", "plan", "simulate")

CONFIG = f"""
[server]
listen = tcp:0:interface=127.0.0.1
[api]
keys = {KEY}
[auth]
keys = cli HS256 {SECRET}
[namespace:demo]
anonymous = yes
history_size = 5000
publish = anyone
[namespace:default]
anonymous = yes
history_size = 100
[namespace:rights]
history_size = 100
subscribe = token
publish = token
presence = yes
"""


class ProgramCase(TestCase):
    """The command as users run it, against a node in this process."""

    timeout = 90

    async def setUp(self) -> None:
        # What whoever runs the tests has set does not count.
        for name in ("RTPUSH_KEY", "RTPUSH_SERVER", "RTPUSH_TOKEN"):
            self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != name})
        path = Path(self.mktemp())
        path.write_text(CONFIG)
        config = load(str(path))
        node = build_node(config, reactor)
        await node.start()
        self.port = reactor.listenTCP(0, build_site(config, node, reactor), interface="127.0.0.1")
        self.addCleanup(node.stop)
        self.addCleanup(self.port.stopListening)
        self.node = node
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    def command_of(self, *arguments: str, url: str | None = None) -> list[str]:
        """Return the command line."""
        server = () if arguments[0] in ALONE else ("--server", url or self.url)
        program = "from rtpush.cli import main; main()"
        return [sys.executable, "-c", program, arguments[0], *server, *arguments[1:]]

    def start(self, *arguments: str, url: str | None = None) -> Process:
        """Start the command."""
        return Process(self, self.command_of(*arguments, url=url), cwd=str(ROOT))

    async def run_it(self, *arguments: str, url: str | None = None) -> Process:
        """Run the command to its end; nothing that it says is a traceback."""
        process = self.start(*arguments, url=url)
        await within(50.0, process.ended())
        self.assertNotIn(b"Traceback", process.out + process.err)
        return process
