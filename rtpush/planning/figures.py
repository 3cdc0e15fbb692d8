"""What one connection, message and request cost on a machine: measured there, or shipped. Pure."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

__all__ = ["SHIPPED", "TRANSPORTS", "BadFigures", "Costs", "Figures", "dump", "load"]

TRANSPORTS = ("websocket", "sse", "longpoll", "shortpoll")

_FORMAT = 1


class BadFigures(ValueError):
    """A file holds no figures that can be used. Its text is one line."""


@attrs.frozen(kw_only=True)
class Costs:
    """
    What a transport costs a server process.

    :ivar memory: Bytes that an idle connection holds, in user space.
    :ivar opening: CPU seconds of a new connection with its subscription.
    :ivar delivery: CPU seconds of a message to one of many subscribers; for a poll, of the answer and the next poll.
    """

    memory: float
    opening: float
    delivery: float


@attrs.frozen(kw_only=True)
class Figures:
    """
    What a machine was measured to do, with one process.

    :ivar machine: Which it is.
    :ivar date: When that was.
    :ivar costs: By transport.
    :ivar publish: CPU seconds of a publish over HTTP, without its deliveries.
    :ivar heartbeat: CPU seconds of a heartbeat, with the answer to it.
    :ivar process: Bytes of a process without connections.
    :ivar kernel: Bytes that the kernel holds for an idle connection.
    :ivar redis: CPU seconds of Redis for a publish with history: those of the shipped figures if none was measured.
    """

    machine: str
    date: str
    costs: dict[str, Costs]
    publish: float
    heartbeat: float
    process: float
    kernel: float
    redis: float


#: What holds where nothing was measured.
SHIPPED = Figures(
    machine="2 cores of an AMD EPYC, Python 3.11 (shipped with rtpush; not this machine)",
    date="2026-11-25",
    costs={
        "websocket": Costs(memory=1220, opening=250e-6, delivery=7.7e-6),
        "sse": Costs(memory=1290, opening=170e-6, delivery=8.4e-6),
        "longpoll": Costs(memory=2770, opening=260e-6, delivery=140e-6),
        "shortpoll": Costs(memory=1250, opening=170e-6, delivery=115e-6),
    },
    publish=150e-6,
    heartbeat=10e-6,
    process=48e6,
    kernel=3600,
    redis=40e-6,
)


def dump(figures: Figures) -> bytes:
    """Write figures as JSON."""
    return msgspec.json.format(msgspec.json.encode({"format": _FORMAT, **attrs.asdict(figures)}), indent=2) + b"\n"


def load(data: bytes) -> Figures:
    """
    Read figures.

    :raises BadFigures: if they are not.
    """
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        if fields.pop("format", None) != _FORMAT:
            raise BadFigures("these figures have another format: measure again")
        costs = {name: _numbers(Costs(**each)) for name, each in fields.pop("costs").items()}
        figures: Figures = _numbers(Figures(costs=costs, **fields))
    except (msgspec.MsgspecError, TypeError, KeyError, AttributeError) as error:
        raise BadFigures(f"these are no figures of rtpush: {error}") from None
    if missing := [name for name in TRANSPORTS if name not in costs]:
        raise BadFigures(f"these figures lack {', '.join(missing)}")
    return figures


def _numbers(holder: Any) -> Any:
    """Check that what should be a number is one."""
    for field in attrs.fields(type(holder)):
        value = getattr(holder, field.name)
        if field.type in (float, "float") and not (isinstance(value, int | float) and 0 <= value < 1e15):
            raise BadFigures(f"{field.name} is {value!r}, expected a number of at least 0")
    return holder
