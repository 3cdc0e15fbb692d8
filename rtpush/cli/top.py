"""``rtpush top``: what a server does, live."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from datetime import datetime
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from rtpush.cli.asking import cannot_reach
from rtpush.cli.exits import Exit
from rtpush.cli.load.calling import Caller
from rtpush.cli.load.dialling import Dialler, Target
from rtpush.cli.options import json_option, number, server_options
from rtpush.cli.output import print_json, write_line
from rtpush.cli.running import Command, run_task
from rtpush.cli.topview import Look, lines, read_metrics, summary
from rtpush.client import LinkLost, ServerApi

__all__ = ["fill"]

_BEGIN = "\x1b[?1049h\x1b[?25l"
_END = "\x1b[?25h\x1b[?1049l"

#: The list of channels may be long: getting it takes at most this part of the time.
_CHANNELS_PART = 0.05


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(command=partial(run_task, _Top))
    parser.add_argument(
        "--interval", type=number(0.1, 3600), default=1.0, metavar="S", help="seconds between two looks (default 1)"
    )
    parser.add_argument("--once", action="store_true", help="look twice, for the rates, print that and end")
    server_options(parser)
    json_option(parser, "print each look as a line of JSON")


class _Top(Command):
    """Looks again and again; Ctrl-C is how it ends."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        super().__init__(reactor, options)
        key = options.key or ""
        self._api = ServerApi(reactor, options.server, key)
        self._caller = Caller(Dialler(reactor, Target.of(options.server)))
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._channels: dict[str, int] = {}
        self._channels_due = 0.0
        self._drawn = False

    async def main(self) -> int:
        options = self.options
        try:
            before = await self._look()
        except LinkLost as lost:
            raise cannot_reach(options.server, lost) from None
        is_live = sys.stdout.isatty() and not options.json and not options.once
        if is_live:
            self._drawn = True
            sys.stdout.write(_BEGIN)
            self._draw(before, None, "")
        try:
            while True:
                await deferLater(self.reactor, options.interval)
                problem = ""
                look = before
                try:
                    look = await self._look()
                except LinkLost as lost:
                    if options.once:
                        raise cannot_reach(options.server, lost) from None
                    problem = f"cannot reach {options.server}: {lost}"
                if is_live:
                    self._draw(look, before, problem)
                elif not self._print(look, before, problem) or options.once:
                    return Exit.OK
                before = look
        except CancelledError:
            return Exit.OK

    def close(self) -> Deferred[None]:
        if self._drawn:
            self._drawn = False
            sys.stdout.write(_END)
            sys.stdout.flush()
        self._caller.close()
        return self._api.close()

    async def _look(self) -> Look:
        info = await self._api.info()
        now = time.monotonic()
        if now >= self._channels_due:
            answer = await self._api.channels()
            self._channels = {name: each["subscribers"] for name, each in answer["channels"].items()}
            took = time.monotonic() - now
            self._channels_due = now + took / _CHANNELS_PART
        return Look(
            time=now,
            nodes=info["nodes"],
            channels=self._channels,
            metrics=await self._metrics(),
            missing=info.get("missing", ()),
        )

    async def _metrics(self) -> dict[Any, float]:
        """Read the metrics; a server that has none, or does not let us see them, has no rates here."""
        call = Deferred.fromCoroutine(self._caller.call("GET", "metrics?workers=summed", None, self._headers))
        status, body = await call.addTimeout(10.0, self.reactor, onTimeoutCancel=_too_late)
        return read_metrics(body.decode(errors="replace")) if status == 200 else {}

    def _print(self, look: Look, before: Look, problem: str) -> bool:
        if self.options.json:
            what = {"error": problem} if problem else summary(look, before)
            return print_json({"time": datetime.now().astimezone().isoformat(timespec="seconds"), **what})
        shown = [problem] if problem else lines(look, before, width=1000, height=60, title=self._title())
        return write_line("\n".join(shown) + "\n")

    def _draw(self, look: Look, before: Look | None, problem: str) -> None:
        size = shutil.get_terminal_size()
        shown = lines(look, before, width=size.columns, height=size.lines - 1, title=problem or self._title())
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in shown) + "\x1b[J")
        sys.stdout.flush()

    def _title(self) -> str:
        return f"rtpush top · {self.options.server} · {datetime.now().astimezone():%H:%M:%S}"


def _too_late(result: Any, timeout: float) -> Any:
    raise LinkLost(f"no answer within {timeout:g} s")
