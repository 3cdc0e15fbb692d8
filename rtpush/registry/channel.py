"""A channel as this node sees it: its subscriptions, and how far they were served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import Namespace, SlowReader
from rtpush.protocol.forms import Batch, WireForm
from rtpush.protocol.message import Message
from rtpush.protocol.position import Position
from rtpush.protocol.recovery import Gap, Page, Tail
from rtpush.registry.live import LiveGroup
from rtpush.registry.reading import SharedReads

if TYPE_CHECKING:
    from rtpush.registry.node import Node
    from rtpush.registry.subscription import Subscription

__all__ = ["Channel"]

# Looking them up takes longer than what is done with them.
_LATEST, _SEEN, _BEYOND = SlowReader.LATEST, Tail.SEEN, Tail.BEYOND

#: How many messages are read from history at once when some were missed on the way from the broker.
_SYNC_PAGE = 1000

#: How many messages are kept while that is going on; beyond that they are read from history too.
_MAX_INCOMING = 1000

#: About the most bytes that go out as one batch, and what a message takes besides its payload. After each batch a
#: reader's queue is asked whether it has room for more.
_BATCH_BYTES = 256 * 1024
_OVERHEAD = 100


class Channel:
    """
    The local side of a channel that has at least one subscription.

    :ivar position: How far the live subscriptions were served; all of them are at the same place.
    :ivar live: The subscriptions that are served by the fan-out, by wire form.
    :ivar waiting: All others: they are offered each batch, and know what to make of it.
    :ivar newest: The message that was delivered last, where slow readers get that alone.
    :ivar reads: What is being read of history, or was lately.
    """

    __slots__ = (
        "_again",
        "_awaiting",
        "_failure",
        "_incoming",
        "_is_away",
        "_is_behind",
        "_node",
        "_pending",
        "_tail",
        "live",
        "name",
        "namespace",
        "newest",
        "position",
        "reads",
        "waiting",
    )

    _log = Logger()

    def __init__(self, name: str, namespace: Namespace, node: Node) -> None:
        self.name = name
        self.namespace = namespace
        self.live: dict[WireForm, LiveGroup] = {}
        self.waiting: dict[Subscription, None] = {}
        self.newest: Message | None = None
        self.reads: SharedReads | None = None
        self._node = node
        self._pending: list[Message] = []
        #: What came from the broker while the place of it was not known; nothing when it is.
        self._incoming: list[Message] | None = []
        #: Whether there may be more than that: then history is to be read once more.
        self._again = False
        #: Whether history was to be read and could not be.
        self._is_behind = False
        #: Whether it is in the log already that history cannot be read.
        self._is_away = False
        self._awaiting: list[Deferred[None]] = []
        self._failure: Failure | None = None
        # Both are set by the answer of the broker, before anything is delivered.
        self.position = self._tail = Position("", 0)

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self.waiting) + sum(len(group) for group in self.live.values())

    @property
    def is_empty(self) -> bool:
        """Whether it has no subscription."""
        return not self.waiting and not self.live

    def open(self) -> None:
        """Have the broker deliver this channel."""
        self._node.broker.subscribe(self.name).addCallbacks(self._ready, self._unready)

    def when_ready(self) -> Deferred[None]:
        """
        Return a Deferred for the moment when the broker delivers this channel: ``position`` has an epoch then.

        It fails with :class:`rtpush.errors.RtpushError` if the broker does not.
        """
        ready: Deferred[None] = Deferred()
        if self.position.epoch:
            ready.callback(None)
        elif self._failure is not None:
            ready.errback(self._failure)
        else:
            self._awaiting.append(ready)
        return ready

    def received(self, message: Message) -> None:
        """Take a message from the broker: in order, each once, or see what is missing."""
        if self._incoming is not None:
            if len(self._incoming) < _MAX_INCOMING:
                self._incoming.append(message)
            else:
                self._again = True
            return
        if message.position is not None:
            tail = Tail.of(message.position, self._tail)
            if tail is _SEEN:
                return
            if tail is _BEYOND:
                # The message is in history: it comes from there, after those that were missed.
                self._sync()
                return
            self._tail = message.position
        self._pending.append(message)
        self._node.fanout.enqueue(self)

    def compared(self, top: Position) -> None:
        """Hear the newest position from the broker, and read what is missing."""
        if self._incoming is not None:
            # What is awaited may be older than this.
            self._again = True
        elif self._is_behind or Tail.of(top, self._tail) is not Tail.SEEN:
            self._sync()
        for subscription in list(self.waiting):
            try:
                subscription.retry()
            except Exception:
                subscription.connection.failed("recovery")

    def read(self, since: Position | None) -> Page | Deferred[Page]:
        """
        Return a page of history for a subscription; :obj:`None` is before the oldest message kept.

        The Deferred fails with :class:`rtpush.errors.RtpushError` if the broker is away.
        """
        if self.reads is None:
            self.reads = SharedReads(self, self._node)
        return self.reads.read(since)

    def read_alone(self, since: Position | None, limit: int) -> Deferred[Page]:
        """Read history; that it cannot be read is in the log once, until it can be read again."""
        page = self._node.broker.history(self.name, since, limit)
        return page.addCallbacks(self._was_read, self._was_not_read)

    def tick(self) -> None:
        """Its last subscription has ended a while ago."""
        if self.is_empty:
            self._node.abandon(self)

    def failed(self, doing: str) -> None:
        """Something of ours went wrong."""
        self._log.failure("{channel}: {doing} failed", channel=self.name, doing=doing)

    @property
    def pending(self) -> int:
        """How many messages are to be delivered."""
        return len(self._pending)

    def take_pending(self) -> tuple[Batch | None, Position]:
        """Return what is to be delivered now (if it is very much, a part), and where the live ones were before it."""
        before = self.position
        if not self._pending:
            return None, before
        messages, self._pending = self._pending, []
        if len(messages) > 1 and (count := _fitting(messages)) < len(messages):
            messages, self._pending = messages[:count], messages[count:]
            self.position = next((each.position for each in reversed(messages) if each.position is not None), before)
        else:
            self.position = self._tail
        if self.namespace.slow_reader is _LATEST:
            self.newest = next((each for each in reversed(messages) if each.position is not None), self.newest)
        if self.reads is not None:
            self.reads.follow(messages)
        return Batch(messages, self.position), before

    def subscriptions(self) -> list[Subscription]:
        """Return all subscriptions."""
        return [*self.waiting, *(each for group in self.live.values() for each in group.subscriptions())]

    def go_live(self, subscription: Subscription, form: WireForm) -> None:
        """Move a subscription whose position is this channel's to those that the fan-out serves."""
        self.waiting.pop(subscription, None)
        group = self.live.get(form)
        if group is None:
            group = self.live[form] = LiveGroup()
        group.add(subscription)

    def leave_live(self, subscription: Subscription, form: WireForm) -> None:
        """Take a subscription out of those that the fan-out serves."""
        group = self.live[form]
        group.remove(subscription)
        if not group.others and not group.straight:
            del self.live[form]

    def _ready(self, top: Position) -> None:
        self.position = self._tail = top
        self._catch_up()
        awaiting, self._awaiting = self._awaiting, []
        for ready in awaiting:
            ready.callback(None)

    def _unready(self, failure: Failure) -> None:
        self._failure = failure
        # Whoever subscribes from now on makes the broker try again.
        self._node.abandon(self)
        awaiting, self._awaiting = self._awaiting, []
        for ready in awaiting:
            ready.errback(failure)

    def _catch_up(self) -> None:
        """Take what came while the place was not known, now that it is."""
        if self._again:
            self._sync()
            return
        incoming, self._incoming = self._incoming or [], None
        for message in incoming:
            self.received(message)

    def _sync(self) -> None:
        """Read what was missed from history; what comes meanwhile waits."""
        if self._incoming is None:
            self._incoming = []
        self._again = False
        self.read_alone(self._tail, _SYNC_PAGE).addCallback(self._synced).addErrback(self._unsynced)

    def _synced(self, page: Page) -> None:
        self._is_behind = False
        if page.gap is not None:
            self._lost(page.gap, page.top)
        else:
            for message in page.messages:
                assert message.position is not None
                self._pending.append(message)
                self._tail = message.position
            self._node.fanout.enqueue(self)
            if not page.complete:
                self._again = True
        self._catch_up()

    def _lost(self, gap: Gap, top: Position) -> None:
        """Tell the subscriptions that some messages are gone, and go on from now."""
        self._node.fanout.flush()
        before = self.position
        self.position = self._tail = top
        for subscription in self.subscriptions():
            try:
                subscription.interrupted(gap, before)
            except Exception:
                subscription.connection.failed("delivery")

    def _unsynced(self, failure: Failure) -> None:
        if not _is_unavailable(failure):
            self._log.failure("{channel}: cannot be synchronised", failure=failure, channel=self.name)
        # What came meanwhile is in history. The next message is beyond the tail and tries again, as does a comparison.
        self._incoming = None
        self._is_behind = True

    def _was_read(self, page: Page) -> Page:
        self._is_away = False
        return page

    def _was_not_read(self, failure: Failure) -> Failure:
        if _is_unavailable(failure) and not self._is_away:
            self._is_away = True
            self._log.warn("{channel}: history cannot be read: {error}", channel=self.name, error=failure.value)
        return failure


def _fitting(messages: Sequence[Message]) -> int:
    """Return how many of some messages fit into a batch: one at least."""
    size = 0
    for index, message in enumerate(messages):
        size += len(message.payload.data) + _OVERHEAD
        if size > _BATCH_BYTES and index:
            return index
    return len(messages)


def _is_unavailable(failure: Failure) -> bool:
    """Tell whether the broker is away."""
    return isinstance(failure.value, RtpushError) and failure.value.kind is ErrorCode.UNAVAILABLE
