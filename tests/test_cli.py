"""Tests of rtpush.cli."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from io import StringIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush import __version__, cli
from rtpush.protocol.message import Kind, Payload
from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import load
from tests.support.processes import Process
from tests.support.waiting import soon, until

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
[server]
listen = tcp:0:interface=127.0.0.1
[api]
keys = correct-horse-battery
[namespace:demo]
history_size = 5000
publish = anyone
[namespace:default]
history_size = 100
"""


class PayloadTests(SynchronousTestCase):
    """What the command makes of its input, and how it prints messages."""

    def test_kinds(self) -> None:
        """JSON if it can be read as that, else text; everything is text if that is asked for."""
        for line, payload in (
            (b'{"a": 1.50}', Payload(b'{"a": 1.50}', Kind.JSON)),
            (b"42", Payload(b"42", Kind.JSON)),
            (b'"42"', Payload(b"42", Kind.TEXT)),
            (b"hello", Payload(b"hello", Kind.TEXT)),
            (b"1e999", Payload(b"1e999", Kind.TEXT)),
            (b"", Payload(b"", Kind.TEXT)),
        ):
            self.assertEqual(cli._payload(line, as_text=False), payload)
            self.assertEqual(cli._payload(line, as_text=True), Payload(line, Kind.TEXT))

    def test_not_utf_8(self) -> None:
        """Bytes that are no text are refused, not changed."""
        for as_text in (False, True):
            self.assertIn("not UTF-8", str(cli._payload(b"a\xff", as_text)))

    def test_lines(self) -> None:
        """Each kind is printed as one line, as near to what it was as that can be."""
        for payload, line in (
            (Payload(b'{"a": [1.50,\n 2]}', Kind.JSON), b'{"a":[1.50,2]}'),
            (Payload("snow ☃\tand tab".encode(), Kind.TEXT), "snow ☃\tand tab".encode()),
            (Payload(b"two\nlines", Kind.TEXT), b'"two\\nlines"'),
            (Payload(b"\x1b[2J", Kind.TEXT), b'"\\u001b[2J"'),
            (Payload(b"\0\xff", Kind.BINARY), b"AP8="),
        ):
            self.assertEqual(cli._one_line(payload), line)

    @given(st.text(st.characters(codec="utf-8")))
    def test_any_text(self, text: str) -> None:
        """Any text is one line without control characters, and can be read back."""
        line = cli._one_line(Payload(text.encode(), Kind.TEXT)).decode()
        self.assertEqual(len(line.splitlines() or [""]), 1)
        self.assertTrue(all(character >= " " or character == "\t" for character in line))
        self.assertTrue(line == text or json.loads(line) == text)


class UsageTests(SynchronousTestCase):
    """Command lines that are wrong."""

    def test_usage(self) -> None:
        """A command line that is wrong is exit code 2, and says how it is right."""
        for arguments, told in (
            ("", "COMMAND"),
            ("publish", "CHANNEL"),
            ("publish demo:a 1 --url ftp://x", "bad URL"),
            ("subscribe a,b", "bad channel name"),
            ("subscribe a b --cursor k3f9:1", "1 positions for 2 channels"),
            ("subscribe a --cursor k3f9:1 --since earliest", "not allowed with"),
            ("subscribe a --transport pigeon", "pigeon"),
            ("subscribe a --count 0", "not a positive number"),
        ):
            with self.subTest(arguments=arguments):
                self.patch(sys, "stderr", StringIO())
                self.patch(sys, "stdout", StringIO())
                exited = self.assertRaises(SystemExit, cli.main, arguments.split())
                self.assertEqual((exited.code, sys.stdout.getvalue()), (2, ""))
                self.assertIn(told, sys.stderr.getvalue())


