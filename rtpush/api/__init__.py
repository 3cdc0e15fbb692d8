"""The server API, and what else is served over HTTP besides the transports."""

__all__: list[str] = []
