"""Workers: processes that share the sockets that their parent opens."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.processes import Process, children_of
from tests.support.redis import RedisServer
from tests.support.server import Server, twistd, write_config
from tests.support.waiting import soon, until
from tests.support.wire import TEXT, Frames, Response, frame, get, handshake

_CHANNEL = "demo:all"
_WORKERS = 3
_NODES = {f"push/{number}" for number in range(1, _WORKERS + 1)}
_HEALTH = get("/healthz", {}, Connection="close")


class _Client(Protocol):
    """
    A WebSocket.

    :ivar node: The node that serves it, when :meth:`connect` is done.
    :ivar numbers: The numbers of the messages that came.
    :ivar said: What came besides.
    :ivar gone: Fires when it is gone.
    """

    transport: Any

    def __init__(self) -> None:
        self.node = ""
        self.numbers: list[int] = []
        self.said: list[dict[str, Any]] = []
        self.gone: Deferred[None] = Deferred()
        self._response = Response()
        self._frames = Frames()

    @classmethod
    async def connect(cls, test: TestCase, port: int) -> _Client:
        """Open one, and learn which node serves it."""
        client = cls()
        await soon(TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(lambda: client)))
        test.addCleanup(client.close)
        await until(lambda: client.node, "an answer to connect")
        return client

    def connectionMade(self) -> None:
        self.transport.write(handshake("/ws", {}))
        self.command(id=1, connect={})

    def command(self, **command: Any) -> None:
        """Send a command."""
        self.transport.write(frame(TEXT, json.dumps(command).encode()))

    async def subscribe(self) -> None:
        """Subscribe to the channel."""
        self.command(id=2, subscribe={"channel": _CHANNEL})
        await until(lambda: any("subscribe" in each for each in self.said), "it", seen=lambda: str(self.said))

    def dataReceived(self, data: bytes) -> None:
        if not self._response.complete:
            data = self._response.feed(data)
        for opcode, payload in self._frames.feed(data):
            push = json.loads(payload) if opcode == TEXT else {}
            if "message" in push:
                self.numbers.append(push["message"]["data"]["n"])
            elif "node" in push.get("connect", {}):
                self.node = push["connect"]["node"]
            elif push:
                self.said.append(push)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.gone.callback(None)

    def close(self) -> Deferred[None]:
        """Close the connection."""
        self.transport.abortConnection()
        return soon(self.gone)


class _Question(Protocol):
    """Asks for something on a connection of its own."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        self.answered: Deferred[Response] = Deferred()
        self._request = request
        self._response = Response()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._response.feed(data)
        if self._response.complete:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.answered.callback(self._response)


async def _ask(endpoint: Any, request: bytes = _HEALTH) -> Response:
    """Ask on a new connection; a connection that is refused is an error."""
    question = _Question(request)
    await soon(endpoint.connect(Factory.forProtocol(lambda: question)))
    response: Response = await soon(question.answered)
    return response


