"""
A whole node without sockets, and clients that are bytes.

The site is the one that twistd serves, built from the text of a configuration; time is a ``Clock``; a client sees what
a socket would give it, and may go away whenever it likes.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rtpush.service.assemble import build_node, build_site
from rtpush.service.config import parse

__all__ = [
    "CONFIG",
    "Answer",
    "Client",
    "Event",
    "Loudness",
    "ServedTestCase",
    "Wire",
    "events_of",
    "instances_of",
    "target",
]

T = TypeVar("T")

#: All that can be served, with small limits.
CONFIG = """
[server]
listen = tcp:0:interface=127.0.0.1
node = test-node
{echo}
heartbeat = 30
heartbeat_grace = 10
{server}
[limits]
message_bytes = 65536
request_bytes = 262144
channels_per_connection = 20
queue_bytes = 1048576
{limits}
{sections}
[namespace:default]
history_size = 100
history_ttl = 300
[namespace:demo]
history_size = 1000
history_ttl = 3600
publish = anyone
presence = yes
join_leave = yes
[namespace:short]
history_size = 3
poll_max_age = 7
[namespace:none]
publish = anyone
[namespace:private]
subscribe = server
history_size = 10
presence = yes
"""


@implementer(ITCPTransport, IPushProducer, IConsumer)
class Wire:
    """
    The server's end of a TCP connection, in memory.

    :ivar sent: What the server has written.
    :ivar reads: Whether the server takes input; what comes meanwhile waits.
    :ivar stuck: Whether the client has stopped to read: then each write finds the buffer full.
    :ivar half_closed: Whether the server has said that it writes no more.
    """

    def __init__(self, clock: Clock, port: int) -> None:
        self.protocol: Any = None
        self.sent = bytearray()
        self.reads = True
        self.stuck = False
        self.half_closed = False
        self.aborted = False
        self.connected = True
        self.disconnecting = False
        self._clock = clock
        self._port = port
        self._producer: Any = None
        self._producer_paused = False
        self._unread: list[bytes] = []

    # What the client does

    def come(self, data: bytes) -> None:
        """Bytes of the client arrive."""
        if not self.connected or self.disconnecting and self.aborted:
            return
        if self.reads:
            self.protocol.dataReceived(data)
        else:
            self._unread.append(data)

    def go(self) -> None:
        """The client is gone."""
        self._lost(ConnectionLost())

    def stick(self) -> None:
        """The client reads no more."""
        self.stuck = True

    def drain(self) -> None:
        """The client has read everything, and goes on."""
        self.stuck = False
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        self._settle()

    # What the server does

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"expected bytes, got {data!r}")
        if not self.connected or self.aborted or self.half_closed:
            return
        self.sent += data
        if self.stuck and self._producer is not None:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._clock.callLater(0, self._settle)

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        if self.connected and not self.aborted:
            self.aborted = self.disconnecting = True
            self.reads = False
            self._clock.callLater(0, self._lost, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"there is a producer already: {self._producer}")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = producer
        self._producer_paused = False

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reads = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reads = True
            unread, self._unread = self._unread, []
            for data in unread:
                self._clock.callLater(0, self.come, data)

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self._port)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...

    def getTcpKeepAlive(self) -> bool:
        return False

    def _settle(self) -> None:
        # As a socket does, it closes when all was taken.
        if self.disconnecting and not self.stuck:
            self._lost(ConnectionDone())

    def _lost(self, reason: Exception) -> None:
        if self.connected:
            self.connected = self.reads = False
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))


@attrs.frozen
class Answer:
    """
    The answer to a request.

    :ivar headers: By their names in lower case.
    :ivar whole: Whether its end was seen.
    """

    version: str
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The name of the error in the body."""
        name: str = self.json["error"]["name"]
        return name


@attrs.frozen
class Event:
    """An event of a stream, as an ``EventSource`` gives it; ``id`` is the last one seen."""

    name: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        """The data, as JSON."""
        return json.loads(self.data)


def events_of(stream: bytes) -> Iterator[Event]:
    """Read whole events, by the rules of WHATWG HTML section 9.2.6."""
    name, last_id, data = "", "", []
    for line in re.split(r"\r\n|\n|\r", stream.decode()):
        if not line:
            if data:
                yield Event(name or "message", last_id, "\n".join(data))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value


def target(path: str, **query: Any) -> str:
    """Return a request target; the items of a list are repeated parameters."""
    pairs = [
        f"{name}={quote(str(item), safe=':,')}"
        for name, value in query.items()
        for item in (value if isinstance(value, list) else [value])
    ]
    return path + ("?" + "&".join(pairs) if pairs else "")


