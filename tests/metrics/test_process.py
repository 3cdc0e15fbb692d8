"""Tests of rtpush.metrics.process."""

from __future__ import annotations

import gc
import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from rtpush.metrics.process import GcWatch, process_samples
from rtpush.metrics.table import BY_NAME
from rtpush.registry.counts import Histogram


class ProcessTests(SynchronousTestCase):
    """What there is to say of a process."""

    def test_samples(self) -> None:
        """All of it is in the table, and plausible."""
        samples = process_samples()
        for name, each in samples.items():
            self.assertIn(name, BY_NAME)
            for sample in each:
                self.assertEqual(len(sample.labels), len(BY_NAME[name].labels))
        self.assertGreater(samples["process_cpu_seconds"][0].value, 0)
        self.assertEqual([sample.labels for sample in samples["python_gc_collections"]], [("0",), ("1",), ("2",)])

    def test_files(self) -> None:
        """One more open file is one more."""
        if sys.platform != "linux":
            self.skipTest("only Linux tells")
        before = process_samples()["process_open_fds"][0].value
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertEqual(process_samples()["process_open_fds"][0].value, before + 2)

    def test_collections(self) -> None:
        """Each collection is seen while it is watched for, and not after that."""
        pauses = Histogram()
        watch = GcWatch(pauses)
        watch.start()
        gc.collect()
        watch.stop()
        seen = sum(pauses.buckets)
        self.assertGreaterEqual(seen, 1)
        self.assertGreater(pauses.sum, 0)
        gc.collect()
        self.assertEqual(sum(pauses.buckets), seen)
