"""Reading the configuration again (SIGHUP) while clients are there, and what systemd hears and gives."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.ports import reserved_port
from tests.support.processes import Process, children_of, program
from tests.support.redis import RedisServer
from tests.support.server import Server, write_config
from tests.support.waiting import pause, soon, until
from tests.support.wire import TEXT, Frames, Response, frame, handshake

_CHANNEL = "demo:all"
_OLD_KEY, _NEW_KEY = "old-0123456789abcdef", "new-0123456789abcdef"


class _Client(Protocol):
    """
    A connection.

    :ivar said: What came on it as a WebSocket.
    :ivar certificate: What the server has shown.
    """

    transport: Any

    def __init__(self, request: bytes) -> None:
        self.response = Response()
        self.said: list[dict[str, Any]] = []
        self.gone: Deferred[None] = Deferred()
        self._frames = Frames()
        self._request = request

    @classmethod
    async def connect(cls, test: TestCase, endpoint: Any, request: bytes) -> _Client:
        """Connect, and send a request."""
        client = cls(request)
        await soon(endpoint.connect(Factory.forProtocol(lambda: client)))
        test.addCleanup(client.close)
        await until(lambda: client.response.status, "an answer")
        return client

    @classmethod
    async def follow(cls, test: TestCase, port: int) -> _Client:
        """Open a WebSocket that follows the channel."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client = await cls.connect(test, endpoint, handshake("/ws", {"channel": _CHANNEL}))
        await until(lambda: client.said, "it to be subscribed")
        return client

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if not self.response.complete:
            data = self.response.feed(data)
        for opcode, payload in self._frames.feed(data):
            if opcode == TEXT:
                self.said.append(json.loads(payload))

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.gone.callback(None)

    def close(self) -> None:
        """Close it."""
        if self.connected:
            self.transport.abortConnection()

    def send(self, **command: Any) -> None:
        """Send a command."""
        self.transport.write(frame(TEXT, json.dumps(command).encode()))


