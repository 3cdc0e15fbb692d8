"""A Redis that fails, in all the ways there are: what a node makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Gap
from tests.broker.contract import numbers, publication
from tests.broker.redis.nodes import Node
from tests.support.redis import RedisServer, Sentinels
from tests.support.waiting import soon, until


async def serve(test: TestCase, protocol: Callable[[], Protocol]) -> int:
    """Listen with a protocol, for as long as a test lasts; return the port."""
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    test.addCleanup(port.stopListening)
    number: int = port.getHost().port
    return number


class FailureTests(TestCase):
    """A Redis that comes and goes."""

    timeout = 60

    async def start(self, *options: str, timeout: float = 5.0) -> Node:
        """Start a Redis, and a node that is connected to it."""
        self.redis = await RedisServer.start(self, *options)
        node = Node(self, self.redis.url, name="a", timeout=timeout)
        await node.up()
        return node

    async def refused(self, call: Any) -> str:
        """Check that a call fails since Redis does not do its work; return what is said."""
        error = await self.assertFailure(call, RtpushError)
        self.assertIs(error.kind, ErrorCode.UNAVAILABLE)
        message: str = error.message
        return message

    async def cut(self, name: str = "a") -> None:
        """Cut the connections of a node."""
        for line in (await self.redis.command("CLIENT", "LIST")).decode().splitlines():
            fields = dict(field.split("=", 1) for field in line.split())
            if fields["name"] == name:
                await self.redis.command("CLIENT", "KILL", "ID", fields["id"])

    async def test_away(self) -> None:
        """While Redis is away, publishing is refused at once, with what is wrong."""
        node = await self.start()
        await self.redis.kill()
        await node.down("cannot connect")
        self.assertIn("is away", await self.refused(node.broker.publish(publication("h:x"))))

    async def test_wait(self) -> None:
        """Who subscribes or reads while Redis is away is served when it comes back in time."""
        node = await self.start(timeout=30.0)
        await self.redis.kill()
        await node.down()
        subscribed, read = node.broker.subscribe("h:x"), node.broker.history("h:x", None, 10)
        await self.redis.restart()
        page = await read
        self.assertEqual(await subscribed, page.top)

    async def test_wait_in_vain(self) -> None:
        """Who waits too long for Redis is refused."""
        node = await self.start(timeout=0.5)
        await self.redis.kill()
        await node.down()
        await gatherResults(
            [
                self.assertFailure(call, RtpushError)
                for call in (
                    node.broker.subscribe("h:x"),
                    node.broker.history("h:x", None, 10),
                    node.broker.presence("h:x"),
                )
            ]
        )

    async def test_restart(self) -> None:
        """After a restart the node is back, counts on, and compares what it follows; with AOF nothing is lost."""
        node = await self.start("--appendonly", "yes", "--appendfsync", "everysec")
        await node.broker.subscribe("h:x")
        positions = await node.publish("h:x", 1, 2)
        await node.receiver.delivered(2)
        await self.redis.kill()
        await node.down()
        await self.redis.restart()
        await node.up()
        self.assertEqual(node.receiver.comparisons, [("h:x", positions[-1])])
        await node.publish("h:x", 3)
        await node.receiver.delivered(3)
        self.assertEqual(node.receiver.messages[-1].position, Position(positions[0].epoch, 3))

    async def test_hang(self) -> None:
        """A Redis that hangs is away after its time to answer, and what waits for its answers is refused."""
        node = await self.start(timeout=1.0)
        self.redis.pause()
        said = await self.refused(node.broker.publish(publication("h:x")))
        self.assertIn("not answered for 1 s", said)
        await node.down()
        self.redis.resume()
        await node.up()
        await node.publish("h:x", 1)

    async def test_cut(self) -> None:
        """What was published while a node was cut off is told by the comparison, and is in history."""
        node = await self.start()
        top = await node.broker.subscribe("h:x")
        other = Node(self, self.redis.url, name="b")
        await other.up()
        await self.cut()
        positions = await other.publish("h:x", 1, 2, 3)
        await until(lambda: node.receiver.messages or node.receiver.comparisons, "the node to be back")
        await node.up()
        page = await node.read("h:x", top)
        self.assertEqual((page.gap, numbers(page.messages), page.top), (None, [1, 2, 3], positions[-1]))

    async def test_flushed(self) -> None:
        """A Redis that has lost everything has new epochs: a position from before is a gap, and the stream goes on."""
        node = await self.start()
        await node.broker.subscribe("h:x")
        (before,) = await node.publish("h:x", 1)
        await self.redis.command("FLUSHALL")
        (after,) = await node.publish("h:x", 2)
        self.assertNotEqual(after.epoch, before.epoch)
        await node.receiver.delivered(2)
        self.assertEqual(node.receiver.messages[-1].position, after)
        page = await node.read("h:x", before)
        self.assertEqual((page.gap, page.top), (Gap.EPOCH_CHANGED, after))

    async def saved(self, channel: str) -> list[tuple[bytes, bytes]]:
        """Return what Redis has of a channel."""
        keys = [f"rt:{kind}:{{{channel}}}".encode() for kind in ("position", "history")]
        return [(key, await self.redis.command("DUMP", key)) for key in keys]

    async def lose(self, saved: list[tuple[bytes, bytes]]) -> None:
        """Have Redis lose what came after it was saved, as it may in a failover."""
        for key, value in saved:
            await self.redis.command("RESTORE", key, 0, value, "REPLACE")

    async def test_lost_tail(self) -> None:
        """If Redis has lost what was delivered, the next message shows it: a new epoch begins, for all to see."""
        node = await self.start()
        await node.broker.subscribe("h:x")
        await node.publish("h:x", 1, 2)
        saved = await self.saved("h:x")
        positions = await node.publish("h:x", 3, 4)
        await node.receiver.delivered(4)
        await self.lose(saved)
        # It would have the offset of a message that was delivered.
        await node.publish("h:x", 5)
        await until(lambda: node.receiver.comparisons, "the loss to be seen")
        channel, top = node.receiver.comparisons[-1]
        self.assertEqual((channel, top.offset), ("h:x", 0))
        self.assertNotEqual(top.epoch, positions[0].epoch)
        self.assertEqual(numbers(node.receiver.messages), [1, 2, 3, 4])
        self.assertEqual((await node.read("h:x", positions[-1])).gap, Gap.EPOCH_CHANGED)
        await node.publish("h:x", 6)
        await until(lambda: numbers(node.receiver.messages)[-1] == 6, "the stream to go on")

    async def test_lost_tail_after_a_cut(self) -> None:
        """The same is seen when a node comes back to a Redis that has gone past what it had lost."""
        node = await self.start()
        other = Node(self, self.redis.url, name="b")
        await other.up()
        await node.broker.subscribe("h:x")
        await node.publish("h:x", 1)
        saved = await self.saved("h:x")
        positions = await node.publish("h:x", 2, 3)
        await node.receiver.delivered(3)
        # The node must not see what comes next.
        node.broker._shards[0].link.session.abort("cut by the test")
        await self.lose(saved)
        await other.publish("h:x", *range(4, 10))
        await node.up()
        await until(lambda: node.receiver.comparisons, "the comparison")
        self.assertNotEqual(node.receiver.comparisons[-1][1].epoch, positions[0].epoch)
        self.assertEqual((await node.read("h:x", positions[-1])).gap, Gap.EPOCH_CHANGED)

    async def test_full(self) -> None:
        """A full Redis takes no messages, and says so; what is there is read, and readers are not disturbed."""
        node = await self.start("--maxmemory-policy", "noeviction")
        await node.broker.subscribe("h:x")
        positions = await node.publish("h:x", 1, 2)
        await self.redis.command("CONFIG", "SET", "maxmemory", "1")
        said = await self.refused(node.broker.publish(publication("h:x", 3)))
        self.assertIn("OOM", said)
        self.assertEqual(await node.broker.subscribe("h:x"), positions[-1])
        self.assertIn("no room", await self.refused(node.broker.subscribe("h:new")))
        self.assertEqual(numbers((await node.read("h:x")).messages), [1, 2])
        node.broker.join("h:x", PresenceEntry("c1", "websocket"))
        self.assertEqual(list(await node.broker.presence("h:x")), [])
        self.assertIsNone(node.broker.problem())
        await self.redis.command("CONFIG", "SET", "maxmemory", "0")
        await node.publish("h:x", 4)
        await until(lambda: self._is_present(node), "the connection to be listed")

    @staticmethod
    async def _is_present(node: Node) -> bool:
        return len(await node.broker.presence("h:x")) == 1

    async def test_scripts_forgotten(self) -> None:
        """A Redis that has forgotten our scripts is taught them again, unnoticed."""
        node = await self.start()
        await node.publish("h:x", 1)
        await self.redis.command("SCRIPT", "FLUSH")
        await gatherResults([node.broker.publish(publication("h:x", number)) for number in range(2, 12)])
        self.assertEqual(sorted(numbers((await node.read("h:x")).messages)), list(range(1, 12)))

    async def test_becomes_replica(self) -> None:
        """A master that is made a replica is left, whatever it still answers."""
        node = await self.start()
        other = await RedisServer.start(self)
        await self.redis.command("REPLICAOF", "127.0.0.1", other.port)
        await node.down("read-only replica")
        await self.redis.command("REPLICAOF", "NO", "ONE")
        await node.up()

    async def test_dead_subscription(self) -> None:
        """A subscription that is dead, while commands still work, is seen and made anew."""
        self.redis = await RedisServer.start(self)
        port = await serve(self, lambda: Passage(self.redis.port))
        node = Node(self, f"redis://127.0.0.1:{port}/0", timeout=1.0)
        await node.up()
        await node.broker.subscribe("h:x")
        Passage.deaf = True
        self.addCleanup(setattr, Passage, "deaf", False)
        await node.down("a probe is not back")
        Passage.deaf = False
        await node.up()
        await node.publish("h:x", 1)
        await node.receiver.delivered(1)

    async def test_dead_from_the_start(self) -> None:
        """A node is not connected before its first probe is back, however long it tries."""
        self.redis = await RedisServer.start(self)
        port = await serve(self, lambda: Passage(self.redis.port))
        Passage.deaf = True
        self.addCleanup(setattr, Passage, "deaf", False)
        node = Node(self, f"redis://127.0.0.1:{port}/0", timeout=0.5)
        await node.down("it has not answered for 0.5 s")
        Passage.deaf = False
        await node.up()

    async def test_ends_without_redis(self) -> None:
        """A node ends, though Redis does not answer."""
        node = await self.start()
        self.redis.pause()
        await soon(node.broker.stop())
        self.assertFalse(node.broker._ticking.running)

    async def test_long_outage(self) -> None:
        """What comes and goes while Redis is away leaves nothing behind, and what stays is known when it is back."""
        node = await self.start(timeout=0.2)
        await node.broker.subscribe("h:x")
        node.broker.join("h:x", PresenceEntry("stays", "sse"))
        await until(lambda: node.receiver.presence, "the join")
        await self.redis.kill()
        await node.down()
        for number in range(100):
            entry = PresenceEntry(f"c{number}", "sse")
            node.broker.join("h:x", entry)
            await self.assertFailure(node.broker.subscribe(f"h:{number}"), RtpushError) if number < 2 else None
            node.broker.unsubscribe(f"h:{number}")
            node.broker.leave("h:x", entry)
        node.broker.join("h:x", PresenceEntry("new", "sse"))
        shard = node.broker._shards[0]
        self.assertEqual((len(shard.following._changes), len(shard.presence._changes)), (0, 1))
        await self.redis.restart()
        await node.up()

        async def present() -> bool:
            return sorted(entry.connection for entry in await node.broker.presence("h:x")) == ["new", "stays"]

        await until(present, "those who are there to be listed")

    async def test_junk(self) -> None:
        """What others publish that is none of ours is passed over."""
        node = await self.start()
        await node.broker.subscribe("h:x")
        inbox = (await self.redis.command("PUBSUB", "CHANNELS", "rt:node:*"))[0]
        for name in (b"rt:channel:{h:x}", b"rt:nodes", inbox):
            for raw in (b"", b"m", b"m a b c d e f g", b"q", b"q 1 2", b"a x y z", b"b ", b"j 1", b"\xff\xfe"):
                await self.redis.command("PUBLISH", name, raw)
        await node.publish("h:x", 1)
        await node.receiver.delivered(1)
        self.assertEqual(numbers(node.receiver.messages), [1])

    async def test_failover(self) -> None:
        """When the sentinels name another master, the node goes there, and what it follows goes on."""
        master = await RedisServer.start(self)
        await RedisServer.start(self, replica_of=master)
        sentinels = await Sentinels.start(self, master)
        node = Node(self, sentinels.url)
        await node.up()
        await node.broker.subscribe("h:x")
        await node.publish("h:x", 1)
        await node.receiver.delivered(1)
        before = await sentinels.master_port()
        await sentinels.failover()
        self.assertNotEqual(await sentinels.master_port(), before)

        async def published() -> bool:
            try:
                await node.publish("h:x", 2)
            except RtpushError:
                return False
            return True

        await until(published, "the new master to take a message", 30.0)
        await until(lambda: numbers(node.receiver.messages)[-1] == 2, "the message")


class Passage(Protocol):
    """
    Passes bytes to a Redis and back.

    :cvar deaf: Whether nothing comes back of what was subscribed to.
    """

    deaf = False

    def __init__(self, port: int) -> None:
        self._port = port
        self._other: Any = None
        self._waiting = b""
        self._is_subscriber = False

    def connectionMade(self) -> None:
        back = Protocol()
        back.dataReceived = self._answered  # type: ignore[method-assign]
        back.connectionLost = lambda reason=None: self.transport.loseConnection()  # type: ignore[method-assign]
        connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self._port), back).addCallback(self._connected)

    def _connected(self, other: Protocol) -> None:
        self._other = other
        other.transport.write(self._waiting)

    def _answered(self, data: bytes) -> None:
        if not (self.deaf and self._is_subscriber):
            self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self._is_subscriber = self._is_subscriber or b"SUBSCRIBE" in data
        if self._other is None:
            self._waiting += data
        else:
            self._other.transport.write(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        if self._other is not None:
            self._other.transport.loseConnection()


class Answers(Protocol):
    """Answers everything alike."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def dataReceived(self, data: bytes) -> None:
        if self._answer:
            self.transport.write(self._answer)


