"""The keys for tokens while the server runs: those of the configuration, and those that are published elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rtpush.auth.jwks import MAX_DOCUMENT_BYTES, read_jwks
from rtpush.auth.keys import Key, KeySet, UnknownKey, key_set
from rtpush.auth.permissions import Grant
from rtpush.auth.tokens import check
from rtpush.errors import ErrorCode, RtpushError
from rtpush.service.settings.access import Auth

__all__ = ["Keyring"]

#: Seconds between two readings at least, however many tokens name keys that are not known.
_PAUSE = 10

#: Seconds until the next attempt when a reading has failed.
_RETRY = 30

#: How many tokens wait for a reading at most.
_WAITING = 1000


class Keyring(Service):
    """
    Checks tokens against the keys that are good now.

    The set of keys is never changed, but replaced as a whole. When published keys cannot be read, the last ones stay.

    :param now: Tells the seconds since 1970: what the times in tokens are held against.
    :param fetch: Reads a URL; the largest document that it may give has :data:`MAX_DOCUMENT_BYTES`.
    :ivar keys: The keys that are good now.
    """

    _log = Logger()

    def __init__(
        self, auth: Auth, clock: IReactorTime, now: Callable[[], float], fetch: Callable[[str], Deferred[bytes]]
    ) -> None:
        self._own = key_set(auth.keys)
        self.keys = self._own
        self._auth = auth
        self._rules = auth.rules
        self._clock = clock
        self._now = now
        self._fetch = fetch
        self._fetched: tuple[Key, ...] = ()
        self._was_read = False
        self._reading: Deferred[Any] | None = None
        self._last = float("-inf")
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._problem = ""

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._read()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stop_reading()

    def reload(self, auth: Auth) -> None:
        """
        Go on with another configuration. Published keys are read again; those from the same place are good until then.

        :raises KeyMistake: if a key of the configuration cannot be read or used. Nothing has changed then.
        """
        own = key_set(auth.keys)
        if auth.jwks != self._auth.jwks:
            self._stop_reading()
            self._fetched, self._was_read, self._problem = (), False, ""
        self._own, self._auth, self._rules = own, auth, auth.rules
        self.keys = KeySet([*own.keys, *self._fetched])
        if self.running and self._reading is None:
            self._read()

    @property
    def in_use(self) -> bool:
        """Whether a token can be good at all."""
        return self._auth.in_use

    @property
    def leeway(self) -> float:
        """Seconds for which a token is taken after its end."""
        return self._auth.leeway

    @property
    def cookie(self) -> str:
        """The name of the cookie that may hold a token, or nothing."""
        return self._auth.cookie

    def check(self, token: str | bytes) -> Deferred[Grant]:
        """
        Check a token.

        One that names an unknown key waits until the published keys are read again, if that was not done just now.

        :returns: What it grants. Fails with :exc:`RtpushError`: ``token_expired``, ``invalid_token``, or
            ``unavailable`` if its key is unknown and the published keys could never be read.
        """
        try:
            return succeed(self._checked(token))
        except UnknownKey:
            waiting = self._renewed()
            if waiting is None:
                return fail(self._unknown())
            return waiting.addCallback(lambda _: self._checked_again(token))
        except RtpushError:
            return fail()

    def _checked(self, token: str | bytes) -> Grant:
        return check(token, self.keys, self._now(), self._rules)

    def _checked_again(self, token: str | bytes) -> Grant:
        try:
            return self._checked(token)
        except UnknownKey:
            raise self._unknown() from None

    def _unknown(self) -> RtpushError:
        if self._auth.jwks and not self._was_read:
            return RtpushError(ErrorCode.UNAVAILABLE, "the keys that check tokens cannot be read now")
        return UnknownKey()

    def _renewed(self) -> Deferred[None] | None:
        """Return what fires when the published keys were read again, or nothing if they are not read now."""
        if not self.running or not self._auth.jwks or len(self._waiting) >= _WAITING:
            return None
        if self._reading is None and self._clock.seconds() - self._last < _PAUSE:
            return None
        # Before the reading begins: it may be done at once.
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._reading is None:
            self._read()
        return waiting

    def _read(self) -> None:
        self._stop_timer()
        if not self._auth.jwks:
            return
        self._last = self._clock.seconds()
        self._reading = reading = self._document(self._auth.jwks)
        reading.addCallback(read_jwks).addCallbacks(self._use, self._keep).addCallback(self._done)

    def _document(self, place: str) -> Deferred[bytes]:
        if not place.startswith("file:"):
            return self._fetch(place)
        try:
            with open(place.removeprefix("file:"), "rb") as file:
                return succeed(file.read(MAX_DOCUMENT_BYTES + 1))
        except OSError:
            return fail()

    def _use(self, fetched: tuple[Key, ...]) -> float:
        """Go on with keys that were read; return the seconds until they are read again."""
        self._fetched, self._was_read, self._problem = fetched, True, ""
        self.keys = KeySet([*self._own.keys, *fetched])
        return self._auth.jwks_interval

    def _keep(self, failure: Failure) -> float:
        """Go on with the keys that are there; return the seconds until the next attempt."""
        problem = failure.getErrorMessage()
        if problem != self._problem and not failure.check(CancelledError):
            self._log.warn(
                "The keys for tokens cannot be read from {place}: {problem}", place=self._auth.jwks, problem=problem
            )
        self._problem = problem
        return min(_RETRY, self._auth.jwks_interval)

    def _done(self, delay: float) -> None:
        self._reading = None
        if self.running:
            self._timer = self._clock.callLater(delay, self._read)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
