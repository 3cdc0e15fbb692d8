"""The command line, and what becomes of it."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from rtpush import __version__
from rtpush.cli.exits import Exit, Failed, Unusable

__all__ = ["COMMANDS", "command_line", "main"]

#: Where the options of each command are, and what it does. What a command needs is imported only for it.
COMMANDS = {
    "publish": ("publish:fill", "publish a message, or each line of an input"),
    "subscribe": ("subscribe:fill", "print the messages of channels, one a line"),
    "channels": ("asking:fill_channels", "list the channels that have subscribers"),
    "connections": ("asking:fill_connections", "list connections"),
    "disconnect": ("asking:fill_disconnect", "end a connection, all that follow a channel, or all of a user"),
    "revoke": ("asking:fill_revoke", "take tokens back before they end"),
    "unsubscribe": ("asking:fill_unsubscribe", "end the subscriptions to a channel"),
    "history": ("asking:fill_history", "print the messages that a channel keeps"),
    "presence": ("asking:fill_presence", "list who is in a channel"),
    "info": ("asking:fill_info", "tell about the nodes"),
    "token": ("token:fill", "make a token for a client, or check one"),
    "top": ("top:fill", "show connections, rates, nodes and channels, live in the terminal"),
    "check": ("check:fill", "check a configuration file, or a server that runs"),
    "bench": ("bench:fill", "put a load on a running server; measure how long messages take, and whether any is lost"),
    "plan": ("plan:fill", "compute what a number of users takes, on each of the transports"),
    "simulate": ("simulate:fill", "let very many clients come back at once, on a simulated clock"),
}

_EXITS = (
    "Exit codes: 0 all went well, 1 something failed, 2 the command line is wrong, 3 the server cannot be reached, "
    "4 the server refused it, 130 interrupted."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser = command_line(next((each for each in given if not each.startswith("-")), ""))
        options = parser.parse_args(given)
        try:
            code: int = options.command(options)
        except Unusable as error:
            parser.error(str(error))
    except Failed as error:
        sys.stderr.write(f"rtpush: {error}\n")
        code = error.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    sys.exit(int(code))


def command_line(wanted: str) -> argparse.ArgumentParser:
    """Return the parser of the command line; of all commands only the one that is wanted has its options."""
    parser = argparse.ArgumentParser(
        prog="rtpush",
        description="Publish messages to an rtpush server, follow channels, look after servers, and plan for more.",
        epilog=_EXITS,
    )
    parser.add_argument("--version", action="version", version=f"rtpush {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (place, help_) in COMMANDS.items():
        command = commands.add_parser(name, help=help_, epilog=_EXITS)
        if name == wanted:
            module, _, function = place.partition(":")
            getattr(importlib.import_module(f"rtpush.cli.{module}"), function)(command)
    return parser
