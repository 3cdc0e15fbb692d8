"""``rtpush simulate``: everybody comes at once, on a simulated clock."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from rtpush.cli.exits import Exit, Failed, Unusable
from rtpush.cli.options import json_option, number, whole
from rtpush.cli.output import amount, print_json, seconds, table, write_line
from rtpush.cli.progress import Progress
from rtpush.planning.charts import Series, bars, svg
from rtpush.planning.crowd import Chance, Crowd, Outcome, evenly, to_the_emptiest
from rtpush.planning.storms import Scene, crash, rolling_restart
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.limits import Limits

__all__ = ["fill"]

_BALANCE = {"evenly": evenly, "fewest": to_the_emptiest}
_DEFAULTS = Limits()
_BACKOFF = Backoff()


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Run the real backoff, admission and drain code on a simulated clock, once as it is and once without any "
        "jitter, and show how many clients come in each second."
    )
    kinds = parser.add_subparsers(title="what happens", metavar="KIND", required=True)
    storm = kinds.add_parser("storm", help="all nodes crash at once, and come back together")
    drain = kinds.add_parser("drain", help="one node after the other is restarted, each with a drain")
    for kind, simulate in ((storm, _storm), (drain, _drain)):
        kind.set_defaults(command=partial(_run, simulate))
        kind.add_argument(
            "--clients", type=whole(1, 10**8), default=100_000, metavar="N", help="such as 1e6 (default 1e5)"
        )
        kind.add_argument("--nodes", type=whole(1, 10_000), default=4, metavar="N", help="(default 4)")
        kind.add_argument(
            "--connect-rate",
            type=number(0, 1e7),
            default=_DEFAULTS.connect_rate,
            metavar="R",
            help=f"clients a second that a node lets in; 0 for any (default {_DEFAULTS.connect_rate:g})",
        )
        kind.add_argument(
            "--connect-burst",
            type=whole(1, 10**8),
            default=_DEFAULTS.connect_burst,
            metavar="N",
            help=f"clients that it lets in at once (default {_DEFAULTS.connect_burst})",
        )
        for name, value in (("base", _BACKOFF.base), ("max", _BACKOFF.maximum), ("jitter", _BACKOFF.jitter)):
            kind.add_argument(
                f"--{name}",
                type=number(0, 3600),
                default=value,
                metavar="S",
                help=f"[backoff] {name} (default {value:g})",
            )
        kind.add_argument(
            "--down", type=number(0, 3600), default=5.0, metavar="S", help="seconds until a node is back (default 5)"
        )
        kind.add_argument(
            "--balance",
            choices=sorted(_BALANCE),
            default="evenly",
            help="which node gets a new client (default evenly)",
        )
        kind.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed, the same result (default 1)")
        kind.add_argument("--output", type=Path, metavar="FILE.svg", help="draw it into this file too")
        json_option(kind)
    drain.add_argument(
        "--window", type=number(1, 3600), default=15.0, metavar="S", help="[server] drain_window (default 15)"
    )
    drain.add_argument(
        "--notice", type=number(0, 3600), default=3.0, metavar="S", help="[server] drain_notice (default 3)"
    )
    drain.add_argument(
        "--pause", type=number(0, 3600), default=10.0, metavar="S", help="seconds between two nodes (default 10)"
    )


_Simulate = Callable[[argparse.Namespace, Scene, Chance | None, Callable[[Crowd], object]], Outcome]


def _storm(
    options: argparse.Namespace, scene: Scene, chance: Chance | None, report: Callable[[Crowd], object]
) -> Outcome:
    return crash(scene, chance, report)


def _drain(
    options: argparse.Namespace, scene: Scene, chance: Chance | None, report: Callable[[Crowd], object]
) -> Outcome:
    if options.notice >= options.window:
        raise Unusable("argument --notice: expected less than --window")
    return rolling_restart(
        scene,
        chance,
        window=options.window,
        notice=options.notice,
        pause=options.pause,
        report=report,
    )


def _run(simulate: _Simulate, options: argparse.Namespace) -> int:
    scene = Scene(
        clients=options.clients,
        nodes=options.nodes,
        backoff=Backoff(options.base, options.max, options.jitter),
        rate=options.connect_rate,
        burst=options.connect_burst,
        down=options.down,
        share=_BALANCE[options.balance],
    )
    outcomes: dict[str, Outcome] = {}
    with Progress("") as progress:
        for name, chance in (("with jitter", Random(options.seed).random), ("without jitter", None)):

            def report(crowd: Crowd, name: str = name) -> None:
                text = f"{name}: {crowd.now:5.1f} s, {crowd.returned:,} back"
                progress.update(crowd.returned / scene.clients, text)

            try:
                outcomes[name] = simulate(options, scene, chance, report)
            except RuntimeError as error:
                raise Unusable(str(error)) from error
    if options.output is not None:
        _draw(options, scene, outcomes)
    if options.json:
        print_json({name.replace(" ", "_"): _fields(outcome) for name, outcome in outcomes.items()})
    else:
        write_line(_text(outcomes))
    return Exit.OK


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "returns": outcome.returns,
        "finished": outcome.finished,
        "peak": outcome.peak,
        "peak_at": outcome.peak_at,
        "attempts": outcome.attempts,
        "unreachable": outcome.unreachable,
        "refusals": outcome.refusals,
        "retries": outcome.retries,
        "away": {name: outcome.away_for(part) for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        "arrivals": outcome.arrivals,
        "admitted": outcome.admitted,
    }


def _text(outcomes: dict[str, Outcome]) -> str:
    rows: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
        ("arrivals in the busiest second", lambda each: f"{each.peak:,}"),
        ("  which was after", lambda each: f"{each.peak_at} s"),
        ("clients that came back", lambda each: f"{each.returns:,}"),
        ("  the last of them after", lambda each: seconds(each.finished)),
        ("  half of them within", lambda each: seconds(each.away_for(0.5))),
        ("  99 % of them within", lambda each: seconds(each.away_for(0.99))),
        ("attempts", lambda each: f"{each.attempts:,}"),
        ("  that found no node", lambda each: f"{each.unreachable:,}"),
        ("  refused (503, come later)", lambda each: f"{each.refusals:,}"),
        ("attempts for each return", lambda each: amount(each.attempts / each.returns)),
    )
    head = ("", *outcomes)
    summary = table(head, [(title, *map(show, outcomes.values())) for title, show in rows], outcomes)
    return f"{bars(_series(outcomes))}\n\n{summary}"


def _series(outcomes: dict[str, Outcome]) -> list[Series]:
    styles = ("good", "bad")
    return [
        Series(f"arrivals a second, {name}", outcome.arrivals, style)
        for (name, outcome), style in zip(outcomes.items(), styles, strict=True)
    ]


def _draw(options: argparse.Namespace, scene: Scene, outcomes: dict[str, Outcome]) -> None:
    facts = (
        f"backoff {scene.backoff.base:g} to {scene.backoff.maximum:g} s, jitter {scene.backoff.jitter:g} s; a node "
        f"lets in {scene.rate:,g} clients a second after the first {scene.burst:,}; down for {scene.down:g} s; "
        f"seed {options.seed}; dashed: what all nodes let in"
    )
    what = "crash at once" if "window" not in options else "are restarted one after the other"
    title = f"{scene.clients:,} clients come back when {scene.nodes} nodes {what}"
    try:
        options.output.write_text(
            svg(title, facts, _series(outcomes), limit=scene.rate * scene.nodes or None), encoding="utf-8"
        )
    except OSError as error:
        raise Failed(f"{options.output}: {error.strerror}") from None