class Client:
    """A client of the node, which speaks HTTP until it does not."""

    def __init__(self, clock: Clock, site: Any, port: int) -> None:
        self.wire = Wire(clock, port)
        self._clock = clock
        self._read = 0
        self.wire.protocol = site.buildProtocol(self.wire.getPeer())
        self.wire.protocol.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        """Send bytes in one segment, and let a turn of the reactor pass."""
        self.wire.come(data)
        self._clock.advance(0)

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        version: str = "HTTP/1.1",
    ) -> None:
        """Send a request."""
        self.send(request_bytes(path, method=method, headers=headers, body=body, version=version))

    def ask(self, path: str, **request: Any) -> Answer:
        """Send a request, and return its answer as far as it is there."""
        self.request(path, **request)
        return self.answer(head=request.get("method") == "HEAD")

    def answer(self, *, head: bool = False) -> Answer:
        """Take the next answer; one that goes on is taken as far as it is there."""
        answer, used = _parse(bytes(self.wire.sent[self._read :]), closed=self.closed, head=head)
        self._read += used
        return answer

    def take(self) -> bytes:
        """Take all that came and was not taken yet."""
        data = bytes(self.wire.sent[self._read :])
        self._read = len(self.wire.sent)
        return data

    def chunks(self) -> bytes:
        """Take the content of the chunks that came and were not taken yet."""
        body, used, _ = _unchunk(bytes(self.wire.sent[self._read :]))
        self._read += used
        return body

    def events(self) -> list[Event]:
        """Take the events that came."""
        return list(events_of(self.chunks()))

    def lose(self) -> None:
        """Go away."""
        self.wire.go()
        self._clock.advance(0)

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection, or said that nothing more comes."""
        return not self.wire.connected or self.wire.half_closed


def request_bytes(
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    version: str = "HTTP/1.1",
) -> bytes:
    """Return a request as bytes."""
    lines = [f"{method} {path} {version}", "Host: node.example"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def _parse(data: bytes, *, closed: bool, head: bool) -> tuple[Answer, int]:
    block, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise AssertionError(f"there is no whole answer in {data!r}")
    first, *lines = block.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    start = len(block) + 4
    if head or int(status) in (101, 204, 304):
        return Answer(version, int(status), headers, b"", True), start
    if headers.get("transfer-encoding") == "chunked":
        body, used, whole = _unchunk(rest)
    elif "content-length" in headers:
        used = int(headers["content-length"])
        body, whole = rest[:used], len(rest) >= used
    else:
        body, used, whole = rest, len(rest), closed
    return Answer(version, int(status), headers, body, whole), start + min(used, len(rest))


def _unchunk(data: bytes) -> tuple[bytes, int, bool]:
    """Return the content of whole chunks, how many bytes they take, and whether the last one was there."""
    content, place = b"", 0
    while (line := re.compile(rb"([0-9a-fA-F]+)\r\n").match(data, place)) is not None:
        size = int(line[1], 16)
        end = line.end() + size + 2
        if len(data) < end:
            break
        content += data[line.end() : end - 2]
        place = end
        if size == 0:
            return content, place, True
    return content, place, False


class Loudness:
    """Collects what is logged as an error or worse while it is open."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self._note)

    def close(self) -> None:
        """Listen no more."""
        globalLogPublisher.removeObserver(self._note)

    def formats(self) -> list[str]:
        """Return what was logged, without its parts."""
        return [f"{event.get('log_format')} {event.get('log_failure', '')}" for event in self.events]

    def _note(self, event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical) or event.get("isError"):
            self.events.append(event)


class ServedTestCase(SynchronousTestCase):
    """
    A node, its clock and its site; everything that is logged as an error fails the test.

    :cvar server: More lines for ``[server]``.
    :cvar limits: More lines for ``[limits]``.
    :cvar sections: More sections.
    """

    server = "allowed_origins = *"
    limits = ""
    sections = "[api]\nopen = yes"

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.serve(server=self.server, limits=self.limits, sections=self.sections)
        self.loudness = Loudness()
        self.addCleanup(lambda: self.assertEqual(self.loudness.formats(), []))
        self.addCleanup(self.loudness.close)

    def serve(self, *, server: str = "", limits: str = "", sections: str = "", echo: str = "echo = yes") -> None:
        """Start a node with this configuration, in the place of the one that there is."""
        config = parse(CONFIG.format(echo=echo, server=server, limits=limits, sections=sections))
        self.node: Any = build_node(config, self.clock, self.clock.seconds)
        self.chance = 0.5
        self.node.chance = lambda: self.chance
        self.site = build_site(config, self.node, self.clock)
        self.successResultOf(self.node.start())
        self._ports = iter(range(40000, 1_000_000))

    def client(self) -> Client:
        """Connect a client."""
        return Client(self.clock, self.site, next(self._ports))

    def ask(self, path: str, **request: Any) -> Answer:
        """Ask on a connection that ends with the answer."""
        client = self.client()
        answer = client.ask(path, **request)
        client.lose()
        return answer

    def call(self, name: str, **body: Any) -> Any:
        """Do a call of the server API, and return its result."""
        answer = self.ask(f"/api/v1/{name}", method="POST", body=json.dumps(body).encode())
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json["result"]

    def publish(self, channel: str, data: Any, **more: Any) -> str:
        """Publish a message and let it be delivered; return its position."""
        result = self.call("publish", channel=channel, data=data, **more)
        self.clock.advance(0)
        return f"{result['epoch']}:{result['offset']}" if result else ""

    def now(self, channel: str) -> str:
        """Return the position of a channel."""
        result = self.call("history", channel=channel, limit=0)
        return f"{result['epoch']}:{result['offset']}"

    def pump(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass."""
        self.clock.pump([step] * round(seconds / step))

    def result(self, deferred: Deferred[T]) -> T:
        """Return what is there already."""
        return self.successResultOf(deferred)

    def assert_nobody(self) -> None:
        """Nobody is connected, and nothing is left of those who were."""
        self.clock.advance(0)
        self.assertEqual(self.call("connections"), {"connections": [], "total": 0})
        self.assertEqual(self.node.connections, {})
        self.assertEqual([name for name, channel in self.node.channels.items() if len(channel)], [])
        self.assertEqual(len(self.node.wheel), 0)


def instances_of(*classes: type) -> dict[str, int]:
    """Count the objects of some classes that are alive."""
    gc.collect()
    counts = dict.fromkeys((cls.__name__ for cls in classes), 0)
    for each in gc.get_objects():
        for cls in classes:
            if isinstance(each, cls):
                counts[cls.__name__] += 1
    return counts
