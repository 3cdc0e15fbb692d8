"""The sections of the configuration, in families: the classes that hold their values, and their keys."""

__all__: list[str] = []
