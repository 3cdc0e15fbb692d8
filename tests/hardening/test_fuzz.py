"""A short run of the fuzzer; ``python -m tests.hardening.fuzz --inputs 1000000`` is a long one."""

from __future__ import annotations

from random import SystemRandom

from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.keys import Key
from tests.auth.makers import hs
from tests.hardening.fuzz import Fuzz, Trouble
from tests.hardening.parsers import NOW, PARSERS


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
        self.assertEqual(set(fuzz.counts), {kind for kind, *_ in fuzz._kinds})

    def test_again(self) -> None:
        """With the same seed all happens again in the same way."""
        self.assertEqual(self._fuzzed(7, 500).counts, self._fuzzed(7, 500).counts)

    def test_finds(self) -> None:
        """What a node logs as an error is found."""
        fuzz = Fuzz(7)
        self.addCleanup(fuzz.close)
        fuzz._node.admit = None
        with self.assertRaisesRegex(Trouble, "logged"):
            fuzz.run(5000)
        self.assertTrue(self.flushLoggedErrors(TypeError))

    def test_finds_what_stays(self) -> None:
        """What is kept of each input is seen in the number of blocks."""
        fuzz = Fuzz(7)
        self.addCleanup(fuzz.close)
        kept: list[object] = []
        say = fuzz._emit

        def keep(data: bytes) -> None:
            say(data)
            kept.append([{}, {}])

        fuzz._kinds = [("emit", 1, fuzz._inputs.json_command, keep)]
        fuzz.run(6000)
        self.assertGreater(fuzz.grown(), 8000)
        fuzz._kinds = [("emit", 1, fuzz._inputs.json_command, say)]
        fuzz.blocks.clear()
        fuzz.run(6000)
        self.assertLess(fuzz.grown(), 4000)

    def test_made_up(self) -> None:
        """A parser that takes a token which nobody has signed is found."""
        good = hs(sub="42", aud="us", exp=NOW + 1).rpartition(b".")[0]
        PARSERS["token"](good + b".AAAA")
        self.patch(Key, "fits", lambda key, content, signature: True)
        self.assertRaises(Trouble, PARSERS["token"], good + b".AAAA")
