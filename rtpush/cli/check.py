"""``rtpush check``: a configuration before it is used, or a server that runs."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from rtpush.cli.checkconfig import ConfigCheck
from rtpush.cli.checkserver import ServerCheck
from rtpush.cli.exits import Exit
from rtpush.cli.findings import Findings, Verdict
from rtpush.cli.options import api_option, json_option, number, server_options
from rtpush.cli.output import print_json, write_line
from rtpush.cli.running import Command, run_task

__all__ = ["fill"]


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "With a FILE: everything that starting with it would refuse. Without: the server, through all that is between "
        "here and there. Exit code 1 if something is wrong, 3 if the server cannot be reached."
    )
    parser.set_defaults(command=partial(run_task, _Check))
    parser.add_argument("config", metavar="FILE", nargs="?", help="a configuration file, such as conf/prod.ini")
    parser.add_argument("--connect", action="store_true", help="with FILE: connect to Redis too")
    parser.add_argument(
        "--channel",
        default="rtpush-check",
        help="without FILE: the channel to send through, of a namespace that clients may follow (default rtpush-check)",
    )
    parser.add_argument(
        "--timeout", type=number(0.1, 300), default=5.0, metavar="S", help="seconds for each step (default 5)"
    )
    server_options(parser)
    api_option(parser)
    json_option(parser)


class _Check(Command):
    """Looks at one or the other, and tells what it has seen."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        super().__init__(reactor, options)
        self._findings = Findings()
        self._check: ConfigCheck | ServerCheck
        if options.config is not None:
            self._check = ConfigCheck(reactor, options.config, self._findings, connect=options.connect)
        elif options.connect:
            raise ValueError("argument --connect: expected a configuration FILE with it")
        else:
            self._check = ServerCheck(
                reactor,
                options.server,
                options.api or options.server,
                options.key,
                options.channel,
                options.timeout,
                self._findings,
            )

    async def main(self) -> int:
        try:
            code = await self._check.run()
        finally:
            found = self._findings.all
            if self.options.json:
                print_json({"findings": [finding.as_dict() for finding in found]})
            else:
                write_line("\n".join(map(str, found)))
                counts = {verdict: sum(each.verdict is verdict for each in found) for verdict in Verdict}
                write_line(
                    f"{counts[Verdict.OK]} ok, {counts[Verdict.WARNING]} to look at, {counts[Verdict.FAILED]} wrong"
                )
        return code or (Exit.FAILED if self._findings.failed else Exit.OK)
