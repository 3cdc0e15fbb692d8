"""Publishers: each message is sent again, to another place, until it is acknowledged; by its key it counts once."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from io import BytesIO
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.trial.unittest import TestCase
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    PartialDownloadError,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    readBody,
)
from twisted.web.http_headers import Headers

from rtpush.client import Client
from rtpush.client.errors import LinkLost, NotDelivered
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.position import Position
from tests.chaos.history import Acknowledged, Timeline
from tests.chaos.world import API_KEY
from tests.support.waiting import pause, within

__all__ = ["ClientPublisher", "HttpPublisher", "Ledger"]

#: Seconds that a publisher waits for an answer. What it has given up may still arrive: then the key tells.
_PATIENCE = 3.0


class Ledger:
    """
    Numbers the messages of each channel, and keeps what was acknowledged.

    :ivar acknowledged: By channel, in the order of time.
    :ivar attempts: How often something was sent.
    """

    def __init__(self, timeline: Timeline, random: Random) -> None:
        self.acknowledged: dict[str, list[Acknowledged]] = defaultdict(list)
        self.attempts = 0
        self._timeline = timeline
        self._random = random
        self._numbers: dict[str, itertools.count[int]] = defaultdict(itertools.count)

    def message(self, channel: str) -> dict[str, Any]:
        """Return a new message, as the API wants it."""
        number = next(self._numbers[channel])
        size = self._random.choice((0, 0, 10, 100, 2000))
        data = {"c": channel, "n": number, "x": "x" * self._random.randint(0, size)}
        return {"channel": channel, "data": data, "idempotency_key": f"{channel} {number}"}

    def acknowledge(self, publisher: str, message: Any, epoch: str, offset: int) -> None:
        """A message is somewhere."""
        entry = Acknowledged(self._timeline.now, publisher, message["data"]["n"], Position(epoch, offset))
        self.acknowledged[message["channel"]].append(entry)

    def last(self, channel: str) -> Position:
        """Where the message is that was acknowledged last."""
        return self.acknowledged[channel][-1].position


class HttpPublisher:
    """
    Publishes by the server API.

    :param ports: The places to which it sends in turn, whenever one does not acknowledge.
    """

    def __init__(
        self, test: TestCase, name: str, ports: Sequence[int], ledger: Ledger, problem: Callable[[str, object], object]
    ) -> None:
        self.name = name
        self._ledger = ledger
        self._problem = problem
        self._ports = itertools.cycle(ports)
        self._port = next(self._ports)
        pool = HTTPConnectionPool(reactor)
        test.addCleanup(pool.closeCachedConnections)
        self._agent = Agent(reactor, connectTimeout=_PATIENCE, pool=pool)

    async def publish(self, channel: str) -> None:
        """Publish one message until it is acknowledged."""
        message = self._ledger.message(channel)
        while True:
            answer = await self._call("publish", message)
            if "result" in answer:
                self._ledger.acknowledge(self.name, message, **answer["result"])
                return
            await self._look(answer)

    async def publish_many(self, channel: str, count: int) -> None:
        """Publish messages in one call, and those again that are not acknowledged: so they may change their order."""
        left = [self._ledger.message(channel) for _ in range(count)]
        while left:
            answer = await self._call("publish_batch", {"messages": left})
            if "result" not in answer:
                await self._look(answer)
                continue
            refused = []
            for message, each in zip(left, answer["result"]["responses"], strict=True):
                if "result" in each:
                    name = f"{self.name}, message {message['data']['n']}"
                    self._ledger.acknowledge(name, message, **each["result"])
                else:
                    refused.append((message, each))
            left = [message for message, _ in refused]
            if refused:
                await self._look(refused[0][1])

    async def _look(self, answer: Any) -> None:
        """It is to be sent again, if that can help."""
        if answer["error"]["code"] != ErrorCode.UNAVAILABLE.code:
            self._problem(self.name, answer)
        self._port = next(self._ports)
        await pause(0.05)

    async def _call(self, name: str, body: Any) -> Any:
        self._ledger.attempts += 1
        try:
            return await within(_PATIENCE, Deferred.fromCoroutine(self._post(name, body)))
        except (
            ConnectError,
            ConnectTimeout,
            ConnectionLost,
            ResponseFailed,
            RequestNotSent,
            RequestTransmissionFailed,
            PartialDownloadError,
            TimeoutError,
        ):
            return {"error": {"code": ErrorCode.UNAVAILABLE.code}}

    async def _post(self, name: str, body: Any) -> Any:
        response = await self._agent.request(
            b"POST",
            f"http://127.0.0.1:{self._port}/api/v1/{name}".encode(),
            Headers({"content-type": ["application/json"], "x-api-key": [API_KEY]}),
            FileBodyProducer(BytesIO(json.dumps(body).encode())),
        )
        text = await readBody(response)
        if response.code in (502, 504):
            return {"error": {"code": ErrorCode.UNAVAILABLE.code}}
        try:
            return json.loads(text)
        except ValueError:
            return {"error": {"code": 0, "status": response.code, "text": text[:300].decode(errors="replace")}}


class ClientPublisher:
    """Publishes by the Python client, which waits and repeats by itself."""

    def __init__(
        self, name: str, port: int, transport: str, ledger: Ledger, problem: Callable[[str, object], object]
    ) -> None:
        self.name = name
        self._ledger = ledger
        self._problem = problem
        self.client = Client(reactor, f"http://127.0.0.1:{port}/", transports=[transport], open_timeout=2.0)

    async def publish(self, channel: str) -> None:
        """Publish one message until it is acknowledged."""
        message = self._ledger.message(channel)
        while True:
            self._ledger.attempts += 1
            try:
                position = await self.client.publish(
                    channel, message["data"], idempotency_key=message["idempotency_key"]
                )
            except (NotDelivered, LinkLost):
                continue
            except RtpushError as error:
                if error.kind is not ErrorCode.UNAVAILABLE:
                    self._problem(self.name, error)
                await pause(0.05)
                continue
            assert position is not None
            self._ledger.acknowledge(self.name, message, position.epoch, position.offset)
            return
