"""
Calls that are about all nodes: done here, asked of the others, and merged.

Of the other nodes each does the call for itself alone, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.api.calls import CALLS, OTHERS, Call
from rtpush.api.snapshot import SNAPSHOT
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.cluster import Answers
from rtpush.protocol.codecs import JSON
from rtpush.registry.node import Node

__all__ = ["answering", "perform"]

_log = Logger()

#: The calls of the server API, and those that nodes make of each other alone.
_CALLS = {**CALLS, "snapshot": SNAPSHOT}


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    """What one node asks another."""

    call: str
    body: msgspec.Raw


def perform(node: Node, name: str, body: msgspec.Struct) -> dict[str, Any] | Deferred[dict[str, Any]]:
    """
    Do a call: on this node, and on the others if it is about all.

    What other nodes did not do or say is named in the result: ``missing`` has their ids.

    :returns: The result, or a Deferred where it is not known yet. Fails with, or raises, :class:`RtpushError`; with
        ``unavailable`` if the others could not be asked to do something that this node has done already.
    """
    call = _CALLS[name]
    done = call.perform(node, body)
    if call.merge is not None and node.cluster is not None and isinstance(done, Deferred):
        merged: Deferred[dict[str, Any]] = done.addCallback(_with_others, node, name, body)
        return merged
    return done


def answering(node: Node) -> Callable[[bytes], Deferred[bytes]]:
    """
    Return what answers the questions of other nodes.

    It fails with :class:`RtpushError` ``bad_request`` for anything that is not one of the calls that are about all
    nodes.
    """

    def answer(question: bytes) -> Deferred[bytes]:
        asked = JSON.decode(question, _Question)
        call = _CALLS.get(asked.call)
        if call is None or call.merge is None:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"{asked.call[:40]!r} is not asked of other nodes")
        body = JSON.decode(bytes(asked.body), call.body)
        done: Deferred[Any] = maybeDeferred(call.perform, node, body)
        return done.addCallback(msgspec.json.encode)

    return answer


def _with_others(own: dict[str, Any], node: Node, name: str, body: msgspec.Struct) -> Deferred[dict[str, Any]]:
    assert node.cluster is not None
    call = _CALLS[name]
    question = msgspec.json.encode({"call": name, "body": body})
    asked: Deferred[Any] = node.cluster.ask(question)
    return asked.addCallbacks(_merged, _not_asked, callbackArgs=(call, body, own), errbackArgs=(call, own))


def _merged(answers: Answers, call: Call[Any], body: msgspec.Struct, own: dict[str, Any]) -> dict[str, Any]:
    results, missing = [own], list(answers.missing)
    for answer in answers.answers:
        try:
            results.append(msgspec.json.decode(answer, type=dict[str, Any]))
        except msgspec.DecodeError as error:
            _log.error("the answer of another node cannot be read: {error}", error=error)
            missing.append(OTHERS)
    assert call.merge is not None
    merged = call.merge(body, results)
    return {**merged, "missing": missing} if missing else merged


def _not_asked(failure: Failure, call: Call[Any], own: dict[str, Any]) -> dict[str, Any]:
    """Answer for this node alone if that is of use, and say so."""
    error = failure.value
    if not isinstance(error, RtpushError) or error.kind is not ErrorCode.UNAVAILABLE:
        failure.raiseException()
    if call.changes:
        raise RtpushError(
            ErrorCode.UNAVAILABLE,
            f"it was done on this node ({msgspec.json.encode(own).decode()}), but the others could not be asked: "
            f"{error.message}",
        )
    return {**own, "missing": [OTHERS]}
