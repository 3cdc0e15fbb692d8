"""Tests of rtpush.cli.check."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from rtpush.cli.checkconfig import ConfigCheck
from rtpush.cli.findings import Findings
from tests.cli.program import CONFIG, KEY, ProgramCase


def certificate(path: str, ends_in_days: float) -> None:
    """Write a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=ends_in_days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    Path(path).write_bytes(private + made.public_bytes(serialization.Encoding.PEM))


class ConfigTests(TestCase):
    """A configuration file, before it is used."""

    async def check(self, text: str, *, connect: bool = False) -> dict[str, tuple[str, str]]:
        """Return the verdict and the details of each finding."""
        path = Path(self.mktemp())
        path.write_text(text)
        findings = Findings()
        await ConfigCheck(reactor, str(path), findings, connect=connect).run()
        return {each.what.split("/")[0]: (each.verdict.value, each.detail) for each in findings.all}

    async def test_good(self) -> None:
        """One that is good has no findings but good ones, and listens nowhere after the check."""
        found = await self.check(CONFIG)
        self.assertEqual(found["listen tcp:0:interface=127.0.0.1"][0], "ok")
        self.assertEqual(found["server API"], ("ok", "1 keys"))
        self.assertNotIn("failed", [verdict for verdict, _ in found.values()])

    async def test_mistake(self) -> None:
        """A mistake is told as starting tells it."""
        found = await self.check(CONFIG.replace("history_size", "histroy_size"))
        self.assertEqual(list(found), ["configuration"])
        self.assertIn("histroy_size: unknown key; did you mean history_size?", found["configuration"][1])

    async def test_address(self) -> None:
        """A port that is taken may be the server's own; an address that is not of this machine is wrong."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        taken = f"tcp:{port.getHost().port}:interface=127.0.0.1"
        found = await self.check(CONFIG.replace("tcp:0:interface=127.0.0.1", f"{taken}\n    tcp:0:interface=192.0.2.1"))
        self.assertEqual(found[f"listen {taken}"], ("warning", "cannot listen: Address already in use"))
        self.assertEqual(found["listen tcp:0:interface=192.0.2.1"][0], "failed")

    async def test_certificates(self) -> None:
        """A certificate that has expired is wrong, and one that soon will is told."""
        for days, verdict, told in ((-1, "failed", "expired"), (3, "warning", "expires"), (90, "ok", "is valid")):
            path = str(Path(self.mktemp()).absolute())
            certificate(path, days)
            address = f"ssl:0:privateKey={path}:interface=127.0.0.1"
            found = await self.check(CONFIG.replace("tcp:0:interface=127.0.0.1", address))
            self.assertEqual(found["certificate "][0], verdict)
            self.assertIn(told, found["certificate "][1])

    async def test_redis(self) -> None:
        """Redis is connected to if that is asked for; one that is not there is wrong."""
        text = CONFIG + "[broker]\nengine = redis\n[redis]\nurl = redis://127.0.0.1:1/0\n"
        self.assertEqual((await self.check(text))["Redis"][0], "ok")
        verdict, detail = (await self.check(text, connect=True))["Redis 127.0.0.1:1"]
        self.assertEqual((verdict, detail), ("failed", "cannot connect: Connection refused"))

    async def test_closed(self) -> None:
        """A server that nobody can publish to, or without channels, is told."""
        found = await self.check("[server]\nlisten = tcp:0:interface=127.0.0.1\n")
        self.assertEqual((found["server API"][0], found["namespaces"][0]), ("warning", "warning"))


class _Side(Protocol):
    """One side of a connection through a proxy."""

    other: _Side | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()


class _ServerSide(_Side):
    """What comes from the server, which is kept while it is an event stream."""

    def __init__(self, client: _Side) -> None:
        self.other = client
        self._kept: list[bytes] = []

    def connectionMade(self) -> None:
        assert isinstance(self.other, _ClientSide)
        self.other.joined(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.other is not None and self.other.transport is not None
        head, end, rest = data.partition(b"\r\n\r\n")
        if self._kept or b"text/event-stream" in head:
            # The head goes on, the body does not until it is complete, which it never is.
            if not self._kept:
                self.other.transport.write(head + end)
            self._kept.append(rest)
        else:
            self.other.transport.write(data)


class _ClientSide(_Side):
    """What comes from the client goes on, when there is a connection to the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        factory = ClientFactory()
        factory.noisy = False
        side = self

        def build(address: Any) -> Protocol:
            return _ServerSide(side)

        factory.buildProtocol = build  # type: ignore[method-assign]
        reactor.connectTCP("127.0.0.1", self._port, factory)

    def joined(self, server: _ServerSide) -> None:
        self.other = server
        assert server.transport is not None
        server.transport.write(b"".join(self._early))

    def dataReceived(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)


