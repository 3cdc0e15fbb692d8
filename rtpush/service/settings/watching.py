"""How the service is watched: ``[metrics]`` and ``[log]``."""

from __future__ import annotations

import re

import attrs

from rtpush.service.sections import Key, SectionType
from rtpush.service.settings.access import API_KEY
from rtpush.service.values import Many, One, boolean, choice

__all__ = ["LOG", "METRICS", "Log", "Metrics"]

#: What a line of the log can be, from the least to the most important.
_LOG_LEVELS = ("debug", "info", "warn", "error", "critical")


@attrs.frozen(kw_only=True)
class Metrics:
    """``[metrics]``: who may read them, besides those who may use the server API."""

    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    open: bool = False


@attrs.frozen(kw_only=True)
class Log:
    """
    ``[log]``.

    :ivar modules: Modules whose lines have another least level than ``level``, and that.
    """

    format: str = "text"
    level: str = "info"
    modules: tuple[tuple[str, str], ...] = ()


def _module_level(text: str) -> tuple[str, str]:
    module, _, level = (part.strip() for part in text.partition("="))
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", module) is None or level not in _LOG_LEVELS:
        raise ValueError
    return module, level


METRICS = SectionType(
    "metrics",
    Metrics,
    (
        Key(
            "keys",
            Many(API_KEY),
            "Keys that open /metrics and nothing else, one a line. Those of the server API open it too.",
        ),
        Key("open", boolean(), "Whether all may read /metrics who reach this node. They may if [api] is open."),
    ),
)

LOG = SectionType(
    "log",
    Log,
    (
        Key(
            "format",
            choice("text", "json"),
            "How the log is written: text, a line for people; or json, an object a line for machines.",
        ),
        Key("level", choice(*_LOG_LEVELS), "The least that is logged: debug, info, warn, error or critical."),
        Key(
            "modules",
            Many(One("a module and its level, such as rtpush.broker=debug", _module_level), commas=True),
            "Modules with another level, with those below them: name=level, separated by commas.",
        ),
    ),
)