class UnusableTests(TestCase):
    """What is configured wrong: one line says so, and the node tries again."""

    timeout = 60

    def setUp(self) -> None:
        """Listen to what links log."""
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: Any) -> None:
        if "problem" in event:
            self.lines.append(event["problem"])

    async def problem(self, *urls: str, pattern: str, **options: Any) -> Node:
        """Check that a node cannot use what is at an address, and says why, once."""
        node = Node(self, *urls, timeout=options.pop("timeout", 5.0), **options)
        problem = await node.down(pattern)
        link = node.broker._shards[0].link
        attempts: list[None] = []
        opened = link._dialler.open
        link._dialler.open = lambda receive: (attempts.append(None), opened(receive))[1]  # type: ignore[method-assign]
        await until(lambda: len(attempts) > 2, "more attempts")
        self.assertEqual(len([line for line in self.lines if pattern in line]), 1, self.lines)
        self.assertNotIn("\n", problem)
        self.assertNotIn("secret", problem)
        return node

    async def test_wrong_password(self) -> None:
        """A password that is wrong, until it is right."""
        redis = await RedisServer.start(self, password="right")
        node = await self.problem(f"redis://:secret@127.0.0.1:{redis.port}", pattern="user or password is wrong")
        await redis.command("CONFIG", "SET", "requirepass", "secret")
        await node.up()

    async def test_no_password(self) -> None:
        """No password where one is wanted."""
        redis = await RedisServer.start(self, password="right")
        await self.problem(f"redis://127.0.0.1:{redis.port}", pattern="wants a password")

    async def test_password_for_nothing(self) -> None:
        """A password where none is wanted."""
        redis = await RedisServer.start(self)
        await self.problem(f"redis://:secret@127.0.0.1:{redis.port}", pattern="password")

    async def test_replica(self) -> None:
        """A read-only replica."""
        master = await RedisServer.start(self)
        replica = await RedisServer.start(self, replica_of=master)
        await self.problem(replica.url, pattern=f"read-only replica of 127.0.0.1:{master.port}")

    async def test_too_old(self) -> None:
        """A version that lacks what we need."""
        information = b"redis_version:6.0.16\r\nrole:master\r\nrun_id:1\r\n"
        port = await serve(self, lambda: Answers(b"$%d\r\n%s\r\n" % (len(information), information)))
        await self.problem(f"redis://127.0.0.1:{port}", pattern="6.0.16 is too old: expected 6.2 or later")

    async def test_not_redis(self) -> None:
        """A server of something else."""
        port = await serve(self, lambda: Answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        await self.problem(f"redis://127.0.0.1:{port}", pattern="is not a Redis")

    async def test_silent(self) -> None:
        """A server that says nothing."""
        port = await serve(self, lambda: Answers(b""))
        await self.problem(f"redis://127.0.0.1:{port}", pattern="does not answer within 0.3 s", timeout=0.3)

    async def test_nothing_there(self) -> None:
        """A port where nothing listens."""
        redis = await RedisServer.start(self)
        await redis.kill()
        await self.problem(redis.url, pattern="cannot connect: Connection refused")

    async def test_no_such_socket(self) -> None:
        """A Unix socket that is not there."""
        await self.problem("unix:///nonexistent/redis.sock", pattern="cannot connect: No such file or directory")

    async def test_loading(self) -> None:
        """A Redis that still reads what it had."""
        information = b"redis_version:7.0.0\r\nrole:master\r\nloading:1\r\n"
        port = await serve(self, lambda: Answers(b"$%d\r\n%s\r\n" % (len(information), information)))
        await self.problem(f"redis://127.0.0.1:{port}", pattern="loading its data")

    async def test_forbidden(self) -> None:
        """A user who may not subscribe."""
        redis = await RedisServer.start(self)
        await redis.command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "resetchannels")
        await self.problem(f"redis://limited:secret@127.0.0.1:{redis.port}", pattern="NOPERM")

    async def test_limited(self) -> None:
        """A user who may do what docs/redis.rst says, and no more."""
        redis = await RedisServer.start(self)
        commands = ("+@read", "+@write", "+@pubsub", "+@scripting", "+@connection", "+info", "+time")
        await redis.command("ACL", "SETUSER", "limited", "on", ">secret", "~rt:*", "resetchannels", "&rt:*", *commands)
        node = Node(self, f"redis://limited:secret@127.0.0.1:{redis.port}")
        await node.up()
        await node.broker.subscribe("h:x")
        await node.publish("h:x", 1)
        await node.broker.join("h:x", PresenceEntry("c1", "sse"))
        await node.receiver.delivered(2)
        self.assertEqual(numbers((await node.read("h:x")).messages), [1])
        self.assertEqual(await redis.command("FCALL", "rt_publish", 1, "h:x", "2"), await self.position(node))

    async def position(self, node: Node) -> bytes:
        """Return the newest position of a channel."""
        return str((await node.read("h:x")).top).encode()

    async def test_unknown_master(self) -> None:
        """Sentinels that do not know the master."""
        master = await RedisServer.start(self)
        sentinels = await Sentinels.start(self, master, count=1, quorum=1)
        url = sentinels.url.replace("mymaster", "other")
        await self.problem(url, pattern="it knows no such master")

    async def test_tls(self) -> None:
        """TLS with certificates of both sides, and without the right ones."""
        redis = await RedisServer.start(self, tls=True)
        files = {"ca": redis.ca, "certificate": redis.certificate, "key": redis.key}
        node = Node(self, redis.url, **files)
        await node.up()
        await node.publish("h:x", 1)
        await self.problem(redis.url, pattern="certificate verify failed")
        await self.problem(redis.url.replace("rediss", "redis"), pattern="(Connection to the other side was lost")

    async def test_unix_socket(self) -> None:
        """A Unix socket, with a password."""
        redis = await RedisServer.start(self, unix=True, password="secret")
        node = Node(self, redis.url)
        await node.up()
        await node.publish("h:x", 1)
