"""Tests of rtpush.service.board."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.metrics.samples import Sample, Samples
from rtpush.service.board import Board, SharedSamples
from rtpush.testing import InMemoryServer

_SAMPLES: Samples = {"rtpush_accepted_sockets": [Sample((), 5)], "rtpush_channels": [Sample((), 2)]}


class BoardTests(SynchronousTestCase):
    """The board itself."""

    def setUp(self) -> None:
        self.board = Board.of(3)
        self.addCleanup(self.board.close)

    def test_places(self) -> None:
        """What is pinned in a place is read there, by whoever has the file, and nowhere else."""
        self.assertEqual(self.board.numbers(), range(1, 4))
        self.board.pin(2, _SAMPLES, 7.5)
        other = Board(os.dup(self.board.fileno()))
        self.addCleanup(other.close)
        self.assertEqual(other.samples(2), (_SAMPLES, 7.5))
        self.assertEqual([other.samples(number) for number in (1, 3)], [None, None])
        self.assertEqual(other.numbers(), range(1, 4))

    def test_shorter(self) -> None:
        """Less than was there before is read as less."""
        self.board.pin(1, {"rtpush_channels": [Sample((str(number),), 1) for number in range(100)]}, 1)
        self.board.pin(1, _SAMPLES, 2)
        self.assertEqual(self.board.samples(1), (_SAMPLES, 2))

    def test_torn(self) -> None:
        """What is written in part only, or by another version, is not read."""
        self.board.pin(1, _SAMPLES, 1)
        os.pwrite(self.board.fileno(), b"X", (1 << 20) + 30)
        self.assertIsNone(self.board.samples(1))
        self.board.pin(1, _SAMPLES, 1)
        self.patch(__import__("rtpush"), "__version__", "other")
        self.assertIsNone(self.board.samples(1))

    def test_too_large(self) -> None:
        """What has no room in its place does not run over into the next."""
        large: Samples = {"rtpush_channels": [Sample(("x" * (1 << 20),), 1)]}
        self.assertRaises(ValueError, self.board.pin, 1, large, 1)
        self.assertIsNone(self.board.samples(2))


class SharedSamplesTests(SynchronousTestCase):
    """Workers that share what they count."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.board = Board.of(2)
        self.addCleanup(self.board.close)

    def _worker(self, number: int) -> tuple[InMemoryServer, SharedSamples]:
        server = InMemoryServer(clock=self.clock)
        self.addCleanup(server.close)
        shared = SharedSamples(self.clock, self.board, number, server.node)
        shared.start()
        self.addCleanup(shared.stop)
        return server, shared

    @staticmethod
    def _published(shared: SharedSamples) -> dict[str, float]:
        return {
            worker: sum(sample.value for sample in samples["rtpush_published_messages"])
            for worker, samples in shared.gather().items()
        }

    def test_gather(self) -> None:
        """Each tells of all: of itself as it is now, of the others as they were a second ago at most."""
        one, shared = self._worker(1)
        other, shared_by_other = self._worker(2)
        one.publish("demo:a", 1)
        other.publish("demo:a", 1)
        other.publish("demo:a", 1)
        self.assertEqual(self._published(shared), {"1": 1, "2": 0})
        self.clock.advance(1)
        self.assertEqual(self._published(shared), {"1": 1, "2": 2})
        self.assertEqual(self._published(shared_by_other), {"1": 1, "2": 2})
        self.clock.advance(0.5)
        age = shared.gather()["2"]["rtpush_sample_age_seconds"][0].value
        self.assertAlmostEqual(age, 0.5)

    def test_successor(self) -> None:
        """One that comes in the place of another goes on from what that one has counted."""
        _, shared = self._worker(1)
        first, shared_by_first = self._worker(2)
        first.publish("demo:a", 1)
        shared_by_first.stop()
        self.assertEqual(self._published(shared), {"1": 0, "2": 1})
        second, shared_by_second = self._worker(2)
        second.publish("demo:a", 1)
        self.assertEqual(self._published(shared_by_second), {"1": 0, "2": 2})
        self.clock.advance(1)
        self.assertEqual(self._published(shared), {"1": 0, "2": 2})

    def test_silent(self) -> None:
        """Of one that is not heard of any more there is what it has counted, and nothing that was true then."""
        _, shared = self._worker(1)
        gone, shared_by_gone = self._worker(2)
        gone.publish("demo:a", 1)
        shared_by_gone.stop()
        self.assertIn("rtpush_channels", shared.gather()["2"])
        self.clock.advance(6)
        samples = shared.gather()["2"]
        self.assertNotIn("rtpush_channels", samples)
        self.assertEqual(samples["rtpush_sample_age_seconds"][0].value, 6)
        self.assertEqual(self._published(shared), {"1": 0, "2": 1})

    def test_nobody(self) -> None:
        """Where nobody else has pinned anything there is only oneself."""
        _, shared = self._worker(1)
        self.assertEqual(list(shared.gather()), ["1"])
