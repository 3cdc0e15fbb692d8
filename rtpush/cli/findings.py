"""What checks find, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import attrs

from rtpush.cli.output import plain

__all__ = ["Finding", "Findings", "Verdict"]


class Verdict(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@attrs.frozen
class Finding:
    """
    One thing that was looked at.

    :ivar what: What that was.
    :ivar detail: What was seen.
    :ivar advice: What to do about it, if something is to be done.
    :ivar seconds: What was measured, by name.
    """

    verdict: Verdict
    what: str
    detail: str = ""
    advice: str = ""
    seconds: dict[str, float] = attrs.field(factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        fields = {"verdict": self.verdict.value, "what": self.what, "detail": self.detail, "advice": self.advice}
        return {name: value for name, value in {**fields, "seconds": self.seconds}.items() if value}

    def __str__(self) -> str:
        lines = [f"{self.verdict.value:<8} {plain(self.what)}" + (f": {plain(self.detail)}" if self.detail else "")]
        if self.advice:
            lines.append(f"{'':9}{plain(self.advice)}")
        return "\n".join(lines)


class Findings:
    """All that was found so far."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def ok(self, what: str, detail: str = "", **seconds: float) -> None:
        """Note what is as it should be."""
        self.all.append(Finding(Verdict.OK, what, detail, "", _rounded(seconds)))

    def warn(self, what: str, detail: str, advice: str = "", **seconds: float) -> None:
        """Note what may be wrong."""
        self.all.append(Finding(Verdict.WARNING, what, detail, advice, _rounded(seconds)))

    def fail(self, what: str, detail: str, advice: str = "", **seconds: float) -> None:
        """Note what is wrong."""
        self.all.append(Finding(Verdict.FAILED, what, detail, advice, _rounded(seconds)))

    @property
    def failed(self) -> Sequence[Finding]:
        """What is wrong."""
        return [finding for finding in self.all if finding.verdict is Verdict.FAILED]


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in seconds.items()}
