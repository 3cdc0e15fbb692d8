"""
What every broker must do: the promises of :mod:`rtpush.interfaces` as tests.

A test case of an engine inherits :class:`BrokerContract` and says how its broker is made and how time passes. Nothing
here assumes that anything happens at once: every call is awaited, and so is every delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, gatherResults, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rtpush.interfaces import IBroker, IBrokerReceiver, IHealthCheck, IPresence
from rtpush.protocol.channel import Namespace, Namespaces
from rtpush.protocol.commands import Publication
from rtpush.protocol.message import Kind, Message, Payload
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Gap, Page

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

__all__ = ["BrokerContract", "Receiver", "numbers", "publication"]


def publication(
    channel: str, number: int | str = 0, *, history: bool = True, key: str | None = None, event: str | None = None
) -> Publication:
    """Return a publication whose payload is a number."""
    return Publication(channel, Payload(str(number).encode(), Kind.JSON), event, key, history)


def numbers(messages: Sequence[Message]) -> list[int]:
    """Return the payloads of messages."""
    return [int(message.payload.data) for message in messages]


def offsets(messages: Sequence[Message]) -> list[int]:
    """Return the offsets of messages."""
    return [message.offset for message in messages]


@implementer(IBrokerReceiver)
class Receiver:
    """
    Records what a broker delivers.

    :ivar messages: All messages, of all channels.
    :ivar presence: ``("join" or "leave", channel, entry)``.
    :ivar comparisons: The channels that were compared, and their newest positions.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.presence: list[tuple[str, str, PresenceEntry]] = []
        self.comparisons: list[tuple[str, Position]] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def received(self, message: Message) -> None:
        """Take a message."""
        self.messages.append(message)
        self._tell()

    def compared(self, channel: str, top: Position) -> None:
        """Hear where a channel is."""
        self.comparisons.append((channel, top))

    def status(self) -> bytes:
        """Tell nothing."""
        return b"{}"

    def asked(self, question: bytes) -> Deferred[bytes]:
        """Answer with the question."""
        return succeed(question)

    def joined(self, channel: str, entry: PresenceEntry) -> None:
        """Hear who came."""
        self.presence.append(("join", channel, entry))
        self._tell()

    def left(self, channel: str, entry: PresenceEntry) -> None:
        """Hear who went."""
        self.presence.append(("leave", channel, entry))
        self._tell()

    def of(self, channel: str) -> list[Message]:
        """Return the messages of one channel."""
        return [message for message in self.messages if message.channel == channel]

    def delivered(self, count: int) -> Deferred[None]:
        """Return what fires when so many messages and joins and leaves were delivered, since the beginning."""
        arrived: Deferred[None] = Deferred()
        self._waiting.append((count, arrived))
        self._tell()
        return arrived

    def _tell(self) -> None:
        total = len(self.messages) + len(self.presence)
        for entry in [entry for entry in self._waiting if entry[0] <= total]:
            self._waiting.remove(entry)
            entry[1].callback(None)


