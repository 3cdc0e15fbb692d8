"""The clients that we ship, as clients of a run: they write down what they tell their users."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

import rtpush
from rtpush.client import Client, Status
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush
from tests.chaos.history import Entry, Gap, Got, Timeline, View
from tests.support.processes import Process

__all__ = ["NodeClient", "PythonClient"]

_FOLLOW = Path(__file__).parents[1] / "integration" / "follow.mjs"
_MODULE = Path(rtpush.__file__).parent / "static" / "client" / "rtpush.js"


class PythonClient:
    """
    The Python client, which follows some channels by one transport.

    It has the same attributes as :class:`tests.chaos.clients.BareClient`.
    """

    def __init__(
        self,
        name: str,
        port: int,
        transport: str,
        starts: Mapping[str, Position],
        timeline: Timeline,
        problem: Callable[[str, object], object],
    ) -> None:
        self.name = name
        self.positions = dict(starts)
        self.views = {channel: View(name, channel, start) for channel, start in starts.items()}
        self.connections = 0
        self._url = f"http://127.0.0.1:{port}/"
        self._transport = transport
        self._timeline = timeline
        self._problem = problem
        self._client: Client | None = None
        self._closing: list[Deferred[None]] = []

    def come(self) -> None:
        """Be there, from where it was."""
        if self._client is not None:
            return
        client = self._client = Client(
            reactor, self._url, transports=[self._transport], open_timeout=2.0, climb_after=5.0
        )
        client.on_status(self._changed)
        for channel, position in self.positions.items():
            client.subscribe(
                channel,
                lambda message, channel=channel: self._got(channel, message),  # type: ignore[misc]
                position=position,
                on_gap=self._gap,
                on_end=lambda error: self._problem(self.name, error),
            )

    def leave(self) -> None:
        """Be away."""
        if self._client is not None:
            client, self._client = self._client, None
            self._timeline.note(self.name, "closed")
            self._closing.append(client.close())

    async def end(self) -> None:
        """Be away for good, when this has a result."""
        self.leave()
        for closing in self._closing:
            await closing

    def _changed(self, status: Status) -> None:
        self.connections += status.transport is not None
        self._timeline.note(self.name, f"{status.state.name} {status.transport}: {status.reason}")

    def _write(self, channel: str, entry: Entry) -> None:
        self.positions[channel] = entry.position
        self.views[channel].entries.append(entry)

    def _got(self, channel: str, message: Message) -> None:
        data = json.loads(message.payload.data)
        if message.position is None or data["c"] != channel:
            self._problem(self.name, f"{data} in {channel} at {message.position}")
            return
        self._write(channel, Got(self._timeline.now, message.position, data["n"]))

    def _gap(self, gap: GapPush) -> None:
        self._write(gap.channel, Gap(self._timeline.now, gap.position, gap.reason))


class NodeClient:
    """
    The JavaScript client in a Node of its own, which follows one channel from now, by what works. Away it is stopped.

    It has the same attributes as :class:`tests.chaos.clients.BareClient`.
    """

    def __init__(
        self,
        test: TestCase,
        node: str,
        name: str,
        port: int,
        channel: str,
        timeline: Timeline,
        problem: Callable[[str, object], object],
    ) -> None:
        self.name = name
        self.positions: dict[str, Position] = {}
        self.views = {channel: View(name, channel, None)}
        self.connections = 0
        self._channel = channel
        self._timeline = timeline
        self._problem = problem
        self._rest = b""
        options = json.dumps({"climbAfter": 5, "openTimeout": 2})
        command = [node, str(_FOLLOW), _MODULE.as_uri(), f"http://127.0.0.1:{port}/", channel, options]
        self.process = Process(test, command, listener=self._heard)

    def come(self) -> None:
        """Go on."""
        self.process.signal(signal.SIGCONT)

    def leave(self) -> None:
        """Stop."""
        self.process.signal(signal.SIGSTOP)

    async def end(self) -> None:
        """Be away for good."""
        self.come()
        await self.process.stop()

    def _heard(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError) as error:
                self._problem(self.name, f"{error!r} in {line[:300]!r}")

    def _take(self, said: Any) -> None:
        if "n" in said:
            self._write(Got(self._timeline.now, Position.parse(said["position"]), said["n"]))
        elif "gap" in said:
            gap = said["gap"]
            self._write(Gap(self._timeline.now, Position(gap["epoch"], gap["offset"]), gap["reason"]))
        elif "transport" in said:
            self.connections += said["transport"] is not None
            self._timeline.note(self.name, said)
        else:
            self._problem(self.name, said)

    def _write(self, entry: Entry) -> None:
        self.positions[self._channel] = entry.position
        self.views[self._channel].entries.append(entry)