class WorkersTests(TestCase):
    """Three workers and a Redis."""

    timeout = 120

    async def _start(self, **server: object) -> Server:
        redis = await RedisServer.start(self)
        return await Server.start_with(self, self._config(redis.url, server))

    def _config(self, url: str, server: Mapping[str, object]) -> str:
        return write_config(
            self,
            {
                "server": {"workers": _WORKERS, "node": "push", **server},
                "broker": {"engine": "redis"},
                "redis": {"url": url},
            },
        )

    def _pids(self, server: Server) -> dict[str, int]:
        """Return the process of each node."""
        found = re.findall(rb"worker (\d+) starts \(process (\d+)\)", server.process.out)
        return {f"push/{int(number)}": int(pid) for number, pid in found}

    async def _clients(self, server: Server, each: int = 2) -> dict[str, list[_Client]]:
        """Return subscribers: at least so many at each node."""
        clients: dict[str, list[_Client]] = {node: [] for node in _NODES}

        async def enough() -> bool:
            client = await _Client.connect(self, server.port)
            await client.subscribe()
            clients[client.node].append(client)
            return all(len(those) >= each for those in clients.values())

        await until(enough, "each worker to have clients", 40.0, seen=lambda: self._seen(server, clients))
        return clients

    def _seen(self, server: Server, clients: Mapping[str, list[_Client]]) -> str:
        return f"{ ({node: len(those) for node, those in clients.items()}) } {server.process}"

    def _running(self, pids: Mapping[str, int]) -> list[int]:
        """Return those of the processes that run."""
        return [pid for pid in pids.values() if Path(f"/proc/{pid}/cmdline").exists() and not self._is_zombie(pid)]

    def _is_zombie(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
        return True

    async def test_one_server(self) -> None:
        """Three nodes serve one port, and what one of them publishes reaches the clients of all, in one order."""
        server = await self._start()
        clients = await self._clients(server)
        everyone = [client for those in clients.values() for client in those]
        for number, (publisher, *_) in enumerate(clients.values()):
            publisher.command(id=3, publish={"channel": _CHANNEL, "data": {"n": number}})
            await until(
                lambda number=number: all(number in client.numbers for client in everyone),
                f"message {number} to reach all",
                seen=lambda: str([(client.node, client.numbers, client.said) for client in everyone]),
            )
        await server.publish(_CHANNEL, [{"n": number} for number in range(_WORKERS, 100)])
        await until(lambda: all(len(client.numbers) >= 100 for client in everyone), "all messages to reach all")
        self.assertEqual([client.numbers for client in everyone], [list(range(100))] * len(everyone))

        names: set[str] = set()
        body = b"{}"
        request = b"POST /api/v1/info HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
        request += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

        async def told_apart() -> bool:
            response = await _ask(TCP4ClientEndpoint(reactor, "127.0.0.1", server.port), request)
            names.update(node["node"] for node in json.loads(response.body)["result"]["nodes"])
            return names == _NODES

        await until(told_apart, "/api/v1/info to show all nodes", seen=lambda: str(names))

    async def test_killed_worker(self) -> None:
        """
        A worker that is killed is replaced by one of the same name. Meanwhile no connection is refused, and the clients
        of the others notice nothing.
        """
        server = await self._start()
        clients = await self._clients(server)
        pids = self._pids(server)
        victim = "push/2"
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
        os.kill(pids[victim], signal.SIGKILL)
        asked = 0

        async def replaced() -> bool:
            nonlocal asked
            self.assertEqual((await _ask(endpoint)).status, 200)
            asked += 1
            client = await _Client.connect(self, server.port)
            return client.node == victim and self._pids(server)[victim] != pids[victim]

        await until(replaced, "another worker with the name of the killed one", seen=lambda: str(server.process))
        await soon(gatherResults([client.gone for client in clients[victim]]))
        others = [client for node, those in clients.items() if node != victim for client in those]
        self.assertFalse(any(client.gone.called for client in others))
        await server.publish(_CHANNEL, [{"n": 1}])
        await until(lambda: all(client.numbers == [1] for client in others), "the clients of the others to hear")
        sys.stdout.write(f"({asked} connections meanwhile) ")
        said = re.findall(rb"worker 2 has ended: [^\n]*", server.process.out)
        self.assertEqual(said, [b"worker 2 has ended: killed by signal 9 (Killed); another one starts at once"])

    async def _ends(self, number: signal.Signals, *, group: bool = False) -> None:
        server = await self._start()
        clients = await self._clients(server, each=1)
        pids = self._pids(server)
        if group:
            for pid in pids.values():
                os.kill(pid, number)
        server.process.signal(number)
        # As every process that twistd runs.
        self.assertEqual(await soon(server.process.ended()), -number, server.process)
        self.assertEqual(self._running(pids), [])
        for client in (client for those in clients.values() for client in those):
            await soon(client.gone)
            self.assertEqual([push["disconnect"]["code"] for push in client.said if "disconnect" in push], [1012])
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)
        self.assertNotIn(b"another one starts", server.process.out)

    async def test_sigterm(self) -> None:
        """SIGTERM ends all: their clients are told to come back, and no process is left."""
        await self._ends(signal.SIGTERM)

    async def test_ctrl_c(self) -> None:
        """So does Ctrl-C in a terminal, which all the processes get."""
        await self._ends(signal.SIGINT, group=True)

    async def test_early_end(self) -> None:
        """It ends well also while the workers are just starting."""
        redis = await RedisServer.start(self)
        process = twistd(self, "--config", self._config(redis.url, {}))
        await process.says(rb"worker 3 starts")
        started = children_of(process.pid)
        process.signal(signal.SIGTERM)
        await soon(process.ended())
        self.assertEqual(self._running({str(pid): pid for pid in started}), [])
        self.assertNotIn(b"Traceback", process.out + process.err)

    async def test_killed_parent(self) -> None:
        """When the parent is killed, its workers say farewell to their clients and end by themselves."""
        server = await self._start()
        clients = await self._clients(server, each=1)
        pids = self._pids(server)
        server.process.signal(signal.SIGKILL)
        await soon(server.process.ended())
        await until(lambda: not self._running(pids), "the workers to end", seen=lambda: str(self._running(pids)))
        for client in (client for those in clients.values() for client in those):
            await soon(client.gone)
            self.assertEqual([push["disconnect"]["code"] for push in client.said if "disconnect" in push], [1012])

    async def test_unix_socket(self) -> None:
        """A Unix socket is shared too; it keeps its mode, outlives a worker, and is gone at the end."""
        redis = await RedisServer.start(self)
        path = redis.directory / "push.sock"
        server = await Server.start_with(
            self, self._config(redis.url, {"listen": f"\n  tcp:0:interface=127.0.0.1\n  unix:{path}:mode=600"})
        )
        endpoint = UNIXClientEndpoint(reactor, str(path))
        self.assertEqual((await _ask(endpoint)).status, 200)
        pids = self._pids(server)
        os.kill(pids["push/1"], signal.SIGTERM)
        await until(lambda: self._pids(server) != pids, "another worker", seen=lambda: str(server.process))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual((await _ask(endpoint)).status, 200)
        server.process.signal(signal.SIGTERM)
        await soon(server.process.ended())
        self.assertFalse(path.exists())

    async def test_background(self) -> None:
        """In the background, the log of the workers is in that of the parent, and SIGTERM ends all of it too."""
        redis = await RedisServer.start(self)
        path = self._config(redis.url, {})
        process = twistd(self, "--config", path, options=[f"--pidfile={path}.pid", f"--logfile={path}.log"])
        self.assertEqual(await soon(process.ended()), 0, process)
        log = Path(f"{path}.log")
        pattern = rb"worker 3\b.*listening on tcp:0"
        pid = int(Path(f"{path}.pid").read_text())
        try:
            await until(lambda: re.search(pattern, log.read_bytes()), "worker 3 to be there", seen=log.read_text)
            workers = children_of(pid)
            self.assertEqual(len(workers), _WORKERS)
        finally:
            os.kill(pid, signal.SIGTERM)
        await until(lambda: not self._running({"": pid, **{str(each): each for each in workers}}), "all to end")

    async def test_spread(self) -> None:
        """Of 200 connections that come at once, every worker gets some."""
        server = await self._start()
        await self._clients(server, each=1)
        clients = await soon(
            gatherResults([Deferred.fromCoroutine(_Client.connect(self, server.port)) for _ in range(200)])
        )
        spread = Counter(client.node for client in clients)
        sys.stdout.write(f"({', '.join(str(count) for count in spread.values())}) ")
        self.assertEqual(sum(spread.values()), 200)


