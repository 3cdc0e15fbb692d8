"""The Lua that runs in Redis: what it is made of, and what it is called by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files

import attrs

from rtpush.protocol.channel import Namespace

__all__ = ["Script", "Scripts", "milliseconds", "quoted"]

#: What each script consists of, besides ``common.lua``.
_PARTS = {
    "publish": ("publish", "publish_node"),
    "history": ("history",),
    "positions": ("positions",),
    "presence": ("presence",),
    "present": ("present",),
    "beat": ("beat",),
    "bury": ("bury",),
    "leave": ("leave",),
    "nodes": ("nodes",),
}


@attrs.frozen
class Script:
    """
    A script of Redis.

    :ivar sha: What ``EVALSHA`` calls it.
    """

    name: str
    text: bytes
    sha: bytes

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        """Return a script with its hash."""
        source = text.encode()
        return cls(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


class Scripts:
    """
    All scripts, for one prefix.

    All nodes with the same configuration have the same ones.

    :ivar prefix: What all keys begin with.
    :ivar foreign: The script by which others publish, in a Redis that has no functions.
    :ivar library: The same as a library of functions (Redis 7).
    """

    def __init__(
        self,
        prefix: str,
        namespaces: Iterable[Namespace],
        *,
        message_bytes: int,
        position_ttl: float,
        idempotency_window: float,
    ) -> None:
        self.prefix = prefix
        self._position_ttl = milliseconds(position_ttl)
        self._window = round(idempotency_window * 1000)
        common = self._read("common")
        self._scripts = {
            name: Script.of(name, common + "".join(self._read(part) for part in parts))
            for name, parts in _PARTS.items()
        }
        self.reconfigure(namespaces, message_bytes)

    def reconfigure(self, namespaces: Iterable[Namespace], message_bytes: int) -> None:
        """Make anew what depends on these."""
        kept = ", ".join(
            f"[{quoted(namespace.name)}] = {{ {namespace.history_size}, {milliseconds(namespace.history_ttl)} }}"
            for namespace in namespaces
        )
        foreign = (
            self._read("common")
            + self._read("publish")
            + f"local NAMESPACES = {{ {kept} }}\n"
            + f"local MESSAGE_BYTES, SALT = {message_bytes}, {quoted(self.prefix)}\n"
            + f"local POSITION_TTL, WINDOW = {self._position_ttl}, {self._window}\n"
            + self._read("publish_foreign")
        )
        self.foreign = Script.of("publish_foreign", foreign + "return publish_foreign(KEYS, ARGV)\n")
        self.library = (
            f"#!lua name={self.prefix}\n{foreign}"
            f"redis.register_function('{self.prefix}_publish', publish_foreign)\n"
        ).encode()

    def key(self, channel: str) -> str:
        """Return the key by which a script is told of a channel."""
        return f"{self.prefix}:position:{{{channel}}}"

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def __iter__(self) -> Iterator[Script]:
        return iter([*self._scripts.values(), self.foreign])

    def _read(self, name: str) -> str:
        text = files("rtpush.broker.redis").joinpath("lua", f"{name}.lua").read_text("utf-8")
        return text.replace("@P@", self.prefix)


def milliseconds(seconds: float) -> int:
    """Return a time as Redis takes it: at least 1, for 0 means nothing to it."""
    return max(round(seconds * 1000), 1)


def quoted(text: str) -> str:
    """Return a text as a literal of Lua."""
    return "'" + "".join(f"\\{byte:03d}" for byte in text.encode()) + "'"
