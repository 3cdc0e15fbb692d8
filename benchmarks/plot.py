"""The plot of a report: one panel of bars for each figure that has an aim, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from attrs import frozen

from benchmarks.aims import AIMS
from benchmarks.report import Report
from benchmarks.scenario import Figure, Scenario
from benchmarks.tables import shown

__all__ = ["plot"]

_COLUMNS = 2
_WIDTH, _GUTTER, _MARGIN = 560, 40, 32
_BAR, _ROW = 14, 22
_HEAD, _FOOT = 46, 26
_NAMES, _VALUES = 168, 72
_TOP = 84
#: How many times as long as the longer of rtpush's and the aim a bar may be.
_CUT = 6

_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2733; }
  .page { fill: #ffffff; }
  .title { font-size: 20px; font-weight: 600; }
  .panel { font-size: 13px; font-weight: 600; }
  .faint { fill: #667085; font-size: 11px; }
  .name { text-anchor: end; }
  .ours { font-weight: 600; }
  .bar { fill: #b9c2d0; }
  .limit { fill: #7d8899; }
  .bar.ours { fill: #2563eb; }
  .track { fill: #f2f4f8; }
  .cut { fill: #ffffff; }
  .aim { stroke: #c2410c; stroke-width: 1.5; stroke-dasharray: 4 3; }
  .aimed { fill: #c2410c; font-size: 11px; }
"""


@frozen
class _Panel:
    scenario: Scenario
    figure: Figure
    #: Name, title and value, in the printed unit, of each target.
    bars: tuple[tuple[str, str, float], ...]
    #: In the printed unit.
    aim: float | None

    @property
    def height(self) -> int:
        return _HEAD + _ROW * len(self.bars) + _FOOT


def plot(report: Report) -> str:
    """Return the SVG, or nothing if no figure with an aim was measured."""
    panels = list(_panels(report))
    if not panels:
        return ""
    # Each goes where there is most room.
    heights = [_TOP] * _COLUMNS
    drawn: list[str] = []
    for panel in panels:
        column = heights.index(min(heights))
        x = _MARGIN + column * (_WIDTH + _GUTTER)
        drawn += _drawn(panel, x, heights[column])
        heights[column] += panel.height
    width = 2 * _MARGIN + _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GUTTER
    height = max(heights) + 8
    machine = report.machine
    facts = " · ".join(
        [*(machine[key] for key in ("date", "cpu", "kernel") if key in machine)]
        + [f"{machine[key]} {what}" for key, what in (("cores", "cores"), ("memory", "memory")) if key in machine]
    )
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height}"/>',
            f'<text class="title" x="{_MARGIN}" y="40">rtpush beside the limit and other servers</text>',
            f'<text class="faint" x="{_MARGIN}" y="60">{escape(facts)}; dashed: what rtpush is meant to reach</text>',
            *drawn,
            "</svg>\n",
        )
    )


def _panels(report: Report) -> Iterator[_Panel]:
    for scenario in report.scenarios:
        for figure in scenario.figures:
            if figure.key not in AIMS:
                continue
            bars = tuple(
                (target.name, target.title, value * figure.factor)
                for target in report.targets
                if (value := report.value(scenario, target.name, figure)) is not None
            )
            if len(bars) > 1:
                verdict = report.verdict(scenario, figure)
                aim = None if verdict is None else verdict.bound * figure.factor
                best_first = sorted(bars, key=lambda bar: bar[2], reverse=not figure.less_is_better)
                yield _Panel(scenario, figure, tuple(best_first), aim)


def _drawn(panel: _Panel, x: int, y: int) -> Iterator[str]:
    figure = panel.figure
    longest = max(value for _, _, value in panel.bars)
    room = _WIDTH - _NAMES - _VALUES
    # The aim is always to be seen, and ours beside it: bars that are much longer are cut.
    ours = max((value for name, _, value in panel.bars if name == "rtpush"), default=0.0)
    reference = max(ours, panel.aim or 0.0)
    scale = room / max(min(longest, _CUT * reference) if reference else longest, reference, 1e-9)
    sense = "less is better" if figure.less_is_better else "more is better"
    heading = ", ".join(filter(None, (figure.unit, sense)))
    left = x + _NAMES
    yield f'<text class="panel" x="{x}" y="{y + 18}">{escape(figure.title)}</text>'
    yield f'<text class="faint" x="{x}" y="{y + 34}">{escape(heading)}</text>'
    top = y + _HEAD
    for place, (name, title, value) in enumerate(panel.bars):
        row = top + place * _ROW
        style = " ours" if name.startswith("rtpush") else ""
        kind = " limit" if name.startswith("limit") else ""
        middle = row + _BAR - 3
        length = min(max(value * scale, 1.0), room)
        yield f'<text class="name{style}" x="{left - 8}" y="{middle}">{escape(title)}</text>'
        yield f'<rect class="track" x="{left}" y="{row}" width="{room}" height="{_BAR}" rx="2"/>'
        yield f'<rect class="bar{kind}{style}" x="{left}" y="{row}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
        if value * scale > room * 1.001:
            cut = left + room - 22
            yield f'<path class="cut" d="M{cut} {row + _BAR + 1} l8 -{_BAR + 2} h5 l-8 {_BAR + 2} z"/>'
        yield f'<text class="value{style}" x="{left + room + 8}" y="{middle}">{shown(value)}</text>'
    if panel.aim is not None:
        at = left + panel.aim * scale
        end = top + _ROW * len(panel.bars) - (_ROW - _BAR) + 3
        sign = "≤" if figure.less_is_better else "≥"
        anchor = "end" if panel.aim * scale > room / 2 else "start"
        yield f'<line class="aim" x1="{at:.1f}" y1="{top - 4}" x2="{at:.1f}" y2="{end}"/>'
        yield (
            f'<text class="aimed" x="{at:.1f}" y="{top - 8}" text-anchor="{anchor}">'
            f"{sign} {escape(shown(panel.aim))}</text>"
        )
