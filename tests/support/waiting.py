"""Waiting for something to be so, with a deadline."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

__all__ = ["pause", "soon", "until", "within"]


def pause(seconds: float) -> Deferred[None]:
    """Return a Deferred that fires later: for what sets a pace, never for what waits for something to be so."""
    return deferLater(reactor, seconds)


async def until(
    condition: Callable[[], Any | Awaitable[Any]],
    what: str,
    seconds: float = 15.0,
    every: float = 0.02,
    seen: Callable[[], object] = str,
) -> Any:
    """
    Wait until a condition is true, and return its value.

    :param what: What is waited for, as it stands after "waited for".
    :param every: How many seconds are between two looks.
    :param seen: Tells what there is to see if it does not become true.
    :raises AssertionError: if it is not true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}. {seen()}")
        await pause(every)


def within(seconds: float, deferred: Deferred[Any]) -> Deferred[Any]:
    """Let a Deferred fail with :exc:`TimeoutError` if it has no result in time."""
    return deferred.addTimeout(seconds, reactor)


def soon(deferred: Deferred[Any]) -> Deferred[Any]:
    """Let a Deferred fail if it has no result within the time that anything takes which is done at once."""
    return within(15.0, deferred)
