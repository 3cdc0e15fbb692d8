"""``GET /negotiate``: how a client should connect, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.negotiate import TRANSPORTS, Direction, choose
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.http import Request, answer_json
from rtpush.transports.query import query_of

__all__ = ["ROUTES", "NegotiateResource"]

#: Where each transport is.
ROUTES = {"websocket": "ws", "sse": "sse", "longpoll": "poll", "shortpoll": "poll"}

#: Seconds between two short polls, where no namespace says how long an answer may be kept.
_SHORT_POLL_INTERVAL = 5


class NegotiateResource(Endpoint):
    """
    Tells clients how to connect.

    :param transports: What is switched on.
    :param public_url: Where clients reach this server, without a slash at the end; empty if that is where they ask.
    :param poll_timeout: Seconds that a long poll is held.
    """

    def __init__(
        self, node: Node, origins: Origins, *, transports: Sequence[str], public_url: str, poll_timeout: float
    ) -> None:
        super().__init__(origins)
        self._node = node
        self._transports = transports
        self._public_url = public_url
        self._poll_timeout = poll_timeout

    def answer(self, request: Request) -> bytes | int:
        query = query_of(request)
        wanted = query.one("direction") or Direction.DUPLEX.value
        try:
            direction = Direction(wanted)
        except ValueError:
            raise RtpushError(
                ErrorCode.BAD_REQUEST, f"direction is {wanted[:40]!r}, expected duplex, push or rare"
            ) from None
        supported = query.several("transports") or list(TRANSPORTS)
        unknown = [name for name in supported if name not in TRANSPORTS]
        if unknown:
            raise RtpushError(
                ErrorCode.BAD_REQUEST, f"transports has {unknown[0][:40]!r}, expected some of {', '.join(TRANSPORTS)}"
            )
        choice = choose(direction, offered=self._transports, supported=supported)
        node = self._node
        return answer_json(
            request,
            {
                "direction": direction.value,
                "transports": [
                    {"transport": name, "url": self._url(name), "reason": reason} for name, reason in choice.ranked
                ],
                "excluded": [{"transport": name, "reason": reason} for name, reason in choice.excluded],
                "emit": f"{self._public_url}/emit",
                "node": node.name,
                "heartbeat": node.heartbeat,
                "heartbeat_grace": node.heartbeat_grace,
                "backoff": self._backoff(),
                "poll": {"timeout": self._poll_timeout, "max_age": _SHORT_POLL_INTERVAL},
                "limits": {
                    "message_bytes": node.limits.message_bytes,
                    "channels": node.limits.channels_per_connection,
                    "channel_name_bytes": node.limits.channel_name_bytes,
                },
            },
        )

    def _url(self, transport: str) -> str:
        url = f"{self._public_url}/{ROUTES[transport]}"
        return "ws" + url.removeprefix("http") if transport == "websocket" and url.startswith("http") else url

    def _backoff(self) -> dict[str, Any]:
        backoff = self._node.backoff
        return {"base": backoff.base, "max": backoff.maximum, "jitter": backoff.jitter}
