"""Writes a report: text, reStructuredText, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.plot import plot
from benchmarks.report import Report
from benchmarks.tables import as_rst, as_text

__all__ = ["write"]


def write(report: Report, stem: Path) -> tuple[str, list[Path]]:
    """Write ``STEM.txt``, ``.rst``, ``.json`` and, if there is something to draw, ``.svg``; return text and paths."""
    text = as_text(report)
    contents = {
        ".txt": text + "\n",
        ".rst": as_rst(report),
        ".json": json.dumps(report.to_json(), indent=1) + "\n",
        ".svg": plot(report),
    }
    written = []
    for suffix, content in contents.items():
        if content:
            path = stem.with_name(stem.name + suffix)
            path.write_text(content)
            written.append(path)
    return text, written
