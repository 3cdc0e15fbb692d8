"""``rtpush plan``: what a number of users takes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import attrs

from rtpush.cli.exits import Exit, Failed, Unusable
from rtpush.cli.options import json_option, number, whole
from rtpush.cli.output import amount, print_json, quantity, seconds, table, write_line
from rtpush.cli.processes import memory_bytes
from rtpush.cli.progress import Progress
from rtpush.planning.capacity import Demand, Machine, Need, plan
from rtpush.planning.figures import SHIPPED, TRANSPORTS, BadFigures, Figures, dump, load

__all__ = ["fill"]

_GIB = 1024.0**3


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Compute memory, processes, machines, bandwidth and the load of the broker from what a machine was measured "
        "to do. docs/planning.rst has the formulae."
    )
    parser.set_defaults(command=_run)
    parser.add_argument("--users", type=whole(1, 10**11), default=1_000_000, metavar="N", help="at once (default 1e6)")
    parser.add_argument(
        "--rate", type=number(0, 1e6), default=0.1, metavar="R", help="messages a second to each of them (default 0.1)"
    )
    parser.add_argument(
        "--size", type=whole(0, 10**9), default=200, metavar="B", help="bytes of a message (default 200)"
    )
    parser.add_argument("--transport", choices=[*TRANSPORTS, "all"], default="all", help="(default all)")
    parser.add_argument(
        "--fanout", type=whole(1, 10**11), default=1, metavar="N", help="users that get each message (default 1)"
    )
    defaults = Demand(users=1, rate=0, size=0)
    for option, default, help_ in (
        ("interval", defaults.interval, "seconds between two short polls of a user"),
        ("hold", defaults.hold, "seconds that a long poll is held at most"),
        ("heartbeat", defaults.heartbeat, "seconds between two heartbeats"),
        ("session", defaults.session, "seconds that a connection lasts"),
    ):
        parser.add_argument(
            f"--{option}", type=number(0.01), default=default, metavar="S", help=f"{help_} (default {default:g})"
        )
    parser.add_argument(
        "--headers",
        type=whole(0, 10**6),
        default=defaults.headers,
        metavar="B",
        help=f"bytes of the headers of a request and its response (default {defaults.headers})",
    )
    parser.add_argument("--cores", type=whole(1, 10_000), metavar="N", help="of a machine (default: those of this one)")
    parser.add_argument("--memory", type=number(0.1), metavar="GIB", help="of a machine (default: that of this one)")
    parser.add_argument(
        "--network", type=number(0.001), default=1.0, metavar="GBIT/S", help="of a machine, each way (default 1)"
    )
    parser.add_argument(
        "--busy", type=number(0.01, 1), default=0.5, metavar="PART", help="of a core that may be used (default 0.5)"
    )
    parser.add_argument("--measure", action="store_true", help="measure this machine first, in about 20 seconds")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE",
        help="take what was measured from this file; with --measure, write it there",
    )
    json_option(parser)


def _run(options: argparse.Namespace) -> int:
    figures = _figures(options)
    demand = Demand(
        users=options.users,
        rate=options.rate,
        size=options.size,
        fanout=min(options.fanout, options.users),
        interval=options.interval,
        hold=options.hold,
        headers=options.headers,
        heartbeat=options.heartbeat,
        session=options.session,
    )
    machine = Machine(
        cores=options.cores or os.cpu_count() or 1,
        memory=options.memory * _GIB if options.memory else float(memory_bytes()),
        network=options.network * 1e9,
        busy=options.busy,
    )
    names = TRANSPORTS if options.transport == "all" else (options.transport,)
    needs = [plan(demand, figures, machine, name) for name in names]
    if options.json:
        print_json(
            {
                "demand": attrs.asdict(demand),
                "machine": attrs.asdict(machine),
                "figures": attrs.asdict(figures),
                "measured": figures is not SHIPPED,
                "needs": [attrs.asdict(need) for need in needs],
            }
        )
    else:
        write_line(_text(demand, machine, figures, needs))
    return Exit.OK


def _figures(options: argparse.Namespace) -> Figures:
    path: Path | None = options.figures
    if options.measure:
        figures = _measured()
        if path is not None:
            try:
                path.write_bytes(dump(figures))
            except OSError as error:
                raise Failed(f"{path}: {error.strerror}") from None
        return figures
    if path is None:
        return SHIPPED
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise Unusable(f"argument --figures: {path}: {error.strerror} (--measure writes it)") from None
    except BadFigures as error:
        raise Unusable(f"argument --figures: {path}: {error}") from None


def _measured() -> Figures:
    # What measures needs the reactor and a server; who only computes does not wait for their import.
    from rtpush.cli.measuring import measure
    from rtpush.cli.running import Command, run_task

    found: list[Figures] = []

    class _Measure(Command):
        async def main(self) -> int:
            with Progress("measuring") as progress:
                found.append(await measure(self.reactor, progress.update))
            return Exit.OK

    code = run_task(_Measure, argparse.Namespace())
    if not found:
        # What was wrong has been said.
        raise SystemExit(code)
    return found[0]


def _text(demand: Demand, machine: Machine, figures: Figures, needs: list[Need]) -> str:
    rows: list[tuple[str, Callable[[Need], str]]] = [
        ("requests a second", lambda need: amount(need.requests)),
        ("  their headers", lambda need: quantity(need.headers, "B/s")),
        ("deliveries a second", lambda need: amount(need.deliveries)),
        ("to the users", lambda need: quantity(need.outgoing * 8, "bit/s", base=1000)),
        ("from the users", lambda need: quantity(need.incoming * 8, "bit/s", base=1000)),
        ("memory of the processes", lambda need: quantity(need.memory)),
        ("memory of the kernel", lambda need: quantity(need.kernel)),
        ("  (by the 40 KB rule)", lambda need: quantity(need.rule)),
        ("cores that are busy", lambda need: amount(need.cores)),
        ("processes", lambda need: f"{need.workers:,}"),
        ("machines", lambda need: f"{need.machines:,} ({need.bound})"),
        ("published a second", lambda need: amount(need.publishes)),
        ("from the broker a second", lambda need: amount(need.broker_out)),
        ("  in and out of it", lambda need: quantity(need.broker_bytes, "B/s")),
        ("Redis servers", lambda need: f"{need.shards:,}"),
        ("wait because of the transport", lambda need: seconds(need.delay) if need.delay else "-"),
    ]
    head = ("", *(need.transport for need in needs))
    body = table(head, [(title, *map(show, needs)) for title, show in rows], head[1:])
    asked = (
        f"{demand.users:,} users, {demand.rate:g} messages a second to each, of {demand.size:,} bytes, "
        f"each to {demand.fanout:,} of them"
    )
    given = (
        f"a machine has {machine.cores} cores, {quantity(machine.memory)} and {machine.network / 1e9:g} Gbit/s; "
        f"a core is {machine.busy:.0%} busy"
    )
    notes = [f"figures of: {figures.machine}, {figures.date}"]
    if figures is SHIPPED:
        notes.append("these are not this machine's: measure it with --measure")
    return "\n".join([asked, given, "", body, "", *notes])
