"""The servers that rtpush is compared with, where they are ours to write. Each module is a program of its own."""

from __future__ import annotations

__all__: list[str] = []
