"""
What goes wrong when: a schedule of faults that follows from a seed alone.

Everything here is pure, so that the same seed gives the same schedule on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import attrs

__all__ = ["CLIENT_SIDE", "KINDS", "LOSSY", "PROFILES", "Fault", "Profile", "schedule_of"]

#: The proxy before HAProxy has this target; the one before node n has n.
CLIENT_SIDE = -1


@attrs.frozen
class Fault:
    """
    One fault.

    :ivar at: Seconds after the beginning.
    :ivar kind: One of :data:`KINDS`.
    :ivar target: Which node, proxy or client: counted from 0, or :data:`CLIENT_SIDE`.
    :ivar seconds: How long it lasts.
    :ivar amount: How much: bytes for ``truncate``, the share of connections for the others.
    """

    at: float
    kind: str
    target: int
    seconds: float
    amount: float

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind} {self.target}, for {self.seconds:.2f} s, {self.amount:g}"


#: What there is: the shortest and the longest time that it lasts, and what its target is.
KINDS: Mapping[str, tuple[float, float, str]] = {
    # Nodes.
    "kill": (0.0, 4.0, "node"),
    "restart": (0.0, 1.0, "node"),
    "stop": (0.2, 9.0, "node"),
    "unplug": (0.5, 7.0, "node"),
    # The network between clients and HAProxy, and between clients and nodes.
    "cut": (0.0, 0.0, "door"),
    "cuts": (0.5, 3.0, "door"),
    "delay": (1.0, 5.0, "door"),
    "buffer": (0.5, 6.0, "door"),
    "truncate": (0.5, 4.0, "door"),
    "reorder": (1.0, 5.0, "door"),
    "silence": (0.0, 0.0, "door"),
    "swallow": (1.0, 6.0, "door"),
    "choke": (2.0, 8.0, "door"),
    # The network between a node and its Redis.
    "redis cut": (0.0, 0.0, "node"),
    "redis delay": (1.0, 4.0, "node"),
    "redis buffer": (0.3, 5.0, "node"),
    "redis truncate": (0.5, 3.0, "node"),
    "redis reorder": (1.0, 4.0, "node"),
    "redis silence": (0.0, 0.0, "node"),
    "redis swallow": (1.0, 6.0, "node"),
    # Redis.
    "redis kill": (0.0, 3.0, "redis"),
    "redis restart": (0.0, 0.0, "redis"),
    "redis stop": (0.3, 5.0, "redis"),
    "client kill": (0.0, 1.5, "redis"),
    "failover": (0.0, 0.0, "redis"),
    "crash": (0.0, 2.0, "redis"),
    "crash with loss": (0.5, 1.5, "redis"),
    "split": (3.0, 6.0, "redis"),
    "flush": (0.0, 0.0, "redis"),
    # Clients.
    "away": (1.0, 12.0, "client"),
}

#: After these Redis may lack what it has acknowledged, so that clients may be told of gaps.
LOSSY = frozenset({"failover", "crash", "crash with loss", "split", "flush"})

#: Seconds between two of these: a failover takes about ten, and until then no other one can begin.
_BETWEEN_LOSSES = 12.0

_EVERYWHERE = {
    "kill": 3,
    "restart": 2,
    "stop": 3,
    "cut": 2,
    "cuts": 2,
    "delay": 1,
    "buffer": 2,
    "truncate": 2,
    "reorder": 2,
    "silence": 2,
    "swallow": 1,
    "choke": 2,
    "client kill": 2,
    "away": 3,
}


@attrs.frozen
class Profile:
    """
    What is there, and what may befall it.

    :ivar weights: How often each kind of fault comes, relative to the others.
    :ivar sentinel: Whether Redis is a master with a replica and sentinels, to which nodes speak directly; else it is
        one that keeps all on disk, behind a proxy for each node.
    """

    weights: Mapping[str, int]
    sentinel: bool


PROFILES: Mapping[str, Profile] = {
    "durable": Profile(
        {
            **_EVERYWHERE,
            "unplug": 2,
            "redis cut": 2,
            "redis delay": 1,
            "redis buffer": 2,
            "redis truncate": 2,
            "redis reorder": 1,
            "redis silence": 2,
            "redis swallow": 1,
            "redis kill": 2,
            "redis restart": 1,
            "redis stop": 1,
        },
        sentinel=False,
    ),
    "failover": Profile(
        {**_EVERYWHERE, "failover": 3, "crash": 2, "crash with loss": 3, "split": 2, "flush": 1}, sentinel=True
    ),
}


def schedule_of(
    seed: int, seconds: float, profile: str, *, nodes: int, clients: int, pace: float = 1.2
) -> tuple[Fault, ...]:
    """
    Return the faults of a run, in their order.

    Most are by themselves; now and then one comes right into another.

    :param seconds: How long faults begin; those of the end last somewhat longer.
    :param nodes: How many nodes there are. With sentinels none befalls the last one but those of its clients: somebody
        has to be there who knows what a new master lacks (``docs/redis.rst`` says what happens else).
    :param clients: How many clients there are.
    :param pace: Seconds between two faults, on average.
    """
    # The words are part of the seed, so that two profiles have nothing in common.
    random = Random(f"{profile} {seed}")
    what = PROFILES[profile]
    kinds, weights = zip(*what.weights.items(), strict=True)
    faults: list[Fault] = []
    at, lost_at = 0.0, -_BETWEEN_LOSSES
    while True:
        at += random.uniform(0.0, 0.4) if random.random() < 0.3 else random.expovariate(1 / pace) + 0.1
        if at > seconds:
            return tuple(faults)
        [kind] = random.choices(kinds, weights)
        while kind in LOSSY and at < lost_at + _BETWEEN_LOSSES:
            [kind] = random.choices(kinds, weights)
        if kind in LOSSY:
            lost_at = at
        shortest, longest, where = KINDS[kind]
        targets = {
            "node": range(nodes - what.sentinel),
            "door": range(CLIENT_SIDE, nodes),
            "client": range(clients),
            "redis": range(1),
        }[where]
        amount = random.choice((1, 2, 3, 7, 20, 100, 500)) if kind.endswith("truncate") else random.choice((0.3, 1.0))
        faults.append(
            Fault(
                round(at, 2), kind, random.choice(targets), round(random.uniform(shortest, longest), 2), float(amount)
            )
        )
