"""
The command ``rtpush``: publish and subscribe from a shell.

Exit codes: 0 all went well, 1 something failed, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rtpush import __version__
from rtpush.client import Client, ClientClosed, LinkLost, ServerApi, Status
from rtpush.client.lines import LineReader
from rtpush.client.negotiation import TRANSPORTS
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication, json_payload
from rtpush.protocol.message import Kind, Message, Payload, envelope_json
from rtpush.protocol.position import Position, parse_cursor
from rtpush.protocol.pushes import GapPush

__all__ = ["main"]

_URL = "http://127.0.0.1:8080/"

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

#: Characters that would break a line of output in two, or steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")

_Outcome = Position | Exception | None


class _Task(Protocol):
    """What a subcommand does."""

    def run(self) -> Deferred[int]:
        """Do it; the result is the exit code."""

    def stop(self) -> Deferred[None]:
        """End it: what is not done by now is not done."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and exit."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Importing the reactor installs it, so that comes after the command line is known to be good.
    from twisted.internet import reactor

    try:
        task: _Task = options.task(reactor, options)
    except ValueError as error:
        parser.error(str(error))
    sys.exit(_run(reactor, task))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rtpush",
        description="Publish messages to an rtpush server, and follow channels.",
        epilog="Exit codes: 0 all went well, 1 something failed, 2 the command line is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"rtpush {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    publish = commands.add_parser("publish", help="publish a message, or each line of standard input")
    publish.set_defaults(task=_Publish)
    publish.add_argument("channel", metavar="CHANNEL")
    publish.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="JSON if it can be read as that, else text; without it, each line of standard input is a message",
    )
    publish.add_argument("--event", help="the event name of the messages")
    publish.add_argument(
        "--key",
        help="publish by the server API, with this API key (empty for one that is open); without, as a client does",
    )
    publish.add_argument("--text", action="store_true", help="take what looks like JSON as text too")

    subscribe = commands.add_parser("subscribe", help="print the messages of channels, one a line")
    subscribe.set_defaults(task=_Subscribe)
    subscribe.add_argument("channels", metavar="CHANNEL", nargs="+")
    begin = subscribe.add_mutually_exclusive_group()
    begin.add_argument("--since", choices=["earliest"], help="begin at the oldest message kept, not at now")
    begin.add_argument("--cursor", help="go on from here: this command says where it was when it ends")
    subscribe.add_argument("--transport", choices=TRANSPORTS, help="use this one only")
    subscribe.add_argument("--json", action="store_true", help="print envelopes: channel, position, event and data")
    subscribe.add_argument("--count", metavar="N", type=_positive, help="end after so many messages")

    for each in (publish, subscribe):
        each.add_argument("--url", default=_URL, help=f"where the server is (default {_URL})")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _run(reactor: Any, task: _Task) -> int:
    """Run a task until it is done or a signal ends it, and return the exit code."""
    codes = []

    def done(result: int | Failure) -> None:
        codes.append(1 if isinstance(result, Failure) else result)
        if isinstance(result, Failure):
            _complain(f"this is a mistake in rtpush: {result.value!r}")
        try:
            reactor.stop()
        except ReactorNotRunning:
            # A signal has stopped it already.
            pass

    reactor.addSystemEventTrigger("before", "shutdown", task.stop)
    reactor.callWhenRunning(lambda: task.run().addBoth(done))
    reactor.run()
    return codes[0] if codes else 1


def _complain(text: str) -> None:
    print(f"rtpush: {text}", file=sys.stderr, flush=True)


