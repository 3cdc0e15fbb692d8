"""Tests of rtpush.protocol.pushes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.position import Position
from rtpush.protocol.pushes import (
    Disconnected,
    GapPush,
    Joined,
    Left,
    PresenceEntry,
    Subscribed,
    TokenExpiring,
    Unsubscribed,
)
from rtpush.protocol.recovery import Gap

_POSITION = Position("k3f9", 7)


class PushTests(SynchronousTestCase):
    """The objects of the protocol's page."""

    def test_subscribed(self) -> None:
        """``subscribed`` says where delivery begins."""
        push = Subscribed("demo:a", _POSITION, True)
        self.assertEqual(push.name, "subscribed")
        self.assertEqual(
            push.as_dict(), {"channel": "demo:a", "epoch": "k3f9", "offset": 7, "recovered": True}
        )

    def test_gap(self) -> None:
        """``gap`` says where the stream goes on, and why."""
        push = GapPush("demo:a", _POSITION, Gap.HISTORY_LOST)
        self.assertEqual(push.name, "gap")
        self.assertEqual(
            push.as_dict(), {"channel": "demo:a", "epoch": "k3f9", "offset": 7, "reason": "history_lost"}
        )

    def test_unsubscribed(self) -> None:
        """``unsubscribed`` says why."""
        push = Unsubscribed("demo:a", 4501, "enough")
        self.assertEqual(push.name, "unsubscribed")
        self.assertEqual(push.as_dict(), {"channel": "demo:a", "code": 4501, "reason": "enough"})

    def test_join_and_leave(self) -> None:
        """``join`` and ``leave`` say who it is, and what it said of itself if it did."""
        entry = PresenceEntry("c1", "sse", b'{"name":"Ann"}')
        self.assertEqual(Joined("demo:a", entry).name, "join")
        self.assertEqual(Left("demo:a", entry).name, "leave")
        for push in (Joined("demo:a", entry), Left("demo:a", entry)):
            self.assertEqual(
                push.as_dict(),
                {"channel": "demo:a", "connection": "c1", "transport": "sse", "info": {"name": "Ann"}},
            )
        self.assertEqual(PresenceEntry("c1", "sse").as_dict(), {"connection": "c1", "transport": "sse"})
        self.assertEqual(PresenceEntry("c1", "sse", b"", "42").as_dict()["user"], "42")

    def test_token_expiring(self) -> None:
        """``token_expiring`` says how long a token lasts, and which one if it is one for a channel."""
        self.assertEqual(TokenExpiring("", 41.23456).name, "token_expiring")
        self.assertEqual(TokenExpiring("", 41.23456).as_dict(), {"expires_in": 41.235})
        self.assertEqual(TokenExpiring("demo:a", 1).as_dict(), {"channel": "demo:a", "expires_in": 1})

    def test_disconnect(self) -> None:
        """``disconnect`` says whether and when to come back; the time is left out if it is the client's affair."""
        told = {"code": 1012, "reason": "service_restart", "reconnect": True}
        push = Disconnected(1012, "service_restart", True)
        self.assertEqual(push.name, "disconnect")
        self.assertEqual(push.as_dict(), told)
        self.assertEqual(Disconnected(1012, "service_restart", True, 1.23456).as_dict(), {**told, "after": 1.235})
        self.assertEqual(Disconnected(1012, "service_restart", True, 0.0).as_dict(), {**told, "after": 0.0})
