"""Tests of rtpush.cli.publish."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rtpush.cli.publish import payload_of
from rtpush.protocol.message import Kind, Payload
from tests.cli.program import KEY, ProgramCase
from tests.support.waiting import soon


class PayloadTests(SynchronousTestCase):
    """What the command makes of its input."""

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
            self.assertEqual(payload_of(line, False), payload)
            self.assertEqual(payload_of(line, True), Payload(line, Kind.TEXT))

    def test_not_utf_8(self) -> None:
        """Bytes that are no text are refused, not changed."""
        for as_text in (False, True):
            self.assertIn("not UTF-8", str(payload_of(b"a\xff", as_text)))


class PublishTests(ProgramCase):
    """``rtpush publish``."""

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
        self.assertEqual(await soon(process.ended()), 4)
        self.assertIn(b"rtpush: line 1: ", process.err)

    async def test_key(self) -> None:
        """With a key messages go by the server API, one or many."""
        process = await self.run_it("publish", "default", "1", "--key", KEY)
        self.assertEqual(process.code, 0)
        process = self.start("publish", "default", "--key", KEY)
        process.send(b"2\n3\n")
        process.transport.closeStdin()
        self.assertEqual((await soon(process.ended()), process.err), (0, b"2 published\n"))
        process = await self.run_it("subscribe", "default", "--since", "earliest", "--count", "3")
        self.assertEqual(process.out, b"1\n2\n3\n")
        process = await self.run_it("publish", "default", "1", "--key", "wrong")
        self.assertEqual((process.code, process.err.count(b"\n")), (4, 1))

    async def test_failures(self) -> None:
        """What goes wrong is one line; the exit code tells a server that is away from one that refuses."""
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
            (("publish", "default", "1"), None, b"only the server API may"),
            (("publish", "demo:a", "1", "--event", "gap"), None, b"reserved"),
        ):
            process = await self.run_it(*arguments, url=url)
            self.assertEqual((process.code, process.out), (4 if url is None else 3, b""))
            self.assertIn(told, process.err)
            self.assertEqual(process.err.count(b"\n"), 1, process.err)

    async def test_file(self) -> None:
        """A file is read like standard input; as a whole it is one message, with its line breaks."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(b"one\n2\n")
        process = await self.run_it("publish", "demo:file", "--file", str(path), "--json")
        self.assertEqual([json.loads(line).get("offset") for line in process.out.splitlines()], [1, 2, None])
        self.assertEqual(json.loads(process.out.splitlines()[-1]), {"published": 2, "failed": 0})
        process = await self.run_it("publish", "demo:whole", "--file", str(path), "--whole", "--text", "--json")
        self.assertEqual(json.loads(process.out)["offset"], 1)
        process = await self.run_it("history", "demo:whole", "--key", KEY, "--json")
        self.assertEqual(json.loads(process.out)["messages"][0]["data"], "one\n2\n")

    async def test_binary(self) -> None:
        """Bytes that are no text can be published as such."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(b"\xff\x00")
        process = await self.run_it("publish", "demo:bytes", "--file", str(path), "--whole", "--binary")
        self.assertEqual(process.code, 0)
        process = await self.run_it("subscribe", "demo:bytes", "--since", "earliest", "--count", "1")
        self.assertEqual(process.out, b"/wA=\n")

    async def test_no_file(self) -> None:
        """A file that is not there is a wrong command line."""
        process = await self.run_it("publish", "demo:a", "--file", "nowhere")
        self.assertEqual(process.code, 2)
        self.assertIn(b"nowhere: No such file", process.err)
