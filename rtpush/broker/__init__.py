"""Brokers: what carries messages between nodes and keeps history and presence."""

__all__: list[str] = []
