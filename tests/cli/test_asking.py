"""Tests of rtpush.cli.asking: what asks the server API."""

from __future__ import annotations

import json
import signal

from tests.cli.program import KEY, SECRET, ProgramCase
from tests.support.waiting import soon, until


class AskingTests(ProgramCase):
    """Each question has an answer for people and one in JSON."""

    async def ask(self, *arguments: str) -> bytes:
        """Run a command that succeeds."""
        process = await self.run_it(arguments[0], "--key", KEY, *arguments[1:])
        self.assertEqual((process.code, process.err), (0, b""))
        return process.out

    async def test_subscribers(self) -> None:
        """Channels, connections and nodes are listed; a connection can be ended."""
        subscriber = self.start("subscribe", "demo:a")
        await until(lambda: "demo:a" in self.node.channels, "the channel", 40.0)
        self.assertRegex(await self.ask("channels"), rb"^CHANNEL +SUBSCRIBERS\ndemo:a +1\n$")
        self.assertEqual(json.loads(await self.ask("channels", "x:*", "--json")), {"channels": {}})
        listed = json.loads(await self.ask("connections", "--channel", "demo:a", "--json"))
        self.assertEqual((listed["total"], listed["connections"][0]["transport"]), (1, "websocket"))
        self.assertIn(listed["connections"][0]["connection"].encode(), await self.ask("connections"))
        self.assertEqual(json.loads(await self.ask("info", "--json"))["nodes"][0]["connections"], 1)
        self.assertIn(b"websocket:1", await self.ask("info"))
        # An id may begin with a hyphen.
        gone = await self.ask("disconnect", "--reason", "enough", "--", listed["connections"][0]["connection"])
        self.assertEqual(gone, b"1 disconnected\n")
        self.assertEqual(await soon(subscriber.ended()), 4)
        self.assertIn(b"enough", subscriber.err)

    async def test_by_channel(self) -> None:
        """All that follow a channel can be disconnected, to come back; and unsubscribed."""
        subscriber = self.start("subscribe", "demo:a")
        await until(lambda: "demo:a" in self.node.channels, "the channel", 40.0)
        self.assertEqual(await self.ask("disconnect", "--channel", "demo:a", "--reconnect"), b"1 disconnected\n")
        await subscriber.says(rb"connected over websocket \(")
        self.assertEqual(await self.ask("unsubscribe", "demo:a", "--json"), b'{"unsubscribed":1}\n')
        self.assertEqual(await soon(subscriber.ended()), 4)

    async def test_tokens(self) -> None:
        """What a token permits can be done with it, until it is taken back."""
        permitted = ("--user", "ann", "--channel", "rights:*=subscribe,publish")
        maker = await self.run_it("token", "make", "--auth-key", f"cli HS256 {SECRET}", *permitted)
        token = maker.out.decode().strip()
        process = await self.run_it("publish", "rights:a", "1")
        self.assertEqual(process.code, 4)
        self.assertIn(b"a token is needed", process.err)
        process = await self.run_it("publish", "rights:a", "1", "--token", token)
        self.assertEqual(process.code, 0, process.err)
        subscriber = self.start("subscribe", "rights:a", "--token", token)
        await until(lambda: "rights:a" in self.node.channels, "the channel", 40.0)
        listed = json.loads(await self.ask("connections", "--user", "ann", "--json"))
        self.assertEqual([each["user"] for each in listed["connections"]], ["ann"])
        self.assertIn(b"ann", await self.ask("presence", "rights:a"))
        self.assertRegex(await self.ask("revoke", "--user", "ann", "--ttl", "60"), rb"^revoked until 20\d\d-.*Z\n$")
        self.assertEqual(await soon(subscriber.ended()), 4)
        self.assertIn(b"token_revoked", subscriber.err)
        process = await self.run_it("subscribe", "rights:a", "--token", token)
        self.assertEqual(process.code, 4)
        self.assertIn(b"taken back", process.err)
        self.assertEqual(await self.ask("disconnect", "--user", "ann"), b"0 disconnected\n")

    async def test_history(self) -> None:
        """What a channel keeps is printed with its positions."""
        for data in ("1", "two"):
            await self.ask("publish", "demo:a", data)
        self.assertRegex(await self.ask("history", "demo:a"), rb"^\w+:1\t1\n\w+:2\ttwo\n$")
        page = json.loads(await self.ask("history", "demo:a", "--reverse", "--limit", "1", "--json"))
        self.assertEqual((page["offset"], [each["data"] for each in page["messages"]]), (2, ["two"]))

    async def test_refused(self) -> None:
        """Without a good key the answer is one line and exit code 4; without a server, 3; without the one meant, 1."""
        process = await self.run_it("info", "--key", "wrong")
        self.assertEqual((process.code, process.out, process.err.count(b"\n")), (4, b"", 1))
        process = await self.run_it("info", url="http://127.0.0.1:1")
        self.assertEqual(process.code, 3)
        self.assertIn(b"cannot reach http://127.0.0.1:1: connection refused\n", process.err)
        process = await self.run_it("disconnect", "nobody", "--key", KEY)
        self.assertEqual((process.code, process.out), (1, b"0 disconnected\n"))
        self.assertIn(b"there is no connection 'nobody'", process.err)

    async def test_no_presence(self) -> None:
        """What a namespace does not have is refused."""
        process = await self.run_it("presence", "default", "--key", KEY)
        self.assertEqual(process.code, 4)


class TopTests(ProgramCase):
    """``rtpush top``."""

    async def test_once(self) -> None:
        """Two looks make rates, which are printed without control sequences where nobody sees them."""
        process = await self.run_it("top", "--once", "--interval", "0.2", "--key", KEY)
        self.assertEqual(process.code, 0)
        self.assertIn(b"0 connections", process.out)
        self.assertIn(b"published 0/s", process.out)
        self.assertNotIn(b"\x1b", process.out)

    async def test_json_and_interrupted(self) -> None:
        """Each look is a line of JSON, and Ctrl-C is how it ends well."""
        process = self.start("top", "--json", "--interval", "0.2", "--key", KEY)
        await process.says(rb"\n.*\n")
        look = json.loads(process.out.splitlines()[1])
        self.assertEqual((look["connections"], look["rates"]["published"]), (0, 0.0))
        process.signal(signal.SIGINT)
        self.assertEqual(await soon(process.ended()), 0)

    async def test_no_server(self) -> None:
        """Where there is no server there is nothing to show."""
        process = await self.run_it("top", url="http://127.0.0.1:1")
        self.assertEqual((process.code, process.out), (3, b""))
