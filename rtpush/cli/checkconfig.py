"""Checking a configuration file: everything that starting with it would refuse."""

from __future__ import annotations

import errno
import os
import resource
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory

from rtpush.cli.exits import Exit
from rtpush.cli.findings import Findings
from rtpush.errors import RtpushError
from rtpush.hooks.settings import HookSettings
from rtpush.service.assemble import redis_diallers
from rtpush.service.config import Config, ConfigError, load
from rtpush.service.listen import certificate_file, is_local
from rtpush.service.sockets import CannotListen, listen

__all__ = ["ConfigCheck"]

#: With fewer than so many open files there are few connections.
_FEW_FILES = 10_000
_SOON = timedelta(days=14)


class ConfigCheck:
    """
    Checks a file.

    :param connect: Whether to connect to Redis, as a node does.
    """

    def __init__(self, reactor: Any, path: str, findings: Findings, *, connect: bool) -> None:
        self._reactor = reactor
        self._path = path
        self._findings = findings
        self._connect = connect

    async def run(self) -> Exit:
        """Look at everything, and return the exit code so far."""
        findings = self._findings
        try:
            config = load(self._path)
        except ConfigError as error:
            findings.fail("configuration", str(error))
            return Exit.FAILED
        findings.ok("configuration", f"{self._path} can be read, and all in it fits together")
        for address in config.addresses:
            await self._listen(address, config)
            if path := certificate_file(address):
                self._certificate(path)
        for files in config.tls.certificates:
            self._certificate(files.certificate)
        if config.hooks.in_use and config.hooks.ca:
            self._certificate(config.hooks.ca)
        for path in filter(None, (config.redis.ca, config.redis.certificate)):
            if config.broker.engine == "redis":
                self._certificate(path)
        self._access(config)
        if config.hooks.in_use:
            self._hooks(config.hooks)
        self._files(config)
        if config.broker.engine == "redis":
            await self._redis(config)
        return Exit.OK

    async def _listen(self, address: str, config: Config) -> None:
        """Listen for a moment: no other way tells whether that can be done."""
        what = f"listen {address}"
        if address.startswith("systemd:"):
            self._findings.ok(what, "this socket is there only when systemd starts the server")
            return
        try:
            port = listen(self._reactor, address, Factory(), config.tls_of(address))
        except CannotListen as error:
            detail = str(error).removeprefix(f"{address}: ")
            if os.strerror(errno.EADDRINUSE) in detail:
                self._findings.warn(what, detail, "all is well if it is this server that runs there already")
            else:
                self._findings.fail(what, detail)
            return
        await maybeDeferred(port.stopListening)
        where = "this machine only" if is_local(address) else "other machines too"
        self._findings.ok(what, f"can be had, and is reached from {where}")

    def _certificate(self, path: str) -> None:
        what = f"certificate {path}"
        try:
            with open(path, "rb") as file:
                certificate = load_pem_x509_certificates(file.read())[0]
        except OSError as error:
            self._findings.fail(what, f"cannot read the file: {error.strerror}")
            return
        except ValueError as error:
            self._findings.fail(what, f"this is no certificate in PEM: {error}")
            return
        now = datetime.now(UTC)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < begin:
            self._findings.fail(what, f"is not valid before {begin:%Y-%m-%d %H:%M} UTC")
        elif now > end:
            self._findings.fail(what, f"has expired on {end:%Y-%m-%d %H:%M} UTC", "get a new one, then reload")
        elif end - now < _SOON:
            self._findings.warn(what, f"expires on {end:%Y-%m-%d %H:%M} UTC", "get a new one, then reload")
        else:
            self._findings.ok(what, f"is valid until {end:%Y-%m-%d} ({(end - now).days} days)")

    def _access(self, config: Config) -> None:
        if config.api.open:
            self._findings.ok("server API", "open to all on this machine, without a key")
        elif config.api.keys:
            self._findings.ok("server API", f"{len(config.api.keys)} keys")
        else:
            self._findings.warn("server API", "closed, for there is no key", "set [api] keys to open it")
        names = [namespace.name for namespace in config.namespaces]
        if names:
            self._findings.ok("namespaces", ", ".join(names))
        else:
            self._findings.warn("namespaces", "there are none, and so no channels", "add a section [namespace:default]")

    def _hooks(self, hooks: HookSettings) -> None:
        url = urlsplit(hooks.url)
        place = f"{url.scheme}://{url.netloc}{url.path}"
        if not hooks.secrets:
            self._findings.warn(
                "hooks", f"{place} is asked without a signature", "set [hooks] secrets, so that it knows who asks"
            )
        elif url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            self._findings.warn(
                "hooks", f"{place} is asked over a network without TLS", "use https://, unless nobody can listen there"
            )
        else:
            self._findings.ok("hooks", f"{place} is asked about {', '.join(hooks.events)}, with a signature")

    def _files(self, config: Config) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < _FEW_FILES:
            self._findings.warn(
                "open files",
                f"the limit is {soft:,} here, and each connection takes one",
                "raise it where the server is started: LimitNOFILE of systemd, or ulimit -n",
            )
        else:
            limit = "none" if soft == resource.RLIM_INFINITY else f"{soft:,}"
            self._findings.ok("open files", f"the limit is {limit}")

    async def _redis(self, config: Config) -> None:
        if not self._connect:
            names = ", ".join(address.name for address in config.redis.url)
            self._findings.ok("Redis", f"{names}: not connected to (--connect does it)")
            return
        _, diallers = redis_diallers(config, self._reactor, "check")
        for dialler in diallers:
            what = f"Redis {dialler.address.name}"
            begun = self._reactor.seconds()
            try:
                session = await dialler.open(lambda channel, record: None)
            except RtpushError as error:
                self._findings.fail(what, error.message)
            else:
                took = self._reactor.seconds() - begun
                session.abort("it was only a check")
                self._findings.ok(what, f"is there and can be used, after {took * 1000:.0f} ms", open=took)
