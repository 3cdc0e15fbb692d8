"""Tests of the transports: what strangers and foreign clients send, and what comes back."""

__all__: list[str] = []
