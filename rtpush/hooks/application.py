"""The application, as the registry sees it: what it is asked about clients, and told of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from rtpush.auth.origin import Origins
from rtpush.auth.permissions import Grant
from rtpush.errors import ErrorCode, RtpushError
from rtpush.hooks.backend import IBackend
from rtpush.hooks.questions import NoAnswer, Questions, new_id
from rtpush.hooks.remembered import Remembered
from rtpush.hooks.settings import HookSettings
from rtpush.hooks.shapes import Question, Reply, payload_fields, read_connect, read_publish, read_subscribe
from rtpush.hooks.telling import Telling
from rtpush.protocol.commands import Publication
from rtpush.registry.counts import HookCounts
from rtpush.registry.guests import Given, Guest

__all__ = ["Application"]

T = TypeVar("T")

_NOTHING = Given()

#: How a connection ends whose client just went away (RFC 6455 section 7.4.1).
_GONE = (1006, "connection_lost")


class Application:
    """
    Asks and tells, as :class:`rtpush.registry.guests.Hooks` says.

    :ivar origins: The pages whose visitors' cookies it may see.
    :ivar made_of: What it was made of, to tell whether another one would be the same.
    :param node: The name of this node.
    :param now: Tells the seconds since 1970.
    :param chance: Gives random numbers, at least 0 and below 1.
    """

    def __init__(
        self,
        settings: HookSettings,
        backend: IBackend,
        clock: IReactorTime,
        *,
        node: str,
        now: Callable[[], float],
        chance: Callable[[], float],
        counts: HookCounts,
        origins: Origins | None = None,
        made_of: object = None,
    ) -> None:
        self.settings = settings
        self.origins = origins or Origins(())
        self.made_of = made_of
        self._backend = backend
        self._clock = clock
        self._node = node
        self._now = now
        self._questions = Questions(settings, backend, clock, now=now, chance=chance, counts=counts)
        self._telling = Telling(self._questions, clock, counts)
        self._connects: Remembered[Given] = Remembered(settings.remember)
        self._subscribes: Remembered[bytes] = Remembered(settings.remember)

    @property
    def headers(self) -> tuple[str, ...]:
        """The names of the headers that it wants to see, in lower case."""
        return self.settings.headers

    @property
    def is_shut(self) -> bool:
        """Whether it is not asked for a while."""
        return self._questions.breaker.is_open

    @property
    def is_busy(self) -> bool:
        """Whether questions wait for others."""
        return self._questions.is_busy

    @property
    def pending(self) -> int:
        """How much is asked or told now."""
        return self._questions.pending + self._telling.pending

    def connect(self, guest: Guest, is_good: Callable[[Grant], bool]) -> Deferred[Given]:
        """Ask whether a client may come in; one that polls, once in a while."""
        if "connect" not in self.settings.events:
            return succeed(_NOTHING)
        key = _key(guest)
        if not guest.stays:
            known = self._connects.get(key, self._clock.seconds())
            if known is not None:
                if known.grant is None or is_good(known.grant):
                    return succeed(known)
                self._connects.forget(key)

        def read(reply: Reply) -> Given:
            given = read_connect(reply, self._now())
            if guest.transport != "websocket":
                # Who has a stream comes for other things by requests.
                self._connects.put(key, given, self._clock.seconds(), len(reply.body))
            return given

        return self._ask(self._question("connect", guest, data=_raw(guest.data)), read, _NOTHING)

    def subscribe(self, guest: Guest, channel: str) -> Deferred[bytes]:
        """Ask whether a client may subscribe; one that polls, once in a while."""
        if "subscribe" not in self.settings.events:
            return guest.line.put(succeed(b""))
        key = (*_key(guest), guest.user, channel)
        if not guest.stays:
            known = self._subscribes.get(key, self._clock.seconds())
            if known is not None:
                return guest.line.put(succeed(known))

        def read(reply: Reply) -> bytes:
            data = read_subscribe(reply)
            if not guest.stays:
                self._subscribes.put(key, data, self._clock.seconds(), len(reply.body))
            return data

        return guest.line.put(self._ask(self._question("subscribe", guest, channel=channel), read, b""))

    def publish(self, guest: Guest, publication: Publication) -> Deferred[Publication]:
        """Ask whether a client may publish, and what."""
        if "publish" not in self.settings.events:
            return guest.line.put(succeed(publication))
        question = self._question(
            "publish",
            guest,
            channel=publication.channel,
            name=publication.event,
            **payload_fields(publication.payload),
        )
        asked = self._ask(question, lambda reply: read_publish(reply, publication), publication)
        return guest.line.put(asked)

    def left(self, guest: Guest) -> None:
        """Tell that a client has left, if it was there and stays elsewhere than in one request. Once."""
        was_in, guest.is_in = guest.is_in, False
        if was_in and guest.stays and "disconnect" in self.settings.events:
            code, reason = guest.ending or _GONE
            self._telling.tell(self._question("disconnect", guest, code=code, reason=reason[:200]))

    def stop(self) -> Deferred[None]:
        """Tell what is still to be told, for as long as an answer may take, and close all connections."""
        # Connections that are aborted just now are lost in the next turn of the reactor.
        told = deferLater(self._clock, 0, self._telling.finish, self.settings.timeout)
        return told.addBoth(lambda _: self._backend.close())

    def _question(self, event: str, guest: Guest, **more: Any) -> Question:
        return Question(
            event=event,
            id=new_id(),
            time=round(self._now(), 3),
            node=self._node,
            transport=guest.transport,
            connection=guest.connection,
            address=guest.address,
            user=guest.user,
            info=_raw(guest.info),
            headers=dict(guest.headers),
            **more,
        )

    def _ask(self, question: Question, read: Callable[[Reply], T], otherwise: T) -> Deferred[T]:
        """
        Ask.

        :param otherwise: What it is if there is no good answer, and that is to mean yes.
        """

        def failed(failure: Failure) -> T:
            failure.trap(NoAnswer)
            if self.settings.on_failure == "allow":
                return otherwise
            raise RtpushError(ErrorCode.UNAVAILABLE, "the application does not answer now: come back later")

        return self._questions.ask(question, read).addErrback(failed)


def _key(guest: Guest) -> tuple[Hashable, ...]:
    """Return what two clients have in common for which an answer is the same."""
    return (guest.address, guest.token, guest.headers)


def _raw(text: bytes) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.Raw(text) if text else msgspec.UNSET
