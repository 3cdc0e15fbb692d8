"""
Who comes and who goes, told to the others in a channel.

By nature that is a message to each of them for each. So what happens within one reactor turn goes out together: encoded
once per wire form, and in one write to each connection.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from rtpush.protocol.forms import WireForm
from rtpush.protocol.pushes import Joined, Left
from rtpush.registry.channel import Channel

__all__ = ["Attendance"]


class Attendance:
    """
    Tells the subscribers of channels who joined or left.

    :param channels: All of this node, by name.
    """

    def __init__(self, clock: IReactorTime, channels: Mapping[str, Channel]) -> None:
        self._clock = clock
        self._channels = channels
        self._pushes: dict[str, list[Joined | Left]] = {}

    def announce(self, push: Joined | Left) -> None:
        """Have the subscribers of a channel told in this turn; the one it is about knows."""
        channel = self._channels.get(push.channel)
        if channel is None or not channel.namespace.join_leave or push.entry.transport in ("longpoll", "shortpoll"):
            return
        if not self._pushes:
            self._clock.callLater(0, self._tell_all)
        self._pushes.setdefault(push.channel, []).append(push)

    def _tell_all(self) -> None:
        announced, self._pushes = self._pushes, {}
        for name, pushes in announced.items():
            channel = self._channels.get(name)
            if channel is not None:
                _tell(channel, pushes)


def _tell(channel: Channel, pushes: list[Joined | Left]) -> None:
    concerned = {push.entry.connection for push in pushes}
    encoded: dict[WireForm, list[bytes]] = {}
    joined: dict[WireForm, bytes] = {}
    for subscription in channel.subscriptions():
        connection = subscription.connection
        form = connection.form
        try:
            if form not in encoded:
                encoded[form] = [form.push(push, "") for push in pushes]
                joined[form] = b"".join(encoded[form])
            data = joined[form]
            if connection.id in concerned:
                each = zip(pushes, encoded[form], strict=True)
                data = b"".join(one for push, one in each if push.entry.connection != connection.id)
            if data:
                # One that cannot keep up with its messages is not told who comes and goes.
                connection.deliver(data)
        except Exception:
            connection.failed("presence")
