"""Signatures of what is sent to the application, by the Standard Webhooks specification (1.0.0)."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable

import attrs

__all__ = ["MIN_SECRET_BYTES", "Secret", "parse_secret", "signed"]

#: The shortest secret; those that begin with ``whsec_`` may have the 24 bytes that the specification permits.
MIN_SECRET_BYTES = 32
_MIN_STANDARD_BYTES = 24


@attrs.frozen
class Secret:
    """What signatures are made with."""

    value: bytes = attrs.field(repr=False)


def parse_secret(text: str) -> Secret:
    """
    Read a secret: 32 characters or more, ``base64:`` and 32 bytes or more, or ``whsec_`` as the specification has it.

    :raises ValueError: if it is malformed or too short. What it says does not show the secret.
    """
    least = MIN_SECRET_BYTES
    try:
        if text.startswith("whsec_"):
            value, least = b64decode(text.removeprefix("whsec_"), validate=True), _MIN_STANDARD_BYTES
        elif text.startswith("base64:"):
            value = b64decode(text.removeprefix("base64:"), validate=True)
        else:
            value = text.encode("ascii")
    except ValueError:
        raise ValueError("it is neither ASCII nor good base64") from None
    if len(value) < least:
        raise ValueError(f"it has {len(value)} bytes, and needs {least}")
    return Secret(value)


def signed(secrets: Iterable[Secret], id_: str, seconds: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """
    Return the headers that sign a body.

    :param secrets: Each makes a signature. Without any there is none.
    :param id_: The id of the message, which is the same when it is sent again.
    :param seconds: When it is sent, since 1970.
    """
    headers = [(b"webhook-id", id_.encode()), (b"webhook-timestamp", b"%d" % seconds)]
    content = b"%b.%d.%b" % (id_.encode(), seconds, body)
    signatures = [b"v1," + b64encode(hmac.digest(secret.value, content, "sha256")) for secret in secrets]
    if signatures:
        headers.append((b"webhook-signature", b" ".join(signatures)))
    return headers
