"""An HTTP/2 client that does what it is told, good or bad."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from twisted.internet import reactor, ssl
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.waiting import soon, until

__all__ = ["Answer", "Http2Client"]


@attrs.define
class Answer:
    """
    What came on a stream.

    :ivar takes: Whether room is made for more.
    :ivar reset: The code that the stream was reset with.
    """

    id: int
    takes: bool = True
    fields: dict[str, str] = attrs.Factory(dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The status, or 0 if there is none yet."""
        return int(self.fields.get(":status", 0))

    @property
    def data(self) -> list[Any]:
        """The data of the messages in an event stream."""
        *blocks, _ = self.body.decode().split("\n\n")
        lines = [block.split("\n") for block in blocks if "event: " not in block]
        return [json.loads(line[6:]) for block in lines for line in block if line.startswith("data: ")]


class Http2Client(Protocol):
    """
    A connection.

    :ivar goaway: The code with which the server has said that it takes no more requests.
    """

    transport: Any

    def __init__(self) -> None:
        self.machine = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.goaway: int | None = None
        self.gone = False
        self._answers: dict[int, Answer] = {}

    @classmethod
    async def connect(cls, test: TestCase, port: int) -> Http2Client:
        """Connect, over TLS."""
        client = cls()
        options = ssl.CertificateOptions(verify=False, acceptableProtocols=[b"h2"])
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port, options)
        await soon(endpoint.connect(Factory.forProtocol(lambda: client)))
        test.addCleanup(client.close)
        client.machine.initiate_connection()
        client.flush()
        await until(lambda: client.transport.negotiatedProtocol, "the handshake")
        return client

    def close(self) -> None:
        """Go away without a word."""
        if not self.gone:
            self.transport.abortConnection()

    def flush(self) -> None:
        """Send what is to be sent."""
        self.transport.write(self.machine.data_to_send())

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        *,
        method: str = "",
        fields: Sequence[tuple[str, str]] = (),
        is_all: bool = True,
        takes: bool = True,
    ) -> Answer:
        """
        Send a request.

        :param is_all: Whether nothing of it comes later.
        :param takes: Whether room is made for more of the answer than 64 KiB.
        """
        id_ = self.machine.get_next_available_stream_id()
        answer = self._answers[id_] = Answer(id_, takes)
        head = [
            (":method", method or ("GET" if body is None else "POST")),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
            *fields,
        ]
        self.machine.send_headers(id_, head, end_stream=body is None and is_all)
        if body is not None:
            self.machine.send_data(id_, body, end_stream=is_all)
        self.flush()
        return answer

    async def get(self, path: str, body: bytes | None = None, **how: Any) -> Answer:
        """Send a request, and return the answer when it is complete."""
        answer = self.ask(path, body, **how)
        await until(lambda: answer.ended or answer.reset is not None, f"the end of {path}")
        return answer

    async def follow(self, path: str, **how: Any) -> Answer:
        """Open an event stream."""
        answer = self.ask(path, **how)
        await until(lambda: b"event: open" in answer.body, f"{path} to be open", seen=lambda: str(answer))
        return answer

    def reset(self, answer: Answer) -> None:
        """Cancel a request."""
        self.machine.reset_stream(answer.id, 8)
        self.flush()

    def take(self, answer: Answer) -> None:
        """Take from an answer again what was not taken, which must be of 64 KiB."""
        answer.takes = True
        self.machine.increment_flow_control_window(1 << 20, answer.id)
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        for event in self.machine.receive_data(data):
            self._react(event)
        self.flush()

    def _react(self, event: Any) -> None:
        answer = self._answers.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, events.ConnectionTerminated):
            self.goaway = event.error_code
        elif answer is None:
            return
        elif isinstance(event, events.ResponseReceived):
            answer.fields.update(event.headers)
        elif isinstance(event, events.DataReceived):
            answer.body += event.data
            size = event.flow_controlled_length
            if answer.takes:
                self.machine.acknowledge_received_data(size, answer.id)
            elif size:
                # The connection has room all the same.
                self.machine.increment_flow_control_window(size)
        elif isinstance(event, events.StreamEnded):
            answer.ended = True
        elif isinstance(event, events.StreamReset):
            answer.reset = event.error_code

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.gone = True
