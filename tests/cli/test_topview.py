"""Tests of rtpush.cli.topview."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rtpush.cli.topview import Look, lines, read_metrics, summary

NODE = {
    "node": "n1",
    "version": "1",
    "uptime": 5.0,
    "connections": 3,
    "channels": 2,
    "leaving": False,
    "transports": {"websocket": 2, "sse": 1},
}

METRICS = """\
# HELP rtpush_published_messages_total x
rtpush_published_messages_total{road="api"} %d
rtpush_published_messages_total{road="emit"} 1.0
rtpush_broker_up 1.0
broken
rtpush_broken{a="b"} none
"""


def look(time: float, published: int, **more: Any) -> Look:
    """Return what was seen."""
    fields = {"nodes": [NODE], "channels": {"a": 1, "b": 2}, "metrics": read_metrics(METRICS % published)}
    return Look(time=time, **{**fields, **more})


class TopViewTests(SynchronousTestCase):
    """Two looks become rates and lines."""

    def test_metrics(self) -> None:
        """Samples are read with their labels; what is none is passed over."""
        seen = look(0.0, 4)
        self.assertEqual(seen.total("rtpush_published_messages_total"), 5.0)
        self.assertEqual(seen.by("rtpush_published_messages_total", "road"), {"api": 4.0, "emit": 1.0})
        self.assertEqual(len(seen.metrics), 3)

    def test_summary(self) -> None:
        """Rates are differences over the time between; a counter that began anew is not negative."""
        found = summary(look(12.0, 44), look(10.0, 4))
        self.assertEqual(found["rates"]["published"], 20.0)
        self.assertEqual(found["transports"], {"websocket": 2, "sse": 1})
        self.assertEqual(found["top_channels"][0], {"channel": "b", "subscribers": 2})
        self.assertEqual(summary(look(12.0, 0), look(10.0, 4))["rates"]["published"], 0.0)
        self.assertEqual(summary(look(12.0, 0), None)["rates"], {})

    def test_lines_fit(self) -> None:
        """What is shown fits on any screen, and says what matters."""
        many = {f"channel-{number}": number for number in range(500)}
        for width, height in ((80, 24), (40, 10), (200, 60)):
            seen = look(12.0, 44, channels=many, nodes=[NODE] * 30)
            shown = lines(seen, look(10.0, 4), width=width, height=height, title="title")
            self.assertLessEqual(len(shown), height)
            self.assertLessEqual(max(map(len, shown)), width)
            self.assertEqual((shown[0], shown[2][:14]), ("title", "90 connections"))
        self.assertIn("published 20/s", "\n".join(shown))
        self.assertIn("channel-499", "\n".join(shown))

    def test_no_metrics(self) -> None:
        """Where the metrics may not be read, it says so and shows the rest."""
        shown = "\n".join(lines(look(1.0, 1, metrics={}), None, width=80, height=24, title=""))
        self.assertIn("/metrics does not let us in", shown)
        self.assertIn("n1", shown)

    def test_broker_away(self) -> None:
        """A broker that is away is told."""
        gone = read_metrics("rtpush_broker_up 0.0\n")
        shown = "\n".join(lines(look(2.0, 1, metrics=gone), look(1.0, 1), width=80, height=24, title=""))
        self.assertIn("THE BROKER IS AWAY", shown)
