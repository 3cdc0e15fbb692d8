"""``rtpush bench``: how a running server does under a load of ours."""

from __future__ import annotations

import argparse
import resource
import secrets
import time
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall, deferLater

from rtpush.cli.asking import cannot_reach
from rtpush.cli.exits import Exit, Failed
from rtpush.cli.load.calling import find_road
from rtpush.cli.load.crowd import Links
from rtpush.cli.load.dialling import Dialler, Target, raise_file_limit
from rtpush.cli.load.links import LINKS, ShortPollLink
from rtpush.cli.load.pace import publish_on_time
from rtpush.cli.options import api_option, json_option, number, server_options, whole
from rtpush.cli.output import complain, print_json, seconds, table, write_line
from rtpush.cli.progress import Progress
from rtpush.cli.running import Command, run_task
from rtpush.client import LinkLost
from rtpush.client.negotiation import TRANSPORTS

__all__ = ["fill"]

#: Above this part of a core this process may itself be what is slow.
_TOO_BUSY = 0.85
#: Seconds that the last messages have to come.
_PATIENCE = 5.0


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Open connections, publish at a steady rate, and measure from when a message was due until each connection has "
        "it. Exit code 1 if a message or a connection was lost."
    )
    parser.set_defaults(command=partial(run_task, _Bench))
    parser.add_argument("--transport", choices=[*TRANSPORTS, "all"], default="websocket", help="(default websocket)")
    parser.add_argument(
        "--connections", type=whole(1, 1_000_000), default=100, metavar="N", help="connections of it (default 100)"
    )
    parser.add_argument(
        "--rate", type=number(0.01, 1e6), default=10.0, metavar="R", help="messages a second (default 10)"
    )
    parser.add_argument("--seconds", type=number(0.1), default=10.0, metavar="S", help="for how long (default 10)")
    parser.add_argument(
        "--size", type=whole(32, 10**8), default=128, metavar="B", help="bytes of a message (default 128)"
    )
    parser.add_argument("--channel", default="rtpush-bench", help="the name, or its beginning (default rtpush-bench)")
    parser.add_argument(
        "--channels", type=whole(1, 100_000), default=1, metavar="N", help="spread all over so many (default 1)"
    )
    parser.add_argument(
        "--interval", type=number(0.05, 3600), default=1.0, metavar="S", help="seconds between short polls (default 1)"
    )
    parser.add_argument(
        "--window", type=whole(1, 10_000), default=50, metavar="N", help="connections opened at once (default 50)"
    )
    server_options(parser, "publish with this API key; without, by an API that is open, or as a client does")
    api_option(parser)
    json_option(parser)


class _Bench(Command):
    """Measures one transport after the other."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        super().__init__(reactor, options)
        self._dialler = Dialler(reactor, Target.of(options.server))
        self._links: Links | None = None
        self._random = Random()
        ending = f"-{secrets.token_hex(4)}-"
        self._channels = [f"{options.channel}{ending}{place}" for place in range(options.channels)]

    async def main(self) -> int:
        options = self.options
        room = raise_file_limit() - options.channels
        if options.connections > room:
            raise Failed(f"no more than {room:,} connections: the limit of open files (ulimit -n) does not let in more")
        names = TRANSPORTS if options.transport == "all" else [options.transport]
        results = []
        try:
            api = Dialler(self.reactor, Target.of(options.api or options.server))
            self._road = await find_road(self._dialler, api, options.key, self._channels[0], "probe")
            for name in names:
                results.append(await self._measure(name))
        except LinkLost as lost:
            raise cannot_reach(options.server, lost) from None
        if options.json:
            print_json({"server": options.server, "results": results})
        else:
            write_line(_text(results))
        for result in results:
            for reason, times in result["reasons"].items():
                complain(f"{result['transport']}: {times} times: {reason}")
            if result["own_cpu"] > _TOO_BUSY:
                complain(
                    f"{result['transport']}: this command used {result['own_cpu']:.0%} of a core, and may have been "
                    "the bottleneck: ask for less, or run several"
                )
        good = all(not result["lost"] and not result["repeated"] and not result["reasons"] for result in results)
        return Exit.OK if good else Exit.FAILED

    def close(self) -> Deferred[None]:
        if self._links is not None:
            self._links.close()
        return succeed(None)

    async def _measure(self, name: str) -> dict[str, Any]:
        options = self.options
        links = self._links = Links(partial(self._make, name), self._dialler, time.monotonic)
        wanted = [self._channels[place % len(self._channels)] for place in range(options.connections)]
        begun = time.monotonic()
        with Progress(f"{name}: opening", options.connections) as progress:
            await links.open(wanted, options.window, progress.update)
        opened_in = time.monotonic() - begun
        opened = len(links.links)
        published: dict[str, int] = {}
        cpu = _own_cpu()
        begun = time.monotonic()
        if opened:
            with Progress(f"{name}: publishing", options.seconds) as progress:
                showing = LoopingCall(lambda: progress.update(time.monotonic() - begun))
                showing.start(0.2)
                try:
                    await publish_on_time(
                        self.reactor,
                        self._road,
                        self._channels,
                        rate=options.rate,
                        seconds=options.seconds,
                        size=options.size,
                        clock=time.monotonic,
                        published=published,
                    )
                    await self._wait(links, published)
                finally:
                    showing.stop()
        elapsed = time.monotonic() - begun
        lost = links.lacks(published)
        result = {
            "transport": name,
            "connections": options.connections,
            "opened": opened,
            "open_seconds": round(opened_in, 3),
            "published": sum(published.values()),
            "rate": round(sum(published.values()) / max(elapsed, options.seconds), 3),
            "received": links.came,
            "lost": lost,
            "repeated": links.repeated,
            "closed": opened - len(links.links),
            "latency": {
                title: round(links.times.percentile(part), 6)
                for title, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
            },
            "own_cpu": round((_own_cpu() - cpu) / max(elapsed, 1e-6), 3),
            "reasons": dict(links.reasons),
        }
        links.close()
        # Let the other end see it before the next transport is measured.
        await deferLater(self.reactor, 0.05)
        return result

    def _make(self, name: str, channel: str, links: Links) -> Any:
        link = LINKS[name](self._dialler.target, channel, links, self.reactor, {})
        if isinstance(link, ShortPollLink):
            interval = self.options.interval
            # They shall not all come at once.
            link.pause = lambda: interval * (0.5 + self._random.random())
        return link

    async def _wait(self, links: Links, published: dict[str, int]) -> None:
        patience = _PATIENCE + 2 * self.options.interval
        until = time.monotonic() + patience
        while not links.have_all(published) and time.monotonic() < until:
            await deferLater(self.reactor, 0.02)


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _text(results: Sequence[dict[str, Any]]) -> str:
    head = ("TRANSPORT", "OPEN", "OPENED IN", "PUBLISHED", "A SECOND", "RECEIVED", "LOST", "P50", "P90", "P99", "MAX")
    rows = [
        (
            each["transport"],
            f"{each['opened']:,}",
            seconds(each["open_seconds"]),
            f"{each['published']:,}",
            f"{each['rate']:,.1f}",
            f"{each['received']:,}",
            f"{each['lost']:,}",
            *(seconds(value) for value in each["latency"].values()),
        )
        for each in results
    ]
    return table(head, rows, head[1:])