class BrokerContract(TestCase):
    """
    The promises, for one node.

    The engine's test case defines :meth:`make_broker` and :meth:`advance`, and may have other times below.

    :cvar history_ttl: Seconds that a message is kept.
    :cvar window: Seconds for which an idempotency key counts; shorter than ``history_ttl``.
    """

    #: Seconds for which a test may take, where real time passes.
    timeout = 30

    history_ttl = 60.0
    window = 20.0

    def namespaces(self) -> Namespaces:
        """Return the namespaces that the tests use: ``h`` keeps ten messages, ``long`` a thousand, ``none`` nothing."""
        return Namespaces(
            [
                Namespace(name="h", history_size=10, history_ttl=self.history_ttl, presence=True),
                Namespace(name="long", history_size=1000, history_ttl=self.history_ttl),
                Namespace(name="none", history_size=0, history_ttl=self.history_ttl),
            ]
        )

    def make_broker(self, namespaces: Namespaces) -> IBroker:
        """
        Return a broker of this engine that is not started, with nothing in it.

        Keys count for :attr:`window` seconds, and positions of idle channels are remembered for much longer than
        :attr:`history_ttl`.
        """
        raise NotImplementedError

    def advance(self, seconds: float) -> Deferred[None]:
        """Let time pass for the broker."""
        raise NotImplementedError

    def settle(self) -> Deferred[None]:
        """Return what fires when all that was published has been delivered, where that can be known by waiting only."""
        return self.advance(0)

    async def begin(self) -> None:
        """Start a broker, which ends with the test."""
        self.broker = self.make_broker(self.namespaces())
        self.receiver = Receiver()
        await self.broker.start(self.receiver)
        self.addCleanup(self.broker.stop)

    async def publish(self, channel: str, *values: int) -> list[Position]:
        """Publish numbers one after the other, and return their positions."""
        positions = []
        for value in values:
            position = await self.broker.publish(publication(channel, value))
            assert position is not None
            positions.append(position)
        return positions

    async def page(self, channel: str, since: Position | None = None, limit: int = 100) -> Page:
        """Read history forward."""
        page: Page = await self.broker.history(channel, since, limit)
        return page

    # Interfaces

    async def test_interfaces(self) -> None:
        """The broker has what its interfaces name."""
        await self.begin()
        verifyObject(IBroker, self.broker)
        for capability in (IPresence, IHealthCheck):
            if capability.providedBy(self.broker):
                verifyObject(capability, self.broker)

    async def test_health(self) -> None:
        """A broker that works has no problem."""
        await self.begin()
        if IHealthCheck.providedBy(self.broker):
            self.assertIsNone(self.broker.problem())

    # Publishing

    async def test_offsets(self) -> None:
        """Offsets count 1, 2, 3…, all in the same epoch."""
        await self.begin()
        positions = await self.publish("h:a", *range(25))
        self.assertEqual([position.offset for position in positions], list(range(1, 26)))
        self.assertEqual(len({position.epoch for position in positions}), 1)

    async def test_epoch_is_a_word(self) -> None:
        """An epoch can be written into a cursor."""
        await self.begin()
        (position,) = await self.publish("h:a", 1)
        self.assertEqual(Position.parse(str(position)), position)

    async def test_channels_are_independent(self) -> None:
        """Each channel counts for itself."""
        await self.begin()
        await self.publish("h:a", 1, 2, 3)
        (position,) = await self.publish("h:b", 1)
        self.assertEqual(position.offset, 1)
        self.assertEqual(numbers((await self.page("h:b")).messages), [1])

    async def test_published_then_readable(self) -> None:
        """When the result of a publish is there, the message is in history."""
        await self.begin()
        for number in range(1, 6):
            (position,) = await self.publish("h:a", number)
            page = await self.page("h:a")
            self.assertEqual(page.top, position)
            self.assertEqual(numbers(page.messages)[-1], number)

    async def test_everything_of_a_message_is_kept(self) -> None:
        """Payload, kind and event name come back byte for byte, from history and by delivery."""
        await self.begin()
        await self.broker.subscribe("h:a")
        sent = [
            (Payload(b'{ "a": 1.50 }', Kind.JSON), None),
            (Payload("é\r\n\u2028 𝄞".encode(), Kind.TEXT), "ein Ereignis ✓"),
            (Payload(b"", Kind.TEXT), None),
            (Payload(bytes(range(256)), Kind.BINARY), "b"),
            (Payload(b"", Kind.BINARY), None),
            (Payload(b"42", Kind.JSON), None),
            (Payload(b"42", Kind.TEXT), None),
            (Payload(b"x" * 100_000, Kind.TEXT), None),
        ]
        for payload, event in sent:
            await self.broker.publish(Publication("h:a", payload, event))
        await self.receiver.delivered(len(sent))
        for messages in (self.receiver.messages, (await self.page("h:a")).messages):
            self.assertEqual([(message.payload, message.event) for message in messages], sent)
            self.assertEqual({message.channel for message in messages}, {"h:a"})
            self.assertEqual(offsets(messages), list(range(1, len(sent) + 1)))

    async def test_concurrent_publishes(self) -> None:
        """Many publishes at once get one offset each, and history and delivery have the same order."""
        await self.begin()
        await self.broker.subscribe("long:a")
        positions = await gatherResults([self.broker.publish(publication("long:a", number)) for number in range(200)])
        self.assertEqual(sorted(position.offset for position in positions), list(range(1, 201)))
        by_offset = {position.offset: number for number, position in enumerate(positions)}
        await self.receiver.delivered(200)
        for messages in (self.receiver.messages, (await self.page("long:a", limit=1000)).messages):
            self.assertEqual(offsets(messages), list(range(1, 201)))
            self.assertEqual(numbers(messages), [by_offset[offset] for offset in range(1, 201)])

    # Publishing without history

    async def test_volatile(self) -> None:
        """A message without history is delivered without a position, takes no offset, and is not kept."""
        await self.begin()
        await self.broker.subscribe("h:a")
        await self.publish("h:a", 1)
        self.assertIsNone(await self.broker.publish(publication("h:a", 2, history=False)))
        (position,) = await self.publish("h:a", 3)
        self.assertEqual(position.offset, 2)
        await self.receiver.delivered(3)
        self.assertEqual(numbers(self.receiver.messages), [1, 2, 3])
        self.assertIsNone(self.receiver.messages[1].position)
        self.assertEqual(numbers((await self.page("h:a")).messages), [1, 3])

    async def test_volatile_alone(self) -> None:
        """A channel that had nothing else is still at its beginning."""
        await self.begin()
        await self.broker.publish(publication("h:a", history=False))
        page = await self.page("h:a")
        self.assertEqual((list(page.messages), page.top.offset, page.gap), ([], 0, None))

    # Idempotency

    async def test_same_key(self) -> None:
        """A key that was used gives the first result again; nothing is published or delivered a second time."""
        await self.begin()
        await self.broker.subscribe("h:a")
        first = await self.broker.publish(publication("h:a", 1, key="k"))
        await self.publish("h:a", 2)
        again = await self.broker.publish(publication("h:a", 3, key="k"))
        self.assertEqual(again, first)
        await self.publish("h:a", 4)
        await self.receiver.delivered(3)
        await self.settle()
        self.assertEqual(numbers(self.receiver.messages), [1, 2, 4])
        self.assertEqual(numbers((await self.page("h:a")).messages), [1, 2, 4])

    async def test_other_key(self) -> None:
        """Other keys are other messages, even if all else is the same."""
        await self.begin()
        for key in ("k", "K", "k ", "k:1", None, None):
            await self.broker.publish(publication("h:a", 1, key=key))
        self.assertEqual((await self.page("h:a")).top.offset, 6)

    async def test_key_in_other_channel(self) -> None:
        """A key counts in its channel alone."""
        await self.begin()
        for channel in ("h:a", "h:b"):
            position = await self.broker.publish(publication(channel, 1, key="k"))
            self.assertEqual(position.offset, 1)
        self.assertEqual(numbers((await self.page("h:b")).messages), [1])

    async def test_concurrent_same_key(self) -> None:
        """A key that is used by several publishes at once publishes once."""
        await self.begin()
        results = await gatherResults([self.broker.publish(publication("h:a", 1, key="k")) for _ in range(10)])
        self.assertEqual({result.offset for result in results}, {1})
        self.assertEqual((await self.page("h:a")).top.offset, 1)

    async def test_key_without_history(self) -> None:
        """A message without history is not delivered twice either."""
        await self.begin()
        await self.broker.subscribe("h:a")
        for _ in range(2):
            self.assertIsNone(await self.broker.publish(publication("h:a", 1, key="k", history=False)))
        await self.publish("h:a", 2)
        await self.receiver.delivered(2)
        await self.settle()
        self.assertEqual(numbers(self.receiver.messages), [1, 2])

    async def test_key_outlives_history(self) -> None:
        """Within its window a key counts, even if the message itself was pushed out of history."""
        await self.begin()
        first = await self.broker.publish(publication("h:a", 1, key="k"))
        await self.publish("h:a", *range(20))
        self.assertEqual(await self.broker.publish(publication("h:a", 1, key="k")), first)
        self.assertEqual((await self.page("h:a")).top.offset, 21)

    async def test_key_without_kept_messages(self) -> None:
        """A channel that keeps no messages knows its keys all the same."""
        await self.begin()
        first = await self.broker.publish(publication("none:a", 1, key="k"))
        self.assertEqual(await self.broker.publish(publication("none:a", 1, key="k")), first)

    async def test_after_the_window(self) -> None:
        """After its window a key is new, and has a window anew."""
        await self.begin()
        await self.broker.publish(publication("h:a", 1, key="k"))
        await self.advance(self.window * 0.75)
        position = await self.broker.publish(publication("h:a", 1, key="k"))
        self.assertEqual(position.offset, 1)
        await self.advance(self.window * 0.5)
        position = await self.broker.publish(publication("h:a", 1, key="k"))
        self.assertEqual(position.offset, 2)
        await self.advance(self.window * 0.75)
        position = await self.broker.publish(publication("h:a", 1, key="k"))
        self.assertEqual(position.offset, 2)

    # History

    async def test_nothing_yet(self) -> None:
        """A channel that nobody knows is at offset 0 of an epoch, and stays in that."""
        await self.begin()
        page = await self.page("h:a")
        self.assertEqual((list(page.messages), page.top.offset, page.gap), ([], 0, None))
        self.assertEqual((await self.page("h:a")).top, page.top)
        self.assertEqual(await self.broker.subscribe("h:a"), page.top)
        (position,) = await self.publish("h:a", 1)
        self.assertEqual(position, Position(page.top.epoch, 1))
        again = await self.page("h:a", page.top)
        self.assertEqual((numbers(again.messages), again.gap), ([1], None))

    async def test_since(self) -> None:
        """Reading from a position gives what came after it, and nothing from the newest one."""
        await self.begin()
        positions = await self.publish("h:a", *range(1, 9))
        for position in positions:
            page = await self.page("h:a", position)
            self.assertEqual(numbers(page.messages), list(range(position.offset + 1, 9)))
            self.assertEqual((page.top, page.gap), (positions[-1], None))

    async def test_paging(self) -> None:
        """Pages that each begin at the end of the one before give everything once, and the last one is complete."""
        await self.begin()
        await self.publish("long:a", *range(1, 31))
        for limit in (1, 7, 10, 15, 30, 31):
            since, read = None, []
            while True:
                page = await self.page("long:a", since, limit)
                self.assertLessEqual(len(page.messages), limit)
                self.assertIsNone(page.gap)
                read += numbers(page.messages)
                if page.complete:
                    break
                since = page.messages[-1].position
            self.assertEqual(read, list(range(1, 31)))

    async def test_limit_zero(self) -> None:
        """A limit of 0 asks for the newest position alone, in both directions."""
        await self.begin()
        positions = await self.publish("h:a", 1, 2)
        for page in (await self.page("h:a", limit=0), await self.broker.history_before("h:a", None, 0)):
            self.assertEqual((list(page.messages), page.top, page.gap), ([], positions[-1], None))

    async def test_backward(self) -> None:
        """Read backward, history comes newest first, page by page, each before the last of the one before."""
        await self.begin()
        await self.publish("long:a", *range(1, 31))
        for limit in (1, 7, 30, 31):
            before, read = None, []
            while True:
                page = await self.broker.history_before("long:a", before, limit)
                self.assertLessEqual(len(page.messages), limit)
                self.assertEqual((page.top.offset, page.gap), (30, None))
                if not page.messages:
                    break
                read += numbers(page.messages)
                before = page.messages[-1].position
            self.assertEqual(read, list(range(30, 0, -1)))

    async def test_backward_from_a_position(self) -> None:
        """Read backward from a position, its own message is not there; from one that is ahead, everything is."""
        await self.begin()
        positions = await self.publish("h:a", 1, 2, 3)
        page = await self.broker.history_before("h:a", positions[1], 100)
        self.assertEqual(numbers(page.messages), [1])
        page = await self.broker.history_before("h:a", Position(positions[0].epoch, 99), 100)
        self.assertEqual(numbers(page.messages), [3, 2, 1])

    async def test_size(self) -> None:
        """No more messages are kept than the namespace says, and those are the newest."""
        await self.begin()
        await self.publish("h:a", *range(1, 26))
        page = await self.page("h:a")
        self.assertEqual(numbers(page.messages), list(range(16, 26)))
        self.assertEqual(page.top.offset, 25)
        page = await self.broker.history_before("h:a", None, 100)
        self.assertEqual(numbers(page.messages), list(range(25, 15, -1)))

    async def test_ttl(self) -> None:
        """No message is kept longer than the namespace says; the position stays, and counting goes on."""
        await self.begin()
        await self.publish("h:a", 1, 2)
        await self.advance(self.history_ttl * 0.5)
        positions = await self.publish("h:a", 3)
        await self.advance(self.history_ttl * 0.75)
        self.assertEqual(numbers((await self.page("h:a")).messages), [3])
        await self.advance(self.history_ttl * 0.5)
        page = await self.page("h:a")
        self.assertEqual((list(page.messages), page.top), ([], positions[-1]))
        page = await self.broker.history_before("h:a", None, 10)
        self.assertEqual((list(page.messages), page.top), ([], positions[-1]))
        (position,) = await self.publish("h:a", 4)
        self.assertEqual(position, Position(positions[-1].epoch, 4))
        self.assertEqual(numbers((await self.page("h:a")).messages), [4])

    async def test_no_history(self) -> None:
        """A namespace that keeps nothing counts and delivers all the same."""
        await self.begin()
        await self.broker.subscribe("none:a")
        positions = await self.publish("none:a", 1, 2)
        page = await self.page("none:a")
        self.assertEqual((list(page.messages), page.top, page.gap), ([], positions[-1], None))
        await self.receiver.delivered(2)
        self.assertEqual(offsets(self.receiver.messages), [1, 2])

    # Gaps

    async def assert_gap(self, channel: str, since: Position, gap: Gap, top: Position) -> None:
        """Check that a position cannot be honoured, and that one is told where the stream goes on."""
        page = await self.page(channel, since)
        self.assertEqual((page.gap, list(page.messages), page.top), (gap, [], top))

    async def test_epoch_changed(self) -> None:
        """A position of another epoch has no place here, whatever its offset."""
        await self.begin()
        positions = await self.publish("h:a", 1, 2)
        for offset in (0, 1, 2, 9):
            await self.assert_gap("h:a", Position("other", offset), Gap.EPOCH_CHANGED, positions[-1])
        page = await self.broker.history_before("h:a", Position("other", 2), 10)
        self.assertEqual((page.gap, list(page.messages)), (Gap.EPOCH_CHANGED, []))

    async def test_history_lost_by_size(self) -> None:
        """A position before the oldest message that is kept is a gap; the one just before it is not."""
        await self.begin()
        positions = await self.publish("h:a", *range(1, 26))
        epoch = positions[0].epoch
        for offset in (0, 1, 14):
            await self.assert_gap("h:a", Position(epoch, offset), Gap.HISTORY_LOST, positions[-1])
        page = await self.page("h:a", Position(epoch, 15))
        self.assertEqual((numbers(page.messages), page.gap), (list(range(16, 26)), None))

    async def test_history_lost_by_ttl(self) -> None:
        """A position whose successors are too old is a gap; the newest one is not."""
        await self.begin()
        positions = await self.publish("h:a", 1, 2)
        await self.advance(self.history_ttl * 1.5)
        await self.assert_gap("h:a", positions[0], Gap.HISTORY_LOST, positions[-1])
        page = await self.page("h:a", positions[1])
        self.assertEqual((list(page.messages), page.gap), ([], None))

    async def test_history_lost_without_history(self) -> None:
        """Where nothing is kept, every position but the newest is a gap."""
        await self.begin()
        positions = await self.publish("none:a", 1, 2)
        await self.assert_gap("none:a", positions[0], Gap.HISTORY_LOST, positions[-1])
        self.assertIsNone((await self.page("none:a", positions[1])).gap)

    async def test_position_ahead(self) -> None:
        """A position that this channel never had is a gap."""
        await self.begin()
        positions = await self.publish("h:a", 1, 2)
        epoch = positions[0].epoch
        await self.assert_gap("h:a", Position(epoch, 3), Gap.POSITION_AHEAD, positions[-1])
        await self.assert_gap("h:a", Position(epoch, 2**53 - 1), Gap.POSITION_AHEAD, positions[-1])

    # Delivery

    async def test_subscribe(self) -> None:
        """Subscribing tells the newest position; what is published after it is delivered, and nothing before."""
        await self.begin()
        positions = await self.publish("h:a", 1, 2)
        self.assertEqual(await self.broker.subscribe("h:a"), positions[-1])
        await self.publish("h:a", 3, 4)
        await self.receiver.delivered(2)
        await self.settle()
        self.assertEqual(numbers(self.receiver.messages), [3, 4])
        self.assertEqual(offsets(self.receiver.messages), [3, 4])
        self.assertEqual(self.receiver.messages[-1].position, (await self.page("h:a")).top)

    async def test_subscribe_amid_publishes(self) -> None:
        """However subscribing and publishing mix, everything after the position that was told is delivered."""
        await self.begin()
        before = [self.broker.publish(publication("long:a", number)) for number in range(1, 21)]
        subscribed = self.broker.subscribe("long:a")
        after = [self.broker.publish(publication("long:a", number)) for number in range(21, 41)]
        position = await subscribed
        await gatherResults([*before, *after])
        self.assertLessEqual(position.offset, 40)
        await self.receiver.delivered(40 - position.offset)
        await self.settle()
        # Repeating is allowed: what came before the position is known from it.
        later = [offset for offset in offsets(self.receiver.messages) if offset > position.offset]
        self.assertEqual(later, list(range(position.offset + 1, 41)))

    async def test_only_subscribed(self) -> None:
        """Channels that were not asked for are not delivered, though their names begin or end alike."""
        await self.begin()
        await self.broker.subscribe("h:a")
        for channel in ("h:b", "h:aa", "h:", "h:A", "h:a:a", "h:*", "long:a"):
            await self.publish(channel, 1)
            await self.broker.publish(publication(channel, 2, history=False))
        await self.publish("h:a", 3)
        await self.receiver.delivered(1)
        await self.settle()
        self.assertEqual([(m.channel, m.offset) for m in self.receiver.messages], [("h:a", 1)])

    async def test_names(self) -> None:
        """A name with any of the characters that names may have is a channel like any other, not a pattern."""
        await self.begin()
        strange = ("h:*", "h:?", "h:[a-z]", "h:{a}", "h:a:b:c", "h:'$%&/()=~#+;<>|^`!", "h:" + "x" * 253)
        for channel in strange:
            await self.broker.subscribe(channel)
        for channel in (*strange, "h:z"):
            await self.publish(channel, 1)
        await self.receiver.delivered(len(strange))
        await self.settle()
        self.assertEqual([message.channel for message in self.receiver.messages], list(strange))

    async def test_order(self) -> None:
        """Messages of each channel are delivered in their order, also when those of several mix."""
        await self.begin()
        channels = ("h:a", "h:b", "none:a")
        for channel in channels:
            await self.broker.subscribe(channel)
        await gatherResults(
            [self.broker.publish(publication(channel, number)) for number in range(50) for channel in channels]
        )
        await self.receiver.delivered(150)
        for channel in channels:
            self.assertEqual(offsets(self.receiver.of(channel)), list(range(1, 51)))
            self.assertEqual(numbers(self.receiver.of(channel)), list(range(50)))

    async def test_subscribe_twice(self) -> None:
        """Subscribing again delivers nothing twice."""
        await self.begin()
        await self.broker.subscribe("h:a")
        positions = await self.publish("h:a", 1)
        self.assertEqual(await self.broker.subscribe("h:a"), positions[-1])
        await self.publish("h:a", 2)
        await self.receiver.delivered(2)
        await self.settle()
        self.assertEqual(offsets(self.receiver.messages), [1, 2])

    async def test_unsubscribe(self) -> None:
        """Nothing is delivered after unsubscribing, until one subscribes again; no position is lost by it."""
        await self.begin()
        await self.broker.subscribe("h:a")
        await self.publish("h:a", 1)
        await self.receiver.delivered(1)
        await self.broker.unsubscribe("h:a")
        positions = await self.publish("h:a", 2)
        await self.settle()
        self.assertEqual(offsets(self.receiver.messages), [1])
        self.assertEqual(await self.broker.subscribe("h:a"), positions[-1])
        await self.publish("h:a", 3)
        await self.receiver.delivered(2)
        self.assertEqual(offsets(self.receiver.messages), [1, 3])

    async def test_unsubscribe_unknown(self) -> None:
        """Unsubscribing from what was never subscribed to is no error."""
        await self.begin()
        self.assertIsNone(await self.broker.unsubscribe("h:a"))

    async def test_subscribe_and_unsubscribe_at_once(self) -> None:
        """Calls that do not wait for each other count in the order in which they were made."""
        await self.begin()
        calls = [
            self.broker.subscribe("h:a"),
            self.broker.unsubscribe("h:a"),
            self.broker.subscribe("h:a"),
            self.broker.subscribe("h:b"),
            self.broker.unsubscribe("h:b"),
        ]
        await gatherResults(calls)
        await self.publish("h:b", 1)
        await self.publish("h:a", 2)
        await self.receiver.delivered(1)
        await self.settle()
        self.assertEqual(numbers(self.receiver.messages), [2])

    async def test_stop(self) -> None:
        """A broker that was stopped delivers nothing more, and can be stopped again."""
        await self.begin()
        await self.broker.subscribe("h:a")
        await self.publish("h:a", 1)
        await self.receiver.delivered(1)
        await self.broker.stop()
        published = self.broker.publish(publication("h:a", 2))
        # It may be refused: all that counts is that nothing comes.
        published.addBoth(lambda _: None)
        await published
        await self.settle()
        self.assertEqual(offsets(self.receiver.messages), [1])
        await self.broker.stop()

    # Presence

    async def begin_presence(self) -> IPresence:
        """Start a broker that knows presence, and subscribe to a channel; else skip the test."""
        await self.begin()
        if not IPresence.providedBy(self.broker):
            raise self.skipTest("this engine has no presence")
        await self.broker.subscribe("h:a")
        presence: IPresence = self.broker
        return presence

    async def test_presence(self) -> None:
        """Whoever joined and did not leave is listed, with what it said of itself."""
        presence = await self.begin_presence()
        ann = PresenceEntry("c1", "websocket", b'{"name":"Ann"}', "Ann: a b/%20\u00e9")
        bob = PresenceEntry("c2", "sse")
        self.assertEqual(list(await presence.presence("h:a")), [])
        await presence.join("h:a", ann)
        await presence.join("h:a", bob)
        entries = await presence.presence("h:a")
        self.assertEqual(sorted(entries, key=lambda entry: entry.connection), [ann, bob])
        await presence.leave("h:a", ann)
        self.assertEqual(list(await presence.presence("h:a")), [bob])
        await presence.leave("h:a", bob)
        self.assertEqual(list(await presence.presence("h:a")), [])

    async def test_presence_of_other_channels(self) -> None:
        """A connection may be in several channels, and leaves each by itself."""
        presence = await self.begin_presence()
        ann = PresenceEntry("c1", "websocket")
        for channel in ("h:a", "h:b"):
            await presence.join(channel, ann)
        await presence.leave("h:a", ann)
        self.assertEqual(list(await presence.presence("h:a")), [])
        self.assertEqual(list(await presence.presence("h:b")), [ann])

    async def test_join_again(self) -> None:
        """A connection that joins again is there once, with what it said last."""
        presence = await self.begin_presence()
        await presence.join("h:a", PresenceEntry("c1", "websocket", b"1"))
        newer = PresenceEntry("c1", "websocket", b"2")
        await presence.join("h:a", newer)
        self.assertEqual(list(await presence.presence("h:a")), [newer])
        await presence.leave("h:a", newer)
        self.assertEqual(list(await presence.presence("h:a")), [])

    async def test_notifications(self) -> None:
        """The receiver hears who joins and leaves the channels that it is subscribed to, and no others."""
        presence = await self.begin_presence()
        ann, bob = PresenceEntry("c1", "websocket", b"1"), PresenceEntry("c2", "sse")
        await presence.join("h:b", bob)
        await presence.join("h:a", ann)
        await presence.leave("h:b", bob)
        await presence.leave("h:a", ann)
        await self.receiver.delivered(2)
        await self.settle()
        self.assertEqual(self.receiver.presence, [("join", "h:a", ann), ("leave", "h:a", ann)])

    async def test_leave_of_a_stranger(self) -> None:
        """Nobody hears of one leaving who was not there."""
        presence = await self.begin_presence()
        await presence.leave("h:a", PresenceEntry("c1", "websocket"))
        await presence.leave("h:z", PresenceEntry("c1", "websocket"))
        ann = PresenceEntry("c2", "websocket")
        await presence.join("h:a", ann)
        await presence.leave("h:a", PresenceEntry("c1", "websocket"))
        await self.receiver.delivered(1)
        await self.settle()
        self.assertEqual(self.receiver.presence, [("join", "h:a", ann)])
