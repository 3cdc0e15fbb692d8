"""python-socketio on uvicorn, fed over HTTP: ``socketio_peer.py PORT``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import socketio
import uvicorn

__all__ = ["app"]

_TEN_MINUTES = 600
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]

server: Any = socketio.AsyncServer(
    async_mode="asgi",
    transports=["websocket"],
    http_compression=False,
    ping_interval=_TEN_MINUTES,
    ping_timeout=_TEN_MINUTES,
)


@server.event
async def connect(sid: str, environment: Mapping[str, Any], auth: Mapping[str, str]) -> None:
    """Put a connection into the room of its channel."""
    await server.enter_room(sid, auth["channel"])


async def publish(
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
) -> None:
    """``POST /publish/CHANNEL``: the body is the payload."""
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    if scope["method"] == "POST":
        await server.emit("m", body.decode(), room=scope["path"].rpartition("/")[2])
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})


app: Any = socketio.ASGIApp(server, publish)

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
