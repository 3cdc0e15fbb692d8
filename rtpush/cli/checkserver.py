"""Checking a server that runs: health, versions, and each transport end to end through all that is in the way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlencode

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater

from rtpush import __version__
from rtpush.cli.exits import Exit
from rtpush.cli.findings import Findings
from rtpush.cli.load.calling import Caller, Road, find_road
from rtpush.cli.load.dialling import Dialler, Target
from rtpush.cli.load.links import LINKS, Link, LongPollLink, ShortPollLink
from rtpush.cli.output import seconds
from rtpush.client import LinkLost
from rtpush.client.negotiation import TRANSPORTS
from rtpush.client.wire import error_in
from rtpush.errors import RtpushError

__all__ = ["ServerCheck"]

#: How many messages go through each transport, and the seconds between them.
_MESSAGES, _APART = 5, 0.3
#: A message that takes so many seconds longer than a request is held back by something.
_HELD_BACK = 0.15
#: Headers by which proxies give themselves away.
_PROXY_HEADERS = (b"via", b"server", b"x-cache", b"cf-ray", b"x-served-by", b"x-varnish")


class ServerCheck:
    """
    Checks a server.

    :param api: Where the server API is.
    :param key: The API key, if there is one.
    :param channel: What messages are sent through.
    :param timeout: Seconds for each step.
    """

    def __init__(
        self, reactor: Any, server: str, api: str, key: str | None, channel: str, timeout: float, findings: Findings
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._key = key
        self._channel = channel
        self._timeout = timeout
        self._findings = findings
        self._dialler = Dialler(reactor, Target.of(server), timeout)
        self._caller = Caller(self._dialler)
        self._api = Dialler(reactor, Target.of(api), timeout)
        self._api_caller = Caller(self._api)
        self._road: Road | None = None
        self._road_caller: Caller | None = None
        #: How long a small request takes.
        self._round_trip = 0.0

    async def run(self) -> Exit:
        """Look at everything, and return the exit code so far."""
        try:
            return await self._run()
        finally:
            for caller in (self._caller, self._api_caller, self._road_caller):
                if caller is not None:
                    caller.close()

    async def _run(self) -> Exit:
        findings = self._findings
        begun = time.perf_counter()
        try:
            status, body = await self._get("healthz")
        except LinkLost as lost:
            findings.fail("connection", f"cannot reach {self._server}: {lost}")
            return Exit.UNREACHABLE
        connected = time.perf_counter() - begun
        begun = time.perf_counter()
        await self._get("healthz")
        self._round_trip = time.perf_counter() - begun
        findings.ok(
            "connection",
            f"made in {seconds(connected)}; a request takes {seconds(self._round_trip)}",
            connect=connected,
            round_trip=self._round_trip,
        )
        if status == 200:
            findings.ok("/healthz", "the process is alive")
        else:
            findings.fail("/healthz", _said(status, body), "is this rtpush, or a proxy in front of nothing?")
        await self._ready()
        offered = await self._negotiated()
        await self._nodes()
        await self._find_road()
        for name in TRANSPORTS:
            if name in offered:
                await self._transport(name)
            else:
                findings.ok(name, "switched off on the server")
        return Exit.OK

    async def _get(self, route: str) -> tuple[int, bytes]:
        status, body = await self._soon(self._caller.call("GET", route))
        return status, body

    async def _soon(self, work: Awaitable[Any]) -> Any:
        """
        Wait for something, but not for ever.

        :raises LinkLost: if it takes too long.
        """
        waiting: Deferred[Any] = Deferred.fromCoroutine(_awaited(work))
        try:
            return await waiting.addTimeout(self._timeout, self._reactor)
        except DeferredTimeout:
            raise LinkLost(f"no answer within {self._timeout:g} s") from None

    async def _ready(self) -> None:
        try:
            status, body = await self._get("readyz")
        except LinkLost as lost:
            self._findings.fail("/readyz", str(lost))
            return
        if status == 200:
            self._findings.ok("/readyz", "it takes new clients")
        else:
            self._findings.fail("/readyz", _said(status, body), "a balancer sends no new clients to it")

    async def _negotiated(self) -> list[str]:
        query = urlencode({"transports": ",".join(TRANSPORTS), "direction": "duplex"})
        try:
            status, body = await self._get(f"negotiate?{query}")
            answer = msgspec.json.decode(body, type=dict[str, Any])
            # What it does not advise here it does nevertheless.
            named = [*answer["transports"], *answer.get("excluded", [])]
            names = [each["transport"] for each in named if "switched off" not in each["reason"]]
        except (LinkLost, msgspec.MsgspecError, KeyError, TypeError) as error:
            self._findings.fail("/negotiate", f"cannot be read: {error}")
            return list(TRANSPORTS)
        offered = [name for name in TRANSPORTS if name in names]
        text = f"offers {', '.join(offered)}; heartbeat {answer.get('heartbeat', 0):g} s"
        elsewhere = {offer["url"] for offer in answer["transports"] if not offer["url"].startswith("/")}
        if status != 200:
            self._findings.fail("/negotiate", _said(status, body))
        elif elsewhere:
            self._findings.warn(
                "/negotiate", f"{text}; sends clients to {', '.join(sorted(elsewhere))}", "what follows goes elsewhere"
            )
        else:
            self._findings.ok("/negotiate", text)
        return offered

    async def _nodes(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            status, body = await self._soon(self._api_caller.call("POST", "api/v1/info", b"{}", headers))
            if status in (401, 403, 404) and self._key is None:
                self._findings.ok("nodes", "not asked: give a --key for that")
                return
            if status != 200:
                self._findings.fail("nodes", _said(status, body))
                return
            result = msgspec.json.decode(body, type=dict[str, Any])["result"]
            nodes = result["nodes"]
        except (LinkLost, msgspec.MsgspecError, KeyError) as error:
            self._findings.fail("nodes", f"cannot be read: {error}")
            return
        versions = sorted({node["version"] for node in nodes})
        text = f"{len(nodes)}: {', '.join(node['node'] for node in nodes[:8])}; version {', '.join(versions)}"
        if result.get("missing"):
            self._findings.fail("nodes", f"{text}; some do not answer")
        elif len(versions) > 1:
            self._findings.warn("nodes", text, "different versions: is an upgrade under way?")
        elif versions != [__version__]:
            self._findings.warn("nodes", text, f"this command is of version {__version__}")
        else:
            self._findings.ok("nodes", text)

    async def _find_road(self) -> None:
        try:
            self._road = await self._soon(find_road(self._dialler, self._api, self._key, self._channel, "probe"))
        except RtpushError as error:
            self._findings.warn(
                "publish",
                f"{self._channel}: {error.message}",
                "give a --key, or a --channel that clients may publish to: else no message is sent",
            )
        except LinkLost as lost:
            self._findings.fail("publish", f"{self._channel}: {lost}")
        else:
            self._road_caller = self._road.caller()
            self._findings.ok("publish", f"{self._channel}: accepted")

    async def _transport(self, name: str) -> None:
        """Open a transport, and have messages come through it."""
        watch = _Watch()
        link = LINKS[name](self._dialler.target, self._channel, watch, self._reactor, {})
        if isinstance(link, ShortPollLink):
            link.pause = lambda: _APART / 2
        begun = time.perf_counter()
        try:
            await self._soon(self._dialler.dial(link))
            await self._soon(watch.open)
        except LinkLost as lost:
            self._not_open(name, link, str(lost))
            link.close()
            return
        opened = time.perf_counter() - begun
        try:
            await self._through(name, link, watch, opened)
        finally:
            link.close()

    def _not_open(self, name: str, link: Link, reason: str) -> None:
        if link.opened_at or not link.begun_at or not reason.startswith("no answer"):
            advice = "does a proxy pass on Upgrade and Connection?" if name == "websocket" else ""
            self._findings.fail(name, reason, advice)
        elif link.head_at:
            self._findings.fail(
                name,
                f"opened, but nothing comes through within {self._timeout:g} s",
                f"something on the way keeps the answer to itself until it is complete{_proxies(link)}: "
                "switch its buffering off for event streams",
            )
        else:
            self._findings.fail(
                name,
                reason,
                f"something on the way waits for the end of an answer before it passes on its head{_proxies(link)}",
            )

    async def _through(self, name: str, link: Link, watch: _Watch, opened: float) -> None:
        if self._road is None or self._road_caller is None:
            self._findings.ok(name, f"opens in {seconds(opened)}{_proxies(link)}; no message was sent", open=opened)
            return
        sent: list[float] = []
        try:
            for number in range(_MESSAGES):
                sent.append(time.perf_counter())
                await self._soon(self._road.publish(self._road_caller, self._channel, [f"{watch.mark}{number}"]))
                await deferLater(self._reactor, _APART)
            deadline = time.perf_counter() + self._timeout
            while len(watch.came) < _MESSAGES and not watch.over and time.perf_counter() < deadline:
                await deferLater(self._reactor, 0.02)
        except (LinkLost, RtpushError) as error:
            self._findings.fail(name, f"cannot publish: {error}")
            return
        self._judge(name, link, watch, sent, opened)

    def _judge(self, name: str, link: Link, watch: _Watch, sent: list[float], opened: float) -> None:
        times = [watch.came[place] - time_ for place, time_ in enumerate(sent) if place in watch.came]
        if watch.over:
            self._findings.fail(name, f"cut off after {seconds(opened)}: {watch.over}")
        elif not times:
            self._findings.fail(
                name,
                f"opens in {seconds(opened)}, but of {_MESSAGES} messages none came{_proxies(link)}",
                "something on the way holds them back, or they went to another server",
            )
        elif len(times) < _MESSAGES:
            self._findings.fail(name, f"of {_MESSAGES} messages only {len(times)} came")
        else:
            typical = statistics.median(times)
            # A short poll waits for its turn; that is no proxy's doing.
            allowed = self._round_trip * 2 + _HELD_BACK + (_APART if isinstance(link, ShortPollLink) else 0.0)
            text = f"opens in {seconds(opened)}; a message takes {seconds(typical)}{_proxies(link)}"
            if typical > allowed:
                together = max(watch.came.values()) - min(watch.came.values()) < _APART * (_MESSAGES - 1) / 2
                how = "and they come together: a proxy collects them" if together else "each"
                self._findings.warn(
                    name,
                    f"{text}, {seconds(typical - self._round_trip)} more than a request {how}",
                    "switch off buffering and delays of what is on the way"
                    if not isinstance(link, LongPollLink)
                    else "see whether the server or what is on the way is overloaded",
                    open=opened,
                    delivery=typical,
                )
            else:
                self._findings.ok(name, text, open=opened, delivery=typical)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


class _Watch:
    """Sees one link open, and the messages of one check come."""

    def __init__(self) -> None:
        self.open: Deferred[None] = Deferred()
        self.mark = f"check {time.time_ns():x} "
        self.came: dict[int, float] = {}
        self.over = ""

    def opened(self, link: Link) -> None:
        if not self.open.called:
            self.open.callback(None)

    def received(self, link: Link, payload: str) -> None:
        if payload.startswith(self.mark):
            self.came.setdefault(int(payload.removeprefix(self.mark)), time.perf_counter())

    def lost(self, link: Link, reason: str) -> None:
        self.over = reason
        if not self.open.called:
            self.open.errback(LinkLost(reason))


def _proxies(link: Link) -> str:
    """Tell which proxies are seen."""
    seen = [f"{name.decode()}: {link.via[name].decode('latin-1')[:60]}" for name in _PROXY_HEADERS if name in link.via]
    return f" ({'; '.join(seen)})" if seen else ""


def _said(status: int, body: bytes) -> str:
    error = error_in(body)
    return f"{status} {error.message}" if error is not None else f"answered {status}"
