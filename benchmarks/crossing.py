"""What is measured across nodes. The client's connections, both nodes and Redis share the cores of the machine."""

from __future__ import annotations

import statistics
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import ClassVar

from benchmarks.load import Client, Publisher
from benchmarks.proc import Meter, settle
from benchmarks.scenario import Figure, Sample, Scale, Scenario, payloads
from benchmarks.stream import Stream
from benchmarks.target import Ability, Target, Way

__all__ = ["NODE_SCENARIOS"]


class Meters:
    """Measures each part of a target inside its ``with`` block."""

    def __init__(self, target: Target) -> None:
        self._meters = {part: Meter(pid) for part, pid in target.parts().items()}
        self._stack = ExitStack()
        self.wall = self.client = 0.0

    def __enter__(self) -> Meters:
        self._begun = time.monotonic(), time.process_time()
        for meter in self._meters.values():
            self._stack.enter_context(meter)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()
        self.wall = time.monotonic() - self._begun[0]
        self.client = time.process_time() - self._begun[1]

    def each(self, count: int, name: str) -> Mapping[str, float]:
        """Return the CPU seconds for each of so many, of every part and of all nodes, by the key of a figure."""
        values = {part: meter.server / count for part, meter in self._meters.items()}
        nodes = [value for part, value in values.items() if part != "redis"]
        if nodes:
            values["nodes"] = sum(nodes)
        return {f"{name}-cpu-{part}": value for part, value in values.items()}

    def sample(self, values: Mapping[str, float], **details: float) -> Sample:
        """Make a sample."""
        busiest = max(meter.server for meter in self._meters.values()) / self.wall
        return Sample(
            values,
            server_busy=busiest,
            client_busy=self.client / self.wall,
            details={
                "wall": self.wall,
                "client": self.client,
                **{part: meter.server for part, meter in self._meters.items()},
                **details,
            },
        )


def costs(name: str, what: str) -> tuple[Figure, ...]:
    """Return figures of `Meters.each`."""
    return (
        Figure(f"{name}-cpu-nodes", f"{what}: CPU of the nodes", "µs", True, 1e6),
        Figure(f"{name}-cpu-redis", f"{what}: CPU of Redis", "µs", True, 1e6),
    )


class Across(Scenario):
    """A scenario across nodes."""

    group = "nodes"
    needs = frozenset({Ability.CHANNELS})


class Paced(Across):
    """1,000 messages a second on 10 channels, each from a connection of its own to a subscriber of its own."""

    way: ClassVar[str]
    rate = 1000.0
    channels = 10

    def measure(self, target: Target, scale: Scale) -> Sample:
        channels = [f"bench:{number}" for number in range(self.channels)]
        stream = payloads(scale)
        with Client() as client:
            messages = Stream(client, [target.follow(each) for each in channels], target.sending(self.way), channels)
            messages.run(stream, min(0.5, scale.seconds), self.rate)
            with Meters(target) as meters:
                latencies = messages.run(stream, scale.seconds, self.rate)
        cut = statistics.quantiles(latencies, n=100, method="inclusive")
        values = {f"{self.name}-p50": cut[49], f"{self.name}-p99": cut[98], **meters.each(len(latencies), self.name)}
        return meters.sample(values, messages=len(latencies), max=max(latencies))


def paced(name: str, what: str) -> tuple[Figure, ...]:
    """Return the figures of a `Paced`."""
    return (
        Figure(f"{name}-p50", f"{what}, 1,000/s: latency, p50", "ms", True, 1e3),
        Figure(f"{name}-p99", f"{what}, 1,000/s: latency, p99", "ms", True, 1e3),
        *costs(name, f"{what}, 1,000/s"),
        Figure(f"{name}-cpu-follower", f"{what}, 1,000/s: CPU of the node that delivers", "µs", True, 1e6),
    )


class PacedHttp(Paced):
    """Published over HTTP."""

    name = "nodes-http"
    way = Way.HTTP
    figures = paced(name, "HTTP to WebSocket")


class PacedWebSocket(Paced):
    """Published over WebSockets."""

    name = "nodes-websocket"
    quick = False
    way = Way.WEBSOCKET
    figures = paced(name, "WebSocket to WebSocket")


class PacedRedis(Paced):
    """Published in Redis by the client itself: ``FCALL``."""

    name = "nodes-redis"
    quick = False
    way = Way.REDIS
    needs = frozenset({Ability.CHANNELS, Ability.REDIS})
    figures = paced(name, "FCALL to WebSocket")


