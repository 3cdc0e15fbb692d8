"""Ending this process for a reason of its own."""

from __future__ import annotations

import atexit
import os
import sys
from typing import cast

from twisted.internet import reactor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore

__all__ = ["end", "fail"]


def end() -> None:
    """Stop all services, and end."""
    try:
        cast(IReactorCore, reactor).stop()
    except ReactorNotRunning:
        # It stops already.
        pass


def fail() -> None:
    """The same, with exit code 1, so that whoever has started this process sees that something is wrong."""
    # twistd itself ends with 0, whatever was the reason.
    atexit.register(_exit)
    end()


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
