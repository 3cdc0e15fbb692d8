"""Tests of rtpush.api.snapshot."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from rtpush.api import snapshot
from rtpush.api.cluster import perform
from rtpush.interfaces import IHealthCheck, ILinked
from rtpush.protocol.cluster import LinkStatus
from tests.transports.serving import ServedTestCase


@implementer(ILinked, IHealthCheck)
class _Linked:
    """A broker, as far as it is asked here."""

    def problem(self) -> str:
        """Say what is wrong."""
        return "redis-2 does not answer"

    def links(self) -> list[LinkStatus]:
        """Tell of two."""
        return [
            LinkStatus(name="redis-1", is_up=True, sessions=1, lag=0.001, pending=2),
            LinkStatus(name="redis-2", is_up=False, sessions=4, lag=7.5, pending=0),
        ]


class SnapshotTests(ServedTestCase):
    """What a node tells of itself."""

    def look(self) -> Any:
        """Make a snapshot."""
        return self.result(perform(self.node, "snapshot", snapshot.Look()))

    def follow(self, *channels: str) -> None:
        """Have a client follow channels."""
        self.client().request(f"/sse?channel={','.join(channels)}")

    def test_largest(self) -> None:
        """The largest channels come first, and not more of them than can be read."""
        self.follow("demo:one")
        for _ in range(3):
            self.follow("demo:three")
        for number in range(30):
            self.follow(f"demo:{number}")
        result = self.look()
        self.assertEqual([each["subscribers"] for each in result["top"]], [3, *[1] * 19])
        self.assertEqual(result["top"][0]["channel"], "demo:three")
        self.assertEqual(result["channels"], 32)

    def test_bound(self) -> None:
        """However many channels there are, no more than so many are looked at."""
        self.patch(snapshot, "LOOKED_AT", 2)
        self.follow("demo:a")
        self.follow("demo:b")
        for _ in range(3):
            self.follow("demo:c")
        result = self.look()
        self.assertEqual([each["channel"] for each in result["top"]], ["demo:a", "demo:b"])
        self.assertEqual(result["channels"], 3)

    def test_left(self) -> None:
        """A channel that nobody follows any more is not among them."""
        client = self.client()
        client.request("/sse?channel=demo:a")
        client.lose()
        self.assertEqual((self.look()["top"], self.look()["channels"]), ([], 1))

    def test_links(self) -> None:
        """A broker that reaches servers tells how they are."""
        self.patch(self.node, "broker", _Linked())
        self.assertEqual(
            self.look()["nodes"][0]["broker"],
            {
                "engine": "redis",
                "problem": "redis-2 does not answer",
                "links": [
                    {"name": "redis-1", "is_up": True, "sessions": 1, "lag": 0.001, "pending": 2},
                    {"name": "redis-2", "is_up": False, "sessions": 4, "lag": 7.5, "pending": 0},
                ],
            },
        )
