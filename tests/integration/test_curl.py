"""Everything that we show with curl, with the real curl."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from twisted.trial.unittest import TestCase

import rtpush
from tests.support.processes import Process, program
from tests.support.server import Server
from tests.support.waiting import soon, until

_ROOT = Path(__file__).resolve().parents[2]
_STATIC = Path(rtpush.__file__).parent / "static"

#: What the README has in the place of what differs from run to run.
_URL = "http://127.0.0.1:8080/"
_EPOCH = "k3f9x0ab"

_CHANNEL = "demo:lobby"


class _CurlTests(TestCase):
    """What both have in common: a server as ``make run`` starts it, and curl."""

    timeout = 90

    async def setUp(self) -> None:
        """Start the server with ``conf/dev.ini``, but on a free port."""
        program("curl")
        text = (_ROOT / "conf" / "dev.ini").read_text()
        path = Path(self.mktemp()).absolute()
        path.write_text(text.replace("tcp:8080:", "tcp:0:"))
        self.server = await Server.start_with(self, str(path))

    def start(self, command: str) -> Process:
        """Start a command line of curl."""
        return Process(self, [program("curl"), *shlex.split(command)[1:]], env={"no_proxy": "127.0.0.1"})

    async def answer(self, command: str) -> str:
        """Run a command line of curl to its end; return what it prints."""
        process = self.start(command)
        self.assertEqual(await soon(process.ended()), 0, process)
        return process.out.decode()

    async def subscribed(self, count: int) -> None:
        """Wait until the channel has so many subscribers."""

        async def there() -> bool:
            return await self.server.subscribers(_CHANNEL) == count

        await until(there, f"{count} subscribers")


class ReadmeTests(_CurlTests):
    """The README: its commands, as they stand there."""

    async def test_every_command(self) -> None:
        """Each command does what the README says of it, and there is none besides."""
        epoch = _EPOCH
        shown = re.findall(r"^ +\$ (curl .+)$", (_ROOT / "README.rst").read_text(), re.MULTILINE)

        def take(*parts: str) -> str:
            """Return the first command that has all of these in it, made for this server; it is done with then."""
            command = next((line for line in shown if all(part in line for part in parts)), None)
            self.assertIsNotNone(command, f"the README has no command with {parts}")
            shown.remove(command)
            return command.replace(_URL, self.server.url).replace(_EPOCH, epoch)

        published = json.loads(await self.answer(take("/api/v1/publish")))
        epoch = published["result"]["epoch"]
        self.assertEqual(published, {"result": {"epoch": epoch, "offset": 1}})

        earliest = self.start(take("-N ", "/sse", "since=earliest"))
        await earliest.says(rf'id: {epoch}:0\n(.|\n)*\n\nid: {epoch}:1\ndata: {{"hello": "world"}}\n\n'.encode())

        short = await self.answer(take("-i ", "timeout=0"))
        self.assertTrue(short.startswith("HTTP/1.1 200 "), short)
        self.assertIn(f'etag: "{epoch}:1"\r\n', short.lower())
        not_modified = await self.answer(take("-i ", "timeout=0", "If-None-Match"))
        self.assertTrue(not_modified.startswith("HTTP/1.1 304 "), not_modified)

        resumed = self.start(take("-N ", "/sse", "Last-Event-ID"))
        await resumed.says(rf"id: {epoch}:1\n(.|\n)*\n\n".encode())
        poll = self.start(take("/poll", "cursor=", "timeout=20"))
        await self.subscribed(3)
        emitted = json.loads(await self.answer(take("/emit")))
        self.assertEqual(emitted, {"publish": {"epoch": epoch, "offset": 2}})
        for stream in (earliest, resumed):
            await stream.says(rf"id: {epoch}:2\ndata: from a client\n\n".encode())
        self.assertNotIn(b"hello", resumed.out)
        self.assertEqual(await soon(poll.ended()), 0, poll)
        answer = json.loads(poll.out)
        self.assertEqual([message["data"] for message in answer["messages"]], ["from a client"])
        self.assertEqual((answer["cursor"], answer["recovered"]), (f"{epoch}:2", True))

        terms = json.loads(await self.answer(take("/negotiate", "direction=push")))
        self.assertEqual([offer["transport"] for offer in terms["transports"]], ["sse", "websocket", "longpoll"])
        self.assertEqual(shown, [], "these commands of the README are not tested here")


class DemoTests(_CurlTests):
    """The demo page: the lines that it shows to copy."""

    async def test_every_line(self) -> None:
        """Each line does what its title says."""
        script = (
            "const [module, root, channel] = process.argv.slice(1);"
            "import(module).then(({ curlLines }) => console.log(JSON.stringify(curlLines(root, channel))));"
        )
        module = (_STATIC / "demo" / "terminal.js").as_uri()
        node = Process(self, [program("node"), "--input-type=module", "-e", script, module, self.server.url, _CHANNEL])
        self.assertEqual(await soon(node.ended()), 0, node)
        lines = dict(json.loads(node.out))
        stream = self.start(lines.pop("Listen"))
        await stream.says(b"event: open\n")
        for title in ("Publish, as your backend does", "Publish, as a client does"):
            self.assertIn('"offset":', await self.answer(lines.pop(title)))
        await stream.says(b'(event: greeting\ndata: {"text":"hello from curl"}\n\n(.|\n)*){2}')
        poll = json.loads(await self.answer(lines.pop("Poll, from the oldest kept")))
        self.assertEqual([message["offset"] for message in poll["messages"]], [1, 2])
        self.assertEqual(lines, {}, "these lines of the page are not tested here")
