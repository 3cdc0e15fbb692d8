"""uWebSockets by way of `socketify`: topics, and publishes over HTTP. ``socketify_peer.py PORT``."""

from __future__ import annotations

import sys
from typing import Any

from socketify import App, CompressOptions, OpCode

__all__ = ["serve"]


def upgrade(response: Any, request: Any, context: Any) -> None:
    """Accept a WebSocket and remember its channel."""
    key = request.get_header("sec-websocket-key")
    protocol = request.get_header("sec-websocket-protocol")
    extensions = request.get_header("sec-websocket-extensions")
    response.upgrade(key, protocol, extensions, context, request.get_parameter(0))


def serve(port: int) -> None:
    """Serve for ever on a loopback port."""
    app = App()
    # The library keeps no reference to a response whose body is still to come.
    pending: dict[Any, str] = {}

    def publish(response: Any, request: Any) -> None:
        pending[response] = request.get_parameter(0)
        response.on_data(publish_body)

    def publish_body(response: Any, chunk: bytes | None, last: bool) -> None:
        if chunk:
            app.publish(pending[response], chunk, OpCode.TEXT)
        if last:
            response.write_header("Content-Type", "application/json")
            response.end("{}")
            del pending[response]

    behaviour = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 65536,
        "idle_timeout": 960,
        "upgrade": upgrade,
        "open": lambda ws: ws.subscribe(ws.get_user_data()),
    }
    app.ws("/ws/:channel", behaviour)
    app.post("/publish/:channel", publish)
    app.any("/*", lambda response, request: response.end("{}"))
    app.listen({"port": port, "host": "127.0.0.1"}, lambda config: None)
    app.loop.uv_loop.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
