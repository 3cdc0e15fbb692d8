"""Tests of rtpush.client.api, against a node in memory."""

from __future__ import annotations

import attrs

from rtpush.client import LinkLost, ServerApi
from rtpush.client.subscription import ignore
from rtpush.client.wire import payload_of
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Publication
from rtpush.protocol.position import Position
from tests.client.memory import MemoryTests


class ApiTests(MemoryTests):
    """Every call."""

    def test_publish(self) -> None:
        """A message is published, and can be read again."""
        api = self.api()
        position = self.wait(api.publish("demo:a", {"eur": 41.2}, event="price"))
        self.assertEqual(position.offset, 1)
        self.assertIsNone(self.wait(api.publish("demo:a", "typing", history=False)))
        page = self.wait(api.history("demo:a", limit=10))
        [message] = page.messages
        self.assertEqual((message.payload.as_object(), message.event), ({"eur": 41.2}, "price"))
        self.assertEqual(page.top, position)

    def test_own_key(self) -> None:
        """A repeated key publishes once."""
        api = self.api()
        first, again = (self.wait(api.publish("demo:a", 1, idempotency_key="k")) for _ in range(2))
        self.assertEqual(first, again)

    def test_batches(self) -> None:
        """Several messages, and one message to several channels, each with its own result."""
        api = self.api()
        for results in (
            self.wait(api.publish_batch([Publication(name, payload_of(1)) for name in ("demo:a", "no:b", "demo:c")])),
            self.wait(api.broadcast(["demo:a", "no:b", "demo:c"], b"\0")),
        ):
            self.assertIsInstance(results[0], Position)
            self.assertEqual(results[1].kind, ErrorCode.UNKNOWN_CHANNEL)
            self.assertIsInstance(results[2], Position)

    def test_history(self) -> None:
        """History is read from a position, and backwards."""
        self.publish("demo:a", *range(5))
        api = self.api()
        top = self.wait(api.history("demo:a")).top
        page = self.wait(api.history("demo:a", since=Position(top.epoch, 2), limit=2))
        self.assertEqual([message.payload.as_object() for message in page.messages], [2, 3])
        page = self.wait(api.history("demo:a", reverse=True, limit=2))
        self.assertEqual([message.payload.as_object() for message in page.messages], [4, 3])

    def test_operators(self) -> None:
        """Channels, connections, presence, nodes can be listed, and connections ended."""
        client = self.client("websocket")
        self.wait(client.subscribe("demo:a", ignore).when_live())
        api = self.api()
        self.assertEqual(self.wait(api.channels("demo:*")), {"channels": {"demo:a": {"subscribers": 1}}})
        [connection] = self.wait(api.connections(channel="demo:a", transport="websocket"))["connections"]
        [entry] = self.wait(api.presence("demo:a"))
        self.assertEqual(entry.connection, connection["connection"])
        self.assertEqual(self.wait(api.info())["nodes"][0]["node"], "memory")
        self.assertEqual(self.wait(api.unsubscribe("demo:a", connection=entry.connection)), {"unsubscribed": 1})
        self.assertEqual(self.wait(api.disconnect(connection=entry.connection)), {"disconnected": 1})

    def test_refused(self) -> None:
        """What the server refuses is its error."""
        for channel, kind in (("no:a", ErrorCode.UNKNOWN_CHANNEL), ("a b", ErrorCode.BAD_CHANNEL)):
            call = self.api().publish(channel, 1)
            self.run_for()
            self.assertEqual(self.failureResultOf(call, RtpushError).value.kind, kind)

    def test_no_answer(self) -> None:
        """A server that is away, silent or something else is told in one line."""
        self.network.is_down = True
        self.assertIn("refused", str(self.failureResultOf(self.api().info(), LinkLost).value))
        self.network.is_down = False
        self.network.obstacles = {"/api/v1/info": "refuse"}
        call = self.api().info()
        self.run_for()
        self.assertIn("400", str(self.failureResultOf(call, LinkLost).value))
        self.network.obstacles = {"/api/v1/info": "hold"}
        call = self.api().info()
        self.run_for(20)
        self.assertIn("no answer within 10 s", str(self.failureResultOf(call, LinkLost).value))

    def test_cut(self) -> None:
        """A publish whose connection breaks before the answer is made once more, and is there once."""
        self.network.obstacles = {"/api/v1/publish": "hold"}
        call = self.api().publish("demo:a", 1)
        self.run_for(1)
        self.network.obstacles = {}
        self.network.cut()
        position = self.wait(call)
        self.assertEqual(position.offset, 1)
        self.assertEqual(len(self.wait(self.api().history("demo:a")).messages), 1)

    def test_key(self) -> None:
        """The API key is sent, and a wrong one refused."""
        api = attrs.evolve(self.config.api, keys=("correct-horse-battery",), open=False)
        self.restart(attrs.evolve(self.config, api=api))
        for key, good in (("correct-horse-battery", True), ("wrong", False), ("", False)):
            api = ServerApi(self.clock, "http://memory/", key, endpoints=self.network)
            call = api.info()
            self.run_for()
            if good:
                self.successResultOf(call)
            else:
                self.assertEqual(self.failureResultOf(call, RtpushError).value.kind, ErrorCode.UNAUTHORIZED)
            self.wait(api.close())
