"""
Sessions of people who have shown an API key: what their browser keeps instead of it.

A session is its end, signed with a secret that follows from the key it was opened with. So every node that has the key
knows it, whichever node or worker opened it, and it is over when the key is taken out of the configuration.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

__all__ = ["Sessions"]

_PURPOSE = b"rtpush session 1"
_TOKEN = re.compile(r"((\d{1,12})\.[A-Za-z0-9_-]{16})\.([0-9a-f]{64})", re.ASCII)


class Sessions:
    """
    Opens sessions, and knows those that are open.

    :param keys: Any of them opens one.
    :param lifetime: Seconds that one lasts.
    """

    def __init__(self, keys: Iterable[str], *, lifetime: float) -> None:
        self._keys = [key.encode() for key in keys]
        self.lifetime = lifetime

    @property
    def can_open(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._keys)

    def open(self, key: str, now: float) -> str | None:
        """Return a new session for who has a key; nothing for who has not."""
        given = key.encode("utf-8", "replace")
        # All keys are compared, each in constant time, so that the time tells nothing.
        found = [own for own in self._keys if hmac.compare_digest(given, own)]
        if not found:
            return None
        stem = f"{int(now + self.lifetime)}.{secrets.token_urlsafe(12)}"
        return f"{stem}.{_signature(found[0], stem)}"

    def end(self, session: str, now: float) -> float | None:
        """Return when a session ends; nothing if it has ended, or is none."""
        match = _TOKEN.fullmatch(session)
        if match is None:
            return None
        stem, end, signature = match[1], int(match[2]), match[3]
        matches = [hmac.compare_digest(signature, _signature(key, stem)) for key in self._keys]
        # One that lasts longer than it may was opened under other rules.
        return end if any(matches) and now < end <= now + self.lifetime + 1 else None


def _signature(key: bytes, stem: str) -> str:
    secret = hmac.digest(key, _PURPOSE, hashlib.sha256)
    return hmac.digest(secret, stem.encode(), hashlib.sha256).hex()
