"""
Clients of a few lines, one for each transport, each of which does just what the protocol says.

They come back whenever they are cut or refused, from where they were, and write down what they got.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

import attrs
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from rtpush.errors import Disconnect, ErrorCode, reconnects
from rtpush.protocol.position import Position
from tests.support.wire import BINARY, CLOSE, PING, PONG, TEXT, Frames, Response, frame, get, handshake

__all__ = ["TRANSPORTS", "Follower", "Gap", "Got"]

#: Seconds before one comes back that was refused.
_PAUSE = 0.1


@attrs.frozen
class Got:
    """A message, whose data is ``{"n": number}``."""

    position: Position
    number: int


@attrs.frozen
class Gap:
    """The client was told that messages before this position are gone."""

    position: Position
    reason: str


class Follower:
    """
    A client of one channel.

    :param port: Where its server is, on 127.0.0.1.
    :param transport: One of :data:`TRANSPORTS`.
    :param position: Where it begins.
    :ivar position: Where it is.
    :ivar log: What it got, in that order.
    :ivar numbers: The numbers of the messages that it got.
    :ivar problem: What it got that it should not.
    :ivar is_served: Whether a server has answered it.
    :ivar connections: How many connections it had.
    :ivar refusals: How often it was told to try again later.
    """

    def __init__(
        self, test: TestCase, port: int, transport: str, channel: str, position: Position, random: Random
    ) -> None:
        self.transport = transport
        self.channel = channel
        self.position = position
        self.random = random
        self.log: list[Got | Gap] = []
        self.numbers: list[int] = []
        self.problem: object = None
        self.is_served = False
        self.connections = 0
        self.refusals = 0
        self._connection: Any = None
        self._is_refused = False
        self._is_closed = False
        self._later: Any = None
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        test.addCleanup(self.close)
        self._connect()

    @property
    def gaps(self) -> list[Gap]:
        """The gaps that it was told of."""
        return [entry for entry in self.log if isinstance(entry, Gap)]

    def close(self) -> None:
        """Connect no more."""
        self._is_closed = True
        self._cancel()
        if self._connection is not None:
            self._connection.abortConnection()

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Do something later, if it is not closed before."""
        self._cancel()
        self._later = reactor.callLater(seconds, call)

    def _cancel(self) -> None:
        if self._later is not None and self._later.active():
            self._later.cancel()

    def _connect(self) -> None:
        connection = TRANSPORTS[self.transport]
        self._endpoint.connect(Factory.forProtocol(lambda: connection(self))).addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        if not self._is_closed:
            self.problem = failure.value

    # What its connections call

    def connected(self, connection: Any) -> None:
        """Note a new connection."""
        self.connections += 1
        self._connection = connection
        if self._is_closed:
            connection.abortConnection()

    def lost(self) -> None:
        """Come back: at once if the connection was cut."""
        self._connection = None
        if not self._is_closed:
            self.later(_PAUSE if self._is_refused else 0, self._connect)
        self._is_refused = False

    def refused(self) -> None:
        """Try again later, on another connection."""
        self.refusals += 1
        self._is_refused = True
        self._connection.loseConnection()

    def got(self, position: Position, data: Any) -> None:
        """Take a message."""
        self.position = position
        self.log.append(Got(position, data["n"]))
        self.numbers.append(data["n"])

    def gap(self, position: Position, reason: str) -> None:
        """Take the word that something was lost."""
        self.position = position
        self.log.append(Gap(position, reason))


class _Connection(Protocol):
    """
    One connection of a follower.

    :cvar status: The status of an answer that is none of a server that is not there for a while.
    """

    status: ClassVar[int] = 200
    transport: Any

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.response = Response()

    def connectionMade(self) -> None:
        self.follower.connected(self.transport)
        self.transport.write(self.request())

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.follower.lost()

    def dataReceived(self, data: bytes) -> None:
        if self.transport.disconnecting:
            return
        try:
            self.take(data)
        except Exception as error:
            self.follower.problem = error
            raise

    def request(self) -> bytes:
        """Return what to begin with."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Take what came."""
        raise NotImplementedError

    @property
    def query(self) -> dict[str, str]:
        """What is to follow, and from where."""
        return {"channel": self.follower.channel, "cursor": str(self.follower.position)}

    def must(self, truth: object, what: object) -> None:
        """Note a problem if something is not as it must be."""
        if not truth:
            self.follower.problem = what

    def is_refused(self, status: int) -> bool:
        """Tell whether an answer is that of a server that is not there for a while."""
        if status in (0, self.status):
            self.follower.is_served |= status == self.status
            return False
        self.must(status in (502, 503, 504), f"status {status}")
        self.follower.refused()
        return True

    def begins(self, position: Position, recovered: bool) -> None:
        """Hear where delivery begins: where the follower is, if nothing was lost."""
        self.must(not recovered or position == self.follower.position, (str(position), str(self.follower.position)))