def _publish(key: str, channel: str = _CHANNEL, **headers: str) -> bytes:
    """Return a request that publishes."""
    body = json.dumps({"channel": channel, "data": 1}).encode()
    lines = [
        "POST /api/v1/publish HTTP/1.1",
        "Host: a",
        f"X-API-Key: {key}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ReloadTests(TestCase):
    """SIGHUP."""

    timeout = 90

    _old: dict[str, Mapping[str, object]] = {
        "server": {"allowed_origins": "https://old.example"},
        "api": {"open": "no", "keys": _OLD_KEY},
    }
    _new: dict[str, Mapping[str, object]] = {
        "server": {"allowed_origins": "https://new.example", "node": "renamed"},
        "api": {"open": "no", "keys": _NEW_KEY},
        "limits": {"message_bytes": 10},
        "namespace:other": {"history_size": 3},
    }

    def _write(self, path: str, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Put another configuration in the place of the one that was there, at once, as editors do."""
        os.replace(write_config(self, changes), path)

    async def _status(self, port: int, request: bytes) -> int:
        client = await _Client.connect(self, TCP4ClientEndpoint(reactor, "127.0.0.1", port), request)
        return client.response.status

    async def test_reload(self) -> None:
        """
        Keys, origins, limits and namespaces are as the file says now, for those who are there and those who come.

        What can only be changed by a restart is said.
        """
        path = write_config(self, self._old)
        server = await Server.start_with(self, path)
        client = await _Client.follow(self, server.port)
        self.assertEqual(await self._status(server.port, _publish(_NEW_KEY)), 401)
        self.assertEqual(await self._status(server.port, _publish(_OLD_KEY, "other:x")), 404)
        self._write(path, self._new)
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"\[server\] node can only be changed by a restart: it stays as it is")
        await server.process.says(rb"the configuration was read again")

        self.assertEqual(await self._status(server.port, _publish(_OLD_KEY)), 401)
        self.assertEqual(await self._status(server.port, _publish(_NEW_KEY)), 200)
        self.assertEqual(await self._status(server.port, _publish(_NEW_KEY, "other:x")), 200)
        for origin, status in (("https://old.example", 403), ("https://new.example", 200)):
            self.assertEqual(await self._status(server.port, _publish(_NEW_KEY, Origin=origin)), status)
        client.send(id=1, publish={"channel": _CHANNEL, "data": "x" * 11})
        client.send(id=2, subscribe={"channel": "other:x", "since": "earliest"})
        await until(lambda: any(push.get("id") == 2 for push in client.said), "an answer")
        [error] = [push["error"] for push in client.said if push.get("id") == 1]
        self.assertEqual(error["name"], "message_too_large")
        await until(lambda: any(push.get("message", {}).get("channel") == "other:x" for push in client.said), "it")
        self.assertEqual(sum(push.get("message", {}).get("channel") == _CHANNEL for push in client.said), 2)
        self.assertFalse(client.gone.called)

    async def test_history_is_shorter(self) -> None:
        """A channel that keeps less from now on does so with its next message."""
        path = write_config(self)
        server = await Server.start_with(self, path)
        await server.publish(_CHANNEL, list(range(10)))
        self._write(path, {"namespace:demo": {"history_size": 4}})
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"the configuration was read again")
        await server.publish(_CHANNEL, [10])
        kept = (await server.call("history", channel=_CHANNEL, limit=100))["messages"]
        self.assertEqual([message["data"] for message in kept], [7, 8, 9, 10])

    async def test_refused(self) -> None:
        """A configuration with a mistake is refused as a whole, in one line that says where it is."""
        path = write_config(self, self._old)
        server = await Server.start_with(self, path)
        client = await _Client.follow(self, server.port)
        self._write(path, {**self._new, "poll": {"timeout": "long"}})
        server.process.signal(signal.SIGHUP)
        found = await server.process.says(rb"[^\n]*the configuration stays as it is: [^\n]*")
        self.assertRegex(found[0].decode(), r":\d+: \[poll\] timeout: 'long': expected")
        self.assertEqual(await self._status(server.port, _publish(_OLD_KEY)), 200)
        self.assertEqual(await self._status(server.port, _publish(_NEW_KEY)), 401)
        self._write(path, self._new)
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"the configuration was read again")
        self.assertEqual(await self._status(server.port, _publish(_NEW_KEY)), 200)
        self.assertFalse(client.gone.called)
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)

    async def test_workers(self) -> None:
        """All workers go on with it, and those that replace them too; the clients of all stay."""
        redis = await RedisServer.start(self)
        shared = {"broker": {"engine": "redis"}, "redis": {"url": redis.url}}
        old = {**self._old, **shared, "server": {**self._old["server"], "workers": 2, "node": "push"}}
        new = {**self._new, **shared, "server": {**self._new["server"], "workers": 3, "node": "push"}}
        path = write_config(self, old)
        server = await Server.start_with(self, path)
        clients = [await _Client.follow(self, server.port) for _ in range(20)]
        self._write(path, new)
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"\[server\] workers can only be changed by a restart")

        async def all_have_it() -> bool:
            return {await self._status(server.port, _publish(_NEW_KEY)) for _ in range(10)} == {200}

        await until(all_have_it, "all workers to have the new key")
        self.assertEqual({await self._status(server.port, _publish(_OLD_KEY)) for _ in range(10)}, {401})
        self.assertFalse(any(client.gone.called for client in clients))
        for pid in children_of(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        starts = b" starts (process "
        await until(lambda: server.process.out.count(starts) == 4, "others", seen=lambda: str(server.process))
        await until(all_have_it, "the new ones to have it", 30.0)

    def _certificate(self, path: Path, name: str) -> None:
        certificate = ssl.KeyPair.generate(size=2048).selfSignedCert(1, CN=name)
        path.write_bytes(certificate.dumpPEM() + certificate.privateKey.dump(crypto.FILETYPE_PEM))

    async def test_certificate(self) -> None:
        """New connections get the certificate that is in the file now; one that is broken is refused."""
        directory = Path(self.mktemp())
        directory.mkdir()
        pem = directory.absolute() / "both.pem"
        self._certificate(pem, "old.example")
        port = reserved_port(self)
        listen = f"tcp:0:interface=127.0.0.1\n  ssl:{port}:interface=127.0.0.1:privateKey={pem}"
        server = await Server.start_with(self, write_config(self, {"server": {"listen": listen}}))
        await server.process.says(rb"listening on ssl:")
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port, ssl.CertificateOptions(verify=False))

        async def shown() -> tuple[_Client, str]:
            client = await _Client.connect(self, endpoint, handshake("/ws", {"channel": _CHANNEL}))
            return client, client.transport.getPeerCertificate().get_subject().CN

        before, name = await shown()
        self.assertEqual(name, "old.example")
        good = pem.read_bytes()
        pem.write_bytes(good[: len(good) // 3])
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"the configuration stays as it is: ")
        self.assertEqual((await shown())[1], "old.example")
        self._certificate(pem, "new.example")
        server.process.signal(signal.SIGHUP)
        await server.process.says(rb"the configuration was read again")
        self.assertEqual((await shown())[1], "new.example")
        await server.publish(_CHANNEL, ["still there"])
        await until(lambda: any("message" in push for push in before.said), "the message")
        self.assertFalse(before.gone.called)
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)


#: Keeps a socket, and starts a service with it, as systemd does; and again whenever it is told to.
_KEEPER = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: (os.kill(pid, signal.SIGTERM), sys.exit()))
kept = socket.socket()
kept.bind(("127.0.0.1", 0))
kept.listen(100)
print("port", kept.getsockname()[1], flush=True)
while True:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(kept.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="rtpush")
        os.execv(sys.argv[1], sys.argv[1:])
    print("started", pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
    sys.stdin.readline()
"""


class _Systemd:
    """What systemd is to a service that it starts."""

    def __init__(self, test: TestCase) -> None:
        directory = tempfile.TemporaryDirectory()
        test.addCleanup(directory.cleanup)
        path = f"{directory.name}/notify"
        self.environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test.addCleanup(self._socket.close)
        self._socket.bind(path)
        self._socket.setblocking(False)

    async def hears(self, line: str) -> None:
        """Wait for a line that has not come before."""

        await until(lambda: line in self._read(), line, seen=lambda: str(self.said))
        self.said.clear()

    def _read(self) -> list[str]:
        while True:
            try:
                self.said += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.said


    async def is_silent(self) -> None:
        """Wait until nothing comes any more for three times as long as anything should take."""
        before = -1
        while before != len(self.said):
            before = len(self.said)
            await pause(3 * 0.2)
            self._read()


class SystemdTests(TestCase):
    """Being started by systemd."""

    timeout = 90

    def _start(self, command: list[str], path: str, environment: Mapping[str, str]) -> Process:
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        return Process(self, [*command, twistd, "-n", "--pidfile=", "rtpush", "--config", path], env=environment)

    async def _lives(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        systemd = _Systemd(self)
        process = self._start([], write_config(self, changes), systemd.environment)
        await systemd.hears("READY=1")
        self.assertIn(b"listening on", process.out)
        await systemd.hears("WATCHDOG=1")
        process.signal(signal.SIGHUP)
        await systemd.hears("RELOADING=1")
        await process.says(b"the configuration was read again")
        await systemd.hears("WATCHDOG=1")
        process.signal(signal.SIGTERM)
        await systemd.hears("STOPPING=1")
        self.assertEqual(await soon(process.ended()), -signal.SIGTERM, process)

    async def test_notify(self) -> None:
        """It hears when the service is ready, reloads, and ends, and all the time that it lives."""
        await self._lives({})

    async def test_notify_workers(self) -> None:
        """So it is with workers: their parent says when all are ready."""
        redis = await RedisServer.start(self)
        await self._lives(
            {"server": {"workers": 2}, "broker": {"engine": "redis"}, "redis": {"url": redis.url}}
        )

    async def test_hangs(self) -> None:
        """A process that hangs is silent, so that systemd can tell."""
        systemd = _Systemd(self)
        process = self._start([], write_config(self), systemd.environment)
        await systemd.hears("READY=1")
        process.signal(signal.SIGSTOP)
        await systemd.is_silent()
        process.signal(signal.SIGCONT)
        await systemd.hears("WATCHDOG=1")

    async def _activated(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        port = reserved_port(self)
        server = {"listen": "systemd:domain=INET:index=0", **changes.get("server", {})}
        path = write_config(self, {**changes, "server": server, "api": {"open": "no", "keys": _OLD_KEY}})
        command = [program("systemd-socket-activate"), "--fdname=rtpush", f"--listen=127.0.0.1:{port}"]
        process = self._start(command, path, {})
        await process.says(b"Listening on")
        # It starts the service for the first who comes.
        clients = [await _Client.follow(self, port) for _ in range(3)]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.assertEqual((await _Client.connect(self, endpoint, _publish(_OLD_KEY))).response.status, 200)
        for client in clients:
            await until(lambda client=client: any("message" in push for push in client.said), "the message")
        process.signal(signal.SIGTERM)
        self.assertEqual(await soon(process.ended()), -signal.SIGTERM, process)
        self.assertNotIn(b"Traceback", process.out + process.err)

    async def test_socket(self) -> None:
        """The socket can come from systemd."""
        await self._activated({})

    async def test_socket_workers(self) -> None:
        """So can that of workers."""
        redis = await RedisServer.start(self)
        await self._activated(
            {"server": {"workers": 2}, "broker": {"engine": "redis"}, "redis": {"url": redis.url}}
        )

    async def test_kept_socket(self) -> None:
        """Who comes while the service is restarted waits: the socket is there before and after it."""
        path = write_config(
            self, {"server": {"listen": "systemd:domain=INET:index=0"}, "api": {"open": "no", "keys": _OLD_KEY}}
        )
        keeper = self._start([sys.executable, "-c", _KEEPER], path, {})
        port = int((await keeper.says(rb"port (\d+)"))[1])
        pid = int((await keeper.says(rb"started (\d+)"))[1])
        client = await _Client.follow(self, port)
        os.kill(pid, signal.SIGTERM)
        await soon(client.gone)
        await keeper.says(b"ended")
        waiting = Deferred.fromCoroutine(_Client.follow(self, port))
        keeper.send(b"again\n")
        await soon(waiting)
