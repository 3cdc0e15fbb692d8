"""What asks the server API and prints the answer: channels, connections, info, history, presence, disconnect."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from rtpush.cli.exits import Exit, Failed
from rtpush.cli.options import json_option, positive, server_options
from rtpush.cli.output import amount, complain, one_line, print_json, quantity, seconds, table, write_line
from rtpush.cli.running import Command, run_task
from rtpush.client import LinkLost, ServerApi
from rtpush.client.negotiation import TRANSPORTS
from rtpush.protocol.message import envelope_json

__all__ = [
    "cannot_reach",
    "fill_channels",
    "fill_connections",
    "fill_disconnect",
    "fill_history",
    "fill_info",
    "fill_presence",
    "fill_revoke",
    "fill_unsubscribe",
]

_Question = Callable[[ServerApi, argparse.Namespace], Awaitable[Any]]


def fill_channels(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush channels``."""
    _fill(parser, _channels)
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", help="such as 'demo:*'")


def fill_connections(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush connections``."""
    _fill(parser, _connections)
    parser.add_argument("--channel", help="only those that follow this channel")
    parser.add_argument("--transport", choices=TRANSPORTS, help="only those over this transport")
    parser.add_argument("--user", metavar="NAME", help="only those of this user")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (default 100)")


def fill_info(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush info``."""
    _fill(parser, _info)


def fill_history(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush history``."""
    _fill(parser, _history)
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--since", metavar="POSITION", help="only those after this position")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (default 100)")
    parser.add_argument("--reverse", action="store_true", help="newest first")


def fill_presence(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush presence``."""
    _fill(parser, _presence)
    parser.add_argument("channel", metavar="CHANNEL")


def fill_disconnect(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush disconnect``."""
    _fill(parser, _disconnect)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("connection", metavar="CONNECTION", nargs="?", help="its id, as 'rtpush connections' lists it")
    which.add_argument("--channel", help="all connections that follow this channel")
    which.add_argument("--user", metavar="NAME", help="all connections of this user")
    parser.add_argument("--code", type=int, metavar="N", help="the disconnect code, 4000 to 4999")
    parser.add_argument("--reason", help="what the client is told")
    parser.add_argument("--reconnect", action="store_true", default=None, help="have them come back")


def fill_revoke(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush revoke``."""
    _fill(parser, _revoke)
    parser.add_argument("--user", metavar="NAME", help="tokens of this user; with --channel, what they permit there")
    parser.add_argument("--channel", help="what tokens permit in this channel")
    parser.add_argument("--jti", metavar="ID", help="the token with this id")
    parser.add_argument(
        "--ttl", type=positive, metavar="S", help="seconds until all such tokens have ended (default 86400)"
    )
    parser.add_argument("--later", action="store_true", default=None, help="also those that are made until then")


def fill_unsubscribe(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rtpush unsubscribe``."""
    _fill(parser, _unsubscribe)
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--connection", metavar="ID", help="only that of this connection")
    parser.add_argument("--reason", help="what the client is told")


def _fill(parser: argparse.ArgumentParser, question: _Question) -> None:
    parser.set_defaults(command=partial(run_task, _Asking), question=question)
    server_options(parser)
    json_option(parser)


def cannot_reach(server: str, lost: LinkLost) -> Failed:
    """Return what there is to say when there is no answer."""
    return Failed(f"cannot reach {server}: {lost}", Exit.UNREACHABLE)


class _Asking(Command):
    """Asks one question."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        super().__init__(reactor, options)
        self._api = ServerApi(reactor, options.server, options.key or "")

    async def main(self) -> int:
        try:
            result = await self.options.question(self._api, self.options)
        except LinkLost as lost:
            raise cannot_reach(self.options.server, lost) from None
        if isinstance(result, dict) and result.get("missing"):
            complain(f"not all nodes have answered: {', '.join(map(str, result['missing']))}")
            return Exit.FAILED
        return Exit.OK

    def close(self) -> Deferred[None]:
        return self._api.close()


def _show(options: argparse.Namespace, result: Any, text: Callable[[], str]) -> Any:
    """Print a result, and return it."""
    if options.json:
        print_json(result)
    elif shown := text():
        write_line(shown)
    return result


async def _channels(api: ServerApi, options: argparse.Namespace) -> Any:
    result = await api.channels(options.pattern)
    rows = sorted(
        ((name, channel["subscribers"]) for name, channel in result["channels"].items()),
        key=lambda row: (-row[1], row[0]),
    )
    return _show(options, result, lambda: table(("CHANNEL", "SUBSCRIBERS"), rows, ("SUBSCRIBERS",)))


async def _connections(api: ServerApi, options: argparse.Namespace) -> Any:
    result = await api.connections(
        channel=options.channel, transport=options.transport, user=options.user, limit=options.limit
    )
    listed = result["connections"]

    def text() -> str:
        head = ("CONNECTION", "NODE", "TRANSPORT", "STATE", "PEER", "USER", "SINCE", "QUEUED", "CHANNELS")
        rows = [
            (
                each["connection"],
                each["node"],
                each["transport"],
                each["state"],
                each["peer"],
                each.get("user", ""),
                seconds(each["since"]),
                quantity(each["queued"]),
                ",".join(each["channels"][:5]) + (",…" if len(each["channels"]) > 5 else ""),
            )
            for each in listed
        ]
        rest = result["total"] - len(listed)
        return table(head, rows, ("SINCE", "QUEUED")) + (f"\nand {rest} more" if rest > 0 else "")

    return _show(options, result, text)


async def _info(api: ServerApi, options: argparse.Namespace) -> Any:
    result = await api.info()

    def text() -> str:
        head = ("NODE", "VERSION", "PID", "UPTIME", "CONNECTIONS", "CHANNELS", "TRANSPORTS", "STATE", "SEEN")
        rows = [
            (
                node["node"],
                node["version"],
                node["pid"],
                seconds(node["uptime"]),
                amount(node["connections"]),
                amount(node["channels"]),
                " ".join(f"{name}:{count}" for name, count in node["transports"].items()) or "-",
                "leaving" if node["leaving"] else "open",
                f"{seconds(node['seen'])} ago" if node["seen"] else "now",
            )
            for node in result["nodes"]
        ]
        return table(head, rows, ("PID", "UPTIME", "CONNECTIONS", "CHANNELS"))

    return _show(options, result, text)


async def _history(api: ServerApi, options: argparse.Namespace) -> Any:
    page = await api.history(options.channel, since=options.since or None, limit=options.limit, reverse=options.reverse)
    if options.json:
        envelopes = [msgspec.Raw(envelope_json(message)) for message in page.messages]
        print_json({"messages": envelopes, "epoch": page.top.epoch, "offset": page.top.offset})
        return None
    for message in page.messages:
        if not write_line(f"{message.position}\t".encode() + one_line(message.payload)):
            break
    return None


async def _presence(api: ServerApi, options: argparse.Namespace) -> Any:
    entries = await api.presence(options.channel)
    listed = [
        {
            "connection": entry.connection,
            "transport": entry.transport,
            **({"user": entry.user} if entry.user else {}),
            **({"info": msgspec.Raw(entry.info)} if entry.info else {}),
        }
        for entry in entries
    ]
    rows = [(entry.connection, entry.transport, entry.user, entry.info.decode()) for entry in entries]
    return _show(options, {"connections": listed}, lambda: table(("CONNECTION", "TRANSPORT", "USER", "INFO"), rows))


async def _disconnect(api: ServerApi, options: argparse.Namespace) -> Any:
    result = await api.disconnect(
        connection=options.connection,
        channel=options.channel,
        user=options.user,
        code=options.code,
        reason=options.reason,
        reconnect=options.reconnect,
    )
    _show(options, result, lambda: f"{result['disconnected']} disconnected")
    if options.connection is not None and not result["disconnected"] and not result.get("missing"):
        raise Failed(f"there is no connection {options.connection!r}")
    return result


async def _revoke(api: ServerApi, options: argparse.Namespace) -> Any:
    result = await api.revoke(
        user=options.user, jti=options.jti, channel=options.channel, ttl=options.ttl, later=options.later
    )
    until = datetime.fromtimestamp(result["until"], UTC)
    return _show(options, result, lambda: f"revoked until {until:%Y-%m-%dT%H:%M:%SZ}")


async def _unsubscribe(api: ServerApi, options: argparse.Namespace) -> Any:
    result = await api.unsubscribe(options.channel, connection=options.connection, reason=options.reason)
    return _show(options, result, lambda: f"{result['unsubscribed']} unsubscribed")
