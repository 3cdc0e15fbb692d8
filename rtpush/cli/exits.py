"""Exit codes, and the exceptions that stand for them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit", "Failed", "Unusable"]


class Exit(IntEnum):
    """What the command ends with."""

    OK = 0
    #: Something failed, or not all of it went well.
    FAILED = 1
    #: The command line is wrong.
    USAGE = 2
    #: There is no server, or it does not answer.
    UNREACHABLE = 3
    #: The server refused it.
    REFUSED = 4
    #: Ctrl-C, before it was done.
    INTERRUPTED = 130


class Failed(Exception):
    """
    A command cannot do what it should. Its text is one line.

    :ivar code: What the command ends with.
    """

    def __init__(self, text: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(text)
        self.code = code


class Unusable(Exception):
    """The command line is wrong in a way that its parser does not see. Its text is one line."""
