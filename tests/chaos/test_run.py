"""A short run of each profile, with a seed that is always the same. ``python -m tests.chaos`` runs longer ones."""

from __future__ import annotations

import sys

from twisted.trial.unittest import TestCase

from tests.chaos.run import Run


class RunTests(TestCase):
    """Two nodes at one Redis, clients of every transport, and faults: no promise is broken."""

    timeout = 150

    async def _go(self, seed: int, seconds: float, profile: str) -> None:
        run = Run(self, seed, seconds, profile)
        sys.stdout.write(f"({run.command}) ")
        await run.go()

    async def test_durable(self) -> None:
        """Redis keeps all on disk: whatever happens, everything comes once and in order, and no gap is told."""
        await self._go(14081, 8, "durable")

    async def test_failover(self) -> None:
        """Redis fails over: what is lost by that is told, and nothing else is."""
        await self._go(553, 5, "failover")
