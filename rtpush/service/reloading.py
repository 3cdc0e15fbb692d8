"""Another configuration for a process that runs: what can be changed, and what has to wait for the next start."""

from __future__ import annotations

from typing import Any

import attrs

from rtpush.service.config import Config

__all__ = ["changed"]

#: What is as it was when the process started. Sections of which nothing can be changed have no keys here.
_FIXED: dict[str, tuple[str, ...]] = {
    "server": ("listen", "node", "workers"),
    "api": ("listen",),
    "broker": (),
    "redis": (),
    "log": (),
}


def changed(old: Config, new: Config) -> tuple[Config, list[str]]:
    """
    Return what of a new configuration can be had while the process runs.

    :returns: The configuration to go on with, and a line for each thing of the new one that is not in it.
    """
    lines: list[str] = []
    kept: dict[str, Any] = {}
    for section, keys in _FIXED.items():
        before, after = getattr(old, section), getattr(new, section)
        names = keys or [field.name for field in attrs.fields(type(before))]
        lines += [
            f"[{section}] {name} can only be changed by a restart: it stays as it is"
            for name in names
            if getattr(before, name) != getattr(after, name)
        ]
        kept[section] = attrs.evolve(after, **{name: getattr(before, name) for name in names})
    return attrs.evolve(new, **kept), lines
