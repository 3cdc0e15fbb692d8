"""The two encodings of commands, replies and pushes: JSON and msgpack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar, TypeVar

import attrs
import msgspec

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.commands import Frame, Publication, Publish, RawField, Request, json_payload, publication
from rtpush.protocol.message import Kind, Message, Payload, envelope_json, envelope_object

__all__ = ["JSON", "MAX_COMMANDS", "MSGPACK", "BadCommand", "Codec"]

T = TypeVar("T", bound=msgspec.Struct)

#: The most commands in one array. Each that waits takes a hundred bytes, of however few it is made.
MAX_COMMANDS = 10_000

_Items = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_COMMANDS)]

_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


@attrs.frozen(slots=True)
class BadCommand:
    """
    A command that could not be read.

    :ivar id: Its id, where that could be read.
    """

    id: int | None
    error: RtpushError


@lru_cache(64)
def _reader_of(shape: type[Any]) -> Callable[[str], Any]:
    """Return what reads JSON of a shape."""
    return msgspec.json.Decoder(shape).decode


class _Id(msgspec.Struct):
    id: int | None = None


class Codec(ABC):
    """How commands, replies and pushes are written."""

    #: Whether the encoding is binary (for the opcode of its WebSocket frames).
    binary: ClassVar[bool]

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Write a reply or push, which may contain what :meth:`envelope` returns."""

    @abstractmethod
    def envelope(self, message: Message) -> Any:
        """Return the envelope of a message, to be put into what :meth:`encode` gets."""

    @abstractmethod
    def decode(self, data: bytes, shape: type[T]) -> T:
        """
        Read an object.

        :raises RtpushError: ``bad_request`` if it is malformed or not of this shape; the message says where.
        """

    @abstractmethod
    def _payload(self, raw: bytes) -> Payload: ...

    @abstractmethod
    def _split(self, data: bytes) -> list[msgspec.Raw] | None:
        """
        Return the items if the data is an array, else nothing.

        :raises RtpushError: ``bad_request`` if it is malformed, or has more than :data:`MAX_COMMANDS`.
        """

    def requests(self, data: bytes) -> Iterator[Request | BadCommand]:
        """Read one command or an array of them; one that is bad does not spoil the others."""
        try:
            items = self._split(data)
        except RtpushError as error:
            yield BadCommand(None, error)
            return
        for item in (data,) if items is None else items:
            try:
                yield Request.of(self.decode(bytes(item), Frame))
            except RtpushError as error:
                try:
                    id_ = self.decode(bytes(item), _Id).id
                except RtpushError:
                    id_ = None
                yield BadCommand(id_, error)

    def json(self, raw: RawField) -> bytes:
        """
        Return a field that was kept raw as JSON; nothing for one that was not given.

        :raises RtpushError: ``bad_request`` if it cannot be JSON.
        """
        if isinstance(raw, msgspec.UnsetType):
            return b""
        return msgspec.json.encode(self._payload(bytes(raw)).as_object())

    def publication(self, publish: Publish) -> Publication:
        """
        Check and complete what is to be published.

        :raises RtpushError: ``bad_request`` if the payload, event name or key is bad.
        """
        data = publish.data
        return publication(publish, self._payload(bytes(data)) if isinstance(data, msgspec.Raw) else None)


class JsonCodec(Codec):
    """UTF-8 JSON."""

    binary = False

    def encode(self, value: Any) -> bytes:
        return msgspec.json.encode(value)

    def envelope(self, message: Message) -> Any:
        return msgspec.Raw(envelope_json(message))

    def decode(self, data: bytes, shape: type[T]) -> T:
        try:
            # Through str: a field that is kept raw is not checked for UTF-8 by the decoder.
            decoded: T = _reader_of(shape)(data.decode())
            return decoded
        except UnicodeDecodeError as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"not UTF-8: {error}") from None
        except _DECODE_ERRORS as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, str(error)) from None

    def _payload(self, raw: bytes) -> Payload:
        return json_payload(raw)

    def _split(self, data: bytes) -> list[msgspec.Raw] | None:
        if not data.lstrip(b" \t\r\n").startswith(b"["):
            return None
        try:
            return msgspec.json.decode(data, type=_Items)
        except _DECODE_ERRORS as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, str(error)) from None


class MsgpackCodec(Codec):
    """msgpack; JSON payloads are carried as msgpack values, binary ones as bytes."""

    binary = True

    def encode(self, value: Any) -> bytes:
        try:
            return msgspec.msgpack.encode(value)
        except OverflowError:
            return msgspec.msgpack.encode(_fit_integers(value))

    def envelope(self, message: Message) -> Any:
        return envelope_object(message)

    def decode(self, data: bytes, shape: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(data, type=shape)
        except _DECODE_ERRORS as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, str(error)) from None

    def _payload(self, raw: bytes) -> Payload:
        try:
            value = msgspec.msgpack.decode(raw)
            if isinstance(value, bytes):
                return Payload(value, Kind.BINARY)
            return json_payload(msgspec.json.encode(value))
        except (*_DECODE_ERRORS, TypeError) as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, f"data cannot be carried as JSON: {error}") from None

    def _split(self, data: bytes) -> list[msgspec.Raw] | None:
        # The type bytes of an array: fixarray, array 16, array 32.
        if not data or not (0x90 <= data[0] <= 0x9F or data[0] in (0xDC, 0xDD)):
            return None
        try:
            return msgspec.msgpack.decode(data, type=_Items)
        except _DECODE_ERRORS as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, str(error)) from None


def _fit_integers(value: Any) -> Any:
    """Replace integers that msgpack cannot hold by the nearest float, as JavaScript would read them."""
    if isinstance(value, dict):
        return {key: _fit_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_fit_integers(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return None
    return value


JSON = JsonCodec()
MSGPACK = MsgpackCodec()
