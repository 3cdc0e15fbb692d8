"""The configuration files of other programs, as they are shipped but for where things are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["CONF", "shipped"]

CONF = Path(__file__).resolve().parents[2] / "conf"


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """
    Return the text of a file in ``conf/`` with texts replaced by others.

    :raises AssertionError: if a text that is to be replaced is not there.
    """
    text = CONF.joinpath(name).read_text()
    for old, new in changes.items():
        if old not in text:
            raise AssertionError(f"{old!r} is not in conf/{name}")
        text = text.replace(old, new)
    return text
