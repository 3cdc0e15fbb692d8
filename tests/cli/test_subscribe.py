"""Tests of rtpush.cli.subscribe."""

from __future__ import annotations

import json
import shlex
import signal

from tests.cli.program import ROOT, ProgramCase
from tests.support.processes import Process
from tests.support.waiting import soon, until


class SubscribeTests(ProgramCase):
    """``rtpush subscribe``."""

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

    async def test_twice(self) -> None:
        """A channel that is named twice is a wrong command line too."""
        process = await self.run_it("subscribe", "demo:a", "demo:a")
        self.assertEqual(process.code, 2)
        self.assertIn(b"already subscribed to demo:a", process.err)

    async def test_subscribe_to_nothing(self) -> None:
        """When all channels are refused the command ends; while one is left it goes on."""
        process = await self.run_it("subscribe", "nowhere:a")
        self.assertEqual(process.code, 4)
        self.assertIn(b"rtpush: nowhere:a: unknown channel", process.err)
        process = self.start("subscribe", "nowhere:a", "demo:a")
        await process.says(rb"unknown channel")
        await self.run_it("publish", "demo:a", "1")
        await process.says(rb"^demo:a\t1\n")
        process.signal(signal.SIGINT)
        self.assertEqual(await soon(process.ended()), 4)

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
        command = shlex.join(self.command_of("subscribe", "demo:a"))
        process = Process(self, ["/bin/sh", "-c", f"{{ {command}; echo code $? >&2; }} | head -n 1"], cwd=str(ROOT))
        await process.says(rb"connected")
        await until(lambda: "demo:a" in self.node.channels, "the channel")
        await self.run_it("publish", "demo:a", "1")
        await process.says(rb"code 0\n")
        self.assertEqual(process.out, b"1\n")
        self.assertNotIn(b"Error", process.err)

    async def test_reader_goes_in_silence(self) -> None:
        """No message need come for that to be seen."""
        command = shlex.join(self.command_of("subscribe", "demo:a"))
        process = Process(self, ["/bin/sh", "-c", f"{{ {command}; echo code $? >&2; }} | true"], cwd=str(ROOT))
        await process.says(rb"code 0\n")

    async def test_server_is_away(self) -> None:
        """A subscriber says that the server is away, and waits for it."""
        process = self.start("subscribe", "demo:a", url="http://127.0.0.1:1")
        await process.says(rb"rtpush: cannot reach http://127.0.0.1:1: connection refused; trying again in \d\.\d s\n")
        process.signal(signal.SIGINT)
        self.assertEqual(await soon(process.ended()), 0)
        self.assertNotIn(b"cursor", process.err)
