"""The server API for Python backends: publishing with an API key, and what operators ask."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random, SystemRandom
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgentEndpointFactory

from rtpush.client.errors import BadAnswer, LinkLost
from rtpush.client.negotiation import base_url
from rtpush.client.web import Answer, DirectEndpoints, Web
from rtpush.client.wire import (
    BatchReply,
    HistoryReply,
    PresenceReply,
    PublishReply,
    error_in,
    fields_json,
    payload_of,
    publish_fields,
    read,
    with_key,
)
from rtpush.errors import RtpushError
from rtpush.protocol.commands import Publication
from rtpush.protocol.position import Position
from rtpush.protocol.pushes import PresenceEntry
from rtpush.protocol.recovery import Page

__all__ = ["ServerApi"]

T = TypeVar("T")


class _Success(msgspec.Struct):
    """What every call that succeeds is answered with."""

    result: msgspec.Raw


class ServerApi:
    """
    The server API of a server.

    Every call fails with :class:`RtpushError` if the server refuses it, with :class:`LinkLost` if there is no answer.
    A call whose connection breaks is made once more: what publishes has an idempotency key, so that it is there once.

    :param reactor: Gives the time, and the connections unless ``endpoints`` does.
    :param url: Where the server is, as for :class:`rtpush.client.client.Client`.
    :param key: The API key, or a token that opens calls; none for an open API.
    :param timeout: Seconds until an answer must be there.
    :raises ValueError: if the URL is not one.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        url: str,
        key: str = "",
        *,
        endpoints: IAgentEndpointFactory | None = None,
        random: Random | None = None,
        timeout: float = 10.0,
    ) -> None:
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._base = base_url(url)
        self._web = Web(reactor, endpoints or DirectEndpoints(reactor, timeout), headers)
        self._random = random or SystemRandom()
        self._timeout = timeout

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        history: bool = True,
        idempotency_key: str | None = None,
    ) -> Deferred[Position | None]:
        """
        Publish a message: bytes as binary, a string as text, anything else as JSON.

        :param history: False for what is worthless a second later: it gets no position, and is delivered at most once.
        :raises TypeError: if the data is nothing that JSON can express.
        """
        publication = Publication(channel, payload_of(data), event, idempotency_key, history)
        fields = publish_fields(with_key(publication, self._random))
        return self._call("publish", fields, PublishReply).addCallback(PublishReply.position)

    def publish_batch(self, publications: Sequence[Publication]) -> Deferred[list[Position | RtpushError | None]]:
        """Publish several messages, in order. The result has the position of each, or what is wrong with it."""
        messages = [publish_fields(with_key(publication, self._random)) for publication in publications]
        return self._call("publish_batch", {"messages": messages}, BatchReply).addCallback(BatchReply.results)

    def broadcast(
        self,
        channels: Sequence[str],
        data: Any,
        *,
        event: str | None = None,
        history: bool = True,
        idempotency_key: str | None = None,
    ) -> Deferred[list[Position | RtpushError | None]]:
        """Publish a message to several channels. The result has its position in each, or what is wrong there."""
        publication = Publication("", payload_of(data), event, idempotency_key, history)
        fields = {**publish_fields(with_key(publication, self._random)), "channel": None, "channels": channels}
        return self._call("broadcast", fields, BatchReply).addCallback(BatchReply.results)

    def history(
        self, channel: str, *, since: Position | str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Deferred[Page]:
        """
        Read messages that a channel keeps.

        :param since: Only those after this position; with ``reverse``, only those before it.
        :param reverse: Newest first.
        """
        fields = {"channel": channel, "since": since and str(since), "limit": limit, "reverse": reverse}
        return self._call("history", fields, HistoryReply).addCallback(HistoryReply.page)

    def presence(self, channel: str) -> Deferred[list[PresenceEntry]]:
        """List who is in a channel."""
        return self._call("presence", {"channel": channel}, PresenceReply).addCallback(PresenceReply.entries)

    def channels(self, pattern: str | None = None) -> Deferred[dict[str, Any]]:
        """List the channels that have subscribers; ``*`` in the pattern stands for any characters."""
        return self._call("channels", {"pattern": pattern}, dict)

    def connections(
        self,
        *,
        channel: str | None = None,
        transport: str | None = None,
        user: str | None = None,
        limit: int | None = None,
    ) -> Deferred[dict[str, Any]]:
        """List connections."""
        fields = {"channel": channel, "transport": transport, "user": user, "limit": limit}
        return self._call("connections", fields, dict)

    def disconnect(
        self,
        *,
        connection: str | None = None,
        channel: str | None = None,
        user: str | None = None,
        code: int | None = None,
        reason: str | None = None,
        reconnect: bool | None = None,
    ) -> Deferred[dict[str, Any]]:
        """End one connection, all that follow a channel, or all of a user; with ``reconnect`` they come back."""
        fields = {
            "connection": connection,
            "channel": channel,
            "user": user,
            "code": code,
            "reason": reason,
            "reconnect": reconnect,
        }
        return self._call("disconnect", fields, dict)

    def unsubscribe(
        self, channel: str, *, connection: str | None = None, reason: str | None = None
    ) -> Deferred[dict[str, Any]]:
        """End the subscriptions to a channel, of one connection or of all."""
        return self._call("unsubscribe", {"channel": channel, "connection": connection, "reason": reason}, dict)

    def revoke(
        self,
        *,
        user: str | None = None,
        jti: str | None = None,
        channel: str | None = None,
        ttl: int | None = None,
        later: bool | None = None,
    ) -> Deferred[dict[str, Any]]:
        """
        Take tokens back: those of a user, those for a channel, those of a user for a channel, or one by its id.

        :param ttl: Seconds after which all such tokens have ended by themselves.
        :param later: Whether those are taken back too that are made until then.
        """
        fields = {"user": user, "jti": jti, "channel": channel, "ttl": ttl, "later": later}
        return self._call("revoke", fields, dict)

    def info(self) -> Deferred[dict[str, Any]]:
        """Ask about the nodes."""
        return self._call("info", {}, dict)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for later."""
        return self._web.close()

    def _call(self, name: str, fields: dict[str, Any], shape: type[T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self._ask(name, fields_json(fields), shape))

    async def _ask(self, name: str, body: bytes, shape: type[T]) -> T:
        url = f"{self._base}api/v1/{name}"
        try:
            answer = await self._web.request("POST", url, self._timeout, body=body)
        except LinkLost as lost:
            if lost.unreachable:
                raise
            # The server may have closed a connection that was kept for later just then.
            answer = await self._web.request("POST", url, self._timeout, body=body)
        return _result(answer, shape)


def _result(answer: Answer, shape: type[T]) -> T:
    if answer.status == 200:
        try:
            return read(bytes(read(answer.body, _Success).result), shape)
        except BadAnswer as bad:
            raise LinkLost(str(bad)) from None
    error = error_in(answer.body)
    if error is not None:
        raise error
    raise LinkLost(f"the server answered {answer.status}", after=answer.retry_after)