class _Publish:
    """``rtpush publish``."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self._options = options
        self._lines = LineReader(reactor, 0)
        self._unreachable: str | None = None
        self._was_open = False
        self._road: Client | ServerApi
        if options.key is None:
            client = self._road = Client(reactor, options.url)
            client.on_status(self._heard)
        else:
            self._road = ServerApi(reactor, options.url, options.key)

    def run(self) -> Deferred[int]:
        data = self._options.data
        return Deferred.fromCoroutine(self._publish_lines() if data is None else self._publish_one(os.fsencode(data)))

    def stop(self) -> Deferred[None]:
        self._lines.close()
        return self._road.close()

    async def _publish_one(self, data: bytes) -> int:
        [outcome] = await self._publish([data])
        if isinstance(outcome, Exception):
            _complain(str(outcome))
            return 1
        if outcome is not None:
            print(outcome, flush=True)
        return 0

    async def _publish_lines(self) -> int:
        number = failed = 0
        hopeless = False
        while not hopeless and (lines := await self._lines.take(_BATCH)):
            for outcome in await self._publish(lines):
                number += 1
                if isinstance(outcome, Exception):
                    failed += 1
                    if not hopeless:
                        _complain(f"line {number}: {outcome}")
                    hopeless = hopeless or not isinstance(outcome, RtpushError) or outcome.kind in _HOPELESS
        print(f"{number - failed} published" + (f", {failed} not" if failed else ""), file=sys.stderr, flush=True)
        if self._lines.error is not None:
            _complain(f"standard input: {self._lines.error}")
        return 1 if failed or self._lines.error is not None else 0

    async def _publish(self, lines: Sequence[bytes]) -> list[_Outcome]:
        """Publish lines, in order, and return the position of each or what is wrong with it."""
        payloads = [_payload(line, self._options.text) for line in lines]
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
        return LinkLost(f"cannot reach {self._options.url}: {why}")

    def _heard(self, status: Status) -> None:
        """A server that is away at the beginning is a failure; one that goes away later is waited for."""
        self._was_open = self._was_open or status.transport is not None
        if status.delay is None:
            return
        if self._was_open:
            _complain(f"{status.reason}; trying again in {status.delay:.1f} s")
        else:
            self._unreachable = status.reason
            self._road.close()


def _error_of(failure: Failure) -> Exception:
    error = failure.value
    if not isinstance(error, Exception):
        failure.raiseException()
    return error


def _payload(line: bytes, as_text: bool) -> Payload | RtpushError:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return RtpushError(ErrorCode.BAD_REQUEST, f"not UTF-8: {error.reason} at byte {error.start}")
    try:
        return Payload(line, Kind.TEXT) if as_text else json_payload(line)
    except RtpushError:
        return Payload(line, Kind.TEXT)


class _Subscribe:
    """``rtpush subscribe``."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self._reactor = reactor
        self._options = options
        self._done: Deferred[int] = Deferred()
        self._code = 0
        self._printed = 0
        self._open = set(options.channels)
        self._was_open = False
        self._client = Client(reactor, options.url, transports=[options.transport] if options.transport else None)
        self._client.on_status(self._heard)
        channels: list[str] = options.channels
        positions = parse_cursor(options.cursor, len(channels)) if options.cursor else [None] * len(channels)
        for channel, position in zip(channels, positions, strict=True):
            self._client.subscribe(
                channel,
                self._message,
                position=position,
                since=options.since,
                on_gap=self._gap,
                on_end=partial(self._ended, channel),
            )

    def run(self) -> Deferred[int]:
        if stat.S_ISFIFO(os.fstat(1).st_mode):
            self._reactor.addReader(_PipeWatch(1, self._finish))
        return self._done

    def stop(self) -> Deferred[None]:
        cursor = self._client.cursor(self._options.channels)
        closed = self._client.close()
        if any(character != "-" for character in cursor.replace(",", "")):
            print(f"cursor: {cursor}", file=sys.stderr, flush=True)
        self._finish()
        return closed

    def _finish(self) -> None:
        if not self._done.called:
            self._done.callback(self._code)

    def _message(self, message: Message) -> None:
        if self._done.called:
            return
        try:
            sys.stdout.buffer.write(self._line(message) + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Whoever read this has had enough, as "head" has. What is in the buffer must not complain at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self._finish()
            return
        self._printed += 1
        if self._printed == self._options.count:
            self._finish()

    def _line(self, message: Message) -> bytes:
        if self._options.json:
            return msgspec.json.format(envelope_json(message), indent=-1)
        data = _one_line(message.payload)
        return data if len(self._options.channels) == 1 else message.channel.encode() + b"\t" + data

    def _gap(self, gap: GapPush) -> None:
        _complain(f"{gap.channel}: messages are lost ({gap.reason.value}); going on after {gap.position}")

    def _ended(self, channel: str, error: Exception) -> None:
        _complain(f"{channel}: {error}")
        self._code = 1
        self._open.discard(channel)
        if not self._open:
            self._finish()

    def _heard(self, status: Status) -> None:
        if status.transport is not None:
            _complain(f"connected over {status.transport}" + (f" ({status.reason})" if self._was_open else ""))
            self._was_open = True
        elif status.delay is not None:
            lost = "" if self._was_open else f"cannot reach {self._options.url}: "
            _complain(f"{lost}{status.reason}; trying again in {status.delay:.1f} s")


def _one_line(payload: Payload) -> bytes:
    """Return a payload as one line: JSON without line breaks, text as it is or as a JSON string, base64."""
    if payload.kind is Kind.JSON:
        return msgspec.json.format(payload.data, indent=-1)
    if payload.kind is Kind.BINARY:
        return base64.b64encode(payload.data)
    text = payload.data.decode()
    return json.dumps(text).encode() if _CONTROL.search(text) else payload.data


@implementer(IReadDescriptor)
class _PipeWatch:
    """Sees the reader of a pipe go away also when there is nothing to write."""

    def __init__(self, fd: int, gone: Callable[[], None]) -> None:
        self._fd = fd
        self._gone = gone

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:
        """Nothing ever comes out of this end."""

    def connectionLost(self, reason: Failure) -> None:
        self._gone()
