"""Tests of rtpush.cli.plan, rtpush.cli.simulate and rtpush.cli.token: what needs no server."""

from __future__ import annotations

import json
from pathlib import Path

from rtpush.planning.figures import SHIPPED, dump, load
from tests.cli.program import ProgramCase

AUTH_KEY = "k1 HS256 0123456789abcdef0123456789abcdef"


class PlanTests(ProgramCase):
    """``rtpush plan``."""

    async def test_million(self) -> None:
        """A million users with short polls are 200,000 requests a second; the figures say that they are not ours."""
        process = await self.run_it("plan", "--users", "1e6", "--transport", "all")
        self.assertEqual(process.code, 0)
        self.assertRegex(process.out, rb"requests a second .* 200,000\n")
        self.assertRegex(process.out, rb"their headers .* 152\.6 MiB/s\n")
        self.assertIn(b"these are not this machine's", process.out)

    async def test_figures(self) -> None:
        """Figures from a file are used as they are."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(dump(SHIPPED).replace(SHIPPED.date.encode(), b"2020-02-02"))
        process = await self.run_it("plan", "--figures", str(path), "--transport", "sse", "--json")
        plan = json.loads(process.out)
        self.assertEqual((plan["measured"], plan["figures"]["date"]), (True, "2020-02-02"))
        self.assertEqual([need["transport"] for need in plan["needs"]], ["sse"])

    async def test_measure(self) -> None:
        """This machine is measured: what comes out is written, can be read, and is of a plausible size."""
        path = Path(self.mktemp()).absolute()
        process = self.start("plan", "--measure", "--figures", str(path), "--json")
        await process.says(rb"\n", 170.0)
        figures = load(path.read_bytes())
        self.assertEqual(json.loads(process.out)["figures"]["date"], figures.date)
        for name, costs in figures.costs.items():
            self.assertTrue(100 < costs.memory < 40_000, (name, costs))
            self.assertTrue(1e-6 < costs.opening < 0.01, (name, costs))
            self.assertTrue(1e-7 < costs.delivery < 0.005, (name, costs))

    test_measure.timeout = 180  # type: ignore[attr-defined]


class SimulateTests(ProgramCase):
    """``rtpush simulate``."""

    async def test_storm(self) -> None:
        """It prints bars and a summary, and draws; the same seed has the same result."""
        path = Path(self.mktemp()).absolute()
        arguments = ("simulate", "storm", "--clients", "2e3", "--nodes", "2", "--connect-rate", "100")
        process = await self.run_it(*arguments, "--output", str(path))
        self.assertEqual((process.code, process.err), (0, b""))
        self.assertIn("without jitter", process.out.decode())
        self.assertTrue(path.read_text().startswith("<svg"))
        first = await self.run_it(*arguments, "--json")
        second = await self.run_it(*arguments, "--json")
        self.assertEqual(first.out, second.out)
        result = json.loads(first.out)
        self.assertLess(result["with_jitter"]["peak"], result["without_jitter"]["peak"])

    async def test_drain(self) -> None:
        """A rolling restart loses nobody."""
        process = await self.run_it("simulate", "drain", "--clients", "2e3", "--json")
        self.assertEqual(json.loads(process.out)["with_jitter"]["unreachable"], 0)

    async def test_no_folder(self) -> None:
        """A drawing that cannot be written is one line."""
        process = await self.run_it("simulate", "storm", "--clients", "10", "--output", "nowhere/x.svg")
        self.assertEqual((process.code, process.err), (1, b"rtpush: nowhere/x.svg: No such file or directory\n"))


class TokenTests(ProgramCase):
    """``rtpush token``."""

    async def test_there_and_back(self) -> None:
        """What is made is found good, with what it grants."""
        process = await self.run_it(
            *("token", "make", "--auth-key", AUTH_KEY, "--user", "alice", "--expires", "60"),
            *("--channel", "chat:*=subscribe,publish", "--channel", "news", "--info", '{"n":1}', "--claim", "x=[1]"),
        )
        self.assertEqual((process.code, process.err), (0, b""))
        token = process.out.decode().strip()
        process = await self.run_it("token", "check", "--auth-key", AUTH_KEY, token)
        self.assertEqual(process.code, 0)
        self.assertRegex(process.out, rb"user +alice\nin chat:\* +subscribe, publish\nin news +subscribe\n")
        process = await self.run_it("token", "check", "--json", "--auth-key", AUTH_KEY, token)
        self.assertEqual(json.loads(process.out)["claims"]["x"], [1])
        other = AUTH_KEY.replace("0123", "3210")
        process = await self.run_it("token", "check", "--auth-key", other, token)
        self.assertEqual((process.code, process.err), (4, b"rtpush: the token's signature is not that of its key\n"))

    async def test_of_a_configuration(self) -> None:
        """The keys and rules can be those of a configuration; a token that it would refuse is not made."""
        path = Path(self.mktemp()).absolute()
        path.write_text(
            "[server]\nlisten = tcp:0:interface=127.0.0.1\n[namespace:default]\n"
            f"[auth]\nkeys = {AUTH_KEY}\nissuer = us\n"
        )
        made = await self.run_it("token", "make", "--config", str(path), "--json")
        self.assertEqual(json.loads(made.out)["claims"]["iss"], "us")
        process = await self.run_it("token", "check", "--config", str(path), json.loads(made.out)["token"])
        self.assertEqual(process.code, 0)
        process = await self.run_it("token", "make", "--config", str(path), "--claim", 'iss="them"')
        self.assertEqual(process.code, 1)
        self.assertIn(b"this token would be refused: the token's issuer", process.err)

    async def test_calls(self) -> None:
        """One for the server API names the calls that it opens."""
        process = await self.run_it(
            *("token", "make", "--json", "--auth-key", AUTH_KEY, "--api", "publish, history", "--channel", "a=publish")
        )
        made = json.loads(process.out)
        self.assertEqual(made["claims"]["api"], ["publish", "history"])
        process = await self.run_it("token", "check", "--auth-key", AUTH_KEY, made["token"])
        self.assertRegex(process.out, rb"in a +publish\ncalls +history, publish\n")
        process = await self.run_it("token", "make", "--auth-key", AUTH_KEY, "--api", "publish,")
        self.assertEqual(process.code, 2)
        self.assertIn(b"expected names of calls", process.err)
        process = await self.run_it("token", "make", "--auth-key", AUTH_KEY, "--api", "*", "--only-channel", "a")
        self.assertEqual(process.code, 1)

    async def test_no_key(self) -> None:
        """A key that is not there, or cannot be used, is told without the key."""
        process = await self.run_it("token", "make", "--auth-key", "k1 HS256 secret")
        self.assertEqual(process.code, 2)
        self.assertIn(b"too short for HS256", process.err)
        process = await self.run_it("token", "make", "--auth-key", AUTH_KEY, "--key-id", "k2")
        self.assertEqual((process.code, process.err), (1, b"rtpush: no key has the id 'k2' and can sign\n"))
