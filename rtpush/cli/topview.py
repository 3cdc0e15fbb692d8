"""What ``rtpush top`` shows of what it was told: two looks at a server become rates and lines of text. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from rtpush.cli.output import amount, plain, quantity, seconds, table

__all__ = ["Look", "lines", "read_metrics", "summary"]

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

#: What is shown as a rate: what it is called, the series, and whether it is bytes.
_RATES = (
    ("published", "rtpush_published_messages_total", False),
    ("delivered", "rtpush_delivered_messages_total", False),
    ("bytes out", "rtpush_delivered_bytes_total", True),
    ("accepted", "rtpush_accepted_connections_total", False),
    ("refused", "rtpush_refusals_total", False),
    ("disconnected", "rtpush_disconnects_total", False),
    ("recovered", "rtpush_recoveries_total", False),
    ("slow readers", "rtpush_slow_readers_total", False),
)


@attrs.frozen(kw_only=True)
class Look:
    """
    What was seen at one time.

    :ivar time: Seconds, of any clock.
    :ivar nodes: As the server API tells of them.
    :ivar channels: How many subscribers each has.
    :ivar metrics: By series and labels, of the host that was asked; empty if they may not be read.
    :ivar missing: Nodes that did not answer.
    """

    time: float
    nodes: Sequence[Mapping[str, Any]]
    channels: Mapping[str, int]
    metrics: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
    missing: Sequence[str] = ()

    def total(self, name: str) -> float:
        """Return a metric, with all its labels together."""
        return sum(value for (series, _), value in self.metrics.items() if series == name)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return a metric for each value of a label."""
        found: dict[str, float] = {}
        for (series, labels), value in self.metrics.items():
            if series == name:
                place = dict(labels).get(label, "")
                found[place] = found.get(place, 0.0) + value
        return found


def read_metrics(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read the text format of Prometheus; lines that are of another form are passed over."""
    found = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is not None:
            try:
                found[match[1], tuple(_LABEL.findall(match[2] or ""))] = float(match[3])
            except ValueError:
                continue
    return found


def summary(look: Look, before: Look | None) -> dict[str, Any]:
    """Return what was seen as JSON has it; rates are a second."""
    return {
        "connections": sum(node["connections"] for node in look.nodes),
        "transports": _transports(look),
        "nodes": list(look.nodes),
        "missing": list(look.missing),
        "channels": len(look.channels),
        "top_channels": [{"channel": name, "subscribers": count} for name, count in _largest(look, 10)],
        "rates": {name.replace(" ", "_"): round(rate, 3) for name, rate, _ in _rates(look, before)},
    }


def lines(look: Look, before: Look | None, *, width: int, height: int, title: str) -> list[str]:
    """Return what fits on a screen."""
    shown = [title, "", *_connections(look, before), ""]
    rates = _rates(look, before)
    if rates:
        cells = [
            f"{name} {quantity(rate, 'B/s') if is_bytes else amount(rate) + '/s'}" for name, rate, is_bytes in rates
        ]
        shown += [*_wrapped(cells, width), *_machine(look, before), ""]
    elif look.metrics:
        shown += ["rates: from the second look on", ""]
    else:
        shown += ["no rates: /metrics does not let us in (give a --key)", ""]
    nodes = _nodes(look)
    if look.missing:
        nodes.append(f"and {len(look.missing)} that do not answer")
    # The nodes have a third of what is left at most; what the channels do not need is empty.
    room = max(3, (height - len(shown)) // 3)
    if len(nodes) > room:
        nodes = [*nodes[: room - 1], f"and {len(nodes) - room + 1} more"]
    shown += [*nodes, ""]
    room = max(0, height - len(shown) - 1)
    shown.append(f"CHANNELS {len(look.channels):,}")
    if look.channels and room:
        rows = [(name, f"{count:,}") for name, count in _largest(look, room - 1)]
        shown += table(("CHANNEL", "SUBSCRIBERS"), rows, ("SUBSCRIBERS",)).splitlines()
    return [line[:width] for line in shown[:height]]


def _transports(look: Look) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in look.nodes:
        for transport, count in node["transports"].items():
            counts[transport] = counts.get(transport, 0) + count
    return counts


def _connections(look: Look, before: Look | None) -> list[str]:
    total = sum(node["connections"] for node in look.nodes)
    change = ""
    if before is not None:
        difference = total - sum(node["connections"] for node in before.nodes)
        change = f" ({difference:+,})" if difference else ""
    parts = [f"{transport} {count:,}" for transport, count in _transports(look).items()]
    return [f"{total:,} connections{change}" + (f": {', '.join(parts)}" if parts else "")]


def _rates(look: Look, before: Look | None) -> list[tuple[str, float, bool]]:
    if before is None or look.time <= before.time or not look.metrics:
        return []
    elapsed = look.time - before.time
    return [
        # A server that has begun anew counts from 0 again.
        (name, max(look.total(series) - before.total(series), 0.0) / elapsed, is_bytes)
        for name, series, is_bytes in _RATES
    ]


def _machine(look: Look, before: Look | None) -> list[str]:
    cells = []
    cpu = "process_cpu_seconds_total"
    if before is not None and look.time > before.time and look.total(cpu):
        used = max(look.total(cpu) - before.total(cpu), 0.0) / (look.time - before.time)
        cells.append(f"CPU {used:.0%} of a core")
    if memory := look.total("process_resident_memory_bytes"):
        cells.append(f"memory {quantity(memory)}")
    if queued := look.total("rtpush_queued_bytes"):
        cells.append(f"queued {quantity(queued)}")
    if look.total("rtpush_broker_up") == 0 and look.metrics:
        cells.append("THE BROKER IS AWAY")
    return [" · ".join(cells)] if cells else []


def _nodes(look: Look) -> list[str]:
    rows = [
        (
            node["node"],
            node["version"],
            seconds(node["uptime"]),
            f"{node['connections']:,}",
            f"{node['channels']:,}",
            "leaving" if node["leaving"] else "open",
        )
        for node in look.nodes
    ]
    head = ("NODE", "VERSION", "UPTIME", "CONNECTIONS", "CHANNELS", "STATE")
    return table(head, rows, ("UPTIME", "CONNECTIONS", "CHANNELS")).splitlines()


def _largest(look: Look, most: int) -> list[tuple[str, int]]:
    ordered = sorted(look.channels.items(), key=lambda each: (-each[1], each[0]))
    return [(plain(name), count) for name, count in ordered[: max(most, 0)]]


def _wrapped(cells: Sequence[str], width: int) -> list[str]:
    """Return as many lines as the cells need."""
    shown = [""]
    for cell in cells:
        longer = f"{shown[-1]} · {cell}" if shown[-1] else cell
        if shown[-1] and len(longer) > width:
            shown.append(cell)
        else:
            shown[-1] = longer
    return shown