class _WebSocket(_Connection):
    """``rtpush.v1``: now and then the query subscribes, else a command."""

    status = 101

    def __init__(self, follower: Follower) -> None:
        super().__init__(follower)
        self._frames = Frames()
        self._by_query = follower.random.random() < 0.5

    def request(self) -> bytes:
        return handshake("/ws", self.query if self._by_query else {})

    def take(self, data: bytes) -> None:
        if not self.response.complete:
            data = self.response.feed(data)
            if self.is_refused(self.response.status) or not self.response.complete:
                return
            if not self._by_query:
                self.transport.write(frame(TEXT, json.dumps({"id": 1, "subscribe": self.query}).encode()))
        for opcode, payload in self._frames.feed(data):
            if opcode == PING:
                self.transport.write(frame(PONG, payload))
            elif opcode == CLOSE:
                self.closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())
            else:
                self.take_payload(opcode, payload)

    def closed(self, code: int, reason: str) -> None:
        """Take a close frame."""
        self.must(reconnects(code), (code, reason))
        self.follower.refused()

    def take_payload(self, opcode: int, payload: bytes) -> None:
        """Take a message of the WebSocket."""
        self.must(opcode == TEXT, (opcode, payload))
        push = json.loads(payload)
        if "message" in push:
            message = push["message"]
            self.follower.got(_position(message), message["data"])
        elif "gap" in push:
            self.follower.gap(_position(push["gap"]), push["gap"]["reason"])
        elif "error" in push:
            self.must(push["error"]["code"] == ErrorCode.UNAVAILABLE.code, push)
            self.follower.refused()
        elif "disconnect" not in push:
            told = push.get("subscribed") or push.get("subscribe")
            self.must(told, push)
            self.begins(_position(told), told["recovered"])


class _RawWebSocket(_WebSocket):
    """``rtpush.raw``: it counts by itself how far it is."""

    def request(self) -> bytes:
        self._by_query = True
        return handshake("/ws", self.query, "rtpush.raw")

    def closed(self, code: int, reason: str) -> None:
        if code == Disconnect.GAP.code:
            self.follower.gap(Position.parse(reason), "")
        super().closed(code, reason)

    def take_payload(self, opcode: int, payload: bytes) -> None:
        self.must(opcode in (TEXT, BINARY), (opcode, payload))
        before = self.follower.position
        self.follower.got(Position(before.epoch, before.offset + 1), json.loads(payload))


class _EventStream(_Connection):
    """SSE, with the payloads alone."""

    def __init__(self, follower: Follower) -> None:
        super().__init__(follower)
        self._text = b""

    def request(self) -> bytes:
        if self.follower.random.random() < 0.5:
            return get("/sse", {"channel": self.follower.channel}, Last_Event_ID=str(self.follower.position))
        return get("/sse", self.query)

    def take(self, data: bytes) -> None:
        self.response.feed(data)
        if self.is_refused(self.response.status):
            return
        *events, self._text = (self._text + self.response.body).split(b"\n\n")
        self.response.body = b""
        for event in events:
            fields = dict(line.split(": ", 1) for line in event.decode().splitlines() if not line.startswith(":"))
            if "data" in fields:
                self._take_event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
        if self.response.complete:
            self.follower.refused()

    def _take_event(self, event: str, id_: str, data: Any) -> None:
        if event == "open":
            self.must(data["cursor"] == id_, data)
            self.begins(Position.parse(id_), data["recovered"])
        elif event == "gap":
            self.must(str(_position(data)) == id_, data)
            self.follower.gap(_position(data), data["reason"])
        elif event != "disconnect":
            self.must(not event, event)
            self.follower.got(Position.parse(id_), data)


class _Poll(_Connection):
    """Polls, on one connection as long as that lasts."""

    timeout: ClassVar[int]

    def request(self) -> bytes:
        query = {**self.query, "timeout": str(self.timeout)}
        return get("/poll", query, If_None_Match=f'"{self.follower.position}"')

    def take(self, data: bytes) -> None:
        self.response.feed(data)
        if not self.response.complete:
            return
        response, self.response = self.response, Response()
        if response.status == 304:
            # Nothing is new, so there is time.
            self.follower.later(0.01, lambda: self.transport.write(self.request()))
            return
        if self.is_refused(response.status):
            return
        answer = json.loads(response.body)
        for message in answer["messages"]:
            self.follower.got(_position(message), message["data"])
        for gap in answer.get("gaps", ()):
            self.follower.gap(_position(gap), gap["reason"])
        self.must(answer["recovered"] is ("gaps" not in answer), answer)
        self.must(answer["cursor"] == str(self.follower.position), (answer["cursor"], str(self.follower.position)))
        if response.headers.get("connection") != "close":
            self.transport.write(self.request())


class _LongPoll(_Poll):
    timeout = 20


class _ShortPoll(_Poll):
    timeout = 0


def _position(told: Any) -> Position:
    return Position(told["epoch"], told["offset"])


#: What there is to follow by.
TRANSPORTS: dict[str, type[_Connection]] = {
    "websocket": _WebSocket,
    "raw websocket": _RawWebSocket,
    "sse": _EventStream,
    "longpoll": _LongPoll,
    "shortpoll": _ShortPoll,
}
