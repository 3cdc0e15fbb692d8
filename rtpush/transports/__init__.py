"""Transports: thin adapters from WebSocket, server-sent events and polling to a connection of the registry."""

__all__: list[str] = []
