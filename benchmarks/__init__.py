"""Measures rtpush next to what else there is, on one machine and in one run: ``python -m benchmarks``.

``targets`` are the servers, ``scenarios`` what is done to them, ``load`` and ``frames`` the client that does it,
``proc`` reads what it cost, ``report`` prints it. Linux only: epoll, ``/proc`` and CPU affinity are used.
"""

from __future__ import annotations

__all__: list[str] = []
