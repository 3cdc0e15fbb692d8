"""
Clients of a few lines that follow several channels at once, by every transport, and write down all that they see.

They do what the protocol says and no more: they come back when they are cut, refused, or hear nothing for too long,
from where they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, ClassVar

import msgspec
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from rtpush.errors import Disconnect, ErrorCode, reconnects
from rtpush.protocol.position import Position, parse_cursor
from tests.chaos.history import Began, Gap, Got, Timeline, View
from tests.support.wire import BINARY, CLOSE, PING, PONG, TEXT, Frames, Response, frame, get, handshake

__all__ = ["SILENCE", "TRANSPORTS", "WANDERER", "BareClient"]

#: The transport of one that takes another one for each connection, and goes on where it was.
WANDERER = "another"

#: Seconds without a byte after which a client takes a stream for dead: longer than the heartbeat and its grace.
SILENCE = 4.5

#: Seconds that a long poll is held.
_POLL_SECONDS = 5


class BareClient:
    """
    A client of some channels.

    :param name: What it is called in reports; begins with "client".
    :param port: Where it connects to, on 127.0.0.1.
    :param transport: One of :data:`TRANSPORTS`, or :data:`WANDERER`.
    :param starts: The channels, and where it begins in each.
    :param problem: Is told what the client got that it should not.
    :ivar positions: Where it is.
    :ivar views: What it saw, by channel.
    :ivar connections: How many connections it had.
    """

    def __init__(
        self,
        name: str,
        port: int,
        transport: str,
        starts: Mapping[str, Position],
        random: Random,
        timeline: Timeline,
        problem: Callable[[str, object], object],
    ) -> None:
        self.name = name
        self.transport = transport
        self.random = random
        self.positions = dict(starts)
        self.views = {channel: View(name, channel, start) for channel, start in starts.items()}
        self.connections = 0
        self._timeline = timeline
        self._problem = problem
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=5)
        self._connection: _Connection | None = None
        self._pause = 0.0
        self._is_away = True
        self._later: Any = None
        self._heard = 0.0
        self._watch = LoopingCall(self._look)

    @property
    def channels(self) -> list[str]:
        """What it follows, in the order of its cursor."""
        return list(self.positions)

    @property
    def cursor(self) -> str:
        """Where it is in all of them."""
        return ",".join(map(str, self.positions.values()))

    def come(self) -> None:
        """Connect, and stay so."""
        if self._is_away:
            self._is_away = False
            self._watch.start(0.25)
            self.later(0, self._connect)

    def leave(self) -> None:
        """Connect no more until :meth:`come`."""
        if not self._is_away:
            self._is_away = True
            self._watch.stop()
            self._cancel()
            if self._connection is not None:
                self._connection.transport.abortConnection()

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Do something later, if it is not away then."""
        self._cancel()
        self._later = reactor.callLater(seconds, call)

    def _cancel(self) -> None:
        if self._later is not None and self._later.active():
            self._later.cancel()

    def _connect(self) -> None:
        self._heard = reactor.seconds()
        transport = self.transport
        if transport == WANDERER:
            transport = self.random.choice([name for name in TRANSPORTS if name != "raw"])
            self.note(f"takes {transport}")
        kind = TRANSPORTS[transport]
        self._endpoint.connect(Factory.forProtocol(lambda: kind(self))).addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        if not self._is_away:
            self.later(self.random.uniform(0.05, 0.4), self._connect)

    def _look(self) -> None:
        if self._connection is not None and reactor.seconds() - self._heard > self._connection.patience:
            self.note("hears nothing, and gives the connection up")
            self.heard()
            self._connection.transport.abortConnection()

    # What its connections call

    def note(self, what: object) -> None:
        """Write down what happens to it."""
        self._timeline.note(self.name, what)

    def problem(self, what: object) -> None:
        """Tell what should not be."""
        self.note(f"PROBLEM: {what}")
        self._problem(self.name, what)

    def connected(self, connection: _Connection) -> None:
        """A connection is there."""
        self.connections += 1
        self._connection = connection
        self.heard()
        if self._is_away:
            connection.transport.abortConnection()

    def heard(self) -> None:
        """Something came."""
        self._heard = reactor.seconds()

    def lost(self) -> None:
        """A connection has ended: come back."""
        if self._connection is not None and not self._connection.response.status:
            # Nobody was there.
            self._pause = self.random.uniform(0.05, 0.4)
        self._connection = None
        if not self._is_away:
            self.later(self._pause, self._connect)
        self._pause = 0.0

    def refused(self, why: object) -> None:
        """Try again later, on another connection."""
        self.note(f"refused: {why}")
        self._pause = self.random.uniform(0.05, 0.4)
        assert self._connection is not None
        self._connection.transport.loseConnection()

    def begins(self, channel: str, position: Position, recovered: bool) -> None:
        """Hear where delivery begins."""
        self.positions[channel] = position
        self.views[channel].entries.append(Began(self._timeline.now, position, recovered))

    def got(self, channel: str, position: Position, data: Any) -> None:
        """Take a message."""
        if data["c"] != channel:
            self.problem(f"a message of {data['c']} in {channel}, at {position}")
            return
        self.positions[channel] = position
        self.views[channel].entries.append(Got(self._timeline.now, position, data["n"]))

    def gap(self, channel: str, position: Position, reason: str) -> None:
        """Take the word that something was lost."""
        self.positions[channel] = position
        self.views[channel].entries.append(Gap(self._timeline.now, position, reason))


