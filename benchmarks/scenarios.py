"""What is measured of connections and requests. A new scenario is one more class, and a line in `SCENARIOS`."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.delivery import Fanout, FanoutLoaded, FanoutPaced, Latency, OneToOne
from benchmarks.load import Client, Opening, Publisher
from benchmarks.polling import PollCycle
from benchmarks.proc import Meter, pss_bytes, settle
from benchmarks.scenario import Figure, Sample, Scale, Scenario, payloads
from benchmarks.target import Ability, Target

__all__ = ["SCENARIOS"]


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
                client.open(opening, scale.connections, target.window)
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
    """A storm of WebSockets that are opened and subscribed as fast as the server lets them; none may fail.

    What the server does after its last answer belongs to the cost, but not to the rate; closing belongs to neither.
    """

    name = "handshakes"
    needs = frozenset({Ability.WEBSOCKET})
    figures = (
        Figure("handshake-cpu", "handshake with subscribe, in a storm: CPU", "µs", True, 1e6),
        Figure("handshakes", "handshakes with subscribe", "/s", False),
    )
    window = 200

    def measure(self, target: Target, scale: Scale) -> Sample:
        opening = target.websocket()
        cost, pace = Meter(target.pid), Meter(target.pid)
        with Client() as client:
            # What the first connection makes the server load is not a cost of each.
            client.open(opening, 1)
            settle(target.pid, quiet=0.1)
            with cost:
                with pace:
                    client.open(opening, scale.handshakes, self.window)
                settle(target.pid, quiet=0.1)
        values = {"handshakes": scale.handshakes / pace.wall, "handshake-cpu": cost.server / scale.handshakes}
        return Sample.of(pace, values, opened=scale.handshakes)


class Publish(Scenario):
    """HTTP publishes to a channel that nobody follows, on 16 kept connections with one request each under way."""

    name = "publish"
    quick = False
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
        with Publisher(target.publishing, self.connections, target.whole(self.messages_a_request)) as publisher:
            publisher.run(requests, min(0.2, scale.seconds))
            with Meter(target.pid) as meter:
                published = publisher.run(requests, scale.seconds) * self.messages_a_request
        rate, cpu = (figure.key for figure in self.figures)
        return Sample.of(meter, {rate: published / meter.wall, cpu: meter.server / published}, published=published)


class PublishBatch(Publish):
    """The same with 100 messages a request."""

    name = "publish-batch"
    quick = True
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
    needs = frozenset({Ability.POLL, Ability.CYCLE, Ability.PUBLISH})
    figures = (
        Figure("poll-cpu", "long-poll cycle, answered and polled again: CPU", "µs", True, 1e6),
        Figure("polls", "long-poll cycles", "/s", False),
    )

    def measure(self, target: Target, scale: Scale) -> Sample:
        requests = map(target.answer, payloads(scale))
        with Client() as client, Publisher(target.publishing, 1) as publisher:
            cycle = PollCycle(client, target.poll, target.cursor, scale.subscribers, publisher)
            settle(target.pid, quiet=0.1)
            cycle.run(requests, min(0.2, scale.seconds))
            with Meter(target.pid) as meter:
                answered = cycle.run(requests, scale.seconds)
        return Sample.of(
            meter, {"polls": answered / meter.wall, "poll-cpu": meter.server / answered}, answered=answered
        )


SCENARIOS: tuple[Scenario, ...] = (
    Fanout(),
    FanoutLoaded(),
    MemoryWebSocket(),
    MemorySse(),
    MemoryPoll(),
    Handshakes(),
    OneToOne(),
    Polls(),
    PublishBatch(),
    Publish(),
    Latency(),
    FanoutPaced(),
)
