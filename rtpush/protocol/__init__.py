"""The protocol core: no Twisted, no clock, no randomness, no I/O."""

__all__: list[str] = []