class _Connection(Protocol):
    """
    One connection of a client.

    :cvar status: The status of a good answer.
    :cvar patience: After how many seconds of silence it is given up.
    """

    status: ClassVar[int] = 200
    patience: ClassVar[float] = SILENCE
    transport: Any

    def __init__(self, client: BareClient) -> None:
        self.client = client
        self.response = Response()

    def connectionMade(self) -> None:
        self.client.connected(self)
        self.transport.write(self.request())

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.client.lost()

    def dataReceived(self, data: bytes) -> None:
        self.client.heard()
        if self.transport.disconnecting:
            return
        try:
            self.take(data)
        except Exception as error:
            self.client.problem(f"{type(error).__name__}: {error}, after {data[-300:]!r}")
            self.transport.abortConnection()

    def request(self) -> bytes:
        """Return what to begin with."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Take what came."""
        raise NotImplementedError

    @property
    def query(self) -> dict[str, str]:
        """What is to follow, and from where."""
        return {"channel": ",".join(self.client.channels), "cursor": self.client.cursor}

    def must(self, truth: object, what: object) -> None:
        """Tell of a problem if something is not as it must be."""
        if not truth:
            self.client.problem(what)

    def is_refused(self, status: int) -> bool:
        """Tell whether an answer is that of a server that is not there for a while."""
        if status in (0, self.status):
            return False
        self.must(status in (502, 503, 504), f"status {status}: {self.response.body[:300]!r}")
        self.client.refused(f"status {status}")
        return True


class _WebSocket(_Connection):
    """``rtpush.v1``: now and then the query subscribes, else commands, one by one or in an array."""

    status = 101
    subprotocol: ClassVar[str] = "rtpush.v1"
    opcode: ClassVar[int] = TEXT

    def __init__(self, client: BareClient) -> None:
        super().__init__(client)
        self._frames = Frames()
        self._by_query = client.random.random() < 0.4

    def encode(self, told: Any) -> bytes:
        """Return what is to be sent."""
        return json.dumps(told).encode()

    def decode(self, payload: bytes) -> Any:
        """Return what was sent."""
        return json.loads(payload)

    def data_of(self, message: Any) -> Any:
        """Return the data of a message."""
        return message["data"]

    def request(self) -> bytes:
        return handshake("/ws", self.query if self._by_query else {}, self.subprotocol)

    def take(self, data: bytes) -> None:
        if not self.response.complete:
            data = self.response.feed(data)
            if self.is_refused(self.response.status) or not self.response.complete:
                return
            if not self._by_query:
                self._subscribe()
        for opcode, payload in self._frames.feed(data):
            if opcode == PING:
                self.transport.write(frame(PONG, payload))
            elif opcode == CLOSE:
                self.closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())
                return
            else:
                self.take_payload(opcode, payload)
            if self.transport.disconnecting:
                return

    def _subscribe(self) -> None:
        commands = [
            {"id": number, "subscribe": {"channel": channel, "cursor": str(position)}}
            for number, (channel, position) in enumerate(self.client.positions.items(), 1)
        ]
        if self.client.random.random() < 0.5:
            self.transport.write(frame(self.opcode, self.encode(commands)))
        else:
            self.transport.write(b"".join(frame(self.opcode, self.encode(command)) for command in commands))

    def closed(self, code: int, reason: str) -> None:
        """Take a close frame."""
        self.must(reconnects(code), f"closed with {code} {reason}")
        self.client.refused(f"closed with {code} {reason}")

    def take_payload(self, opcode: int, payload: bytes) -> None:
        """Take a message of the WebSocket."""
        self.must(opcode == self.opcode, f"a frame {opcode} {payload!r}")
        pushes = self.decode(payload)
        for push in pushes if isinstance(pushes, list) else [pushes]:
            self._take_push(push)

    def _take_push(self, push: Any) -> None:
        if "message" in push:
            message = push["message"]
            self.client.got(message["channel"], _position(message), self.data_of(message))
        elif "gap" in push:
            gap = push["gap"]
            self.client.gap(gap["channel"], _position(gap), gap["reason"])
        elif "error" in push:
            self.must(push["error"]["code"] == ErrorCode.UNAVAILABLE.code, push)
            self.client.refused(push["error"]["message"])
        elif "disconnect" not in push:
            told = push.get("subscribed") or push.get("subscribe")
            self.must(told, push)
            self.client.begins(told["channel"], _position(told), told["recovered"])


class _MsgpackWebSocket(_WebSocket):
    """``rtpush.v1.msgpack``."""

    subprotocol = "rtpush.v1.msgpack"
    opcode = BINARY

    def encode(self, told: Any) -> bytes:
        return msgspec.msgpack.encode(told)

    def decode(self, payload: bytes) -> Any:
        return msgspec.msgpack.decode(payload)


