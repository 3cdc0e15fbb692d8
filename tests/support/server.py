"""A real rtpush, started as users start it."""

from __future__ import annotations

import configparser
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from tests.support.processes import Process
from tests.support.waiting import soon

__all__ = ["CONFIG", "Server", "twistd", "write_config"]

#: What the servers of tests have in common: they leave and come back quickly, and keep all that is published.
CONFIG: dict[str, dict[str, object]] = {
    "server": {
        "listen": "tcp:0:interface=127.0.0.1",
        "allowed_origins": "*",
        "demo": "yes",
        "drain_window": 1,
        "drain_notice": 0,
    },
    "backoff": {"base": 0.2, "max": 1, "jitter": 0.1},
    "api": {"open": "yes"},
    "namespace:demo": {"history_size": 20000, "history_ttl": 3600, "publish": "anyone", "presence": "yes"},
}


def write_config(test: TestCase, changes: Mapping[str, Mapping[str, object]] | None = None) -> str:
    """Write :data:`CONFIG`, with changes to its sections, to a file; return where it is."""
    parser = configparser.ConfigParser(interpolation=None)
    for section in {**CONFIG, **(changes or {})}:
        both = {**CONFIG.get(section, {}), **(changes or {}).get(section, {})}
        parser[section] = {key: str(value) for key, value in both.items()}
    text = StringIO()
    parser.write(text)
    path = Path(test.mktemp()).absolute()
    path.write_text(text.getvalue())
    return str(path)


def twistd(
    test: TestCase,
    *arguments: str,
    options: Sequence[str] = ("-n", "--pidfile="),
    listener: Callable[[bytes], object] = bool,
    within: Sequence[str] = (),
) -> Process:
    """Start ``twistd rtpush`` with arguments: in the foreground, if the options of twistd itself are not others.

    :param within: The program that starts it, and its arguments, if one does.
    """
    command = os.path.join(os.path.dirname(sys.executable), "twistd")
    return Process(test, [*within, command, *options, "rtpush", *arguments], listener=listener)


class Server:
    """
    An rtpush process with its HTTP API.

    :ivar port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, test: TestCase, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = 1
        test.addCleanup(pool.closeCachedConnections)
        self._agent = Agent(reactor, pool=pool)

    @classmethod
    async def start(cls, test: TestCase, changes: Mapping[str, Mapping[str, object]] | None = None) -> Server:
        """Start one, with changes to the sections of :data:`CONFIG`."""
        return await cls.start_with(test, write_config(test, changes))

    @classmethod
    async def start_with(
        cls, test: TestCase, path: str, *, listener: Callable[[bytes], object] = bool, within: Sequence[str] = ()
    ) -> Server:
        """Start one with a configuration file of its own, whose only address is a port of 127.0.0.1."""
        process = twistd(test, "--config", path, listener=listener, within=within)
        port = int((await process.says(rb"listening on .* port=(\d+)"))[1])
        return cls(test, process, port)

    async def call(self, name: str, **fields: Any) -> Any:
        """Make a call of the server API; return its result."""
        body = FileBodyProducer(BytesIO(json.dumps(fields).encode()))
        headers = Headers({"content-type": ["application/json"]})
        request = self._agent.request(b"POST", f"{self.url}api/v1/{name}".encode(), headers, body)
        response = await soon(request)
        answer = json.loads(await soon(readBody(response)))
        if response.code != 200:
            raise AssertionError(f"{name}: {response.code} {answer}")
        return answer["result"]

    async def publish(self, channel: str, messages: Sequence[Any]) -> list[Any]:
        """Publish messages in order; return their positions, each with ``epoch`` and ``offset``."""
        batch = [{"channel": channel, "data": data} for data in messages]
        answer = await self.call("publish_batch", messages=batch)
        return [each["result"] for each in answer["responses"]]

    async def subscribers(self, channel: str) -> int:
        """Return how many subscriptions a channel has."""
        channels = (await self.call("channels", pattern=channel))["channels"]
        return int(channels.get(channel, {}).get("subscribers", 0))
