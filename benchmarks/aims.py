"""What rtpush is meant to reach, by figure: the aim, and the stretch beyond it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from benchmarks.scenario import Figure

__all__ = ["AIMS", "Aim", "Verdict"]


@frozen
class Verdict:
    """An aim in numbers, in base units, and what was made of it; ``word`` is empty if there is nothing to judge."""

    bound: float
    word: str


@frozen
class Aim:
    """A bound for one figure of one target, in the unit that is printed.

    With `limit` the bounds are multiples of that target's figure, measured in the same run.
    """

    bound: float
    stretch: float | None = None
    limit: str | None = None
    target: str = "rtpush"

    def text(self, figure: Figure) -> str:
        """Return the aim and the stretch for a reader."""
        sign = "≤" if figure.less_is_better else "≥"
        of = " × limit" if self.limit else ""
        stretch = f" ({sign} {self.stretch:,.10g}{of})" if self.stretch is not None else ""
        return f"{sign} {self.bound:,.10g}{of}{stretch}"

    def verdict(self, figure: Figure, value: Callable[[str], float | None]) -> Verdict | None:
        """Judge; ``value(target)`` is what was measured, in base units. None if the limit was not measured."""
        base = value(self.limit) if self.limit else 1.0 / figure.factor
        if base is None:
            return None
        measured = value(self.target)
        if measured is None:
            return Verdict(self.bound * base, "")
        if self.stretch is not None and _holds(figure, measured, self.stretch * base):
            return Verdict(self.bound * base, "stretch met")
        return Verdict(self.bound * base, "met" if _holds(figure, measured, self.bound * base) else "not met")


def _holds(figure: Figure, measured: float, bound: float) -> bool:
    return measured <= bound if figure.less_is_better else measured >= bound


#: By the key of a figure.
AIMS = {
    "delivery-cpu": Aim(1.25, 1.1, limit="limit-c"),
    "deliveries": Aim(700_000, 1_300_000),
    "deliveries-p99": Aim(50),
    "memory-websocket": Aim(2, 0.9),
    "memory-sse": Aim(2, 1),
    "memory-poll": Aim(2, 1),
    "handshake-cpu": Aim(90, 44),
    "one-to-one-cpu": Aim(35, 20),
    "poll-cpu": Aim(30, 14),
    "publishes-batch": Aim(200_000),
    "latency-p50": Aim(0.5),
    "latency-p99": Aim(2),
    "nodes-http-p50": Aim(1, target="rtpush-redis"),
    "many-dropped": Aim(0, target="rtpush-workers"),
    "many-heartbeat": Aim(5, target="rtpush-workers"),
}