class ServerTests(ProgramCase):
    """A server that runs, from the command's side of all that is between."""

    async def test_good(self) -> None:
        """Each transport is tried end to end, with messages."""
        process = await self.run_it("check", "--channel", "demo:check", "--json", "--timeout", "20")
        found = {each["what"]: each for each in json.loads(process.out)["findings"]}
        self.assertEqual(process.code, 0, process.out)
        for name in ("/healthz", "/readyz", "/negotiate", "publish"):
            self.assertEqual(found[name]["verdict"], "ok")
        for name in ("websocket", "sse", "longpoll", "shortpoll"):
            self.assertIn("delivery", found[name]["seconds"])
        self.assertEqual(found["nodes"]["detail"], "not asked: give a --key for that")

    async def test_nodes(self) -> None:
        """With a key the nodes and their versions are told; without the right to publish the rest is."""
        process = await self.run_it("check", "--key", KEY, "--channel", "nowhere:a")
        self.assertIn(b"ok       nodes: 1: ", process.out)
        self.assertIn(b"warning  publish: nowhere:a", process.out)

    async def test_leaving(self) -> None:
        """A node that is not ready is wrong."""
        self.node.leaving = True
        process = await self.run_it("check", "--channel", "demo:check", "--timeout", "20")
        self.assertEqual(process.code, 1)
        self.assertIn(b"failed   /readyz: 503 this node is leaving", process.out)

    async def test_buffering_proxy(self) -> None:
        """A proxy that keeps event streams to itself is found out, and only for those."""
        factory = Factory()
        factory.buildProtocol = lambda address: _ClientSide(self.port.getHost().port)  # type: ignore[method-assign]
        proxy = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(proxy.stopListening)
        process = await self.run_it(
            "check", "--channel", "demo:check", "--timeout", "3", url=f"http://127.0.0.1:{proxy.getHost().port}"
        )
        self.assertEqual(process.code, 1, process.out)
        self.assertIn(b"failed   sse: opened, but nothing comes through within 3 s", process.out)
        self.assertIn(b"switch its buffering off", process.out)
        self.assertIn(b"ok       websocket", process.out)

    async def test_no_server(self) -> None:
        """Without a server the exit code is 3."""
        process = await self.run_it("check", url="http://127.0.0.1:1")
        self.assertEqual(process.code, 3)
        self.assertIn(b"failed   connection: cannot reach http://127.0.0.1:1: connection refused", process.out)


class BenchTests(ProgramCase):
    """``rtpush bench``."""

    async def test_all_transports(self) -> None:
        """Every connection of every transport gets each message once."""
        process = await self.run_it(
            *("bench", "--transport", "all", "--connections", "7", "--channels", "3", "--channel", "demo:bench"),
            *("--rate", "30", "--seconds", "0.5", "--interval", "0.1", "--json"),
        )
        self.assertEqual(process.code, 0, (process.out, process.err))
        results = json.loads(process.out)["results"]
        self.assertEqual([each["transport"] for each in results], ["websocket", "sse", "longpoll", "shortpoll"])
        for each in results:
            self.assertEqual((each["opened"], each["published"], each["lost"], each["repeated"]), (7, 15, 0, 0))
            # Of the seven connections three follow the first channel, and two each of the others; five messages each.
            self.assertEqual(each["received"], 35)
            self.assertGreater(each["latency"]["p50"], 0.0)

    async def test_refused(self) -> None:
        """Where nothing can be published there is no measurement."""
        process = await self.run_it("bench", "--channel", "nowhere:a")
        self.assertEqual((process.code, process.out), (4, b""))
        process = await self.run_it("bench", url="http://127.0.0.1:1")
        self.assertEqual((process.code, process.out), (3, b""))