class _RawWebSocket(_WebSocket):
    """``rtpush.raw``: one channel; it counts by itself how far it is."""

    def request(self) -> bytes:
        self._by_query = True
        return handshake("/ws", self.query, "rtpush.raw")

    def closed(self, code: int, reason: str) -> None:
        if code == Disconnect.GAP.code:
            [channel] = self.client.channels
            self.client.gap(channel, Position.parse(reason), "closed with 4002")
        super().closed(code, reason)

    def take_payload(self, opcode: int, payload: bytes) -> None:
        self.must(opcode in (TEXT, BINARY), f"a frame {opcode} {payload!r}")
        [(channel, before)] = self.client.positions.items()
        self.client.got(channel, Position(before.epoch, before.offset + 1), json.loads(payload))


class _EventStream(_Connection):
    """SSE as a bare EventSource has it: payloads alone, and the id of the last event is all that it knows."""

    def __init__(self, client: BareClient) -> None:
        super().__init__(client)
        self._text = b""

    def request(self) -> bytes:
        if self.client.random.random() < 0.5:
            return get("/sse", {"channel": ",".join(self.client.channels)}, Last_Event_ID=self.client.cursor)
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
        if self.response.complete and not self.transport.disconnecting:
            self.client.refused("the stream has ended")

    def _take_event(self, event: str, id_: str, data: Any) -> None:
        if event == "disconnect":
            self.client.note(f"disconnect {data}")
            return
        positions = dict(zip(self.client.channels, self._positions(id_), strict=True))
        changed = [channel for channel, before in self.client.positions.items() if positions[channel] != before]
        if event == "open":
            self.must(data["cursor"] == id_, data)
            for channel, position in positions.items():
                self.client.begins(channel, position, data["recovered"] or channel not in changed)
        elif event == "gap":
            self.must(str(_position(data)) == str(positions[data["channel"]]), data)
            # The id of the stream's beginning has told of this position already.
            self.must(set(changed) <= {data["channel"]}, f"the cursor {id_} moves in {changed} with the gap {data}")
            self.client.gap(data["channel"], _position(data), data["reason"])
        else:
            self.must(not event, event)
            self.must(changed == [data["c"]], f"the cursor {id_} moves in {changed}, the message is of {data['c']}")
            self.client.got(data["c"], positions[data["c"]], data)

    def _positions(self, cursor: str) -> Sequence[Position]:
        positions = parse_cursor(cursor, len(self.client.channels))
        return [position for position in positions if position is not None]


class _EnvelopeStream(_EventStream):
    """SSE with envelopes, of which each says where it is."""

    def request(self) -> bytes:
        return get("/sse", {**self.query, "envelope": "1"})

    def _take_event(self, event: str, id_: str, data: Any) -> None:
        if event:
            super()._take_event(event, id_, data)
            return
        self.client.got(data["channel"], _position(data), data["data"])
        self.must(id_ == self.client.cursor, f"the id {id_}, but what came is {self.client.cursor}")


class _Poll(_Connection):
    """Polls, on one connection as long as that lasts."""

    timeout: ClassVar[int]

    def request(self) -> bytes:
        query = {**self.query, "timeout": str(self.timeout)}
        return get("/poll", query, If_None_Match=f'"{self.client.cursor}"')

    def again(self) -> None:
        """Ask again, if the connection is still there."""
        if self.transport.connected:
            self.transport.write(self.request())

    def take(self, data: bytes) -> None:
        self.response.feed(data)
        if not self.response.complete:
            return
        response, self.response = self.response, Response()
        if response.status == 304:
            # Nothing is new, so there is time.
            self.client.later(0.2, self.again)
            return
        if response.status != 200:
            self.response = response
            self.is_refused(response.status)
            return
        answer = json.loads(response.body)
        for message in answer["messages"]:
            self.client.got(message["channel"], _position(message), message["data"])
        for gap in answer.get("gaps", ()):
            self.client.gap(gap["channel"], _position(gap), gap["reason"])
        self.must(answer["recovered"] is ("gaps" not in answer), answer)
        self.must(answer["cursor"] == self.client.cursor, f"{answer['cursor']} but what came is {self.client.cursor}")
        if "disconnect" in answer:
            self.client.refused(f"disconnect {answer['disconnect']}")
        elif response.headers.get("connection") != "close":
            self.client.later(0 if self.timeout or answer["messages"] else 0.2, self.again)


class _LongPoll(_Poll):
    timeout = _POLL_SECONDS
    patience = _POLL_SECONDS + 3.0


class _ShortPoll(_Poll):
    timeout = 0


def _position(told: Any) -> Position:
    return Position(told["epoch"], told["offset"])


#: What there is to follow by.
TRANSPORTS: dict[str, type[_Connection]] = {
    "websocket": _WebSocket,
    "msgpack": _MsgpackWebSocket,
    "raw": _RawWebSocket,
    "sse": _EventStream,
    "sse envelope": _EnvelopeStream,
    "longpoll": _LongPoll,
    "shortpoll": _ShortPoll,
}
