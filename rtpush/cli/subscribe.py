"""``rtpush subscribe``."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rtpush.cli.exits import Exit
from rtpush.cli.options import json_option, positive, server_options, token_option
from rtpush.cli.output import complain, one_line, write_line
from rtpush.cli.running import code_of, run_task
from rtpush.client import Client, Status
from rtpush.client.negotiation import TRANSPORTS
from rtpush.protocol.message import Message, envelope_json
from rtpush.protocol.position import parse_cursor
from rtpush.protocol.pushes import GapPush

__all__ = ["fill"]


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(command=partial(run_task, _Subscribe))
    parser.add_argument("channels", metavar="CHANNEL", nargs="+")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--since", choices=["earliest"], help="begin at the oldest message kept, not at now")
    begin.add_argument("--cursor", help="go on from here: this command says where it was when it ends")
    parser.add_argument("--transport", choices=TRANSPORTS, help="use this one only")
    parser.add_argument("--count", metavar="N", type=positive, help="end after so many messages")
    server_options(parser)
    token_option(parser)
    json_option(parser, "print envelopes: channel, position, event and data")


class _Subscribe:
    """Follows channels until it has enough, or is stopped."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self._reactor = reactor
        self._options = options
        self._done: Deferred[int] = Deferred()
        self._code = 0
        self._printed = 0
        self._open = set(options.channels)
        self._was_open = False
        transports = [options.transport] if options.transport else None
        self._client = Client(reactor, options.server, transports=transports, token=options.token)
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
            sys.stderr.write(f"cursor: {cursor}\n")
        self._finish()
        return closed

    def _finish(self) -> None:
        if not self._done.called:
            self._done.callback(self._code)

    def _message(self, message: Message) -> None:
        if self._done.called:
            return
        if not write_line(self._line(message)):
            self._finish()
            return
        self._printed += 1
        if self._printed == self._options.count:
            self._finish()

    def _line(self, message: Message) -> bytes:
        if self._options.json:
            return msgspec.json.format(envelope_json(message), indent=-1)
        data = one_line(message.payload)
        return data if len(self._options.channels) == 1 else message.channel.encode() + b"\t" + data

    def _gap(self, gap: GapPush) -> None:
        complain(f"{gap.channel}: messages are lost ({gap.reason.value}); going on after {gap.position}")

    def _ended(self, channel: str, error: Exception) -> None:
        complain(f"{channel}: {error}")
        self._code = code_of(error) or Exit.FAILED
        self._open.discard(channel)
        if not self._open:
            self._finish()

    def _heard(self, status: Status) -> None:
        if status.transport is not None:
            complain(f"connected over {status.transport}" + (f" ({status.reason})" if self._was_open else ""))
            self._was_open = True
        elif status.delay is not None:
            lost = "" if self._was_open else f"cannot reach {self._options.server}: "
            complain(f"{lost}{status.reason}; trying again in {status.delay:.1f} s")


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
