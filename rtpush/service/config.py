"""Reading the configuration from an INI file, with a clear word on each mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from rtpush.auth.keys import KeyMistake, key_set
from rtpush.auth.tokens import looks_like_token
from rtpush.protocol.channel import Namespace
from rtpush.service import ini
from rtpush.service.hooking import unusable_ca
from rtpush.service.listen import is_local, is_proxied, secure_address
from rtpush.service.schema import NAMESPACE, SECTIONS, Config
from rtpush.service.sections import SectionType
from rtpush.service.settings.access import Api, Auth
from rtpush.service.settings.brokers import Broker, Redis
from rtpush.service.settings.serving import AUTO, Poll, Server, WebSocket
from rtpush.service.tls import load_authorities, load_identity
from rtpush.service.values import nearest

__all__ = [
    "Api",
    "Auth",
    "Broker",
    "Config",
    "ConfigError",
    "Poll",
    "Redis",
    "Server",
    "WebSocket",
    "load",
    "parse",
    "read",
]

_NAMESPACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ConfigError(Exception):
    """
    A configuration cannot be used. Its text is one line: file, line, place, what was found and what was expected.

    :ivar path: The file.
    :ivar line: The line, counted from 1, or :obj:`None` if no line is to blame.
    :ivar problem: The rest.
    """

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        super().__init__(path, line, problem)
        self.path = path
        self.line = line
        self.problem = problem

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        # Names in the file, and the file's own, may hold anything: what would break the line is escaped.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{place}: {self.problem}")


def load(path: str) -> Config:
    """
    Read a configuration file.

    :raises ConfigError: if it cannot be read or used.
    """
    return parse(read(path), path)


def read(path: str) -> str:
    """
    Return the text of a configuration file.

    :raises ConfigError: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        raise ConfigError(path, None, f"cannot read the file: {getattr(error, 'strerror', None) or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, line, f"byte 0x{content[error.start]:02x}: expected text in UTF-8") from error


def parse(text: str, path: str = "<text>") -> Config:
    """
    Read the text of a configuration file.

    :param path: What messages call the file.
    :raises ConfigError: if it cannot be used.
    """
    try:
        return _build(ini.read(text))
    except ini.Mistake as mistake:
        raise ConfigError(path, mistake.line, str(mistake)) from mistake


def _build(sections: list[ini.Section]) -> Config:
    types = {section_type.name: section_type for section_type in SECTIONS}
    given: dict[str, dict[str, object]] = {}
    namespaces: list[Namespace] = []
    silent: set[str] = set()
    lines: dict[tuple[str, str], int] = {}
    for section in sections:
        if section.name.startswith("namespace:"):
            namespaces.append(_namespace(section))
            if "anonymous" not in section.entries:
                silent.add(namespaces[-1].name)
        elif (section_type := types.get(section.name)) is not None:
            given[section.name] = _values(section, section_type)
            lines.update({(section.name, entry.name): entry.line for entry in section.entries.values()})
        else:
            raise ini.Mistake(section.line, f"[{section.name}]: unknown section; {_likely_section(section.name)}")
    if "listen" not in given.get("server", {}):
        raise ini.Mistake(None, "[server] listen: missing; expected a Twisted endpoint such as tcp:8080")
    parts: dict[str, Any] = {
        section_type.name: section_type.holder(**given.get(section_type.name, {})) for section_type in SECTIONS
    }
    if parts["auth"].in_use:
        # Where clients have tokens, who has none is let in only where the file says so.
        namespaces = [attrs.evolve(each, anonymous=False) if each.name in silent else each for each in namespaces]
    config = Config(**parts, namespaces=tuple(namespaces))
    _check_together(config, lines)
    return config


def _namespace(section: ini.Section) -> Namespace:
    name = section.name.removeprefix("namespace:")
    if _NAMESPACE_NAME.fullmatch(name) is None:
        raise ini.Mistake(
            section.line,
            f"[namespace:NAME]: {ini.show(name)}: expected 1 to 64 letters, digits, dots, underscores and hyphens",
        )
    values: dict[str, Any] = _values(section, NAMESPACE)
    return Namespace(name=name, **values)


def _values(section: ini.Section, section_type: SectionType) -> dict[str, object]:
    """Read what a section holds into arguments for its class."""
    keys = {key.name: key for key in section_type.keys}
    values: dict[str, object] = {}
    for entry in section.entries.values():
        place = f"[{section.name}] {entry.name}"
        key = keys.get(entry.name)
        if key is None:
            raise ini.Mistake(entry.line, f"{place}: unknown key; {_likely_key(entry.name, section_type)}")
        try:
            values[key.field] = key.value.read(entry.lines)
        except ini.Mistake as mistake:
            raise ini.Mistake(mistake.line or entry.line, f"{place}: {mistake}") from mistake
    return values


def _check_together(config: Config, lines: Mapping[tuple[str, str], int]) -> None:
    """Check what no key can tell by itself."""
    remote = [address for address in config.api.listen or config.server.listen if not is_local(address)]
    origins, workers = config.server.allowed_origins, config.server.workers
    backoff, limits, poll, redis = config.backoff, config.limits, config.poll, config.redis
    rules = (
        ("server", "allowed_origins", "*" in origins and len(origins) > 1, "expected * to stand alone"),
        (
            "server",
            "trusted_proxies",
            any(map(is_proxied, config.addresses)) and not config.server.trusted_proxies,
            "expected the proxies that connect to the addresses with haproxy: before them",
        ),
        (
            "server",
            "workers",
            workers != 1 and config.broker.engine == "memory",
            (
                f"{'auto' if workers == AUTO else workers}: expected 1 with [broker] engine = memory, "
                "whose messages do not reach other processes"
            ),
        ),
        (
            "server",
            "drain_notice",
            config.server.drain_notice > config.server.drain_window,
            f"{config.server.drain_notice:g}: expected at most drain_window, which is {config.server.drain_window:g}",
        ),
        (
            "backoff",
            "base",
            backoff.base > backoff.maximum,
            f"{backoff.base:g}: expected at most max, which is {backoff.maximum:g}",
        ),
        (
            "limits",
            "message_bytes",
            limits.message_bytes > limits.request_bytes,
            f"{limits.message_bytes}: expected at most request_bytes, which is {limits.request_bytes}",
        ),
        (
            "limits",
            "incoming_bytes",
            limits.incoming_bytes < 2 * limits.request_bytes,
            f"{limits.incoming_bytes}: expected at least twice request_bytes, which is {limits.request_bytes}",
        ),
        (
            "poll",
            "timeout",
            poll.timeout > poll.max_timeout,
            f"{poll.timeout:g}: expected at most max_timeout, which is {poll.max_timeout:g}",
        ),
        (
            "api",
            "open",
            config.api.open and bool(remote),
            (
                f"'yes': expected no while the node listens on {ini.show(''.join(remote[:1]))}, "
                "which is neither a loopback address (as in tcp:8080:interface=127.0.0.1) nor a Unix socket"
            ),
        ),
        (
            "api",
            "listen",
            bool(set(config.api.listen) & set(config.server.listen)),
            "expected other addresses than those of [server] listen",
        ),
        ("tls", "certificates", bool(unusable_tls := _unusable_certificates(config)), unusable_tls),
        (
            "tls",
            "client_ca",
            bool(config.tls.client_ca) and not (config.api.listen and all(map(secure_address, config.api.listen))),
            "expected [api] listen, with addresses that begin with ssl: alone",
        ),
        ("tls", "client_ca", bool(problem := _unusable_authorities(config.tls.client_ca)), problem),
        (
            "redis",
            "url",
            len({address.shard for address in redis.url}) < len(redis.url),
            "expected each server and database once",
        ),
        (
            "auth",
            "cookie",
            bool(config.auth.cookie) and "*" in origins,
            (
                f"{config.auth.cookie}: expected [server] allowed_origins to name the origins: "
                "with * any page could use the cookies of its visitors"
            ),
        ),
        ("auth", "keys", bool(unusable := _unusable(config.auth)), unusable),
        ("api", "tokens", config.api.tokens and not config.auth.in_use, "expected keys for them in [auth]"),
        (
            "api",
            "keys",
            config.api.tokens and any(map(looks_like_token, config.api.keys)),
            "one of them looks like a token: with [api] tokens it would be taken for one",
        ),
        ("hooks", "ca", bool(bad_ca := unusable_ca(config.hooks.ca)), bad_ca),
        ("redis", "certificate", bool(redis.certificate) > bool(redis.key), "expected the key with it"),
        ("redis", "key", bool(redis.key) > bool(redis.certificate), "expected the certificate with it"),
        *(
            ("redis", key, config.broker.engine == "redis" and bool(problem), f"{ini.show(path)}: {problem}")
            for key, path in (("ca", redis.ca), ("certificate", redis.certificate), ("key", redis.key))
            if (problem := path and _unreadable(path))
        ),
    )
    for section, key, broken, problem in rules:
        if broken:
            raise ini.Mistake(lines.get((section, key)), f"[{section}] {key}: {problem}")


def _unusable_certificates(config: Config) -> str:
    """Say why there are not the certificates that are needed, or nothing."""
    if not config.tls.certificates:
        bare = [each for each in config.addresses if (secure := secure_address(each)) and secure.files is None]
        return f"expected one for {ini.show(bare[0])}, which names none itself" if bare else ""
    try:
        for files in config.tls.certificates:
            load_identity(files)
    except ValueError as error:
        return str(error)
    return ""


def _unusable_authorities(path: str) -> str:
    """Say why the certificates of authorities cannot be used, or nothing."""
    try:
        if path:
            load_authorities(path)
    except ValueError as error:
        return str(error)
    return ""


def _unusable(auth: Auth) -> str:
    """Say why the keys for tokens cannot be used, or nothing."""
    try:
        key_set(auth.keys)
    except KeyMistake as mistake:
        return str(mistake)
    return ""


def _unreadable(path: str) -> str:
    """Say why a file cannot be read, or nothing."""
    try:
        with open(path, "rb"):
            return ""
    except OSError as error:
        return f"cannot read the file: {error.strerror}"


def _likely_section(name: str) -> str:
    names = [section_type.name for section_type in SECTIONS]
    kind, colon, rest = name.partition(":")
    if nearest(kind, ["namespace"]):
        return f"did you mean namespace:{rest or 'NAME'}?"
    return nearest(name, names) or f"known are {', '.join(names)} and {NAMESPACE.name}"


def _likely_key(name: str, section_type: SectionType) -> str:
    names = [key.name for key in section_type.keys]
    if hint := nearest(name, names):
        return hint
    for other in (*SECTIONS, NAMESPACE):
        if any(key.name == name for key in other.keys):
            return f"did you mean {name} of [{other.name}]?"
    return f"known are {', '.join(names)}"
