"""Real Redis servers that a test starts, each with a directory and a port of its own, and sentinels that watch them."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hiredis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.ports import reserved_port
from tests.support.processes import Process, program
from tests.support.waiting import soon, until

__all__ = ["RedisServer", "Sentinels"]


class RedisServer:
    """
    A Redis server on 127.0.0.1. It keeps nothing on disk, unless its options say so.

    :ivar port: Its port; 0 if it is at a Unix socket only.
    :ivar url: Its address, as a configuration writes it.
    :ivar process: Its process; another one after :meth:`restart`.
    :ivar directory: Where it keeps its files.
    :ivar password: The password that it asks for, or nothing.
    :ivar ca: The file of the authority of its certificate, if it speaks TLS; also that of its clients.
    :ivar certificate: The file of a certificate for its clients.
    :ivar key: The file of that certificate's private key.
    """

    process: Process

    def __init__(
        self, test: TestCase, options: Sequence[str], *, port: int, password: str, tls: bool, unix: bool
    ) -> None:
        self._test = test
        self._program = program("redis-server")
        self.directory = Path(tempfile.mkdtemp(prefix="rtpush-redis-"))
        test.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.port = port
        self.password = password
        self._tls = tls
        self._unix = unix
        self.ca, self.certificate, self.key = (str(self.directory / f"{name}.pem") for name in ("ca", "cert", "key"))
        if tls:
            _make_certificates(self.ca, self.certificate, self.key)
        self._options = [*self._place(), *options]

    @classmethod
    async def start(
        cls,
        test: TestCase,
        *options: str,
        port: int | None = None,
        password: str = "",
        tls: bool = False,
        unix: bool = False,
        replica_of: RedisServer | None = None,
    ) -> RedisServer:
        """
        Start one, with options such as ``"--appendonly", "yes"``.

        :param tls: Whether it speaks TLS alone, and wants certificates of its clients.
        :param unix: Whether it is at a Unix socket alone.
        :param replica_of: The server whose replica it is; it has the same password, and is in step when it has started.
        """
        if replica_of is not None:
            password = replica_of.password
            options = ("--replicaof", f"127.0.0.1 {replica_of.port}", "--masterauth", password, *options)
        if port is None:
            port = 0 if unix else reserved_port(test)
        server = cls(test, options, port=port, password=password, tls=tls, unix=unix)
        await server.restart()
        if replica_of is not None:
            await until(server._is_in_step, "the replica to be in step", seen=lambda: str(server.process))
        return server

    @property
    def url(self) -> str:
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        if self._unix:
            return f"unix://{credentials}{self.directory}/redis.sock"
        return f"{'rediss' if self._tls else 'redis'}://{credentials}127.0.0.1:{self.port}/0"

    async def command(self, *arguments: str | bytes | int) -> Any:
        """
        Run a command on a connection of its own; return its result, with bytes for strings.

        :raises hiredis.ReplyError: if it fails.
        """
        return await _ask(self._endpoint(), self.password, arguments)

    def pause(self) -> None:
        """Stop it where it is, with all its connections open, until :meth:`resume`."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.process.signal(signal.SIGKILL)
        await soon(self.process.ended())

    async def stop(self) -> None:
        """End it in good order."""
        self.resume()
        await self.process.stop()

    async def restart(self) -> None:
        """Start it anew where it was, with the same options; what still runs is ended in good order before."""
        if hasattr(self, "process"):
            await self.stop()
        self.process = Process(self._test, [self._program, *self._options])
        # One that is paused would not end when it is asked to, and one with replicas would wait for them.
        self._test.addCleanup(self.process.signal, signal.SIGKILL)
        await self.process.says(rb"Ready to accept connections|ready to accept connections at")

    def _place(self) -> list[str]:
        """Return the options that all servers have."""
        options = ["--dir", str(self.directory), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        # It would wait for more replicas before it brings the first in step.
        options += ["--repl-diskless-sync-delay", "0"]
        if _version(self._program) >= (7, 0):
            options += ["--enable-debug-command", "yes"]
        if self.password:
            options += ["--requirepass", self.password]
        if self._unix:
            options += ["--port", "0", "--unixsocket", str(self.directory / "redis.sock")]
        elif self._tls:
            options += ["--port", "0", "--tls-port", str(self.port), "--tls-ca-cert-file", self.ca]
            options += ["--tls-cert-file", self.certificate, "--tls-key-file", self.key]
        else:
            options += ["--port", str(self.port)]
        return options

    def _endpoint(self) -> Any:
        if self._unix:
            return UNIXClientEndpoint(reactor, str(self.directory / "redis.sock"))
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        if not self._tls:
            return endpoint
        own = Path(self.certificate).read_bytes() + Path(self.key).read_bytes()
        options = ssl.optionsForClientTLS(
            "127.0.0.1",
            trustRoot=ssl.Certificate.loadPEM(Path(self.ca).read_bytes()),
            clientCertificate=ssl.PrivateCertificate.loadPEM(own),
        )
        return wrapClientTLS(options, endpoint)

    async def _is_in_step(self) -> bool:
        return b"master_link_status:up" in await self.command("INFO", "replication")


class Sentinels:
    """
    Sentinels that watch a master and those replicas that it has when they start.

    :ivar ports: Where they are, on 127.0.0.1.
    """

    def __init__(self, test: TestCase, master: RedisServer, name: str, count: int) -> None:
        self._test = test
        self._name = name
        self._password = master.password
        self._directory = Path(tempfile.mkdtemp(prefix="rtpush-sentinels-"))
        test.addCleanup(shutil.rmtree, self._directory, ignore_errors=True)
        self.ports = [reserved_port(test) for _ in range(count)]

    @classmethod
    async def start(
        cls,
        test: TestCase,
        master: RedisServer,
        name: str = "mymaster",
        count: int = 3,
        quorum: int = 2,
        down_after_ms: int = 1000,
    ) -> Sentinels:
        """Start some; when this has a result they know each other and the replicas."""
        sentinels = cls(test, master, name, count)
        replicas = int(re.search(rb"connected_slaves:(\d+)", await master.command("INFO", "replication"))[1])  # type: ignore[index]
        for port in sentinels.ports:
            directory = sentinels._directory / str(port)
            directory.mkdir()
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {directory}",
                f"sentinel monitor {name} 127.0.0.1 {master.port} {quorum}",
                f"sentinel down-after-milliseconds {name} {down_after_ms}",
                f"sentinel failover-timeout {name} 10000",
            ]
            if master.password:
                lines.append(f"sentinel auth-pass {name} {master.password}")
            (file := directory / "sentinel.conf").write_text("\n".join([*lines, ""]))
            process = Process(test, [program("redis-server"), str(file), "--sentinel"])
            test.addCleanup(process.signal, signal.SIGKILL)
            await process.says(rb"\+monitor master")
        await until(
            lambda: sentinels._know(replicas, count - 1),
            "the sentinels to know each other",
        )
        return sentinels

    @property
    def url(self) -> str:
        """The address of the master that they watch, as a configuration writes it."""
        credentials = f":{quote(self._password, safe='')}@" if self._password else ""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{credentials}{hosts}/{self._name}/0"

    async def master_port(self) -> int:
        """Return where the master is, by the word of the first of them."""
        return await self._master_of(self.ports[0])

    async def failover(self) -> None:
        """
        Make a replica the master; when this has a result, all of them say so.

        The old master hears of it only after about ten seconds, and takes writes until then.
        """
        before = await self.master_port()
        await until(self._begin_failover, "the sentinels to begin")
        await self.replaced(before)

    async def replaced(self, before: int) -> None:
        """Wait until all of them say that another server than the one on a port is the master, and it is one."""
        await until(lambda: self._agree_on_another(before), "the sentinels to agree on a new master", 30)

    async def _begin_failover(self) -> bool:
        try:
            await self.command(self.ports[0], "SENTINEL", "FAILOVER", self._name)
        except hiredis.ReplyError as error:
            # They hear of the state of a replica now and then only.
            if not str(error).startswith("NOGOODSLAVE"):
                raise
            return False
        return True

    async def _agree_on_another(self, before: int) -> bool:
        masters = {await self._master_of(port) for port in self.ports}
        if len(masters) > 1 or before in masters:
            return False
        role = await _ask(TCP4ClientEndpoint(reactor, "127.0.0.1", masters.pop()), self._password, ["ROLE"])
        return bool(role[0] == b"master")

    async def command(self, port: int, *arguments: str) -> Any:
        """Run a command on one of them; return its result."""
        return await _ask(TCP4ClientEndpoint(reactor, "127.0.0.1", port), "", arguments)

    async def _master_of(self, port: int) -> int:
        _, master = await self.command(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        return int(master)

    async def _know(self, replicas: int, others: int) -> bool:
        for port in self.ports:
            answer = await self.command(port, "SENTINEL", "MASTER", self._name)
            told = dict(zip(answer[::2], answer[1::2], strict=True))
            if (int(told[b"num-slaves"]), int(told[b"num-other-sentinels"])) != (replicas, others):
                return False
        return True


class _Question(Protocol):
    """
    A connection for one command.

    :ivar answered: Fires when it has ended, with the last reply.
    """

    transport: Any

    def __init__(self, commands: Sequence[Sequence[str | bytes | int]]) -> None:
        self._commands = commands
        self._replies: list[Any] = []
        self._reader = hiredis.Reader()
        self.answered: Deferred[Any] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        for command in self._commands:
            self.transport.write(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
        if len(self._replies) == len(self._commands):
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        if self.answered.called:
            return
        failed = [reply for reply in self._replies if isinstance(reply, hiredis.ReplyError)]
        if failed:
            self.answered.errback(failed[0])
        elif len(self._replies) < len(self._commands):
            self.answered.errback(reason)
        else:
            self.answered.callback(self._replies[-1])


async def _ask(endpoint: Any, password: str, command: Sequence[str | bytes | int]) -> Any:
    commands = [["AUTH", password], command] if password else [command]
    question = await soon(connectProtocol(endpoint, _Question(commands)))
    return await soon(question.answered)


@functools.cache
def _version(command: str) -> tuple[int, ...]:
    told = subprocess.run([command, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    found = re.search(r"v=(\d+)\.(\d+)", told.stdout)
    if found is None:
        raise AssertionError(f"this tells no version: {told.stdout}")
    return int(found[1]), int(found[2])


def _make_certificates(ca: str, certificate: str, key: str) -> None:
    """Write an authority, and a certificate of 127.0.0.1 by it that serves the server and its clients."""
    ca_key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, own_name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("rtpush test authority", "127.0.0.1")
    )
    now = datetime.datetime.now(datetime.UTC)

    def sign(name: x509.Name, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> bytes:
        built = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        return built.public_bytes(serialization.Encoding.PEM)

    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    Path(ca).write_bytes(sign(ca_name, ca_key.public_key(), constraints))
    Path(certificate).write_bytes(sign(own_name, own_key.public_key(), place))
    Path(key).write_bytes(
        own_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
