"""Arrivals over time as bars in a terminal, and as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs

__all__ = ["Series", "bars", "svg"]


@attrs.frozen
class Series:
    """
    Something counted once a second.

    :ivar style: ``good`` or ``bad``: the colour.
    """

    title: str
    values: Sequence[int]
    style: str


_BLOCKS = " ▏▎▍▌▋▊▉█"


def bars(series: Sequence[Series], *, rows: int = 24, width: int = 60) -> str:
    """
    Return the series one below the other, a row for each piece of time.

    Each has its own scale, which is told: what differs by a hundred times would not be seen on one.
    """
    longest = max((len(each.values) for each in series), default=0)
    step = max(1, math.ceil(longest / rows))
    parts = []
    for each in series:
        pieces = [max(each.values[at : at + step]) for at in range(0, len(each.values), step)]
        peak = max(pieces, default=0)
        lines = [f"{each.title} (a full bar is {peak:,}/s)"]
        for place, value in enumerate(pieces):
            lines.append(f"{place * step:>6} s {_bar(value, peak, width)} {value:,}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _bar(value: int, peak: int, width: int) -> str:
    eighths = round(value / peak * width * 8) if peak else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if rest else "")).ljust(width)


_WIDTH, _LEFT, _RIGHT, _TOP, _PANEL, _GAP = 860, 76, 24, 76, 200, 62
_STYLE = """
  .page { fill: #ffffff; }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2733; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-size: 13px; font-weight: 600; }
  .faint { fill: #667085; font-size: 11px; }
  .value { text-anchor: end; }
  .time { text-anchor: middle; }
  .grid { stroke: #e4e7ec; }
  .good { fill: #2563eb; }
  .bad { fill: #c2410c; }
  .limit { stroke: #667085; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #12161d; }
    text { fill: #e4e7ec; }
    .faint { fill: #98a2b3; }
    .grid { stroke: #2b3442; }
    .good { fill: #6ea8fe; }
    .bad { fill: #f59e6b; }
  }
"""


def svg(title: str, facts: str, series: Sequence[Series], *, limit: float | None = None) -> str:
    """
    Return a drawing with one panel for each series: the same time below one another, each with its own height.

    :param limit: What can be taken a second: a dashed line where it fits.
    """
    span = max((len(each.values) for each in series), default=0) or 1
    height = _TOP + len(series) * (_PANEL + _GAP)
    room = _WIDTH - _LEFT - _RIGHT
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        f'<text class="title" x="24" y="32">{escape(title)}</text>',
        f'<text class="faint" x="24" y="52">{escape(facts)}</text>',
    ]
    for number, each in enumerate(series):
        top = _TOP + number * (_PANEL + _GAP)
        bottom = top + _PANEL
        peak = max(each.values, default=0) or 1
        heading = f"{each.title}: up to {peak:,} a second"
        drawn.append(f'<text class="panel" x="{_LEFT}" y="{top - 6}">{escape(heading)}</text>')
        scale = _step(peak)
        for line in range(int(peak / scale) + 1):
            y = bottom - line * scale / peak * (_PANEL - 14)
            drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            drawn.append(f'<text class="faint value" x="{_LEFT - 8}" y="{y + 4:.1f}">{_short(line * scale)}</text>')
        each_width = room / span
        for second, value in enumerate(each.values):
            if value:
                tall = max(value / peak * (_PANEL - 14), 0.5)
                # The bars touch: gaps between hundreds of them would flicker.
                drawn.append(
                    f'<rect class="{each.style}" x="{_LEFT + second * each_width:.2f}" y="{bottom - tall:.2f}" '
                    f'width="{max(each_width, 0.6):.2f}" height="{tall:.2f}"/>'
                )
        if limit is not None and limit <= peak:
            y = bottom - limit / peak * (_PANEL - 14)
            drawn.append(f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        ticks = _step(span)
        for tick in range(int(span / ticks) + 1):
            x = _LEFT + tick * ticks * each_width
            drawn.append(f'<text class="faint time" x="{x:.1f}" y="{bottom + 16}">{tick * ticks:g} s</text>')
    return "\n".join([*drawn, "</svg>\n"])


def _step(most: float) -> float:
    """Return a round distance that fits four to nine times, or one."""
    if most <= 4:
        return 1
    power = 10.0 ** math.floor(math.log10(most))
    return next(step for step in (power / 10, power / 5, power / 2, power, power * 2) if most / step <= 9)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