class RefusedTests(TestCase):
    """What cannot be."""

    timeout = 60

    async def _refused(self, path: str, *options: str) -> str:
        process = twistd(self, "--config", path, *options)
        self.assertEqual(await soon(process.ended()), 1, process)
        [line] = process.err.decode().splitlines()
        return line

    async def test_memory(self) -> None:
        """Several workers with the memory engine are refused: they would not hear of each other's messages."""
        for value in ("2", "auto"):
            line = await self._refused(write_config(self, {"server": {"workers": value}}), "--check")
            self.assertIn(f"[server] workers: {value}: expected 1 with [broker] engine = memory", line)

    async def test_address_in_use(self) -> None:
        """An address that another program has ends it with one line, before any worker starts."""
        server = await Server.start(self)
        address = f"tcp:{server.port}:interface=127.0.0.1"
        changes = {"server": {"listen": address, "workers": 2}, "broker": {"engine": "redis"}}
        self.assertEqual(
            await self._refused(write_config(self, changes)), f"{address}: cannot listen: Address already in use"
        )

    async def test_by_hand(self) -> None:
        """The option that is for workers is of no use to anybody else."""
        path = write_config(self, {"server": {"workers": 2}, "broker": {"engine": "redis"}})
        process = twistd(self, "--config", path, "--worker", "1")
        await until(lambda: process.transport is not None, "the process")
        process.transport.closeStdin()
        self.assertEqual(await soon(process.ended()), 1, process)
        self.assertIn(b"--worker is for rtpush itself", process.err)


class WatchTests(TestCase):
    """What the parent does about workers that do not do their work."""

    timeout = 90

    async def test_hangs(self) -> None:
        """A worker that hangs is killed, and replaced by one that serves."""
        redis = await RedisServer.start(self)
        server = await Server.start(
            self,
            {
                "server": {"workers": 2, "node": "push", "watchdog": 3},
                "broker": {"engine": "redis"},
                "redis": {"url": redis.url},
            },
        )
        client = await _Client.connect(self, server.port)
        number = int(client.node.rpartition("/")[2])
        [pid] = re.findall(rb"worker %d starts \(process (\d+)\)" % number, server.process.out)
        os.kill(int(pid), signal.SIGSTOP)
        await server.process.says(rb"worker %d hangs; it is killed" % number)
        await soon(client.gone)

        async def is_back() -> bool:
            other = await _Client.connect(self, server.port)
            return other.node == f"push/{number}"

        await until(is_back, "it to be replaced", 30.0, seen=lambda: str(server.process))

    async def test_hopeless(self) -> None:
        """If no worker can be started at all, the parent gives up with exit code 1, and says so."""
        directory = Path(self.mktemp())
        directory.mkdir()
        # Python runs it at its start: only workers end for it.
        directory.joinpath("sitecustomize.py").write_text(
            "import os, sys\nif any(argument.startswith('--worker=') for argument in sys.orig_argv): os._exit(7)\n"
        )
        path = write_config(self, {"server": {"workers": 2}, "broker": {"engine": "redis"}})
        command = [os.path.join(os.path.dirname(sys.executable), "twistd"), "-n", "--pidfile=", "rtpush"]
        search = os.pathsep.join([str(directory.absolute()), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = Process(self, [*command, "--config", path], env={"PYTHONPATH": search})
        self.assertEqual(await soon(process.ended()), 1, process)
        self.assertIn(b"no worker can be started: giving up", process.out)
        self.assertIn(b"worker 1 has ended: exit code 7", process.out)
        self.assertNotIn(b"Traceback", process.out + process.err)
