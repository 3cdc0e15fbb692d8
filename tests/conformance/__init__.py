"""Tests of the WebSocket protocol (RFC 6455, RFC 7692), by frames made by hand and by the clients of others."""

__all__: list[str] = []
