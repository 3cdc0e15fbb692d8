"""Hooks: the application is asked about what clients want, and told of what they do, over HTTP."""

__all__: list[str] = []
