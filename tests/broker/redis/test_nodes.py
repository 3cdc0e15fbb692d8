"""Several nodes at one Redis, and at several."""

from __future__ import annotations

import re

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from rtpush.broker.redis.ring import Ring
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.pushes import PresenceEntry
from tests.broker.contract import numbers, offsets, publication
from tests.broker.redis.nodes import Node
from tests.support.redis import RedisServer
from tests.support.waiting import until

ANN = PresenceEntry("c1", "websocket", b'{"name": "Ann"}')
BOB = PresenceEntry("c2", "sse")


class NodesTests(TestCase):
    """Two nodes at one Redis."""

    timeout = 60

    async def setUp(self) -> None:
        """Start a Redis."""
        self.redis = await RedisServer.start(self)

    async def two(self, *, node_ttl: float = 15.0) -> tuple[Node, Node]:
        """Return two nodes that are connected."""
        a, b = (Node(self, self.redis.url, name=name, node_ttl=node_ttl) for name in "ab")
        await a.up()
        await b.up()
        return a, b

    async def test_message(self) -> None:
        """What is published at one node is delivered by the other, with the position that the publisher was told."""
        a, b = await self.two()
        await b.broker.subscribe("h:x")
        positions = await a.publish("h:x", 1, 2, 3)
        await b.receiver.delivered(3)
        self.assertEqual([message.position for message in b.receiver.messages], positions)
        self.assertEqual((await b.read("h:x")).messages[-1].position, positions[-1])

    async def test_one_order(self) -> None:
        """What several nodes publish at once has one order everywhere."""
        a, b = await self.two()
        for node in (a, b):
            await node.broker.subscribe("h:x")
        await gatherResults(
            [node.broker.publish(publication("h:x", number)) for number in range(300) for node in (a, b)]
        )
        for node in (a, b):
            await node.receiver.delivered(600)
            self.assertEqual(offsets(node.receiver.messages), list(range(1, 601)))
        self.assertEqual(numbers(a.receiver.messages), numbers(b.receiver.messages))

    async def test_same_key_on_both(self) -> None:
        """An idempotency key counts on all nodes."""
        a, b = await self.two()
        first = await a.broker.publish(publication("h:x", 1, key="k"))
        self.assertEqual(await b.broker.publish(publication("h:x", 1, key="k")), first)

    async def test_presence(self) -> None:
        """Each node knows who is at the other, and hears who comes and goes there."""
        a, b = await self.two()
        await a.broker.subscribe("h:x")
        await b.broker.join("h:x", BOB)
        await a.receiver.delivered(1)
        await a.broker.join("h:x", ANN)
        for node in (a, b):
            entries = await node.broker.presence("h:x")
            self.assertEqual(sorted(entries, key=lambda entry: entry.connection), [ANN, BOB])
        await b.broker.leave("h:x", BOB)
        await a.receiver.delivered(3)
        self.assertEqual(
            a.receiver.presence, [("join", "h:x", BOB), ("join", "h:x", ANN), ("leave", "h:x", BOB)]
        )

    async def test_statuses(self) -> None:
        """A node knows what the others say of themselves."""
        a, b = await self.two()
        b.receiver.status = lambda: b'{"connections": 7}'  # type: ignore[method-assign]

        async def told() -> bool:
            return [status.status for status in await a.broker.nodes()] == [b'{"connections": 7}']

        await until(told, "the status")
        (status,) = await a.broker.nodes()
        self.assertTrue(status.id.startswith("b."), status)
        self.assertLess(status.age, 15)

    async def test_leaving(self) -> None:
        """A node that ends in good order is gone at once, and so are its connections."""
        a, b = await self.two()
        await a.broker.subscribe("h:x")
        await b.broker.join("h:x", BOB)
        await b.broker.stop()
        self.assertEqual(list(await a.broker.nodes()), [])
        self.assertEqual(list(await a.broker.presence("h:x")), [])
        await until(lambda: ("leave", "h:x", BOB) in a.receiver.presence, "the leave")

    async def kill(self, node: Node) -> None:
        """Have a node end as ``kill -9`` would."""
        node.broker._ticking.stop()
        node.broker._stopped(None)

    async def test_killed(self) -> None:
        """What a node leaves behind that is killed is cleaned up by the others when its time is over."""
        a, b = await self.two(node_ttl=1.0)
        await a.broker.subscribe("h:x")
        await gatherResults([b.broker.join("h:x", BOB), a.broker.join("h:x", ANN)])
        await self.kill(b)
        await until(lambda: ("leave", "h:x", BOB) in a.receiver.presence, "the leave")
        self.assertEqual(list(await a.broker.presence("h:x")), [ANN])
        self.assertEqual(list(await a.broker.nodes()), [])

        async def nothing_left() -> bool:
            keys = await self.redis.command("KEYS", "rt:*")
            return not any(b":b." in key for key in keys) and b"rt:graves" not in keys

        await until(nothing_left, "nothing of it to be left")

    async def test_taken_for_dead(self) -> None:
        """A node that was taken for dead, and lives, has its connections again under another name."""
        a, b = await self.two()
        await b.broker.join("h:x", BOB)
        (before,) = await a.broker.nodes()
        await self.redis.command("ZREM", "rt:nodes", before.id)
        await self.redis.command("SADD", "rt:graves", before.id)

        async def back() -> bool:
            others = [status.id for status in await a.broker.nodes()]
            return others != [before.id] and list(await a.broker.presence("h:x")) == [BOB]

        await until(back, "its connection to be back")
        await until(lambda: self._no_graves(), "the old name to be buried")
        self.assertEqual(list(await a.broker.presence("h:x")), [BOB])

    async def _no_graves(self) -> bool:
        return not await self.redis.command("EXISTS", "rt:graves")

    async def test_data_lost(self) -> None:
        """A Redis that has lost everything is told again who is there."""
        a, b = await self.two()
        await b.broker.join("h:x", BOB)
        await self.redis.command("FLUSHALL")

        async def back() -> bool:
            return list(await a.broker.presence("h:x")) == [BOB]

        await until(back, "its connection to be back")

    async def test_ask(self) -> None:
        """A question goes to all others, and their answers come back."""
        a, b = await self.two()
        c = Node(self, self.redis.url, name="c")
        await c.up()
        for node, said in ((b, b"b: "), (c, b"c: ")):
            node.receiver.asked = lambda question, said=said: _result(said + question)  # type: ignore[method-assign]
        answers = await a.broker.ask(b"how are you?\n\xff")
        self.assertEqual(sorted(answers.answers), [b"b: how are you?\n\xff", b"c: how are you?\n\xff"])
        self.assertEqual(list(answers.missing), [])

    async def test_ask_nobody(self) -> None:
        """A node that is alone has no answers at once."""
        node = Node(self, self.redis.url)
        await node.up()
        answers = await node.broker.ask(b"?")
        self.assertEqual((list(answers.answers), list(answers.missing)), ([], []))

    async def test_no_answer(self) -> None:
        """Those who do not answer, or refuse to, are named."""
        a, b = await self.two()
        c = Node(self, self.redis.url, name="c")
        await c.up()
        b.receiver.asked = lambda question: Deferred()  # type: ignore[method-assign]
        c.receiver.asked = lambda question: _result(b"here")  # type: ignore[method-assign]
        answers = await a.broker.ask(b"?")
        self.assertEqual(list(answers.answers), [b"here"])
        self.assertEqual([name.split(".")[0] for name in answers.missing], ["b"])

    async def test_storm(self) -> None:
        """Twenty thousand subscriptions cost some hundred commands."""
        node = Node(self, self.redis.url)
        await node.up()

        async def commands() -> int:
            # Those that scripts run cost no round trips.
            statistics = (await self.redis.command("INFO", "commandstats")).decode()
            calls = re.findall(r"cmdstat_(?:evalsha|subscribe|unsubscribe):calls=(\d+)", statistics)
            return sum(map(int, calls))

        before = await commands()
        await gatherResults([node.broker.subscribe(f"h:{number}") for number in range(20_000)])
        self.assertLess(await commands() - before, 200)
        await gatherResults([node.broker.unsubscribe(f"h:{number}") for number in range(20_000)])

        async def unfollowed() -> bool:
            channels = await self.redis.command("PUBSUB", "CHANNELS", "rt:channel:*")
            return not channels

        await until(unfollowed, "all to be unsubscribed")
        self.assertLess(await commands() - before, 300)


