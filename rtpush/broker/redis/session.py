"""A session: both connections to one Redis, from the moment when they are good until one of them is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.logger import Logger

from rtpush.broker.redis.address import RedisAddress
from rtpush.broker.redis.protocol import CommandProtocol, Refusal, SubscriberProtocol, unavailable
from rtpush.broker.redis.scripts import Script, Scripts

__all__ = ["Dialler", "Session"]

#: Seconds for a sentinel to answer.
_SENTINEL_TIMEOUT = 1.0

#: The oldest version of Redis, and what older ones lack.
_LEAST_VERSION = (6, 2)
_LEAST_FEATURE = "XTRIM MINID"

P = TypeVar("P", bound=CommandProtocol)


class Session:
    """
    Both connections, to the same server.

    :ivar place: Host and port of the server; :obj:`None` behind a Unix socket.
    :ivar lost: Has a result, the reason, when one of the connections is lost; then so is the other.
    """

    _log = Logger()

    def __init__(
        self,
        place: tuple[str, int] | None,
        commands: CommandProtocol,
        subscriber: SubscriberProtocol,
        scripts: Scripts,
    ) -> None:
        self.place = place
        self._commands = commands
        self._subscriber = subscriber
        self._scripts = scripts
        self.lost: Deferred[str] = Deferred()
        commands.on_lost = subscriber.on_lost = self._lost

    @property
    def pending(self) -> int:
        """How many answers are awaited."""
        return self._commands.pending

    def command(self, *arguments: Any) -> Deferred[Any]:
        """Send a command; see :meth:`CommandProtocol.command`."""
        return self._commands.command(*arguments)

    def evaluate(self, name: str, *arguments: Any, channel: str = "") -> Deferred[Any]:
        """Run a script, for a channel or for none; see :meth:`command`."""
        script = self._scripts[name]
        keys = [self._scripts.key(channel)] if channel else []
        call = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        return self.command(*call).addErrback(self._unknown, script, call)

    def follow(self, names: Sequence[bytes]) -> Deferred[None]:
        """Subscribe; see :meth:`SubscriberProtocol.follow`."""
        return self._subscriber.follow(names)

    def unfollow(self, names: Sequence[bytes]) -> Deferred[None]:
        """The opposite."""
        return self._subscriber.unfollow(names)

    def waits_since(self) -> float | None:
        """Tell when that was sent whose answer is awaited longest, on either connection."""
        times = [time for each in (self._commands, self._subscriber) if (time := each.waits_since()) is not None]
        return min(times, default=None)

    def abort(self, problem: str) -> None:
        """End both connections."""
        self._commands.abort(problem)
        self._subscriber.abort(problem)

    def _unknown(self, failure: Any, script: Script, call: Sequence[Any]) -> Any:
        """Load a script that Redis has forgotten."""
        if not failure.check(Refusal) or failure.value.word != "NOSCRIPT":
            return failure
        loaded = self.command("SCRIPT", "LOAD", script.text)
        return loaded.addCallback(lambda _: self.command(*call))

    def _lost(self, problem: str) -> None:
        self.abort(problem)
        if not self.lost.called:
            self.lost.callback(problem)


class Dialler:
    """
    Opens sessions with the server at an address, or with the master that the sentinels there name.

    :param client_name: What Redis lists the connections as.
    :param timeout: Seconds for a session to be opened.
    :param ca: Where the certificates are that sign the server's, as PEM; without it those of the system count.
    :param certificate: Where the certificate is that this side shows, with its key.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: RedisAddress,
        scripts: Scripts,
        *,
        client_name: str,
        timeout: float,
        ca: str = "",
        certificate: str = "",
        key: str = "",
    ) -> None:
        self._reactor = reactor
        self.address = address
        self._scripts = scripts
        # Redis takes no blanks in it.
        self._client_name = re.sub(r"[^!-~]+", "-", client_name)
        self._timeout = timeout
        self._trusted = None
        self._own = None
        if ca:
            self._trusted = trustRootFromCertificates(_certificates(ca))
        if certificate:
            with open(certificate, "rb") as file, open(key, "rb") as key_file:
                self._own = PrivateCertificate.loadPEM(file.read() + b"\n" + key_file.read())

    def open(self, receive: Callable[[bytes, bytes], None]) -> Deferred[Session]:
        """
        Open a session.

        :param receive: Gets the channel and the record of all that is published where the session follows.
        :returns: A Deferred that fails with :class:`RtpushError` ``unavailable``, whose message says what is wrong.
        """
        opening: Deferred[Session] = Deferred.fromCoroutine(self._open(receive))
        return opening.addTimeout(self._timeout, self._reactor, self._too_late)

    def master(self) -> Deferred[tuple[str, int]]:
        """Ask the sentinels where the master is. Fails with :class:`RtpushError` ``unavailable``."""
        return Deferred.fromCoroutine(self._ask_sentinels())

    def _too_late(self, result: Any, timeout: float) -> Any:
        raise unavailable(f"it does not answer within {timeout:g} s")

    async def _open(self, receive: Callable[[bytes, bytes], None]) -> Session:
        opened: list[CommandProtocol] = []
        try:
            place = await self._ask_sentinels() if self.address.master else next(iter(self.address.hosts), None)
            commands = await self._connect(place, CommandProtocol(self._reactor))
            opened.append(commands)
            version, run_id = await self._greet(commands)
            await self._load(commands, version)
            subscriber = await self._connect(place, SubscriberProtocol(self._reactor, receive))
            opened.append(subscriber)
            if (await self._greet(subscriber))[1] != run_id:
                raise unavailable("its address leads to two different servers")
            return Session(place, commands, subscriber, self._scripts)
        except BaseException:
            for each in opened:
                each.abort("it could not be used")
            raise

    async def _connect(self, place: tuple[str, int] | None, protocol: P) -> P:
        try:
            await self._endpoint(place).connect(_factory(protocol))
        except (ConnectError, DNSLookupError) as error:
            where = "" if place is None or not self.address.master else f" {place[0]}:{place[1]}"
            number = getattr(error, "osError", None)
            raise unavailable(f"cannot connect{where}: {os.strerror(number) if number else error}") from None
        return protocol

    def _endpoint(self, place: tuple[str, int] | None) -> IStreamClientEndpoint:
        if place is None:
            return UNIXClientEndpoint(self._reactor, self.address.path, timeout=self._timeout)
        host, port = place
        plain: IStreamClientEndpoint = HostnameEndpoint(self._reactor, host, port, timeout=self._timeout)
        if not self.address.tls:
            return plain
        options = optionsForClientTLS(host, trustRoot=self._trusted, clientCertificate=self._own)
        secure: IStreamClientEndpoint = wrapClientTLS(options, plain)
        return secure

    async def _greet(self, protocol: CommandProtocol) -> tuple[tuple[int, ...], str]:
        """Log in, and see that this is what we need; return its version and the id of its process."""
        address = self.address
        try:
            if address.password:
                user = [address.username] if address.username else []
                await protocol.command("AUTH", *user, address.password)
            information = _fields(await protocol.command("INFO"))
            await protocol.command("SELECT", address.db)
            await protocol.command("CLIENT", "SETNAME", self._client_name)
        except Refusal as error:
            raise unavailable(_explained(error)) from None
        version = tuple(int(part) for part in information.get("redis_version", "0").split(".")[:3] if part.isdigit())
        if version < _LEAST_VERSION:
            found = information.get("redis_version")
            raise unavailable(f"version {found} is too old: expected 6.2 or later, which has {_LEAST_FEATURE}")
        if information.get("loading", "0") != "0":
            raise unavailable("it is loading its data")
        if information.get("role") != "master":
            raise unavailable(
                f"it is a read-only replica of {information.get('master_host')}:{information.get('master_port')}: "
                "expected a master"
            )
        return version, information.get("run_id", "")

    async def _load(self, commands: CommandProtocol, version: tuple[int, ...]) -> None:
        """Bring our scripts into Redis."""
        scripts = self._scripts
        try:
            await gatherResults(
                [commands.command("SCRIPT", "LOAD", script.text) for script in scripts], consumeErrors=True
            )
        except Exception as error:
            raise unavailable(_explained(_first(error))) from None
        try:
            await commands.command("HSET", f"{scripts.prefix}:scripts", "publish", scripts.foreign.sha)
            if version < (7,):
                return
            found = await commands.command("FUNCTION", "LIST", "LIBRARYNAME", scripts.prefix, "WITHCODE")
            if not found or scripts.library not in found[0]:
                await commands.command("FUNCTION", "LOAD", "REPLACE", scripts.library)
        except Refusal as error:
            self._log.warn(
                "Redis {name}: others may not be able to publish by FCALL: {error}",
                name=self.address.name,
                error=error.message,
            )

    async def _ask_sentinels(self) -> tuple[str, int]:
        problems = []
        for host, port in self.address.hosts:
            asking: Deferred[tuple[str, int]] = Deferred.fromCoroutine(self._ask_sentinel(host, port))
            asking.addTimeout(min(_SENTINEL_TIMEOUT, self._timeout), self._reactor, self._too_late)
            try:
                return await asking
            except Exception as error:
                problems.append(f"{host}:{port}: {error}")
        raise unavailable(f"no sentinel names the master {self.address.master!r} ({'; '.join(problems)})")

    async def _ask_sentinel(self, host: str, port: int) -> tuple[str, int]:
        sentinel = await self._connect((host, port), CommandProtocol(self._reactor))
        try:
            if self.address.sentinel_password:
                await sentinel.command("AUTH", self.address.sentinel_password)
            place = await sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.master)
        finally:
            sentinel.abort("asked")
        if place is None:
            raise unavailable("it knows no such master")
        return place[0].decode(), int(place[1])


def _factory(protocol: CommandProtocol) -> Any:
    factory: Any = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    return factory


def _certificates(path: str) -> list[Certificate]:
    with open(path, "rb") as file:
        pem = file.read()
    end = b"-----END CERTIFICATE-----"
    return [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]


def _fields(information: bytes) -> dict[str, str]:
    """Read what ``INFO`` answers."""
    lines = information.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _explained(error: Exception) -> str:
    """Return what is to be done about a refusal, where that is known."""
    word = getattr(error, "word", "")
    if word == "WRONGPASS" or "invalid password" in str(error):
        return "the user or password is wrong"
    if word == "NOAUTH":
        return "it wants a password: expected one in the url"
    return str(error)


def _first(error: Exception) -> Exception:
    """Return what went wrong first, of several things at once."""
    failure = getattr(error, "subFailure", None)
    return error if failure is None else failure.value
