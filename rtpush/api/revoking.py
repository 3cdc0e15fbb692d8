"""Taking tokens back, as the server API has it."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from rtpush.auth.revocation import Revocation
from rtpush.errors import ErrorCode, RtpushError
from rtpush.registry.node import Node

__all__ = ["ListRevocations", "RevokeBody", "list_revocations", "revoke"]

_DAY = 86400
_LONGEST = 366 * _DAY

_MAX_LISTED = 10_000


class RevokeBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """
    Take tokens back before they end: those of a user, those for a channel, those of a user for a channel, or one
    (``jti``).

    Those who have such a token lose at once what they have by it. ``ttl`` is in seconds: after it all such tokens must
    have ended by themselves. A token that is made later is good again, unless ``later`` says otherwise.
    """

    user: str | None = None
    jti: str | None = None
    channel: str | None = None
    ttl: int = _DAY
    later: bool = False


class ListRevocations(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """List what is taken back now."""

    limit: int = 100


def revoke(node: Node, body: RevokeBody) -> Deferred[dict[str, Any]]:
    """
    Take something back on all nodes.

    :raises RtpushError: ``not_available`` if no tokens are in use, ``bad_request``, or ``limit_exceeded``.
    """
    if not 0 < body.ttl <= _LONGEST:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"ttl is {body.ttl:g}, expected at most {_LONGEST:g} seconds")
    if body.channel is not None:
        node.namespaces.of(body.channel)
    now = node.now()
    until = now + body.ttl
    try:
        revocation = Revocation(
            user=body.user or "",
            id=body.jti or "",
            channel=body.channel or "",
            before=until if body.later else now,
            until=until,
        )
    except ValueError as error:
        raise RtpushError(ErrorCode.BAD_REQUEST, str(error)) from None
    if not node.knows_clients:
        raise RtpushError(ErrorCode.NOT_AVAILABLE, "this server takes no tokens: [auth] has no keys")
    return node.revoking.publish(revocation).addCallback(lambda _: {"until": round(until, 3)})


def list_revocations(node: Node, body: ListRevocations) -> Deferred[dict[str, Any]]:
    """
    List what is taken back, as this node knows it, which is what all know.

    :raises RtpushError: ``bad_request``.
    """
    if not 0 <= body.limit <= _MAX_LISTED:
        raise RtpushError(ErrorCode.BAD_REQUEST, f"limit is {body.limit}, expected 0 to {_MAX_LISTED}")
    kept = node.revoking.revocations.all(node.now())
    return succeed({"revocations": [_told(each) for each in kept[: body.limit]], "total": len(kept)})


def _told(revocation: Revocation) -> dict[str, Any]:
    named = {"user": revocation.user, "jti": revocation.id, "channel": revocation.channel}
    return {name: value for name, value in named.items() if value} | {
        "before": round(revocation.before, 3),
        "until": round(revocation.until, 3),
    }
