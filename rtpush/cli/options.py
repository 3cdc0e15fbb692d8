"""What the options of the commands have in common."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable

__all__ = ["DEFAULT_URL", "api_option", "json_option", "number", "positive", "server_options", "token_option", "whole"]

DEFAULT_URL = "http://127.0.0.1:8080/"


def positive(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number, also one like ``1e6``."""

    def read(text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and value == int(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return int(value)

    return read


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Return what reads a number."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or math.isinf(value):
            upper = "" if math.isinf(most) else f" and at most {most:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {least:g}{upper}")
        return value

    return read


def server_options(parser: argparse.ArgumentParser, key: str = "the API key; empty for an API that is open") -> None:
    """Add the options that say where the server is, and the key for it."""
    parser.add_argument(
        "--server",
        "--url",
        metavar="URL",
        default=os.environ.get("RTPUSH_SERVER") or DEFAULT_URL,
        help=f"where the server is (default: $RTPUSH_SERVER, or {DEFAULT_URL})",
    )
    parser.add_argument("--key", default=os.environ.get("RTPUSH_KEY"), help=f"{key} (default: $RTPUSH_KEY)")


def token_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what a client shows of who it is."""
    parser.add_argument(
        "--token",
        default=os.environ.get("RTPUSH_TOKEN"),
        help="the token that says who this is, and what it may do (default: $RTPUSH_TOKEN)",
    )


def api_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the server API is, for commands that also do what clients do."""
    parser.add_argument(
        "--api",
        metavar="URL",
        default=os.environ.get("RTPUSH_API"),
        help="where the server API is, if it has a port of its own (default: $RTPUSH_API, or the server)",
    )


def json_option(parser: argparse.ArgumentParser, what: str = "print the result as JSON") -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=what)
