"""A short run of the fuzzer; ``python -m tests.hardening.fuzz --inputs 1000000`` is a long one."""

from __future__ import annotations

from random import SystemRandom

from twisted.trial.unittest import SynchronousTestCase

from tests.hardening.fuzz import Fuzz, Trouble


class FuzzTests(SynchronousTestCase):
    """Bytes by chance, of all kinds."""

    def _fuzzed(self, seed: int, inputs: int) -> Fuzz:
        fuzz = Fuzz(seed)
        self.addCleanup(fuzz.close)
        try:
            fuzz.run(inputs)
        except Trouble as trouble:
            self.fail(f"python -m tests.hardening.fuzz --inputs {inputs} --seed {seed}: {trouble}")
        return fuzz

    def test_by_chance(self) -> None:
        """With a seed by chance nothing happens that must not, and each kind of input had its turn."""
        fuzz = self._fuzzed(SystemRandom().randrange(1 << 32), 10_000)
        self.assertEqual(sum(fuzz.counts.values()), 10_000)
        self.assertEqual(len(fuzz.counts), 9)

    def test_again(self) -> None:
        """With the same seed all happens again in the same way."""
        self.assertEqual(self._fuzzed(7, 500).counts, self._fuzzed(7, 500).counts)

    def test_finds(self) -> None:
        """What a node logs as an error is found."""
        fuzz = Fuzz(7)
        self.addCleanup(fuzz.close)
        fuzz._node.limiter.ask = None
        with self.assertRaisesRegex(Trouble, "logged"):
            fuzz.run(5000)
        self.assertTrue(self.flushLoggedErrors(TypeError))
