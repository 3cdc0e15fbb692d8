"""What commands print."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from rtpush.protocol.message import Kind, Payload

__all__ = ["amount", "complain", "one_line", "plain", "print_json", "quantity", "seconds", "table", "write_line"]

#: Characters that would break a line of output in two, or steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def complain(text: str) -> None:
    """Say what is wrong, in one line of standard error."""
    sys.stderr.write(f"rtpush: {text}\n")
    sys.stderr.flush()


def write_line(line: bytes | str = b"") -> bool:
    """Write a line to standard output at once; return False if nobody reads it any more."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write((line.encode() if isinstance(line, str) else line) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read this has had enough, as "head" has. What is in the buffer must not complain at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return False
    return True


def print_json(value: Any) -> bool:
    """Print a value as JSON, on one line."""
    return write_line(msgspec.json.encode(value))


def one_line(payload: Payload) -> bytes:
    """Return a payload as one line: JSON without line breaks, text as it is or as a JSON string, base64."""
    if payload.kind is Kind.JSON:
        return msgspec.json.format(payload.data, indent=-1)
    if payload.kind is Kind.BINARY:
        return base64.b64encode(payload.data)
    text = payload.data.decode()
    return json.dumps(text).encode() if _CONTROL.search(text) else payload.data


def plain(text: object) -> str:
    """Return what somebody else has written, without what would steer the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)).replace("\t", " ")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[str] = ()) -> str:
    """
    Return a table as text.

    :param right: The names of the columns that are aligned to the right.
    """
    cells = [[plain(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    aligned = [name in right for name in head]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, aligned, strict=True)
        ).rstrip()
        for row in cells
    )


def amount(value: float, digits: int = 3) -> str:
    """Return a number as people write it: with separators, and without digits that say nothing."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity(value: float, unit: str = "B", *, base: int = 1024) -> str:
    """Return an amount with the largest prefix that fits: ``152.6 MiB/s``."""
    prefixes = ("", "Ki", "Mi", "Gi", "Ti", "Pi") if base == 1024 else ("", "k", "M", "G", "T", "P")
    place = 0
    while abs(value) >= base and place < len(prefixes) - 1:
        value /= base
        place += 1
    return f"{amount(value, 4 if place else 3)} {prefixes[place]}{unit}"


def seconds(value: float) -> str:
    """Return a time with the unit that fits it."""
    if value < 0.001:
        return f"{amount(value * 1e6)} µs"
    if value < 1:
        return f"{amount(value * 1e3)} ms"
    if value < 120:
        return f"{amount(value)} s"
    if value < 7200:
        return f"{amount(value / 60)} min"
    return f"{amount(value / 3600)} h"
