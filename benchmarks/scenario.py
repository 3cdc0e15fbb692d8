"""What a scenario is, and what it gives."""

from __future__ import annotations

import random
import string
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from attrs import field, frozen

from benchmarks.proc import Meter
from benchmarks.target import Target

__all__ = ["Figure", "Sample", "Scale", "Scenario", "payloads"]


@frozen
class Scale:
    """How large and how long.

    `connections` are for memory, `subscribers` for fan-out and polls, `handshakes` and `channels` for those. `storm`
    counts channels followed across nodes. `many` connections are held for `minutes`; `returning` clients come back.
    """

    connections: int = 10_000
    subscribers: int = 1_000
    seconds: float = 3.0
    handshakes: int = 10_000
    channels: int = 1_000
    storm: int = 20_000
    many: int = 4_000
    minutes: float = 0.5
    returning: int = 4_000
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
    # What tells little, or takes long, is done in a quick run only if it is asked for.
    quick: ClassVar[bool] = True

    def prepare(self, target: Target, scale: Scale) -> None:  # noqa: B027
        """Configure a target before it is started; most need nothing."""

    @abstractmethod
    def measure(self, target: Target, scale: Scale) -> Sample:
        """Measure a running target. Raises `BenchmarkError` if the server does not do what it must."""
