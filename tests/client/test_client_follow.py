"""Tests of rtpush.client.client: following channels, against a node in memory, over every transport."""

from __future__ import annotations

from typing import Any

from rtpush.client import Client, ServerEnded
from rtpush.client.negotiation import TRANSPORTS
from rtpush.client.subscription import ignore
from rtpush.client.wire import payload_of
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import Access
from rtpush.protocol.commands import Publication
from rtpush.protocol.lifecycle import State
from rtpush.protocol.pushes import GapPush, Joined, Left
from rtpush.protocol.recovery import Gap
from tests.client.memory import MemoryTests, collector

#: Long enough for any transport to bring what is there: short polls rest for 5 s.
SETTLE = 6.0

#: Long enough to come back when the first attempt succeeds: 1 s and up to 1 s of jitter.
BACK = 3.0


class FollowTests(MemoryTests):
    """Following channels, alike on each transport."""

    def follow(self, transport: str, channel: str, **options: Any) -> tuple[Client, list[Any]]:
        """Follow a channel over a transport, and wait until that is live."""
        client = self.client(transport)
        got, take = collector()
        self.wait(client.subscribe(channel, take, **options).when_live())
        self.assertEqual((client.state, client.transport), (State.OPEN, transport))
        return client, got

    def test_payloads(self) -> None:
        """What is published after a subscription is live is delivered, whatever kind of payload it has."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                _, got = self.follow(transport, f"demo:{transport}")
                self.publish(f"demo:{transport}", 1, "text\n", b"\0\xff", {"a": [None]})
                self.run_for(SETTLE)
                self.assertEqual(got, [1, "text\n", b"\0\xff", {"a": [None]}])

    def test_earliest(self) -> None:
        """All that is kept comes in order, also where it is more than the server gives at once."""
        self.publish("demo:a", *range(120))
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                _, got = self.follow(transport, "demo:a", since="earliest")
                self.run_for(3 * SETTLE)
                self.assertEqual(got, list(range(120)))

    def test_position(self) -> None:
        """A subscription goes on after a position that another client had."""
        self.publish("demo:a", *range(5))
        client, got = self.follow("websocket", "demo:a", since="earliest")
        self.run_for(SETTLE)
        self.assertEqual(got, list(range(5)))
        cursor = client.cursor(["demo:a"])
        self.publish("demo:a", *range(5, 8))
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                _, got = self.follow(transport, "demo:a", position=cursor)
                self.run_for(SETTLE)
                self.assertEqual(got, [5, 6, 7])

    def test_cut_after_opening(self) -> None:
        """A cut right after the subscription is live loses nothing that is published meanwhile."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                _, got = self.follow(transport, f"demo:{transport}")
                self.network.cut()
                self.publish(f"demo:{transport}", 1, 2)
                self.run_for(BACK + SETTLE)
                self.assertEqual(got, [1, 2])

    def test_cut_anywhere(self) -> None:
        """However often the connection is cut, each message comes once and in order."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                gaps: list[GapPush] = []
                _, got = self.follow(transport, f"demo:{transport}", on_gap=gaps.append)
                for number in range(150):
                    self.publish(f"demo:{transport}", number)
                    if self.random.random() < 0.2:
                        self.network.cut()
                    self.run_for(self.random.random())
                self.run_for(BACK + SETTLE)
                self.assertEqual(got, list(range(150)))
                self.assertEqual(gaps, [])

    def test_gap(self) -> None:
        """When history does not reach back, that is told once, and the stream goes on from there."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                gaps: list[GapPush] = []
                _, got = self.follow(transport, f"short:{transport}", on_gap=gaps.append)
                self.publish(f"short:{transport}", 1)
                self.run_for(SETTLE)
                self.network.obstacles = {"/poll": "refuse"}
                self.network.cut()
                self.publish(f"short:{transport}", *range(2, 12))
                self.network.obstacles = {}
                self.run_for(BACK + SETTLE)
                self.publish(f"short:{transport}", 12)
                self.run_for(SETTLE)
                self.assertEqual([(gap.reason, gap.position.offset) for gap in gaps], [(Gap.HISTORY_LOST, 11)])
                self.assertEqual(got, [1, 12])

    def test_hole(self) -> None:
        """A message that is lost on its way is seen to be missing, and fetched."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                gaps: list[GapPush] = []
                _, got = self.follow(transport, f"demo:{transport}", on_gap=gaps.append)
                self.network.loses = b'"offset":3,'
                for number in range(1, 6):
                    self.publish(f"demo:{transport}", number)
                    self.run_for(SETTLE)
                self.run_for(15)
                self.assertEqual(self.network.loses, b"")
                self.assertEqual(got, [1, 2, 3, 4, 5])
                self.assertEqual(gaps, [])

    def test_restart(self) -> None:
        """When the server begins its history again, that is told once, and the client follows."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                gaps: list[GapPush] = []
                client, got = self.follow(transport, "demo:a", on_gap=gaps.append)
                self.publish("demo:a", 1)
                self.run_for(SETTLE)
                self.stop_server()
                self.run_for(20)
                self.assertEqual(client.state, State.CONNECTING)
                self.start_server()
                self.run_for(40)
                self.publish("demo:a", 2)
                self.run_for(SETTLE)
                self.assertEqual(got, [1, 2])
                self.assertEqual([gap.reason for gap in gaps], [Gap.EPOCH_CHANGED])
                self.wait(client.close(), 1)

    def test_without_history(self) -> None:
        """A message without a position is delivered, and changes no position."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                client, got = self.follow(transport, f"demo:{transport}")
                before = client.cursor([f"demo:{transport}"])
                self.run_for(1)
                self.wait(self.api().publish(f"demo:{transport}", "typing", history=False), SETTLE)
                self.assertEqual(got, ["typing"])
                self.assertEqual(client.cursor([f"demo:{transport}"]), before)

    def test_several(self) -> None:
        """Channels that begin at now, at the oldest message and at a position share one client."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                now, old, at = (f"demo:{transport}-{name}" for name in ("now", "old", "at"))
                for channel in (now, old, at):
                    self.publish(channel, 1, 2, 3)
                [position] = self.wait(self.api().history(at, limit=1)).messages
                client = self.client(transport)
                all_got = []
                for channel, options in (
                    (now, {}),
                    (old, {"since": "earliest"}),
                    (at, {"position": position.position}),
                ):
                    got, take = collector()
                    all_got.append(got)
                    client.subscribe(channel, take, **options)
                self.run_for(3 * SETTLE)
                self.assertEqual(all_got, [[], [1, 2, 3], [2, 3]])
                self.network.cut()
                for channel in (now, old, at):
                    self.publish(channel, 4)
                self.run_for(BACK + 2 * SETTLE)
                self.assertEqual(all_got, [[4], [1, 2, 3, 4], [2, 3, 4]])

    def test_come_and_go(self) -> None:
        """Channels can be left and taken on at any time; the others lose nothing."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                first, second = f"demo:{transport}-1", f"demo:{transport}-2"
                client, got = self.follow(transport, first)
                other, take = collector()
                for number in range(6):
                    subscription = client.subscribe(second, take)
                    self.publish(first, number)
                    self.wait(subscription.when_live(), SETTLE)
                    self.publish(second, number)
                    self.run_for(SETTLE)
                    subscription.unsubscribe()
                    self.run_for(SETTLE)
                    self.publish(second, "nobody hears this")
                self.assertEqual(got, list(range(6)))
                self.assertEqual(other, list(range(6)))

    def test_subscribed_while_it_opens(self) -> None:
        """At whatever moment of opening a channel is asked for, it is followed."""
        for transport in TRANSPORTS:
            for turns in range(14):
                with self.subTest(transport=transport, turns=turns):
                    client = self.client(transport)
                    client.subscribe("demo:first", ignore)
                    for _ in range(turns):
                        self.network.flush()
                        self.clock.advance(0)
                    self.wait(client.subscribe("demo:second", ignore).when_live(), SETTLE)
                    self.wait(client.close(), 1)

    def test_followed_again(self) -> None:
        """What was on its way when a channel was left is not for the one who follows it again from now."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                channel = f"demo:{transport}"
                client = self.client(transport)
                first, take_first = collector()
                second, take_second = collector()
                subscription = client.subscribe(channel, take_first)
                self.wait(subscription.when_live(), 1)
                self.successResultOf(self.node.publish(Publication(channel, payload_of(1)), Access.SERVER))
                self.clock.advance(0)
                subscription.unsubscribe()
                self.wait(client.subscribe(channel, take_second).when_live(), 1)
                self.publish(channel, 2)
                self.run_for(SETTLE)
                self.assertEqual((first, second), ([], [2]))

    def test_cut_after_another_channel(self) -> None:
        """A channel that is taken on later loses nothing either when the connection is cut."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client, _ = self.follow(transport, f"demo:{transport}-1")
                self.run_for(SETTLE)
                got, take = collector()
                subscription = client.subscribe(f"demo:{transport}-2", take)
                self.run_for(0.1)
                self.successResultOf(subscription.when_live())
                self.network.obstacles = {"/poll": "refuse"}
                self.network.cut()
                self.publish(f"demo:{transport}-2", 1)
                self.network.obstacles = {}
                self.run_for(BACK + SETTLE)
                self.assertEqual(got, [1])

    def test_bad_channel(self) -> None:
        """A channel that is refused ends with the reason, is not asked for again, and does not disturb the others."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client, got = self.follow(transport, f"demo:{transport}")
                ends: list[Exception] = []
                bad = client.subscribe("nowhere:a", got.append, on_end=ends.append)
                late = client.subscribe("demo:late", got.append, position="zzzz:1x"[:6], on_end=ends.append)
                self.run_for(SETTLE)
                [end] = ends
                assert isinstance(end, RtpushError)
                self.assertEqual(end.kind, ErrorCode.UNKNOWN_CHANNEL)
                self.failureResultOf(bad.when_live(), RtpushError)
                self.successResultOf(late.when_live())
                opened = self.network.opened
                self.publish(f"demo:{transport}", 1)
                self.run_for(30)
                self.assertEqual(got, [1])
                self.assertLess(self.network.opened - opened, 4)

    def test_only_bad_channel(self) -> None:
        """A client whose only channel is refused stays usable."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                subscription = client.subscribe("nowhere:a", ignore)
                self.run_for(SETTLE)
                self.failureResultOf(subscription.when_live(), RtpushError)
                self.assertEqual(client.state, State.OPEN)
                got, take = collector()
                client.subscribe(f"demo:{transport}", take, since="earliest")
                self.run_for(1)
                self.assertEqual(self.wait(client.publish(f"demo:{transport}", 1), 1).offset, 1)
                self.run_for(SETTLE)
                self.assertEqual(got, [1])

    def test_unsubscribed_by_the_server(self) -> None:
        """A subscription that the server ends is over, and stays so."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                ends: list[Exception] = []
                client, got = self.follow(transport, f"demo:{transport}", on_end=ends.append)
                self.run_for(1)
                self.wait(self.api().unsubscribe(f"demo:{transport}", reason="enough"))
                self.run_for(SETTLE)
                self.publish(f"demo:{transport}", 1)
                self.run_for(SETTLE)
                [end] = ends
                assert isinstance(end, ServerEnded)
                self.assertEqual((end.code, end.reason, got), (4501, "enough", []))
                self.assertEqual(client.state, State.OPEN)

    def test_disconnected_for_good(self) -> None:
        """A client that the server sends away does not come back."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                ends: list[Exception] = []
                client, _ = self.follow(transport, f"demo:{transport}", on_end=ends.append)
                self.run_for(1)
                self.wait(self.api().disconnect(channel=f"demo:{transport}", reason="banned"))
                self.run_for(1)
                self.assertEqual(client.state, State.CLOSED)
                self.assertIn("banned", client.status.reason)
                self.assertIsInstance(ends[0], ServerEnded)
                opened = self.network.opened
                self.run_for(100)
                self.assertEqual(self.network.opened, opened)
                self.failureResultOf(client.publish("demo:a", 1), ServerEnded)
                self.assertRaises(ServerEnded, client.subscribe, "demo:a", ignore)

    def test_disconnected_for_a_while(self) -> None:
        """A client that is sent away for a while comes back, to the same transport however often that is."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                client = self.client(transport, "shortpoll")
                got, take = collector()
                client.subscribe(f"demo:{transport}", take)
                for number in range(5):
                    self.run_for(BACK + 1)
                    self.assertEqual(client.transport, transport)
                    self.wait(self.api().disconnect(channel=f"demo:{transport}", reconnect=True))
                    self.publish(f"demo:{transport}", number)
                self.run_for(BACK + 1)
                self.assertEqual(got, list(range(5)))

    def test_leaving_server(self) -> None:
        """A server that leaves says when to come back, and that is when the client does."""
        for transport in ("websocket", "sse", "longpoll"):
            with self.subTest(transport=transport):
                client, _ = self.follow(transport, f"demo:{transport}")
                self.run_for(1)
                delays: list[float | None] = []
                client.on_status(lambda status, delays=delays: delays.append(status.delay))
                self.node.leave_all()
                self.run_for(0.5)
                [delay] = delays
                assert delay is not None
                self.assertGreaterEqual(delay, 1.0)
                self.node.leaving = False
                self.run_for(BACK)
                self.assertEqual((client.state, client.transport), (State.OPEN, transport))

    def test_members(self) -> None:
        """Who comes and goes is told, and can be asked for."""
        for transport in ("websocket", "sse"):
            with self.subTest(transport=transport):
                channel = f"demo:{transport}"
                heard: list[Joined | Left] = []
                client, _ = self.follow(transport, channel, on_member=heard.append)
                heard.clear()
                other = self.client("websocket", info={"name": "Ann"})
                self.wait(other.subscribe(channel, ignore).when_live())
                entries = self.wait(client.presence(channel), 1)
                self.assertEqual({entry.transport for entry in entries}, {transport, "websocket"})
                self.wait(other.close(), 1)
                self.run_for(1)
                self.assertEqual([type(push) for push in heard], [Joined, Left])
                self.assertEqual(heard[0].entry.info, b'{"name":"Ann"}')

    def test_history(self) -> None:
        """History can be read from either end."""
        self.publish("demo:a", *range(5))
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client, _ = self.follow(transport, "demo:a")
                page = self.wait(client.history("demo:a", limit=2), 1)
                self.assertEqual([message.payload.as_object() for message in page.messages], [0, 1])
                self.assertEqual(page.top.offset, 5)
                page = self.wait(client.history("demo:a", limit=2, reverse=True, since=page.top), 1)
                self.assertEqual([message.payload.as_object() for message in page.messages], [3, 2])

    def test_too_many_channels(self) -> None:
        """Channels above the server's limit end with that reason; the others work."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                got, take = collector()
                ends: list[Exception] = []
                for number in range(22):
                    client.subscribe(f"demo:{transport}{number}", take, on_end=ends.append)
                self.run_for(SETTLE)
                self.assertEqual(len(ends), 2)
                client.subscribe("demo:one-more", take, on_end=ends.append)
                self.assertEqual(len(ends), 3)
                self.publish(f"demo:{transport}19", 19)
                self.run_for(SETTLE)
                self.assertEqual(got, [19])
