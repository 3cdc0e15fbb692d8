"""Keeping a client connected: rounds of attempts, the way down, the way up, and when to come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.client.errors import BadAnswer, LinkLost
from rtpush.client.ladder import Ladder
from rtpush.client.link import Audience, Link, LinkContext
from rtpush.client.negotiation import Negotiation
from rtpush.client.outbox import Outbox
from rtpush.client.web import Web
from rtpush.errors import Disconnect

__all__ = ["Connector", "Plan", "Reports"]

_log = Logger()


@attrs.frozen
class Reports:
    """
    Whom a connector tells what.

    :ivar negotiated: How the server is to be talked to.
    :ivar carried: A link is open and carries from now on; and why it is this one.
    :ivar waiting: Why there is no link, and after how many seconds the next attempt is.
    :ivar given_up: Why there will be none: the server said not to come back.
    :ivar told: What the application says to the client.
    """

    negotiated: Callable[[Negotiation], None]
    carried: Callable[[Link, str], None]
    waiting: Callable[[str, float], None]
    given_up: Callable[[LinkLost], None]
    told: Callable[[Any], None]


@attrs.frozen(kw_only=True)
class Plan:
    """
    How to connect. Times are seconds.

    :ivar base: The URL of the place where the server is, with a slash at its end.
    :ivar transports: The names of those that may be used, best first.
    :ivar links: What makes a link of each.
    :ivar chance: Returns a random number, at least 0 and below 1.
    """

    base: str
    transports: Sequence[str]
    direction: str
    links: Mapping[str, Callable[[LinkContext, Audience, Callable[[Link, LinkLost], Any]], Link]]
    open_timeout: float
    climb_after: float
    info: bytes
    data: bytes
    chance: Callable[[], float]


class Connector:
    """
    Opens the best link that works, and another one when it is lost.

    :ivar link: The one that carries now.
    """

    def __init__(
        self, plan: Plan, web: Web, clock: IReactorTime, audience: Audience, outbox: Outbox, reports: Reports
    ) -> None:
        self.link: Link | None = None
        self._plan = plan
        self._web = web
        self._clock = clock
        self._audience = audience
        self._outbox = outbox
        self._reports = reports
        self._ladder = Ladder(plan.transports, plan.climb_after)
        self._terms = Negotiation.default(plan.base, plan.transports)
        self._asked = False
        self._attempts = 0
        self._climb_at: float | None = None
        self._opened_at = 0.0
        self._opening: Link | None = None
        self._life: Deferred[LinkLost] = Deferred()
        self._task: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Connect, and stay connected."""
        self._task = Deferred.fromCoroutine(self._stay())
        self._task.addErrback(self._failed)

    def stop(self) -> None:
        """Close what is open, and open nothing more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        if self.link is not None:
            self.link.close()
            self.link = None

    def channels_changed(self) -> None:
        """Hear that other channels are wanted."""
        for link in (self.link, self._opening):
            if link is not None:
                link.channels_changed()

    async def _stay(self) -> None:
        reason = "the first that works"
        while True:
            lost = await self._live(reason)
            if not lost.comes_back:
                self._reports.given_up(lost)
                return
            reason = str(lost)
            delay = lost.after
            if delay is None:
                delay = self._terms.backoff.delay(self._attempts, self._plan.chance())
                self._attempts += 1
            self._tell(self._reports.waiting, reason, delay)
            await deferLater(self._clock, delay)

    async def _live(self, reason: str) -> LinkLost:
        """Open a link, climb while it carries, and return why it was lost, or why none opens."""
        life = self._life = Deferred()
        try:
            await self._web.token.ready()
            await self._negotiate()
            await self._open_one(reason)
        except LinkLost as why:
            return self._about_token(why)
        climb = Deferred.fromCoroutine(self._climb(life))
        climb.addErrback(self._failed)
        try:
            lost = await life
        finally:
            climb.cancel()
        if not _is_planned(lost):
            silent = lost.code == Disconnect.NO_HEARTBEAT.code
            self._ladder.lost(0.0 if silent else self._clock.seconds() - self._opened_at)
        # While it was good, a token has let a link open: with another one there is no reason to wait.
        return self._about_token(lost, after=0.0)

    def _about_token(self, lost: LinkLost, after: float | None = None) -> LinkLost:
        """
        See whether a link was lost since the token has ended: then another one is needed, if there is one.

        :param after: The seconds after which that is to be tried.
        """
        if lost.code != Disconnect.TOKEN_EXPIRED.code:
            return lost
        self._web.token.forget()
        return attrs.evolve(lost, comes_back=self._web.token.renews, after=lost.after if after is None else after)

    def _token_ends(self) -> None:
        """The token ends soon: get another one, and have the link go on with it."""
        if self._web.token.renews:
            renewed = self._web.token.renew().addCallback(self._token_changed)
            renewed.addErrback(lambda failure: _log.warn("{why}", why=failure.getErrorMessage()))

    def _token_changed(self, _: None) -> None:
        if self.link is not None:
            self.link.token_changed()

    async def _negotiate(self) -> None:
        """
        Ask the server how to talk to it; without an answer what was known, or the defaults, must do.

        :raises LinkLost: if it is of no use to go on now.
        """
        if self._asked:
            return
        plan = self._plan
        query = urlencode({"direction": plan.direction, "transports": ",".join(plan.transports)})
        try:
            answer = await self._web.request("GET", f"{plan.base}negotiate?{query}", plan.open_timeout)
            if answer.status == 200:
                self._terms = Negotiation.of(answer.body, plan.base, plan.transports)
                self._asked = True
            elif answer.retry_after is not None:
                raise LinkLost(f"the server answered {answer.status}", after=answer.retry_after)
        except BadAnswer as error:
            _log.info("{base}negotiate cannot be read: {error}", base=plan.base, error=error)
        except LinkLost as lost:
            if lost.unreachable or lost.after is not None:
                raise
        if not self._terms.urls:
            raise LinkLost(f"the server offers none of {', '.join(plan.transports)}", comes_back=False)
        self._ladder.offer(list(self._terms.urls))
        self._tell(self._reports.negotiated, self._terms)

    async def _open_one(self, reason: str) -> None:
        """
        Try the transports in their order, until one is open.

        :raises LinkLost: if none is.
        """
        for name in self._ladder.order():
            try:
                await self._open(name, reason)
            except LinkLost as lost:
                last = attrs.evolve(lost, reason=f"{name}: {lost}")
            else:
                return
            reason = str(last)
            is_expired = last.code == Disconnect.TOKEN_EXPIRED.code
            if last.unreachable or last.after is not None or not last.comes_back or is_expired:
                raise last
        # What the server said may not hold any more.
        self._asked = False
        raise last

    async def _open(self, name: str, reason: str) -> None:
        """
        Open a link, and have it carry from the turn on in which it is open.

        :raises LinkLost: if it does not open.
        """
        context = LinkContext(
            web=self._web,
            outbox=self._outbox,
            clock=self._clock,
            negotiation=self._terms,
            chance=self._plan.chance,
            open_timeout=self._plan.open_timeout,
            info=self._plan.info,
            data=self._plan.data,
            token_ends=self._token_ends,
            told=self._reports.told,
        )
        link = self._opening = self._plan.links[name](context, self._audience, self._link_lost)
        try:
            await link.open()
        finally:
            self._opening = None
        replaced, self.link = self.link, link
        if replaced is not None:
            replaced.close()
        self._attempts = 0
        self._opened_at = self._clock.seconds()
        self._ladder.opened(name)
        self._tell(self._reports.carried, link, reason)
        if self.link is link:
            link.channels_changed()

    async def _climb(self, life: Deferred[LinkLost]) -> None:
        """Try the better transports now and then, until the best one carries or the life ends."""
        while not life.called and (better := self._ladder.better()):
            now = self._clock.seconds()
            if self._climb_at is None:
                self._climb_at = now + self._ladder.climb_delay
            # Kept when the link is lost: one that is cut now and then does not put the climb off for ever.
            await deferLater(self._clock, max(0.0, self._climb_at - now))
            self._climb_at = None
            current = self._ladder.current
            for name in better:
                try:
                    await self._open(name, f"better than {current}")
                    break
                except LinkLost as lost:
                    _log.debug("{name} does not open: {lost}", name=name, lost=lost)
            else:
                self._ladder.climb_failed()

    def _link_lost(self, link: Link, why: LinkLost) -> None:
        if link is self.link:
            self.link = None
            self._life.callback(why)

    def _tell(self, method: Callable[..., None], *arguments: Any) -> None:
        """Report something; whoever hears of it may stop us."""
        method(*arguments)
        if self._stopped:
            raise CancelledError

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("The client failed", failure=failure)
            self._reports.given_up(LinkLost(f"the client failed: {failure.value}", comes_back=False))


def _is_planned(lost: LinkLost) -> bool:
    """Tell whether the server ended a link of its own will, or said when to come back."""
    code = lost.code
    if lost.after is not None:
        return True
    return code is not None and (code in (1012, 1013) or (code >= 4000 and code != Disconnect.NO_HEARTBEAT.code))