class ProgramTests(TestCase):
    """The command as users run it, against a node in this process."""

    timeout = 60

    async def setUp(self) -> None:
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

    def _command(self, *arguments: str, url: str | None = None) -> list[str]:
        """Return the command line."""
        command = [sys.executable, "-c", "from rtpush.cli import main; main()", *arguments]
        return command if arguments == ("--version",) else [*command, "--url", url or self.url]

    def start(self, *arguments: str, url: str | None = None) -> Process:
        """Start the command."""
        return Process(self, self._command(*arguments, url=url), cwd=str(ROOT))

    async def run_it(self, *arguments: str, url: str | None = None) -> Process:
        """Run the command to its end; nothing that it says is a traceback."""
        process = self.start(*arguments, url=url)
        await soon(process.ended())
        self.assertNotIn(b"Traceback", process.out + process.err)
        return process

    async def test_version(self) -> None:
        """The version is that of the package."""
        process = await self.run_it("--version")
        self.assertEqual((process.code, process.out), (0, f"rtpush {__version__}\n".encode()))

    async def test_there_and_back(self) -> None:
        """What is published is what a subscriber prints, over each transport; the cursor goes on from there."""
        first = await self.run_it("publish", "demo:a", '{"eur": 41.2}', "--event", "price")
        self.assertEqual(first.code, 0)
        second = await self.run_it("publish", "demo:a", "hello")
        position = second.out.decode().strip()
        for transport in ("websocket", "sse", "longpoll", "shortpoll"):
            process = await self.run_it(
                "subscribe", "demo:a", "--since", "earliest", "--count", "2", "--transport", transport
            )
            self.assertEqual((process.code, process.out), (0, b'{"eur":41.2}\nhello\n'))
            self.assertIn(f"connected over {transport}\ncursor: {position}\n".encode(), process.err)
        process = await self.run_it(
            "subscribe", "demo:a", "--cursor", first.out.decode().strip(), "--count", "1", "--json"
        )
        epoch, offset = position.split(":")
        self.assertEqual(
            json.loads(process.out), {"channel": "demo:a", "offset": int(offset), "epoch": epoch, "data": "hello"}
        )

    async def test_standard_input(self) -> None:
        """Lines of standard input are published in their order as they come, and counted at the end."""
        process = self.start("publish", "demo:lines")
        subscriber = self.start("subscribe", "demo:lines", "--since", "earliest", "--count", "3001")
        process.send(b"first\n")
        await subscriber.says(rb"^first\n")
        process.send(b"".join(b"%d\n" % number for number in range(3000)))
        process.transport.closeStdin()
        self.assertEqual((await soon(process.ended()), process.err), (0, b"3001 published\n"))
        self.assertEqual(await soon(subscriber.ended()), 0)
        self.assertEqual(subscriber.out.splitlines()[1:], [b"%d" % number for number in range(3000)])

    async def test_some_lines_fail(self) -> None:
        """A line that cannot be published is told and counted, and the others are published."""
        process = self.start("publish", "demo:lines")
        process.send(b"one\n\xff\nthree\n")
        process.transport.closeStdin()
        self.assertEqual(await soon(process.ended()), 1)
        self.assertIn(b"line 2: not UTF-8", process.err)
        self.assertTrue(process.err.endswith(b"2 published, 1 not\n"), process.err)

    async def test_hopeless_lines(self) -> None:
        """An error that holds for all lines ends the command, though its input is open."""
        process = self.start("publish", "default")
        process.send(b"one\n")
        self.assertEqual(await soon(process.ended()), 1)
        self.assertIn(b"rtpush: line 1: ", process.err)

    async def test_key(self) -> None:
        """With a key messages go by the server API, one or many."""
        process = await self.run_it("publish", "default", "1", "--key", "correct-horse-battery")
        self.assertEqual(process.code, 0)
        process = self.start("publish", "default", "--key", "correct-horse-battery")
        process.send(b"2\n3\n")
        process.transport.closeStdin()
        self.assertEqual((await soon(process.ended()), process.err), (0, b"2 published\n"))
        process = await self.run_it("subscribe", "default", "--since", "earliest", "--count", "3")
        self.assertEqual(process.out, b"1\n2\n3\n")
        process = await self.run_it("publish", "default", "1", "--key", "wrong")
        self.assertEqual((process.code, process.err.count(b"\n")), (1, 1))

    async def test_failures(self) -> None:
        """What goes wrong is one line and exit code 1."""
        nowhere = "http://127.0.0.1:1/"
        for arguments, url, told in (
            (("publish", "demo:a", "1"), nowhere, b"cannot reach http://127.0.0.1:1/: connection refused"),
            (
                ("publish", "demo:a", "1", "--key", "k"),
                nowhere,
                b"cannot reach http://127.0.0.1:1/: connection refused",
            ),
            (("publish", "nowhere:a", "1"), None, b"unknown channel"),
            (("publish", "a b", "1"), None, b"bad channel"),
            (("publish", "default", "1"), None, b"may not publish"),
            (("publish", "demo:a", "1", "--event", "gap"), None, b"reserved"),
        ):
            process = await self.run_it(*arguments, url=url)
            self.assertEqual((process.code, process.out), (1, b""))
            self.assertIn(told, process.err)
            self.assertEqual(process.err.count(b"\n"), 1, process.err)

    async def test_twice(self) -> None:
        """A channel that is named twice is a wrong command line too."""
        process = await self.run_it("subscribe", "demo:a", "demo:a")
        self.assertEqual(process.code, 2)
        self.assertIn(b"already subscribed to demo:a", process.err)

    async def test_subscribe_to_nothing(self) -> None:
        """When all channels are refused the command ends; while one is left it goes on."""
        process = await self.run_it("subscribe", "nowhere:a")
        self.assertEqual(process.code, 1)
        self.assertIn(b"rtpush: nowhere:a: unknown channel", process.err)
        process = self.start("subscribe", "nowhere:a", "demo:a")
        await process.says(rb"unknown channel")
        await self.run_it("publish", "demo:a", "1")
        await process.says(rb"^demo:a\t1\n")
        process.signal(signal.SIGINT)
        self.assertEqual(await soon(process.ended()), 1)

    async def test_interrupted(self) -> None:
        """Ctrl-C ends a subscriber in good order, with the cursor to go on from."""
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start("subscribe", "demo:a", "demo:b")
            await process.says(rb"connected over websocket\n")
            await until(lambda: {"demo:a", "demo:b"} <= set(self.node.channels), "both channels")
            published = await self.run_it("publish", "demo:b", "1")
            await process.says(rb"^demo:b\t1\n")
            process.signal(number)
            self.assertEqual(await soon(process.ended()), 0)
            self.assertRegex(process.err.decode(), rf"\ncursor: \w+:0,{published.out.decode().strip()}\n$")

    async def test_reader_goes(self) -> None:
        """When nobody reads its output any more the command ends without a word."""
        command = shlex.join(self._command("subscribe", "demo:a"))
        process = Process(self, ["/bin/sh", "-c", f"{{ {command}; echo code $? >&2; }} | head -n 1"], cwd=str(ROOT))
        await process.says(rb"connected")
        await until(lambda: "demo:a" in self.node.channels, "the channel")
        await self.run_it("publish", "demo:a", "1")
        await process.says(rb"code 0\n")
        self.assertEqual(process.out, b"1\n")
        self.assertNotIn(b"Error", process.err)

    async def test_reader_goes_in_silence(self) -> None:
        """No message need come for that to be seen."""
        command = shlex.join(self._command("subscribe", "demo:a"))
        process = Process(self, ["/bin/sh", "-c", f"{{ {command}; echo code $? >&2; }} | true"], cwd=str(ROOT))
        await process.says(rb"code 0\n")

    async def test_server_is_away(self) -> None:
        """A subscriber says that the server is away, and waits for it."""
        process = self.start("subscribe", "demo:a", url="http://127.0.0.1:1")
        await process.says(rb"rtpush: cannot reach http://127.0.0.1:1: connection refused; trying again in \d\.\d s\n")
        process.signal(signal.SIGINT)
        self.assertEqual(await soon(process.ended()), 0)
        self.assertNotIn(b"cursor", process.err)
