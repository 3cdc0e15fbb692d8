"""``[hooks]``: its keys, and what is built of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import attrs

from rtpush.auth.origin import Origins
from rtpush.hooks.application import Application
from rtpush.hooks.backend import HttpBackend, authorities
from rtpush.hooks.settings import EVENTS, HookSettings
from rtpush.hooks.signing import MIN_SECRET_BYTES, parse_secret
from rtpush.registry.node import Node
from rtpush.service.sections import Key, SectionType
from rtpush.service.values import Many, One, choice, integer, matching, number

__all__ = ["HOOKS", "change_hooks", "unusable_ca"]


def _url() -> One:
    def convert(text: str) -> str:
        # urlsplit drops some characters silently: what is not plain must not get there.
        parts = urlsplit(text) if text.isascii() and text.isprintable() and " " not in text else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
        if "@" in parts.netloc:
            raise ValueError("without user and password: requests are signed")
        if parts.fragment:
            raise ValueError("without a part behind #")
        return text

    return One("an absolute URL such as https://app.example.com/rtpush", convert)


_HEADER = matching(r"[A-Za-z0-9_-]{1,64}", "the name of a header")

HOOKS = SectionType(
    "hooks",
    HookSettings,
    (
        Key(
            "url",
            _url(),
            "Where the application is asked about clients: an absolute URL. Without it, it is not asked.",
        ),
        Key(
            "events",
            Many(choice(*EVENTS), commas=True),
            "What it is asked about (connect, subscribe, publish) and told of (disconnect).",
        ),
        Key("timeout", number(0.05, 60), "Seconds within which it must answer."),
        Key(
            "secrets",
            Many(
                One(
                    f"a secret of {MIN_SECRET_BYTES} characters or more, whsec_ and base64, or base64: and base64",
                    parse_secret,
                    secret=True,
                )
            ),
            "The secrets that requests to it are signed with, one a line. With several there are several signatures.",
        ),
        Key(
            "headers",
            Many(One(_HEADER.expected, lambda text: str(_HEADER.convert(text)).lower()), commas=True),
            "The headers of clients' requests that are passed on, separated by commas. No others are.",
        ),
        Key(
            "max_in_flight",
            integer(1, 10_000),
            "How many questions may be asked at once. Ten times as many wait; what is more, fails.",
        ),
        Key(
            "on_failure",
            choice("deny", "allow"),
            "What it means if it gives no good answer: deny, or allow.",
        ),
        Key("failures", integer(1, 10_000), "How many failures in a row it takes to leave it alone for a while."),
        Key("pause", number(0.1, 3600), "Seconds of that while. After them one question is tried."),
        Key(
            "ca",
            matching(r"[^\0]+", "the path of a file"),
            "The file of the authorities that may sign its certificate, if not those of the system.",
        ),
        Key(
            "remember",
            number(0, 3600),
            "Seconds for which its answers to connect and subscribe are remembered for those who poll.",
        ),
    ),
)


def unusable_ca(path: str) -> str:
    """Say why a file of authorities cannot be used, or nothing."""
    try:
        if path:
            authorities(_content(path))
    except OSError as error:
        return f"cannot read the file: {error.strerror}"
    except ValueError as error:
        return str(error)
    return ""


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@attrs.frozen
class _MadeOf:
    """What hooks are made of: if that is the same, they are."""

    settings: HookSettings
    ca: bytes
    #: Whose pages may use the cookies of their visitors: not all, if all may connect.
    origins: tuple[str, ...]


def change_hooks(
    settings: HookSettings, allowed_origins: Iterable[str], node: Node, clock: Any, chance: Callable[[], float]
) -> None:
    """
    Have a node ask the application as the settings say, or not at all.

    What was asked or told before goes on as it was.

    :param allowed_origins: The origins whose pages may connect.
    :raises OSError: if the file of authorities cannot be read. Nothing has changed then.
    :raises ValueError: likewise, if it cannot be used.
    """
    before: Any = node.hooks
    ca = _content(settings.ca) if settings.in_use and settings.ca else b""
    made_of = _MadeOf(settings, ca, tuple(origin for origin in allowed_origins if origin != "*"))
    if before is not None and before.made_of == made_of:
        return
    hooks: Application | None = None
    if settings.in_use:
        backend = HttpBackend(
            clock, settings.url, connections=settings.max_in_flight, timeout=settings.timeout, ca=ca
        )
        hooks = Application(
            settings,
            backend,
            clock,
            origins=Origins(made_of.origins),
            node=node.name,
            now=node.now,
            chance=chance,
            counts=node.counts.hooks,
            made_of=made_of,
        )
    node.hooks = hooks
    if before is not None:
        before.stop()
