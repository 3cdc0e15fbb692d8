"""A report as tables, for a terminal and as reStructuredText."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from attrs import frozen

from benchmarks.aims import AIMS
from benchmarks.report import BUSY, Report
from benchmarks.scenario import Figure, Scenario
from benchmarks.target import Target

__all__ = ["as_rst", "as_text", "shown"]

_LEGEND = (
    "Memory: growth of the server's user-space memory (PSS) a connection. CPU: user and system of the server.",
    "–: this server cannot do it. The aim is rtpush's, the stretch in parentheses; a ratio is rtpush's figure divided",
    "by the limit's (several nodes: by that of Redis alone, of one node).",
    "c: the client was the bottleneck, and the server can do more. d: other programs used the server's core.",
)


def shown(value: float) -> str:
    """Return a number with three significant digits and thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 0.1 or not value:
        return f"{value:.2f}"
    return f"{value:.3f}"


def as_text(report: Report) -> str:
    """Return the report for a terminal."""
    lines = [*_machine(report), ""]
    for table in _tables(report):
        lines += [table.title, "", *_aligned(table), ""]
    notes = (*_remarks(report), *_settings(report))
    return "\n".join((*lines, *_LEGEND, "", *(fill(f"- {note}", 120, subsequent_indent="  ") for note in notes)))


def as_rst(report: Report) -> str:
    """Return the report as reStructuredText."""
    title = f"Benchmark of {report.machine.get('date', 'a run')}"
    lines = ["=" * len(title), title, "=" * len(title), "", *(f"- {fact}" for fact in _machine(report)), ""]
    for table in _tables(report):
        heading = table.title[0].upper() + table.title[1:]
        lines += [heading, "=" * len(heading), "", ".. list-table::", "   :header-rows: 1", ""]
        for row in table.rows:
            lines += [f"   {'*' if not place else ' '} - {cell}".rstrip() for place, cell in enumerate(row)]
        lines.append("")
    lines += ["Notes", "=====", "", *_LEGEND, "", *(f"- {each}" for each in (*_remarks(report), *_settings(report)))]
    return "\n".join(lines) + "\n"


@frozen
class _Table:
    title: str
    #: How many columns are words.
    words: int
    rows: Sequence[Sequence[str]]


def _machine(report: Report) -> Iterator[str]:
    scale = report.scale
    yield from (f"{name}: {value}" for name, value in report.machine.items())
    yield (
        f"connections for memory: {scale.connections:,}; subscribers and pollers: {scale.subscribers:,}; "
        f"handshakes: {scale.handshakes:,}; payload: {scale.payload_bytes} bytes; {scale.seconds:g} s a measurement; "
        f"seed {scale.seed}"
    )


def _settings(report: Report) -> Iterator[str]:
    return (f"{target.title}: {target.settings} ({target.versions()})" for target in report.targets)


def _tables(report: Report) -> Iterator[_Table]:
    for group in dict.fromkeys(scenario.group for scenario in report.scenarios):
        scenarios = [scenario for scenario in report.scenarios if scenario.group == group]
        targets = [each for each in report.targets if any(scenario.needs <= each.abilities for scenario in scenarios)]
        ours = [target for target in targets if not target.peer]
        # All in one table would be wider than a page. rtpush is in both.
        peers = [target for target in targets if target.peer or target.name == "rtpush"]
        peers = peers if any(target.peer for target in peers) else []
        for table in (
            _figures(report, group, scenarios, ours),
            _figures(report, f"{group}: other projects", scenarios, peers, aims=False),
        ):
            if len(table.rows) > 1 and len(table.rows[0]) > table.words:
                yield table
    rows = [["scenario", "beside each server"]]
    for scenario in report.scenarios:
        shares = [report.client_share(scenario, target) for target in report.targets]
        told = [f"{target.name} {share:.0%}" for target, share in zip(report.targets, shares, strict=True) if share]
        if told:
            rows.append([scenario.name, ", ".join(told)])
    if len(rows) > 1:
        yield _Table("the client's own CPU, of one core", 2, rows)


def _figures(
    report: Report, title: str, scenarios: Sequence[Scenario], targets: Sequence[Target], *, aims: bool = True
) -> _Table:
    ratios = _ratios(targets)
    judging = ["aim", ""] if aims else []
    rows = [["", "", *judging, *(target.title for target in targets), *(title for title, _, _ in ratios)]]
    for scenario in scenarios:
        for figure in scenario.figures:
            cells = [_cell(report, scenario, target, figure) for target in targets]
            if not any(cell not in ("", "–") for cell in cells):
                continue
            sense = "less" if figure.less_is_better else "more"
            unit = ", ".join(filter(None, (figure.unit, f"{sense} is better")))
            aim = AIMS.get(figure.key)
            verdict = report.verdict(scenario, figure)
            judged = [aim.text(figure) if aim else "", verdict.word if verdict else ""][: len(judging)]
            quotients = [_ratio(report, scenario, figure, one, other) for _, one, other in ratios]
            rows.append([figure.title, unit, *judged, *cells, *quotients])
    return _Table(title, 2 + len(judging), rows)


def _cell(report: Report, scenario: Scenario, target: Target, figure: Figure) -> str:
    if (scenario.name, target.name) in report.errors:
        return "failed"
    if not scenario.needs <= target.abilities:
        return "–"
    value = report.value(scenario, target.name, figure)
    if value is None:
        return ""
    marks = report.marks(scenario, target)
    return shown(value * figure.factor) + (f" {marks}" if marks else "")


def _ratios(targets: Sequence[Target]) -> list[tuple[str, str, str]]:
    """Return title and both sides of the quotients that are shown: by the limit; or two nodes by Redis, by one node."""
    titles = {target.name: target.title for target in targets}
    if "rtpush-redis" in titles:
        peers = [name for name in ("redis", "rtpush") if name in titles]
        return [(f"{titles['rtpush-redis']} : {titles[name]}", "rtpush-redis", name) for name in peers]
    limit = next((name for name in ("limit-c", "limit-py") if name in titles), None)
    return [(f"rtpush : {titles[limit]}", "rtpush", limit)] if "rtpush" in titles and limit else []


def _ratio(report: Report, scenario: Scenario, figure: Figure, one: str, other: str) -> str:
    above, below = report.value(scenario, one, figure), report.value(scenario, other, figure)
    return f"{above / below:.2f}" if above is not None and below else ""


def _remarks(report: Report) -> Iterator[str]:
    for scenario in report.scenarios:
        for target in report.targets:
            share = report.client_share(scenario, target)
            if share is not None and share > BUSY:
                what = f"{scenario.name} of {target.name}"
                yield f"{what}: the client took {share:.0%} of its core, and may have been the bottleneck"
    for (name, target_name), error in report.errors.items():
        yield f"failed: {name} of {target_name}: {error}"


def _aligned(table: _Table) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < table.words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table.rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
