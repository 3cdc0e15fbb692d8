"""What is measured of messages on their way: one to many, one to one."""

from __future__ import annotations

import statistics
from abc import abstractmethod
from collections.abc import Iterator, Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.fanout import FanOut
from benchmarks.load import Client, Opening, Publisher, Sending
from benchmarks.pairs import Pairs
from benchmarks.proc import TICK, Meter, settle
from benchmarks.scenario import Figure, Sample, Scale, Scenario, payloads
from benchmarks.stream import Stream
from benchmarks.target import Ability, Target

__all__ = ["Fanout", "FanoutLoaded", "FanoutPaced", "Latency", "OneToOne", "percentile"]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile. Raises `BenchmarkError` if there are too few values."""
    if len(values) < 2:
        raise BenchmarkError("too few deliveries for percentiles")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


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
        with Client() as client, Publisher(target.publishing, self.publishers) as publisher:
            opened = client.open(target.websocket(), scale.subscribers, target.window)
            fanout = FanOut(client, opened, publisher)
            settle(target.pid, quiet=0.1)
            fanout.run_single(requests, min(0.3, scale.seconds))
            sample = self.drive(fanout, requests, Meter(target.pid), scale.seconds)
            last = next(stream)
            fanout.check(target.publish(last), last.encode())
        return sample


class Fanout(WithSubscribers):
    """One message at a time: the next is published when the last subscriber has the one before."""

    name = "fanout"
    figures = (Figure("delivery-cpu", "fan-out, one message at a time: CPU a delivery", "µs", True, 1e6),)

    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        with meter:
            deliveries = fanout.run_single(requests, seconds)
        return Sample.of(meter, {"delivery-cpu": meter.server / deliveries}, deliveries=deliveries)


class FanoutLoaded(WithSubscribers):
    """Back to back: 16 publishers, and up to 16 messages on the way.

    What a core can do is told by the CPU that a delivery takes: reading so much is work for this client, too.
    """

    name = "fanout-loaded"
    figures = (
        Figure("deliveries", "fan-out, back to back: deliveries on one core", "/s of CPU", False),
        Figure("deliveries-p99", "fan-out, back to back: latency, p99", "ms", True, 1e3),
        Figure("deliveries-seen", "fan-out, back to back: deliveries that the client saw", "/s", False),
    )
    publishers = 16
    in_flight = 16

    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        with meter:
            deliveries, latencies = fanout.run(requests, seconds, self.in_flight)
        values = {
            "deliveries": deliveries / max(meter.server, TICK),
            "deliveries-seen": deliveries / meter.wall,
            "deliveries-p99": percentile(latencies, 99),
        }
        return Sample.of(meter, values, deliveries=deliveries)


class FanoutPaced(WithSubscribers):
    """From when a message was due to be published until a subscriber has it; 10 messages a second, whatever happens."""

    name = "fanout-paced"
    quick = False
    figures = (
        Figure("fanout-p50", "fan-out, 10 a second: latency, p50", "ms", True, 1e3),
        Figure("fanout-p99", "fan-out, 10 a second: latency, p99", "ms", True, 1e3),
    )
    rate = 10.0

    def drive(self, fanout: FanOut, requests: Iterator[bytes], meter: Meter, seconds: float) -> Sample:
        with meter:
            latencies = fanout.run_paced(requests, seconds, self.rate)
        values = {"fanout-p50": percentile(latencies, 50), "fanout-p99": percentile(latencies, 99)}
        return Sample.of(meter, values, deliveries=len(latencies), max=max(latencies))


class Latency(Scenario):
    """1,000 messages a second over HTTP, on 10 channels with a publishing connection and a WebSocket each."""

    name = "latency"
    needs = frozenset({Ability.FANOUT})
    figures = (
        Figure("latency-p50", "publish to delivery, 1,000/s: latency, p50", "ms", True, 1e3),
        Figure("latency-p99", "publish to delivery, 1,000/s: latency, p99", "ms", True, 1e3),
    )
    rate = 1000.0
    channels = 10

    def measure(self, target: Target, scale: Scale) -> Sample:
        stream = payloads(scale)
        sending = Sending(
            Opening(target.publishing, b"", None),
            lambda channel, payload: target.publish(payload, int(channel)),
            target.whole,
        )
        with Client() as client:
            openings = [target.websocket(number) for number in range(self.channels)]
            messages = Stream(client, openings, sending, list(map(str, range(self.channels))))
            messages.run(stream, min(0.5, scale.seconds), self.rate)
            meter = Meter(target.pid)
            with meter:
                latencies = messages.run(stream, scale.seconds, self.rate)
        values = {"latency-p50": percentile(latencies, 50), "latency-p99": percentile(latencies, 99)}
        return Sample.of(meter, values, messages=len(latencies), max=max(latencies))


class OneToOne(Scenario):
    """1,000 channels with one WebSocket each; published over HTTP to one after the other, on 16 kept connections."""

    name = "one-to-one"
    needs = frozenset({Ability.FANOUT})
    figures = (
        Figure("one-to-one-cpu", "HTTP publish and one WebSocket delivery: CPU a message", "µs", True, 1e6),
        Figure("one-to-one", "HTTP publish and one WebSocket delivery", "/s", False),
    )
    publishers = 16

    def measure(self, target: Target, scale: Scale) -> Sample:
        stream = payloads(scale)
        requests = [target.publish(next(stream), channel) for channel in range(scale.channels)]
        with Client() as client, Publisher(target.publishing, self.publishers) as publisher:
            opened = client.open_each(map(target.websocket, range(scale.channels)), target.window)
            pairs = Pairs(client, opened, publisher)
            settle(target.pid, quiet=0.1)
            pairs.run(requests, min(0.2, scale.seconds))
            with Meter(target.pid) as meter:
                messages = pairs.run(requests, scale.seconds)
        values = {"one-to-one-cpu": meter.server / messages, "one-to-one": messages / meter.wall}
        return Sample.of(meter, values, messages=messages)
