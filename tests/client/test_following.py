"""Tests of rtpush.client.following and rtpush.client.subscription."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.errors import ClientClosed, ServerEnded
from rtpush.client.following import Following
from rtpush.client.subscription import Callbacks, Subscription
from rtpush.client.wants import Want
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import GapPush, Unsubscribed
from rtpush.protocol.recovery import Gap


def message(offset: int | None, *, epoch: str = "k3f9", channel: str = "a") -> Message:
    """Make a message whose payload is its offset."""
    position = None if offset is None else Position(epoch, offset)
    return Message(channel, Payload(str(offset).encode(), Kind.TEXT), None, position)


class FollowingTests(SynchronousTestCase):
    """What links tell, on its way to the subscriptions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.changes = 0
        self.holes: list[str] = []
        self.got: list[str] = []
        self.gaps: list[GapPush] = []
        self.ends: list[Exception] = []
        self.following = Following(self.clock, lambda: 0.5, self.changed, self.holes.append)

    def changed(self) -> None:
        """Count that channels have changed."""
        self.changes += 1

    def follow(self, channel: str = "a", position: Position | None = None) -> Subscription:
        """Follow a channel."""
        callbacks = Callbacks(
            lambda message: self.got.append(message.payload.data.decode()),
            gap=self.gaps.append,
            ended=self.ends.append,
        )
        subscription = Subscription(channel, position, False, callbacks, self.following.drop)
        self.following.add(subscription)
        return subscription

    def test_next(self) -> None:
        """Messages in order are delivered, and move the position; those that were there before are dropped."""
        subscription = self.follow(position=Position("k3f9", 4))
        for offset in (4, 5, 5, 3, 6):
            self.following.message(message(offset))
        self.assertEqual(self.got, ["5", "6"])
        self.assertEqual(subscription.position, Position("k3f9", 6))
        self.assertEqual(self.holes, [])

    def test_hole(self) -> None:
        """A message that does not follow on the position is not delivered, and the hole is told."""
        self.follow(position=Position("k3f9", 4))
        for bad in (message(6), message(5, epoch="m2p1")):
            self.following.message(bad)
        self.assertEqual(self.got, [])
        self.assertEqual(len(self.holes), 2)
        self.following.message(message(5))
        self.assertEqual(self.got, ["5"])

    def test_without_position(self) -> None:
        """A message without a position is delivered as it comes; the first one with a position sets it."""
        subscription = self.follow()
        self.following.message(message(None))
        self.assertIsNone(subscription.position)
        self.following.message(message(7))
        self.following.message(message(None))
        self.assertEqual(subscription.position, Position("k3f9", 7))
        self.assertEqual(self.got, ["None", "7", "None"])

    def test_begins(self) -> None:
        """Where delivery begins is the position of a subscription that has none, and of no other."""
        new, old = self.follow("new"), self.follow("old", Position("k3f9", 4))
        for channel in ("new", "old", "unknown"):
            self.following.begins(channel, Position("k3f9", 9))
        self.assertEqual(new.position, Position("k3f9", 9))
        self.assertEqual(old.position, Position("k3f9", 4))

    def test_gap(self) -> None:
        """A gap moves the position and is told."""
        subscription = self.follow(position=Position("k3f9", 4))
        for gap in (
            GapPush("a", Position("k3f9", 9), Gap.HISTORY_LOST),
            GapPush("a", Position("m2p1", 2), Gap.EPOCH_CHANGED),
            GapPush("a", Position("m2p1", 1), Gap.POSITION_AHEAD),
        ):
            self.following.gap(gap)
            self.assertEqual(subscription.position, gap.position)
        self.assertEqual(len(self.gaps), 3)
        self.following.message(message(2, epoch="m2p1"))
        self.assertEqual(self.got, ["2"])

    def test_gap_that_is_none(self) -> None:
        """A gap before the position that was reached by another road is nothing: all before it was delivered."""
        subscription = self.follow(position=Position("k3f9", 9))
        for offset in (9, 7):
            self.following.gap(GapPush("a", Position("k3f9", offset), Gap.HISTORY_LOST))
        self.assertEqual(self.gaps, [])
        self.assertEqual(subscription.position, Position("k3f9", 9))

    def test_left(self) -> None:
        """What comes for a channel that is not followed is nobody's."""
        subscription = self.follow()
        subscription.unsubscribe()
        subscription.unsubscribe()
        self.following.message(message(1))
        self.following.gap(GapPush("a", Position("k3f9", 9), Gap.HISTORY_LOST))
        self.following.unsubscribed(Unsubscribed("a", 4501, "enough"))
        self.following.refused("a", RtpushError(ErrorCode.BAD_CHANNEL, "no"))
        self.assertEqual((self.got, self.gaps, self.ends), ([], [], []))
        self.assertEqual(self.changes, 2)

    def test_followed_again(self) -> None:
        """The end of an old subscription does not touch a new one to the same channel."""
        old = self.follow()
        old.unsubscribe()
        self.follow()
        old.unsubscribe()
        self.assertEqual(self.following.wants(), [Want("a")])

    def test_refused(self) -> None:
        """A refusal for good ends the subscription with the error."""
        subscription = self.follow()
        waiting = subscription.when_live()
        error = RtpushError(ErrorCode.UNKNOWN_CHANNEL, "no")
        self.following.refused("a", error)
        self.assertEqual(self.ends, [error])
        self.assertIs(self.failureResultOf(waiting).value, error)
        self.assertIs(self.failureResultOf(subscription.when_live()).value, error)
        self.assertEqual(self.following.wants(), [])

    def test_refused_for_a_while(self) -> None:
        """A refusal for a while has the channel asked for again later and later, until it is live."""
        self.following.backoff = Backoff(1.0, 30.0, 1.0)
        subscription = self.follow()
        for pause in (1.5, 2.5, 4.5):
            self.following.refused("a", RtpushError(ErrorCode.UNAVAILABLE, "later"))
            self.assertEqual(self.following.wants(), [])
            self.clock.advance(pause - 0.1)
            self.assertEqual(self.following.wants(), [])
            self.clock.advance(0.1)
            self.assertEqual(self.following.wants(), [Want("a")])
        self.assertEqual(self.changes, 4)
        self.following.begins("a", Position("k3f9", 1))
        self.assertEqual(subscription.refusals, 0)
        self.assertEqual(self.ends, [])

    def test_left_while_it_rests(self) -> None:
        """A subscription that is left while it waits to be asked for again leaves no timer."""
        subscription = self.follow()
        self.following.refused("a", RtpushError(ErrorCode.UNAVAILABLE, "later"))
        subscription.unsubscribe()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limit(self) -> None:
        """Above the limit the newest end; without one none do."""
        for number in range(5):
            self.follow(str(number))
        self.following.limit(None)
        self.following.limit(3)
        self.assertEqual([want.channel for want in self.following.wants()], ["0", "1", "2"])
        self.follow("5")
        self.assertEqual(len(self.ends), 3)

    def test_ends(self) -> None:
        """An end by the server is told; that the user has closed the client is not."""
        self.follow("a")
        self.following.end(lambda: ServerEnded(4500, "banned"))
        self.follow("b")
        self.following.end(lambda: ClientClosed("closed"))
        self.assertEqual(len(self.ends), 1)
        self.assertEqual(self.following.wants(), [])

    def test_position(self) -> None:
        """The position of a channel that is not followed is not known."""
        self.follow("a", Position("k3f9", 4))
        self.assertEqual(self.following.position("a"), Position("k3f9", 4))
        self.assertIsNone(self.following.position("b"))

    def test_when_live_is_dropped(self) -> None:
        """Whoever does not want to wait any more is not told."""
        subscription = self.follow()
        waiting = subscription.when_live()
        waiting.addErrback(lambda _: None).cancel()
        self.following.begins("a", Position("k3f9", 4))
        self.assertIs(self.successResultOf(subscription.when_live()), subscription)


class WhenLiveTests(SynchronousTestCase):
    """When a subscription is live."""

    def test_order(self) -> None:
        """All who wait are told, once, also those who ask again in the same moment."""
        subscription = Subscription("a", None, False, Callbacks(lambda _: None), lambda _: None)
        told: list[Any] = []
        for _ in range(2):
            subscription.when_live().addCallback(lambda live: live.when_live().addCallback(told.append))
        subscription.live(Position("k3f9", 1))
        subscription.live(Position("k3f9", 2))
        self.assertEqual(told, [subscription, subscription])
        self.assertEqual(subscription.position, Position("k3f9", 1))
