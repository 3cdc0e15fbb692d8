"""What is measured. A new scenario is one more class here, and a line in `SCENARIOS`."""

from __future__ import annotations

import random
import statistics
import string
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from attrs import field, frozen

from benchmarks.errors import BenchmarkError
from benchmarks.fanout import FanOut
from benchmarks.load import Client, Opening, Publisher
from benchmarks.polling import PollCycle
from benchmarks.proc import Meter, pss_bytes, settle
from benchmarks.targets import Ability, Target

__all__ = ["SCENARIOS", "Figure", "Sample", "Scale", "Scenario"]


@frozen
class Scale:
    """How large and how long; `connections` are for memory, `subscribers` for fan-out, `storm` counts channels."""

    connections: int = 10_000
    subscribers: int = 1_000
    seconds: float = 3.0
    handshakes: int = 2_000
    storm: int = 20_000
    payload_bytes: int = 128
    seed: int = 1


@frozen
class Figure:
    """One row of the table. ``factor`` brings the measured value, in base units, to the unit that is printed."""

    key: str
    title: str
    unit: str
    less_is_better: bool
    factor: float = 1.0


@frozen
class Sample:
    """What one run of a scenario gave: values by figure, in base units (seconds, bytes, a second), and who was busy."""

    values: Mapping[str, float]
    server_busy: float = 0.0
    client_busy: float = 0.0
    disturbed: float = 0.0
    details: Mapping[str, float] = field(factory=dict)

    @classmethod
    def of(cls, meter: Meter, values: Mapping[str, float], **details: float) -> Sample:
        """Make a sample with the shares of the clock that server, client and strangers on the server's core took."""
        return cls(
            values,
            server_busy=meter.server / meter.wall,
            client_busy=meter.client / meter.wall,
            disturbed=meter.waited / meter.wall,
            details={"user": meter.user, "system": meter.system, "wall": meter.wall, **details},
        )


def payloads(scale: Scale) -> Iterator[str]:
    """Yield ASCII payloads of one size that are all different."""
    letters = random.Random(scale.seed).choices(string.ascii_letters, k=scale.payload_bytes)
    filling = "".join(letters)
    number = 0
    while True:
        yield f"{number:010d}{filling}"[: scale.payload_bytes]
        number += 1


