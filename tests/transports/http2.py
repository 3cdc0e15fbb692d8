"""A client of HTTP/2 without sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from tests.transports.serving import ServedTestCase, Wire

__all__ = ["Http2Client"]


class Http2Client:
    """A client that takes all that comes, unless it is told not to."""

    def __init__(self, test: ServedTestCase, *, window: int = 65535) -> None:
        self.test = test
        self.wire = Wire(test.clock, 40000)
        self.machine = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.machine.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.machine.local_settings.acknowledge()
        self.bodies: dict[int, bytes] = {}
        self.order: list[int] = []
        self.statuses: dict[int, str] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, Any] = {}
        self.goaway: Any = None
        self._read = 0
        self.wire.protocol = test.site.build_http2("")
        self.wire.protocol.makeConnection(self.wire)
        self.machine.initiate_connection()
        self.flush()

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        is_all: bool = True,
    ) -> int:
        """Send a request; return the id of its stream."""
        id_ = self.machine.get_next_available_stream_id()
        self.bodies[id_] = b""
        head = [(":method", method), (":scheme", "https"), (":authority", "a"), (":path", path)]
        head += [(name.lower(), value) for name, value in (headers or {}).items()]
        self.machine.send_headers(id_, head, end_stream=body is None and is_all)
        if body is not None:
            self.machine.send_data(id_, body, end_stream=is_all)
        self.flush()
        return id_

    def flush(self) -> None:
        """Send what is to be sent, and look at what comes."""
        self.wire.come(self.machine.data_to_send())
        self.look()

    def look(self) -> None:
        """Look at what has come."""
        self.test.clock.advance(0)
        data = bytes(self.wire.sent[self._read :])
        self._read += len(data)
        for event in self.machine.receive_data(data):
            id_ = getattr(event, "stream_id", 0)
            if isinstance(event, events.ResponseReceived):
                self.statuses[id_] = dict(event.headers)[":status"]
            elif isinstance(event, events.DataReceived):
                self.bodies[id_] += event.data
                self.order.append(id_)
            elif isinstance(event, events.StreamEnded):
                self.ended.add(id_)
            elif isinstance(event, events.StreamReset):
                self.resets[id_] = event.error_code
            elif isinstance(event, events.ConnectionTerminated):
                self.goaway = event.error_code