class ShardTests(TestCase):
    """Nodes at two Redis servers."""

    timeout = 60

    async def setUp(self) -> None:
        """Start two of them, and a node."""
        self.servers = [await RedisServer.start(self) for _ in range(2)]
        urls = [server.url for server in self.servers]
        self.node = Node(self, *urls, name="a", timeout=1.0)
        await self.node.up()
        ring = Ring([f"127.0.0.1:{server.port}/0" for server in self.servers])
        names = [f"h:{number}" for number in range(100)]
        #: Channels by their shard.
        self.channels = [[name for name in names if ring(name) == shard] for shard in range(2)]

    async def test_spread(self) -> None:
        """Each channel is on its shard alone, and all work alike."""
        for channel in (self.channels[0][0], self.channels[1][0]):
            await self.node.broker.subscribe(channel)
            await self.node.publish(channel, 1, 2)
        await self.node.receiver.delivered(4)
        for shard, server in enumerate(self.servers):
            found = await server.command("KEYS", "rt:history:*")
            self.assertEqual([key.decode() for key in found], [f"rt:history:{{{self.channels[shard][0]}}}"])

    async def test_one_away(self) -> None:
        """While one shard is away the others work, and the node says what is wrong."""
        other = Node(self, *(server.url for server in self.servers), name="b")
        await other.up()
        await self.servers[0].kill()
        link = self.node.broker._shards[0].link
        await until(lambda: "cannot connect" in str(link.problem), "the loss to be seen")
        self.assertIsNone(self.node.broker.problem())
        failed = await self.assertFailure(self.node.broker.publish(publication(self.channels[0][0])), RtpushError)
        self.assertIs(failed.kind, ErrorCode.UNAVAILABLE)
        await self.node.publish(self.channels[1][0], 1)

        async def asked() -> bool:
            return len((await self.node.broker.ask(b"?")).answers) == 1

        await until(asked, "the other node to answer by way of the other shard")
        await self.servers[1].kill()
        await self.node.down("cannot connect")
        await self.servers[0].restart()
        await until(lambda: link.problem is None, "the first one")
        self.assertIsNone(self.node.broker.problem())
        await self.node.publish(self.channels[0][0], 1)


def _result(answer: bytes) -> Deferred[bytes]:
    done: Deferred[bytes] = Deferred()
    done.callback(answer)
    return done
