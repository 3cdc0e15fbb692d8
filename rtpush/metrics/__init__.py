"""Metrics: what a node counts, as Prometheus reads it."""

__all__: list[str] = []
