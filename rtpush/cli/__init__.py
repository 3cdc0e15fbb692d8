"""The command ``rtpush``."""

from rtpush.cli.command import main

__all__ = ["main"]
