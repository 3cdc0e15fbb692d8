"""How far long work is, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

__all__ = ["Progress"]

_WIDTH = 30
#: Seconds between two changes of the line.
_STEP = 0.1


class Progress:
    """
    A bar on standard error, while that is a terminal; else nothing. It is wiped out at its end.

    :param what: What is being done.
    :param total: How much there is to do.
    """

    def __init__(self, what: str, total: float = 1.0, stream: TextIO | None = None) -> None:
        self._what = what
        self._total = total or 1.0
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._next = 0.0

    def __enter__(self) -> Self:
        self.update(0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def update(self, done: float, what: str | None = None) -> None:
        """Say how much is done by now, and what is being done if that has changed."""
        now = time.monotonic()
        if what is not None and what != self._what:
            self._what, self._next = what, 0.0
        if not self._shown or now < self._next:
            return
        self._next = now + _STEP
        part = min(max(done / self._total, 0.0), 1.0)
        full = round(part * _WIDTH)
        self._stream.write(f"\r\x1b[K{self._what} [{'#' * full}{'.' * (_WIDTH - full)}] {part:4.0%}")
        self._stream.flush()
