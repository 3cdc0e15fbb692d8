"""Who may do what, and how that is proved: ``[api]``, ``[tls]`` and ``[auth]``."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import attrs

from rtpush.auth.keys import KeySource, parse_source
from rtpush.auth.tokens import TokenRules
from rtpush.service.listen import listen_address
from rtpush.service.sections import Key, SectionType
from rtpush.service.tls import CertificateFiles, Tls
from rtpush.service.values import Many, One, boolean, choice, matching, number, path

__all__ = ["API", "API_KEY", "AUTH", "TLS", "Api", "Auth"]

_HOUR = 3600


@attrs.frozen(kw_only=True)
class Api:
    """
    ``[api]``: who may use the server API.

    :ivar listen: Where it is served; empty for where all else is.
    """

    listen: tuple[str, ...] = ()
    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    tokens: bool = False
    open: bool = False


@attrs.frozen(kw_only=True)
class Auth:
    """
    ``[auth]``: which tokens are good.

    :ivar jwks: Where more keys are: ``file:`` and a path, or a URL; empty for nowhere.
    """

    keys: tuple[KeySource, ...] = ()
    jwks: str = ""
    jwks_interval: float = 300.0
    issuer: str = ""
    audience: str = ""
    leeway: float = 5.0
    require_exp: bool = True
    cookie: str = ""

    @property
    def in_use(self) -> bool:
        """Whether a token can be good at all."""
        return bool(self.keys or self.jwks)

    @property
    def rules(self) -> TokenRules:
        """What is asked of tokens."""
        return TokenRules(issuer=self.issuer, audience=self.audience, leeway=self.leeway, require_exp=self.require_exp)


def _certificate_files(text: str) -> CertificateFiles:
    certificate, *key = text.split()
    if len(key) > 1:
        raise ValueError
    return CertificateFiles(certificate, key[0] if key else certificate)


def _jwks() -> One:
    def convert(text: str) -> str:
        if re.fullmatch(r"file:[^\0]+", text) is not None:
            return text
        parts = urlsplit(text)
        plain = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        # Whoever can change the keys on their way can make tokens: no plain HTTP over a network.
        if re.fullmatch(r"[!-~]+", text) is None or not parts.hostname or not (parts.scheme == "https" or plain):
            raise ValueError
        return text

    return One("file: and a path, or a URL that begins with https://", convert)


#: What an API key may be.
API_KEY = matching(r"[!-~]{16,200}", "a key of 16 to 200 printable ASCII characters without space", secret=True)
_PRINTABLE = matching(r"[!-~]{1,255}", "1 to 255 printable ASCII characters without space")

API = SectionType(
    "api",
    Api,
    (
        Key(
            "listen",
            Many(listen_address()),
            "Where the server API, the metrics and the dashboard are served: then nowhere else. One a line.",
        ),
        Key(
            "keys",
            Many(API_KEY),
            "The API keys, one a line. Without any, and unless it is open, the server API is closed.",
        ),
        Key(
            "tokens",
            boolean(),
            "Whether tokens open calls of the server API too: those that their claim api names.",
        ),
        Key(
            "open",
            boolean(),
            "Whether the server API is open to all: only where every address is a loopback or Unix one.",
        ),
    ),
)

TLS = SectionType(
    "tls",
    Tls,
    (
        Key(
            "certificates",
            Many(One("the file of a certificate and, after a space, that of its key", _certificate_files)),
            "The certificates of the ssl: addresses, one a line: its file, and that of its key.",
        ),
        Key("min_version", choice("1.2", "1.3"), "The oldest version of TLS that is spoken: 1.2 or 1.3."),
        Key(
            "client_ca",
            path(),
            "The file of the authorities that sign the certificates of backends: at [api] listen, they need one.",
        ),
    ),
)

AUTH = SectionType(
    "auth",
    Auth,
    (
        Key(
            "keys",
            Many(One("an id, an algorithm and a key, with spaces between them", parse_source, secret=True)),
            "The keys that tokens are signed with, one a line: an id (kid), an algorithm and the key.",
        ),
        Key("jwks", _jwks(), "Where more keys are published: file: and a path, or the URL of a JSON Web Key Set."),
        Key(
            "jwks_interval",
            number(10, 24 * _HOUR),
            "Seconds after which they are read again. That is done too when a token names a key that is not known.",
        ),
        Key("issuer", _PRINTABLE, "What tokens must have as their issuer (iss). By default anything."),
        Key(
            "audience",
            _PRINTABLE,
            "What tokens must have in their audience (aud). By default a token for an audience is refused.",
        ),
        Key("leeway", number(0, 300), "Seconds by which the clock of whoever makes tokens may differ from ours."),
        Key("require_exp", boolean(), "Whether each token must say when it ends (exp)."),
        Key(
            "cookie",
            matching(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits, dots, underscores and hyphens"),
            "The name of the cookie in which browsers may have their token. By default cookies are not looked at.",
        ),
    ),
)
