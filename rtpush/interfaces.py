"""The seams of rtpush: what a broker offers, what it calls, and what a connection is to the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from rtpush.protocol.channel import Namespace
    from rtpush.protocol.cluster import Answers, LinkStatus, NodeStatus
    from rtpush.protocol.commands import Publication
    from rtpush.protocol.message import Message
    from rtpush.protocol.position import Position
    from rtpush.protocol.pushes import PresenceEntry
    from rtpush.protocol.recovery import Page

__all__ = [
    "IBroker",
    "IBrokerReceiver",
    "ICluster",
    "IHealthCheck",
    "ILinked",
    "IPresence",
    "IReconfigurable",
    "ISink",
    "IStraight",
]


class IBrokerReceiver(Interface):
    """
    What a broker delivers to: one per node.

    Messages of a channel come in the order of their offsets, but a broker may drop or repeat some: the receiver watches
    the offsets and reads what is missing from history.
    """

    def received(message: Message) -> None:
        """Take a message of a channel that this node is subscribed to."""

    def compared(channel: str, top: Position) -> None:
        """
        Hear the newest position of a channel that this node is subscribed to, at a time when messages up to it may have
        been dropped, or when history that could not be read may be readable again.

        What was not received is in history; if ``top`` is of another epoch, history began again.
        """

    def joined(channel: str, entry: PresenceEntry) -> None:
        """Hear that a connection joined a channel that this node is subscribed to. At most once."""

    def left(channel: str, entry: PresenceEntry) -> None:
        """Hear that a connection left a channel that this node is subscribed to. At most once."""

    def status() -> bytes:
        """Return what the other nodes are to know of this one: a JSON object."""

    def asked(question: bytes) -> Deferred[bytes]:
        """Answer what another node asks by :meth:`ICluster.ask`. A failure is no answer."""


class IBroker(Interface):
    """
    What carries messages between nodes and keeps their history.

    Every method may fail with :class:`rtpush.errors.RtpushError` ``unavailable``.
    """

    def start(receiver: IBrokerReceiver) -> Deferred[None]:
        """Begin: connect, and deliver to the receiver from now on."""

    def stop() -> Deferred[None]:
        """End: deliver nothing more, release everything."""

    def publish(publication: Publication) -> Deferred[Position | None]:
        """
        Publish a message: give it the next offset of its channel, keep it, and deliver it to every subscribed node, in
        one atomic step. When the result is there, the message is in history.

        With an idempotency key that was used for the channel within the window, nothing is published and the first
        result comes again. A publication without history gets no offset (the result is :obj:`None`), and is delivered
        at most once.
        """

    def history(channel: str, since: Position | None, limit: int) -> Deferred[Page]:
        """
        Read at most ``limit`` messages after a position (:obj:`None`: from the oldest kept), oldest first.

        Sees every message whose publish was acknowledged before, and none without those before it.
        """

    def history_before(channel: str, before: Position | None, limit: int) -> Deferred[Page]:
        """Read at most ``limit`` messages before a position (:obj:`None`: from the newest kept), newest first."""

    def subscribe(channel: str) -> Deferred[Position]:
        """
        Deliver a channel to this node from now on. The result is the position of its newest message; everything after
        that is delivered or, if it is dropped, seen by later offsets.
        """

    def unsubscribe(channel: str) -> Deferred[None]:
        """Deliver a channel no longer."""


class IReconfigurable(Interface):
    """A broker that needs to hear of a configuration that was changed while it runs."""

    def reconfigured(namespaces: Sequence[Namespace], message_bytes: int) -> None:
        """
        The namespaces, which it shares with the node, are others now, or messages may have another size.

        New messages are kept as their namespaces say now, those that were kept before as well.
        """


class IPresence(Interface):
    """A broker that knows who is in a channel, on all nodes."""

    def join(channel: str, entry: PresenceEntry) -> Deferred[None]:
        """Add a connection, and tell the receivers of all nodes."""

    def leave(channel: str, entry: PresenceEntry) -> Deferred[None]:
        """Remove a connection, and tell the receivers of all nodes."""

    def presence(channel: str) -> Deferred[Sequence[PresenceEntry]]:
        """List the connections in a channel."""


class ICluster(Interface):
    """
    A broker that knows the other nodes.

    Both methods may fail with :class:`rtpush.errors.RtpushError` ``unavailable``.
    """

    def nodes() -> Deferred[Sequence[NodeStatus]]:
        """Tell what the other nodes that live have said of themselves, in the order of their names."""

    def ask(question: bytes) -> Deferred[Answers]:
        """Ask all other nodes that live; the result is there when all have answered, or those that do in time have."""


class IHealthCheck(Interface):
    """A broker that can say whether it does its work."""

    def problem() -> str | None:
        """Say in one line what is wrong; nothing if all is well."""


class ILinked(Interface):
    """A broker that reaches servers over a network."""

    def links() -> Sequence[LinkStatus]:
        """Tell how it is with each of the servers."""


class IStraight(Interface):
    """What takes bytes at once, or keeps them, and never calls back but to pause its producer."""

    def write(data: bytes) -> None:
        """Send bytes."""


class ISink(Interface):
    """
    The end of a transport: where the bytes of one connection go.

    It applies back-pressure by calling ``pauseProducing`` and ``resumeProducing`` of the connection, which is
    registered as its push producer.
    """

    form = Attribute("The :class:`rtpush.protocol.forms.WireForm` that it wants its messages in.")

    straight = Attribute(
        "The :class:`IStraight` that takes bytes of the wire form just as :meth:`write` does; :obj:`None` if there is "
        "more to do. It is asked for when a subscription goes live, and when there is room again."
    )

    def write(data: bytes) -> None:
        """Send bytes of the wire form."""

    def heartbeat() -> None:
        """Send the least that shows the other side that this one lives."""

    def finish(farewell: bytes, code: int, reason: str) -> None:
        """End in good order: send the farewell (the encoded ``disconnect`` push), then close."""

    def abort() -> None:
        """End at once: the peer is dead or does not read."""

    def address() -> str:
        """Tell where the peer is, for people to read."""

    def pause_reading() -> None:
        """Take no more input: the peer does not read its answers."""

    def resume_reading() -> None:
        """Take input again."""


