"""The server's side of the WebSocket opening handshake (RFC 6455 section 4.2, RFC 7692 section 7.1)."""

from __future__ import annotations

import binascii
import hashlib
import re

import attrs
from autobahn.websocket.compress import (
    PerMessageDeflate,
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
)

from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.http import Request, read_body

__all__ = ["Deflate", "accept_key", "check_upgrade", "choose_deflate", "header_items", "response_head"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_WINDOW_BITS = 15

#: 16 bytes in base64.
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


def header_items(request: Request, name: bytes) -> list[str]:
    """Return the items of a header that is a list, whether on one line or several."""
    lines = request.requestHeaders.getRawHeaders(name) or []
    return [item.strip() for line in lines for item in line.decode("latin-1").split(",") if item.strip()]


def check_upgrade(request: Request) -> bytes:
    """
    Check that a request opens a WebSocket; return its key.

    :raises RtpushError: ``upgrade_required`` if it asks for no WebSocket of version 13, ``bad_request`` if it does, but
        not well.
    """
    asks = _has_item(request, b"upgrade", b"websocket") and _has_item(request, b"connection", b"upgrade")
    if request.clientproto != b"HTTP/1.1" or not asks:
        request.setHeader(b"upgrade", b"websocket")
        request.setHeader(b"connection", b"Upgrade")
        raise RtpushError(ErrorCode.UPGRADE_REQUIRED, "expected a WebSocket handshake over HTTP/1.1")
    if request.requestHeaders.getRawHeaders(b"sec-websocket-version") != [b"13"]:
        request.setHeader(b"upgrade", b"websocket")
        request.setHeader(b"sec-websocket-version", b"13")
        raise RtpushError(ErrorCode.UPGRADE_REQUIRED, "expected Sec-WebSocket-Version: 13")
    if request.requestHeaders.hasHeader(b"transfer-encoding") or read_body(request):
        raise RtpushError(ErrorCode.BAD_REQUEST, "a WebSocket handshake has no body")
    if request.getHeader(b"host") is None:
        raise RtpushError(ErrorCode.BAD_REQUEST, "there is no Host header")
    keys = request.requestHeaders.getRawHeaders(b"sec-websocket-key") or []
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise RtpushError(ErrorCode.BAD_REQUEST, "expected one Sec-WebSocket-Key, 16 bytes in base64")
    key: bytes = keys[0]
    return key


def _has_item(request: Request, name: bytes, item: bytes) -> bool:
    """Tell whether a header that is a list has an item, whose case does not matter."""
    lines = request.requestHeaders.getRawHeaders(name) or ()
    return any(
        line.lower() == item or item in [each.strip(b" \t") for each in line.lower().split(b",")] for line in lines
    )


def accept_key(key: bytes) -> bytes:
    """Return what proves that the handshake was understood."""
    return binascii.b2a_base64(hashlib.sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


@attrs.frozen(slots=True)
class Deflate:
    """
    How permessage-deflate is used on a connection.

    Neither side takes its context over from message to message: so one compressed frame serves many connections, and an
    idle one holds no window.

    :ivar window_bits: The server's window; 0 without compression.
    """

    window_bits: int = 0

    def header(self) -> bytes:
        """Return the extension as the server accepts it."""
        value = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        if self.window_bits < _MAX_WINDOW_BITS:
            value += b"; server_max_window_bits=%d" % self.window_bits
        return value

    def inflater(self) -> PerMessageDeflate | None:
        """Return what Autobahn decompresses incoming messages with."""
        if self.window_bits == 0:
            return None
        accept = PerMessageDeflateOfferAccept(PerMessageDeflateOffer(), request_no_context_takeover=True)
        inflater: PerMessageDeflate = _Inflater.create_from_offer_accept(True, accept)  # type: ignore[no-untyped-call]
        return inflater


class _Inflater(PerMessageDeflate):
    """
    Autobahn's inflater, kept from taking a part for the whole.

    zlib may have read all input and still hold back output when a limit is reached. So it is asked for a byte more than
    the limit, which Autobahn then finds too much.
    """

    def decompress_message_data(self, data: bytes, max_output_len: int | None = None) -> bytes:
        if max_output_len is not None:
            max_output_len += 1
        inflated: bytes = super().decompress_message_data(data, max_output_len)  # type: ignore[no-untyped-call]
        return inflated


def choose_deflate(offers: list[str]) -> Deflate:
    """Take the first offer of permessage-deflate that is well-formed, if there is one."""
    for offer in offers:
        name, *parameters = [part.strip() for part in offer.split(";")]
        if name.lower() != "permessage-deflate":
            continue
        parsed: dict[str, list[str | bool]] = {}
        for parameter in parameters:
            key, equals, value = parameter.partition("=")
            parsed.setdefault(key.strip().lower(), []).append(value.strip().strip('"') if equals else True)
        try:
            window = PerMessageDeflateOffer.parse(parsed).request_max_window_bits
        except Exception:
            # Autobahn has no narrower class for a malformed offer, which is passed over (RFC 7692 section 5.1).
            continue
        return Deflate(window or _MAX_WINDOW_BITS)
    return Deflate()


def response_head(key: bytes, subprotocol: str | None, deflate: Deflate) -> bytes:
    """Return the server's handshake (RFC 6455 section 4.2.2)."""
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_key(key)
        + b"\r\n"
    )
    if subprotocol is not None:
        head += b"Sec-WebSocket-Protocol: " + subprotocol.encode() + b"\r\n"
    if deflate.window_bits:
        head += b"Sec-WebSocket-Extensions: " + deflate.header() + b"\r\n"
    return head + b"\r\n"