class Flood(Across):
    """As many messages as go through to a channel that nobody follows, on 16 kept connections."""

    connections = 16
    messages_a_request = 1

    @abstractmethod
    def request(self, target: Target, payloads: Iterator[str]) -> bytes:
        """Return the next request."""

    def publisher(self, target: Target) -> Publisher:
        """Connect."""
        return Publisher(target.publishing, self.connections, target.whole(self.messages_a_request))

    def measure(self, target: Target, scale: Scale) -> Sample:
        stream = payloads(scale)
        # Built before the clock runs: encoding costs the client more than sending.
        requests = [self.request(target, stream) for _ in range(64)]

        def again() -> Iterator[bytes]:
            while True:
                yield from requests

        with self.publisher(target) as publisher:
            publisher.run(again(), min(0.2, scale.seconds))
            with Meters(target) as meters:
                published = publisher.run(again(), scale.seconds) * self.messages_a_request
        return meters.sample(
            {self.name: published / meters.wall, **meters.each(published, self.name)}, published=published
        )


def flood(name: str, what: str) -> tuple[Figure, ...]:
    """Return the figures of a `Flood`."""
    return (Figure(name, f"{what}: publishes", "/s", False), *costs(name, what))


class FloodSingle(Flood):
    """One message a request."""

    name = "nodes-publish"
    figures = flood(name, "HTTP")

    def request(self, target: Target, payloads: Iterator[str]) -> bytes:
        return target.publish(next(payloads))


class FloodBatch(Flood):
    """100 messages a request."""

    name = "nodes-publish-batch"
    figures = flood(name, "HTTP, 100 a request")
    messages_a_request = 100

    def request(self, target: Target, payloads: Iterator[str]) -> bytes:
        return target.batch([next(payloads) for _ in range(self.messages_a_request)])


class FloodRedis(Flood):
    """By the client in Redis, 100 commands at a time."""

    name = "nodes-publish-redis"
    quick = False
    needs = frozenset({Ability.CHANNELS, Ability.REDIS})
    figures = flood(name, "FCALL, 100 at a time")
    messages_a_request = 100

    def request(self, target: Target, payloads: Iterator[str]) -> bytes:
        make = target.sending(Way.REDIS).request
        return b"".join(make("bench:0", next(payloads)) for _ in range(self.messages_a_request))

    def publisher(self, target: Target) -> Publisher:
        sending = target.sending(Way.REDIS)
        return Publisher(sending.opening.address, self.connections, sending.whole(self.messages_a_request))


class Storm(Across):
    """200 connections follow 100 different channels each, all at once."""

    name = "nodes-subscribe"
    figures = (
        Figure("subscriptions", "subscribe storm: channels", "/s", False),
        Figure("subscribe-calls", "subscribe storm: commands to Redis for 1,000 channels", "", True, 1e3),
        *costs("subscribe", "subscribe storm"),
    )
    channels = 100

    def measure(self, target: Target, scale: Scale) -> Sample:
        connections = max(scale.storm // self.channels, 1)
        followed = connections * self.channels
        followings = [
            target.following([f"bench:{connection}-{number}" for number in range(self.channels)])
            for connection in range(connections)
        ]
        with Client() as client:
            fds = list(client.open(followings[0].opening, connections))
            settle(target.pid, quiet=0.1)
            missing = dict.fromkeys(fds, self.channels)
            partial = dict.fromkeys(fds, b"")
            confirmation = followings[0].confirmation
            calls = target.redis_calls()
            with Meters(target) as meters:
                for fd, following in zip(fds, followings, strict=True):
                    client.sockets[fd].sendall(following.request)
                while any(missing.values()):
                    for fd in client.readable():
                        data = partial[fd] + client.read(fd)
                        missing[fd] -= data.count(confirmation)
                        partial[fd] = data[1 - len(confirmation) :]
            values = {"subscriptions": followed / meters.wall, **meters.each(followed, "subscribe")}
            if calls is not None:
                values["subscribe-calls"] = ((target.redis_calls() or 0) - calls) / followed
        return meters.sample(values, channels=followed)


NODE_SCENARIOS: tuple[Scenario, ...] = (
    PacedHttp(),
    PacedWebSocket(),
    PacedRedis(),
    FloodSingle(),
    FloodBatch(),
    FloodRedis(),
    Storm(),
)
