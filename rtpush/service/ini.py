"""
Reading INI text and remembering the line of everything.

The format is that of the standard library's ``configparser`` without interpolation and without a ``DEFAULT`` section:
``[section]``, ``key = value``, and lines that are indented deeper than their key go on with its value. ``configparser``
itself forgets where a value stood, and a message about a value is of little use without its line.

A line that begins with ``#`` or ``;`` is a comment, anywhere; so is the rest of a line from a space before one of them.
"""

from __future__ import annotations

import io
import re

import attrs

__all__ = ["Entry", "Line", "Mistake", "Section", "read", "show"]

_COMMENT = re.compile(r"(?:^|\s)[#;].*")
_HEADER = re.compile(r"\[([^\[\]]*)\]")


class Mistake(ValueError):
    """
    Something in the text is wrong.

    :ivar line: Its line, counted from 1, or :obj:`None` if no line is to blame.
    """

    def __init__(self, line: int | None, problem: str) -> None:
        super().__init__(problem)
        self.line = line


@attrs.frozen
class Line:
    """A piece of a value, and the number of its line, counted from 1."""

    number: int
    text: str


@attrs.frozen
class Entry:
    """
    One key.

    :ivar line: The line of the key.
    :ivar lines: The value, a piece for each of its lines that is not empty.
    """

    name: str
    line: int
    lines: list[Line] = attrs.Factory(list)


@attrs.frozen
class Section:
    """
    One section.

    :ivar line: The line of its header.
    """

    name: str
    line: int
    entries: dict[str, Entry] = attrs.Factory(dict)


def show(text: str) -> str:
    """Return a piece of the text as messages show it: quoted, and not too long."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def read(text: str) -> list[Section]:
    """
    Read INI text.

    :raises Mistake: if a line is neither a header nor ``key = value`` nor the continuation of a value, or if a section
        or key is there twice.
    """
    sections: dict[str, Section] = {}
    section: Section | None = None
    entry: Entry | None = None
    indent = 0
    for number, raw in enumerate(io.StringIO(text, newline=None), 1):
        line = _COMMENT.sub("", raw.rstrip("\n"), count=1)
        content = line.strip()
        if not content:
            continue
        depth = len(line) - len(line.lstrip())
        if entry is not None and depth > indent:
            entry.lines.append(Line(number, content))
            continue
        indent = depth
        if content.startswith("["):
            section, entry = _header(content, number, sections), None
            sections[section.name] = section
        elif section is None:
            raise Mistake(number, f"{show(content)}: expected a [section] before the first key")
        else:
            entry = _entry(content, number, section)
            section.entries[entry.name] = entry
    return list(sections.values())


def _header(content: str, number: int, sections: dict[str, Section]) -> Section:
    match = _HEADER.fullmatch(content)
    if match is None:
        raise Mistake(number, f"{show(content)}: expected [section]")
    if (first := sections.get(match[1])) is not None:
        raise Mistake(number, f"[{match[1]}]: this section is there twice; the first is on line {first.line}")
    return Section(match[1], number)


def _entry(content: str, number: int, section: Section) -> Entry:
    name, equals, value = content.partition("=")
    name, value = name.rstrip(), value.lstrip()
    if not equals or not name:
        raise Mistake(number, f"[{section.name}] {show(content)}: expected key = value")
    if (first := section.entries.get(name)) is not None:
        raise Mistake(number, f"[{section.name}] {name}: this key is there twice; the first is on line {first.line}")
    return Entry(name, number, [Line(number, value)] if value else [])
