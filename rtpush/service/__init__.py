"""The service: configuration and assembly. The only layer that names concrete classes and imports the reactor."""

__all__: list[str] = []