class Scenario(ABC):
    """One way of using a server that has just been started."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    figures: ClassVar[tuple[Figure, ...]]
    # What does not vary from run to run is measured once.
    repeat: ClassVar[bool] = True
    # Scenarios of a group are printed in one table.
    group: ClassVar[str] = "one server"

    @abstractmethod
    def measure(self, target: Target, scale: Scale) -> Sample:
        """Measure a running target. Raises `BenchmarkError` if the server does not do what it must."""


class Memory(Scenario):
    """Memory per idle connection: how much the server grows while so many connections are opened and left alone."""

    repeat = False

    def opening(self, target: Target) -> Opening:
        """Return how each connection begins."""
        raise NotImplementedError

    def measure(self, target: Target, scale: Scale) -> Sample:
        opening = self.opening(target)
        with Client() as client:
            # What the first connection makes the server load is not a cost of each.
            client.open(opening, 1)
            settle(target.pid)
            before = pss_bytes(target.pid)
            with Meter(target.pid) as meter:
                client.open(opening, scale.connections)
                settle(target.pid, meanwhile=client.stay)
            each = (pss_bytes(target.pid) - before) / scale.connections
            client.stay()
        return Sample.of(meter, {self.name: each}, connections=scale.connections)


class MemoryWebSocket(Memory):
    """Idle WebSockets."""

    name = "memory-websocket"
    needs = frozenset({Ability.WEBSOCKET})
    figures = (Figure(name, "memory, idle WebSocket", "KB", True, 1 / 1024),)

    def opening(self, target: Target) -> Opening:
        return target.websocket()


class MemorySse(Memory):
    """Idle event streams."""

    name = "memory-sse"
    needs = frozenset({Ability.SSE})
    figures = (Figure(name, "memory, idle SSE", "KB", True, 1 / 1024),)

    def opening(self, target: Target) -> Opening:
        return target.sse()


class MemoryPoll(Memory):
    """Waiting long polls."""

    name = "memory-poll"
    needs = frozenset({Ability.POLL})
    figures = (Figure(name, "memory, waiting long poll", "KB", True, 1 / 1024),)

    def opening(self, target: Target) -> Opening:
        return target.poll(b"")


class Handshakes(Scenario):
    """WebSockets opened and subscribed as fast as the server lets them, in rounds; closing is not measured."""

    name = "handshakes"
    needs = frozenset({Ability.WEBSOCKET})
    figures = (
        Figure("handshakes", "WebSocket handshakes", "/s", False),
        Figure("handshake-cpu", "CPU a handshake", "µs", True, 1e6),
    )

    def measure(self, target: Target, scale: Scale) -> Sample:
        opening = target.websocket()
        meter = Meter(target.pid)
        opened = 0
        while meter.wall < scale.seconds:
            with Client() as client, meter:
                client.open(opening, scale.handshakes)
                # Some of the work may come after the answer; it belongs to the handshake, though not to its time.
                opened += scale.handshakes
            settle(target.pid, quiet=0.1)
        return Sample.of(
            meter, {"handshakes": opened / meter.wall, "handshake-cpu": meter.server / opened}, opened=opened
        )


class WithSubscribers(Scenario):
    """One channel with all its subscribers, and what is published to it; checks that nothing was lost on the way."""

    needs = frozenset({Ability.FANOUT})
    publishers = 1

    @abstractmethod
    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        """Publish and measure."""

    def measure(self, target: Target, scale: Scale) -> Sample:
        stream = payloads(scale)
        requests = map(target.publish, stream)
        with Client() as client, Publisher(target.http, self.publishers) as publisher:
            fanout = FanOut(client, target.websocket(), scale.subscribers, publisher)
            settle(target.pid, quiet=0.1)
            fanout.run_single(requests, min(0.3, scale.seconds))
            sample = self.drive(fanout, requests, Meter(target.pid), scale.seconds)
            last = next(stream)
            fanout.check(target.publish(last), last.encode())
        return sample


class Fanout(WithSubscribers):
    """One message at a time: the next is published when the last subscriber has the one before."""

    name = "fanout"
    figures = (Figure("delivery-cpu", "fan-out, one at a time: CPU a delivery", "µs", True, 1e6),)

    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        with meter:
            deliveries = fanout.run_single(requests, seconds)
        return Sample.of(meter, {"delivery-cpu": meter.server / deliveries}, deliveries=deliveries)


class FanoutLoaded(WithSubscribers):
    """Back to back: 16 publishers, and always up to 64 messages on the way."""

    name = "fanout-loaded"
    figures = (
        Figure("delivery-cpu-loaded", "fan-out, back to back: CPU a delivery", "µs", True, 1e6),
        Figure("deliveries", "fan-out, back to back: deliveries", "/s", False),
    )
    publishers = 16
    in_flight = 64

    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        with meter:
            deliveries = fanout.run(requests, seconds, self.in_flight)
        values = {"delivery-cpu-loaded": meter.server / deliveries, "deliveries": deliveries / meter.wall}
        return Sample.of(meter, values, deliveries=deliveries)


class Latency(WithSubscribers):
    """From when a message was due to be published until a subscriber has it; 10 messages a second, whatever happens."""

    name = "latency"
    figures = (
        Figure("latency-p50", "latency to each of all subscribers, p50", "ms", True, 1e3),
        Figure("latency-p90", "latency, p90", "ms", True, 1e3),
        Figure("latency-p99", "latency, p99", "ms", True, 1e3),
    )
    rate = 10.0

    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        with meter:
            latencies = fanout.run_paced(requests, seconds, self.rate)
        if len(latencies) < 2:
            raise BenchmarkError("too few deliveries for percentiles")
        cut = statistics.quantiles(latencies, n=100, method="inclusive")
        values = {"latency-p50": cut[49], "latency-p90": cut[89], "latency-p99": cut[98]}
        return Sample.of(meter, values, deliveries=len(latencies), max=max(latencies))


class Publish(Scenario):
    """HTTP publishes to a channel that nobody follows, on 16 kept connections with one request each under way."""

    name = "publish"
    needs = frozenset({Ability.PUBLISH})
    figures = (
        Figure("publishes", "HTTP publishes", "/s", False),
        Figure("publish-cpu", "CPU a publish", "µs", True, 1e6),
    )
    connections = 16
    messages_a_request = 1

    def requests(self, target: Target, scale: Scale) -> Iterator[bytes]:
        """Yield the requests to send."""
        return map(target.publish, payloads(scale))

    def measure(self, target: Target, scale: Scale) -> Sample:
        requests = self.requests(target, scale)
        with Publisher(target.http, self.connections, target.whole(self.messages_a_request)) as publisher:
            publisher.run(requests, min(0.2, scale.seconds))
            with Meter(target.pid) as meter:
                published = publisher.run(requests, scale.seconds) * self.messages_a_request
        rate, cpu = (figure.key for figure in self.figures)
        return Sample.of(meter, {rate: published / meter.wall, cpu: meter.server / published}, published=published)


class PublishBatch(Publish):
    """The same with 100 messages a request."""

    name = "publish-batch"
    needs = frozenset({Ability.PUBLISH, Ability.BATCH})
    figures = (
        Figure("publishes-batch", "HTTP publishes, 100 a request", "/s", False),
        Figure("publish-batch-cpu", "CPU a publish, 100 a request", "µs", True, 1e6),
    )
    messages_a_request = 100

    def requests(self, target: Target, scale: Scale) -> Iterator[bytes]:
        # Built before the clock runs: encoding 100 messages costs the client more than sending them.
        stream = payloads(scale)
        built = [target.batch([next(stream) for _ in range(self.messages_a_request)]) for _ in range(64)]
        while True:
            yield from built


class Polls(Scenario):
    """Long polls on kept connections: when all are waiting, one message answers them, and each polls again."""

    name = "polls"
    needs = frozenset({Ability.POLL, Ability.PUBLISH})
    figures = (
        Figure("polls", "long polls answered", "/s", False),
        Figure("poll-cpu", "CPU a poll", "µs", True, 1e6),
    )

    def measure(self, target: Target, scale: Scale) -> Sample:
        requests = map(target.publish, payloads(scale))
        with Client() as client, Publisher(target.http, 1) as publisher:
            cycle = PollCycle(client, target.poll, target.cursor, scale.subscribers, publisher)
            settle(target.pid, quiet=0.1)
            cycle.run(requests, min(0.2, scale.seconds))
            with Meter(target.pid) as meter:
                answered = cycle.run(requests, scale.seconds)
        return Sample.of(
            meter, {"polls": answered / meter.wall, "poll-cpu": meter.server / answered}, answered=answered
        )


SCENARIOS: tuple[Scenario, ...] = (
    MemoryWebSocket(),
    MemorySse(),
    MemoryPoll(),
    Handshakes(),
    Fanout(),
    FanoutLoaded(),
    Latency(),
    Publish(),
    PublishBatch(),
    Polls(),
)
