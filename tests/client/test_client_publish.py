"""Tests of rtpush.client.client: publishing, against a node in memory, over every transport."""

from __future__ import annotations

from typing import Any

from rtpush.client import NotDelivered, OutboxFull
from rtpush.client.negotiation import TRANSPORTS
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.lifecycle import State
from tests.client.memory import MemoryTests, collector

#: Long enough to come back when the first attempt succeeds: 1 s and up to 1 s of jitter.
BACK = 3.0


class PublishTests(MemoryTests):
    """Publishing, alike on each transport."""

    def kept(self, channel: str) -> list[Any]:
        """Return what the server keeps of a channel."""
        page = self.wait(self.api().history(channel, limit=1000))
        return [message.payload.as_object() for message in page.messages]

    def test_results(self) -> None:
        """The result is the position, or why the message is refused."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                first = client.publish(f"demo:{transport}", 1, event="price")
                second = client.publish(f"demo:{transport}", 2)
                refused = client.publish("default", 1)
                nothing = client.publish(f"demo:{transport}", 3, history=False)
                self.run_for(1)
                self.assertEqual(self.successResultOf(first).offset, 1)
                self.assertEqual(self.successResultOf(second).offset, 2)
                self.assertEqual(self.failureResultOf(refused, RtpushError).value.kind, ErrorCode.PERMISSION_DENIED)
                self.assertIsNone(self.successResultOf(nothing))

    def test_cut_anywhere(self) -> None:
        """However often the connection is cut, all that is published is there once and in order."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                results = []
                for number in range(200):
                    results.append(client.publish(f"demo:{transport}", number))
                    if self.random.random() < 0.15:
                        self.cut_on_the_way()
                    if self.random.random() < 0.3:
                        self.run_for(self.random.random())
                self.run_for(30)
                offsets = [self.successResultOf(result).offset for result in results]
                self.assertEqual(offsets, list(range(1, 201)))
                self.assertEqual(self.kept(f"demo:{transport}"), list(range(200)))

    def cut_on_the_way(self) -> None:
        """Cut when some of what is on its way has arrived, and its answers have not."""
        for _ in range(self.random.randrange(4)):
            self.network.flush()
        self.network.cut()

    def test_waits(self) -> None:
        """What is published while the server is away goes out when it is there, in order."""
        self.network.is_down = True
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.network.is_down = True
                client = self.client(transport)
                results = [client.publish(f"demo:{transport}", number) for number in range(100)]
                self.run_for(5)
                self.network.is_down = False
                self.run_for(10)
                self.assertEqual([self.successResultOf(result).offset for result in results], list(range(1, 101)))

    def test_server_goes_away(self) -> None:
        """A client that only publishes notices that the server is gone when it has something to publish."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                self.assertEqual(self.wait(client.publish(f"demo:{transport}", 1), 1).offset, 1)
                self.stop_server()
                result = client.publish(f"demo:{transport}", 2)
                self.run_for(1)
                self.assertEqual(client.state, State.CONNECTING)
                self.start_server()
                self.assertEqual(self.wait(result, BACK).offset, 1)

    def test_gives_up(self) -> None:
        """What gets no answer in time fails, and is not published later."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                self.network.is_down = True
                client = self.client(transport, answer_timeout=20.0)
                result = client.publish(f"demo:{transport}", 1)
                self.run_for(20)
                self.failureResultOf(result, NotDelivered)
                self.network.is_down = False
                self.run_for(60)
                self.assertEqual(client.state, State.OPEN)
                self.assertEqual(self.kept(f"demo:{transport}"), [])

    def test_bounded(self) -> None:
        """No more than so many wait."""
        self.network.is_down = True
        client = self.client(max_waiting=2)
        waiting = [client.publish("demo:a", number) for number in range(2)]
        self.failureResultOf(client.publish("demo:a", 3), OutboxFull)
        self.network.is_down = False
        self.run_for(5)
        for result in waiting:
            self.successResultOf(result)

    def test_once_at_most(self) -> None:
        """A message without history that was cut on its way is not sent twice: its publisher is told."""
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.client(transport)
                follower = self.client("websocket")
                got, take = collector()
                self.wait(follower.subscribe(f"demo:{transport}", take).when_live())
                client.connect()
                self.run_for(1)
                self.network.obstacles = {"/ws": "mute", "/emit": "hold"}
                result = client.publish(f"demo:{transport}", "typing", history=False)
                self.run_for(1)
                self.network.obstacles = {}
                self.network.cut()
                self.run_for(10)
                self.failureResultOf(result, NotDelivered)
                self.assertLessEqual(len(got), 1)
                self.wait(follower.close(), 1)

    def test_what_json_cannot_express(self) -> None:
        """Data that is no payload is a TypeError at once."""
        self.assertRaises(TypeError, self.client().publish, "demo:a", object())
