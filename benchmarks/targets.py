"""rtpush as a target, with each of its wire forms."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.frames import client_frame, split_frame
from benchmarks.load import Following, Opening, Sending, http_get, http_post, websocket_request
from benchmarks.target import EVENTS, HEAD_END, Ability, Target, Way, installed

__all__ = ["Rtpush", "RtpushJson"]


def _publish_request(channel: str, payload: str) -> bytes:
    return http_post("/api/v1/publish", json.dumps({"channel": channel, "data": payload}).encode())


def _publish_frame(channel: str, payload: str) -> bytes:
    return client_frame(json.dumps({"id": 1, "publish": {"channel": channel, "data": payload}}).encode())


def _framed(messages: int) -> Callable[[bytes], bool]:
    """Return what tells whether so many replies, a frame each, have come."""

    def whole(data: bytes) -> bool:
        start = 0
        for _ in range(messages):
            frame = split_frame(data, start, len(data))
            if frame is None:
                return False
            if b'"error"' in data[frame[1] : frame[2]]:
                raise BenchmarkError(f"a message was refused: {data[frame[1] : frame[2]]!r}")
            start = frame[2]
        return True

    return whole


class Rtpush(Target):
    """rtpush as it comes, on its memory engine; subscribers get the payload alone."""

    name = "rtpush"
    title = "rtpush"
    settings = (
        "rtpush.raw (a frame is the payload), memory engine, history of 100 messages, a backlog of 4,096; all other "
        "options default"
    )
    abilities = frozenset(
        {
            Ability.WEBSOCKET,
            Ability.FANOUT,
            Ability.SSE,
            Ability.POLL,
            Ability.CYCLE,
            Ability.PUBLISH,
            Ability.BATCH,
            Ability.CHANNELS,
        }
    )

    def versions(self) -> str:
        return ", ".join((installed("rtpush"), installed("Twisted"), installed("autobahn")))

    def command(self, directory: Path) -> Sequence[str]:
        return self.node(directory, self.port)

    def node(self, directory: Path, port: int, more: str = "") -> Sequence[str]:
        """Return the command of a node that listens on ``port``; ``more`` is added to its configuration."""
        config = directory / f"{port}.ini"
        config.write_text(
            f"[server]\nlisten = tcp:{port}:interface=127.0.0.1:backlog=4096\n[api]\nopen = yes\n"
            # What comes is not spread over the time that a node would ask for: how much it can do is the question.
            "[limits]\nconnect_rate = 0\n"
            f"[namespace:bench]\nhistory_size = 100\nhistory_ttl = 300\npublish = anyone\n{more}"
        )
        twistd = "from twisted.scripts.twistd import run; run()"
        return sys.executable, "-c", twistd, "-n", "--pidfile=", "rtpush", "--config", str(config)

    def where_followed(self) -> tuple[str, int]:
        """Where the subscribers of channels connect."""
        return self.http

    def follow(self, channel: str) -> Opening:
        # The handshake's answer is followed by {"subscribed": {…}}.
        return Opening(self.where_followed(), websocket_request(f"/ws?channel={channel}", "rtpush.v1"), b"}}")

    def sending(self, way: str) -> Sending:
        if way == Way.WEBSOCKET:
            opening = Opening(self.http, websocket_request("/ws", "rtpush.v1"), HEAD_END)
            return Sending(opening, _publish_frame, _framed)
        return Sending(Opening(self.http, b"", None), _publish_request, self.whole)

    def following(self, channels: Sequence[str]) -> Following:
        commands = [{"id": number, "subscribe": {"channel": channel}} for number, channel in enumerate(channels, 1)]
        opening = Opening(self.where_followed(), websocket_request("/ws", "rtpush.v1"), HEAD_END)
        return Following(opening, client_frame(json.dumps(commands).encode()), b'"epoch"')

    def publish(self, payload: str, channel: int = 0) -> bytes:
        return _publish_request(f"bench:{channel}", payload)

    def batch(self, payloads: Sequence[str]) -> bytes:
        messages = [{"channel": "bench:0", "data": payload} for payload in payloads]
        return http_post("/api/v1/publish_batch", json.dumps({"messages": messages}).encode())

    def websocket(self, channel: int = 0) -> Opening:
        return Opening(self.http, websocket_request(f"/ws?channel=bench:{channel}", "rtpush.raw"), HEAD_END)

    def sse(self) -> Opening:
        return Opening(self.http, http_get("/sse?channel=bench:0", EVENTS), b"event: open")

    def poll(self, cursor: bytes) -> Opening:
        query = f"&cursor={cursor.decode()}" if cursor else ""
        return Opening(self.http, http_get(f"/poll?channel=bench:0&timeout=60{query}"), None)


class RtpushJson(Rtpush):
    """The same server with what a browser client uses: envelopes in JSON."""

    name = "rtpush-json"
    title = "rtpush, JSON"
    settings = "the same, rtpush.v1 (a frame is a JSON envelope with the position)"
    abilities = frozenset({Ability.WEBSOCKET, Ability.FANOUT})

    def websocket(self, channel: int = 0) -> Opening:
        return self.follow(f"bench:{channel}")
