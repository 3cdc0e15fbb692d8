"""Requests one after the other on a kept connection, and messages that are published on time by them."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from rtpush.cli.load.dialling import Dialler
from rtpush.cli.load.links import Wire
from rtpush.client import LinkLost
from rtpush.client.wire import error_in
from rtpush.errors import ErrorCode, RtpushError

__all__ = ["Caller", "Road", "find_road"]


class Caller(Wire):
    """
    A connection for one request at a time.

    :param dialler: Connects it, and connects it again if the server closed it between two requests.
    """

    def __init__(self, dialler: Dialler) -> None:
        super().__init__()
        self._dialler = dialler
        self._body: list[bytes] = []
        self._waiting: Deferred[tuple[int, bytes]] | None = None
        self._is_connected = False

    async def call(
        self, method: str, route: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """
        Send a request; return the status and the body of the answer.

        :raises LinkLost: if there is none.
        """
        if not self._is_connected:
            await self._dialler.dial(self)
            self._is_connected = True
            self.closing = False
        self._waiting = Deferred()
        fields = {} if body is None else {"Content-Type": "application/json"}
        self.send(self._dialler.target.request(method, route, {**fields, **(headers or {})}, body))
        return await self._waiting

    def body_came(self, data: bytes) -> None:
        self._body.append(data)

    def response_ended(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if self.headers.get(b"connection", b"").lower() == b"close":
            self._is_connected = False
            self.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback((self.status, body))

    def over(self, reason: str) -> None:
        self._is_connected = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(LinkLost(reason))


class _Replies(msgspec.Struct):
    responses: list[dict[str, Any]]


class _Result(msgspec.Struct):
    result: _Replies


class Road:
    """
    How messages are published here.

    :param dialler: Opens connections to where they are published.
    :param key: The API key; :obj:`None` publishes as a client does.
    """

    def __init__(self, dialler: Dialler, key: str | None) -> None:
        self._dialler = dialler
        self._key = key

    def caller(self) -> Caller:
        """Return a connection of one's own for :meth:`publish`, which is to be closed."""
        return Caller(self._dialler)

    async def publish(self, caller: Caller, channel: str, texts: list[str]) -> None:
        """
        Publish texts to a channel, in order.

        :raises RtpushError: if one is refused.
        :raises LinkLost: if there is no answer.
        """
        messages = [{"channel": channel, "data": text} for text in texts]
        if self._key is None:
            body = msgspec.json.encode([{"id": number, "publish": each} for number, each in enumerate(messages, 1)])
            status, answer = await caller.call("POST", "emit", body)
        else:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            body = msgspec.json.encode({"messages": messages})
            status, answer = await caller.call("POST", "api/v1/publish_batch", body, headers)
        if status != 200:
            raise error_in(answer) or LinkLost(f"the server answered {status} to a publish")
        replies = _read(answer, self._key is not None)
        for reply in replies:
            if "error" in reply:
                raise error_in(msgspec.json.encode(reply)) or LinkLost("an error that cannot be read")


def _read(answer: bytes, is_api: bool) -> list[dict[str, Any]]:
    try:
        if is_api:
            return msgspec.json.decode(answer, type=_Result).result.responses
        return msgspec.json.decode(answer, type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise LinkLost(f"unexpected answer: {error}") from None


async def find_road(server: Dialler, api: Dialler, key: str | None, channel: str, text: str) -> Road:
    """
    Publish a text, and return the way on which that worked: the server API, or as a client if no key is given.

    :param server: Opens connections to where clients go.
    :param api: The same for the server API.
    :raises RtpushError: if none works.
    :raises LinkLost: if there is no answer.
    """
    road = Road(api, key or "")
    try:
        await _probe(road, channel, text)
    except RtpushError as error:
        if key is not None or error.kind not in (ErrorCode.UNAUTHORIZED, ErrorCode.NOT_FOUND):
            raise
        road = Road(server, None)
        await _probe(road, channel, text)
    return road


async def _probe(road: Road, channel: str, text: str) -> None:
    caller = road.caller()
    try:
        await road.publish(caller, channel, [text])
    finally:
        caller.close()
