"""``rtpush publish``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from rtpush.cli.exits import Exit, Failed
from rtpush.cli.options import json_option, server_options, token_option
from rtpush.cli.output import complain, print_json, write_line
from rtpush.cli.running import code_of, run_task
from rtpush.client import Client, ClientClosed, LinkLost, ServerApi, Status
from rtpush.client.lines import LineReader
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication, json_payload
from rtpush.protocol.message import Kind, Payload
from rtpush.protocol.position import Position

__all__ = ["fill", "payload_of"]

#: How many lines go out at once.
_BATCH = 500

#: Errors after which the next line would fail too.
_HOPELESS = {
    ErrorCode.UNAUTHORIZED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.UNKNOWN_CHANNEL,
    ErrorCode.BAD_CHANNEL,
    ErrorCode.NOT_AVAILABLE,
    ErrorCode.NOT_FOUND,
}

_Outcome = Position | Exception | None


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(command=partial(run_task, _Publish))
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="JSON if it can be read as that, else text; without it, each line of standard input is a message",
    )
    parser.add_argument("--file", metavar="FILE", help="read this file, not standard input")
    parser.add_argument("--whole", action="store_true", help="all of the input is one message, not each line one")
    parser.add_argument("--event", help="the event name of the messages")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--text", action="store_true", help="take what looks like JSON as text too")
    kinds.add_argument("--binary", action="store_true", help="take it as bytes that are neither text nor JSON")
    server_options(
        parser, "publish by the server API, with this API key (empty for one that is open); without, as a client does"
    )
    token_option(parser)
    json_option(parser, "print where each message is as JSON, and the count at the end")


class _Publish:
    """Publishes over the server API, or as a client."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        if options.data is not None and (options.file is not None or options.whole):
            raise ValueError("argument DATA: not allowed with --file or --whole")
        self._options = options
        self._unreachable: str | None = None
        self._was_open = False
        self._road: Client | ServerApi
        if options.key is None:
            client = self._road = Client(reactor, options.server, token=options.token)
            client.on_status(self._heard)
        else:
            self._road = ServerApi(reactor, options.server, options.key)
        self._message = None if options.data is None else os.fsencode(options.data)
        descriptor = 0
        try:
            if options.file is not None:
                descriptor = os.open(options.file, os.O_RDONLY)
            if options.whole:
                with open(descriptor, "rb", closefd=False) as file:
                    self._message = file.read()
        except OSError as error:
            raise ValueError(f"{options.file or 'standard input'}: {error.strerror}") from None
        self._lines = LineReader(reactor, descriptor)

    def run(self) -> Deferred[int]:
        message = self._message
        return Deferred.fromCoroutine(self._publish_lines() if message is None else self._publish_one(message))

    def stop(self) -> Deferred[None]:
        self._lines.close()
        return self._road.close()

    async def _publish_one(self, data: bytes) -> int:
        [outcome] = await self._publish([data])
        if isinstance(outcome, Exception):
            raise outcome
        self._print(outcome)
        return Exit.OK

    async def _publish_lines(self) -> int:
        source = self._options.file or "standard input"
        number = failed = 0
        hopeless: Exception | None = None
        while hopeless is None and (lines := await self._lines.take(_BATCH)):
            for outcome in await self._publish(lines):
                number += 1
                if isinstance(outcome, Exception):
                    failed += 1
                    if hopeless is None:
                        complain(f"line {number}: {outcome}")
                        hopeless = outcome if _is_hopeless(outcome) else None
                elif self._options.json:
                    self._print(outcome)
        published = number - failed
        if self._options.json:
            print_json({"published": published, "failed": failed})
        else:
            sys.stderr.write(f"{published} published" + (f", {failed} not\n" if failed else "\n"))
        if self._lines.error is not None:
            raise Failed(f"{source}: {self._lines.error}")
        if hopeless is not None and not published:
            return code_of(hopeless) or Exit.FAILED
        return Exit.FAILED if failed else Exit.OK

    def _print(self, position: Position | None) -> None:
        if self._options.json:
            where = {} if position is None else {"epoch": position.epoch, "offset": position.offset}
            print_json({"channel": self._options.channel, **where})
        elif position is not None:
            write_line(str(position))

    async def _publish(self, lines: Sequence[bytes]) -> list[_Outcome]:
        """Publish lines, in order, and return the position of each or what is wrong with it."""
        if self._options.binary:
            return list(await self._send([Payload(line, Kind.BINARY) for line in lines]))
        payloads = [payload_of(line, self._options.text) for line in lines]
        outcomes = iter(await self._send([each for each in payloads if isinstance(each, Payload)]))
        return [next(outcomes) if isinstance(each, Payload) else each for each in payloads]

    async def _send(self, payloads: Sequence[Payload]) -> Sequence[_Outcome]:
        channel, event = self._options.channel, self._options.event
        if isinstance(self._road, ServerApi):
            try:
                return await self._road.publish_batch([Publication(channel, each, event) for each in payloads])
            except (RtpushError, LinkLost) as error:
                what = error if isinstance(error, RtpushError) else self._cannot_reach(str(error))
                return [what] * len(payloads)
        outcomes: list[_Outcome] = await gatherResults(
            [self._road.publish(channel, each, event=event).addErrback(_error_of) for each in payloads]
        )
        if self._unreachable is None:
            return outcomes
        return [self._cannot_reach(self._unreachable) if isinstance(each, ClientClosed) else each for each in outcomes]

    def _cannot_reach(self, why: str) -> LinkLost:
        return LinkLost(f"cannot reach {self._options.server}: {why}")

    def _heard(self, status: Status) -> None:
        """A server that is away at the beginning is a failure; one that goes away later is waited for."""
        self._was_open = self._was_open or status.transport is not None
        if status.delay is None:
            return
        if self._was_open:
            complain(f"{status.reason}; trying again in {status.delay:.1f} s")
        else:
            self._unreachable = status.reason
            self._road.close()


def _is_hopeless(error: Exception) -> bool:
    return not isinstance(error, RtpushError) or error.kind in _HOPELESS


def _error_of(failure: Failure) -> Exception:
    error = failure.value
    if not isinstance(error, Exception):
        failure.raiseException()
    return error


def payload_of(line: bytes, as_text: bool) -> Payload | RtpushError:
    """Return what a line is published as: JSON if it can be read as that, else text; or what is wrong with it."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return RtpushError(ErrorCode.BAD_REQUEST, f"not UTF-8: {error.reason} at byte {error.start}")
    try:
        return Payload(line, Kind.TEXT) if as_text else json_payload(line)
    except RtpushError:
        return Payload(line, Kind.TEXT)
