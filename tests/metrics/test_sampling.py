"""Tests of rtpush.metrics.sampling."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from rtpush.interfaces import IHealthCheck, ILinked
from rtpush.metrics.sampling import node_samples
from rtpush.metrics.table import BY_NAME
from rtpush.protocol.cluster import LinkStatus
from rtpush.testing import InMemoryServer


class SamplingTests(SynchronousTestCase):
    """The samples of a node."""

    def setUp(self) -> None:
        self.server = InMemoryServer()
        self.addCleanup(self.server.close)

    def _samples(self) -> dict[str, dict[tuple[str, ...], Any]]:
        return {
            name: {sample.labels: sample.value for sample in each}
            for name, each in node_samples(self.server.node).items()
        }

    def test_all(self) -> None:
        """Every metric is there from the beginning, with as many values as it has labels, but for those of servers."""
        samples = node_samples(self.server.node)
        self.assertEqual(set(samples), set(BY_NAME))
        for name, each in samples.items():
            with self.subTest(name=name):
                self.assertEqual(bool(each), "server" not in BY_NAME[name].labels)
                self.assertEqual({len(sample.labels) for sample in each} or {1}, {len(BY_NAME[name].labels)})

    def test_values(self) -> None:
        """What happens is seen where it belongs."""
        self.server.publish("demo:a", {"x": 1})
        samples = self._samples()
        self.assertEqual(samples["rtpush_published_messages"], {("api",): 1, ("websocket",): 0, ("emit",): 0})
        self.assertEqual(samples["rtpush_namespace_published_bytes"], {("default",): 0, ("demo",): len('{"x":1}')})
        self.assertEqual(samples["rtpush_ready"], {(): True})
        self.assertEqual(samples["rtpush_broker_up"], {(): True})
        self.assertEqual(list(samples["rtpush_node_info"])[0][0], "memory")

    def test_broker(self) -> None:
        """What a broker says of itself and of its servers is there."""

        class Broker:
            def problem(self) -> str:
                return "away"

            def links(self) -> list[LinkStatus]:
                return [LinkStatus(name="r:1", is_up=False, sessions=3, lag=1.5, pending=7)]

        broker: Any = Broker()
        directlyProvides(broker, IHealthCheck, ILinked)
        self.patch(self.server.node, "broker", broker)
        samples = self._samples()
        self.assertEqual(samples["rtpush_broker_up"], {(): False})
        self.assertEqual(samples["rtpush_broker_server_up"], {("r:1",): False})
        self.assertEqual(samples["rtpush_broker_lag_seconds"], {("r:1",): 1.5})
        self.assertEqual(samples["rtpush_broker_pending_requests"], {("r:1",): 7})
        self.assertEqual(samples["rtpush_broker_sessions"], {("r:1",): 3})
        self.assertEqual(samples["rtpush_ready"], {(): False})
