"""
How much a service needs, by transport. Pure.

``docs/planning.rst`` has the formulae in the words of mathematics; the names there are those of the fields here.
"""

from __future__ import annotations

import math

import attrs

from rtpush.planning.figures import Figures
from rtpush.protocol.codecs import JSON
from rtpush.protocol.forms import POLL, SSE, Batch, WebSocketForm, WireForm
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position

__all__ = ["RULE_OF_THUMB", "Demand", "Machine", "Need", "plan"]

#: Bytes that a connection costs by the well-known rule.
RULE_OF_THUMB = 40 * 1024.0

#: Bytes of a packet's headers: Ethernet 14, IPv4 20, TCP 20 with 12 of timestamps.
_PACKET = 66
#: Bytes of payload in a packet.
_SEGMENT = 1448
#: The largest part of its memory that a machine should use.
_MEMORY_PART = 0.75
#: The largest part of its network that a machine should use.
_NETWORK_PART = 0.7
#: Bytes of a ping frame with its packets, and those of the pong and its.
_PING, _PONG = 2 + 4 + 2 * _PACKET, 6 + 4 + 2 * _PACKET

_FORMS: dict[str, WireForm] = {"websocket": WebSocketForm(JSON), "sse": SSE, "longpoll": POLL, "shortpoll": POLL}


@attrs.frozen(kw_only=True)
class Demand:
    """
    What is asked of a service.

    :ivar users: How many are connected, or poll, at the same time.
    :ivar rate: Messages a second that each of them gets.
    :ivar size: Bytes of a message's payload.
    :ivar fanout: How many users get each message.
    :ivar interval: Seconds between two short polls of a user.
    :ivar hold: Seconds that a long poll is held at most.
    :ivar headers: Bytes of the headers of a request and its response together.
    :ivar heartbeat: Seconds between two heartbeats.
    :ivar session: Seconds that a connection lasts.
    """

    users: int
    rate: float
    size: int
    fanout: int = 1
    interval: float = 5.0
    hold: float = 25.0
    headers: int = 800
    heartbeat: float = 30.0
    session: float = 3600.0


@attrs.frozen(kw_only=True)
class Machine:
    """
    One of the machines that serve.

    :ivar memory: Bytes.
    :ivar network: Bits a second, each way.
    :ivar busy: The part of a core that may be used on average.
    """

    cores: int
    memory: float
    network: float = 1e9
    busy: float = 0.5


@attrs.frozen(kw_only=True)
class Need:
    """
    What it takes with one transport. Rates are a second; memory and bandwidth are bytes.

    :ivar deliveries: Messages that reach a user.
    :ivar requests: HTTP requests, new connections included.
    :ivar headers: Bytes of their headers.
    :ivar outgoing: Bytes to the users, with all headers.
    :ivar incoming: Bytes from them.
    :ivar memory: In user space, all processes.
    :ivar kernel: In the kernel.
    :ivar rule: What the rule of 40 KB a connection says.
    :ivar cores: Cores that are busy all the time.
    :ivar workers: Processes.
    :ivar machines: Of the kind that was asked about.
    :ivar bound: What decides on their number: ``processor``, ``memory`` or ``network``.
    :ivar publishes: Messages that are published.
    :ivar broker_out: Messages from the broker to processes.
    :ivar broker_bytes: Bytes in and out of the broker.
    :ivar broker_cores: Cores that the broker keeps busy.
    :ivar shards: How many Redis share them.
    :ivar delay: Seconds that a message waits, on average, because of the transport alone.
    """

    transport: str
    deliveries: float
    requests: float
    headers: float
    outgoing: float
    incoming: float
    memory: float
    kernel: float
    rule: float
    cores: float
    workers: int
    machines: int
    bound: str
    publishes: float
    broker_out: float
    broker_bytes: float
    broker_cores: float
    shards: int
    delay: float


def plan(demand: Demand, figures: Figures, machine: Machine, transport: str) -> Need:
    """Compute what a transport needs."""
    users, costs = demand.users, figures.costs[transport]
    deliveries = users * demand.rate
    message = _wire_bytes(demand.size, transport)
    openings = users / demand.session
    polls = _polls(demand, transport)
    requests = openings + polls if transport == "longpoll" else polls or openings
    headers = requests * demand.headers
    cpu = openings * costs.opening + (deliveries / demand.fanout) * figures.publish
    if polls:
        # An answer with messages is a delivery; what makes it cost is the request.
        cpu += polls * costs.delivery
        outgoing = deliveries * message + polls * 2 * _PACKET + headers / 2
        incoming = polls * 2 * _PACKET + headers / 2
    else:
        beats = users / demand.heartbeat
        answers = beats if transport == "websocket" else 0.0
        cpu += deliveries * costs.delivery + beats * figures.heartbeat
        outgoing = deliveries * (message + _packets(message) * _PACKET) + beats * _PING + headers / 2
        incoming = deliveries * _packets(message) * _PACKET + answers * _PONG + headers / 2
    memory = users * costs.memory
    kernel = users * figures.kernel
    workers = max(1, math.ceil(cpu / machine.busy))
    bounds = {
        "processor": math.ceil(workers / machine.cores),
        "memory": math.ceil((memory + kernel + workers * figures.process) / (machine.memory * _MEMORY_PART)),
        "network": math.ceil(max(outgoing, incoming) * 8 / (machine.network * _NETWORK_PART)),
    }
    machines = max(1, *bounds.values())
    publishes = deliveries / demand.fanout
    broker_out = publishes * _reached(demand.fanout, workers)
    broker_cores = publishes * figures.redis
    return Need(
        transport=transport,
        deliveries=deliveries,
        requests=requests,
        headers=headers,
        outgoing=outgoing,
        incoming=incoming,
        memory=memory + workers * figures.process,
        kernel=kernel,
        rule=users * RULE_OF_THUMB,
        cores=cpu,
        workers=workers,
        machines=machines,
        bound=max(bounds, key=lambda name: bounds[name]),
        publishes=publishes,
        broker_out=broker_out,
        broker_bytes=(publishes + broker_out) * (demand.size + 100 + _PACKET),
        broker_cores=broker_cores,
        shards=max(1, math.ceil(broker_cores / machine.busy)),
        delay=demand.interval / 2 if transport == "shortpoll" else 0.0,
    )


def _polls(demand: Demand, transport: str) -> float:
    """Return the polls a second of all users."""
    if transport == "shortpoll":
        return demand.users / demand.interval
    if transport != "longpoll":
        return 0.0
    expected = demand.rate * demand.hold
    # A poll ends with the first message, or after ``hold`` seconds. With messages that come by chance, at this rate, it
    # lasts (1 - e^(-rate·hold)) / rate on average, which goes to ``hold`` as the rate goes to 0.
    lasts = demand.hold if expected < 1e-9 else -math.expm1(-expected) / demand.rate
    return demand.users / lasts


def _reached(fanout: int, workers: int) -> float:
    """Return how many of the workers have at least one of the users of a message, if those are spread by chance."""
    return workers * -math.expm1(fanout * math.log1p(-1 / workers)) if workers > 1 else 1.0


def _wire_bytes(size: int, transport: str) -> int:
    """Return how many bytes a message of a size is in the form of a transport, as the server itself writes it."""
    position = Position("k3f9x0ab", 1_000_000)
    message = Message("news:sports", Payload(b"x" * size, Kind.TEXT), None, position)
    return len(_FORMS[transport].messages(Batch([message], position), lambda position: str(position)))


def _packets(size: int) -> int:
    return max(1, math.ceil(size / _SEGMENT))
