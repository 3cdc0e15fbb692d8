"""Tests of rtpush.protocol.codecs."""

from __future__ import annotations

import json
import struct
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.codecs import JSON, MAX_COMMANDS, MSGPACK, BadCommand, Codec
from rtpush.protocol.commands import (
    Connect,
    HistoryQuery,
    Ping,
    PresenceQuery,
    Publish,
    Refresh,
    Request,
    Subscribe,
    Unsubscribe,
)
from rtpush.protocol.message import Kind, Message, Payload, envelope_object
from tests.protocol.strategies import json_texts, messages

#: One of each command as a client may send it, and what is read.
COMMANDS: list[tuple[dict[str, Any], Any]] = [
    ({"connect": {}}, Connect()),
    ({"connect": {"token": "t", "version": 9}}, Connect(token="t")),
    ({"subscribe": {"channel": "a"}}, Subscribe(channel="a")),
    ({"subscribe": {"channel": "a", "cursor": "e:7"}}, Subscribe(channel="a", cursor="e:7")),
    ({"subscribe": {"channel": "a", "since": "earliest"}}, Subscribe(channel="a", since="earliest")),
    ({"unsubscribe": {"channel": "a"}}, Unsubscribe(channel="a")),
    ({"publish": {"channel": "a", "data_b64": "aGk="}}, Publish(channel="a", data_b64="aGk=")),
    ({"publish": {"channel": "a", "event": "x", "history": False}}, Publish(channel="a", event="x", history=False)),
    ({"history": {"channel": "a"}}, HistoryQuery(channel="a")),
    (
        {"history": {"channel": "a", "since": "e:7", "limit": 3, "reverse": True}},
        HistoryQuery(channel="a", since="e:7", limit=3, reverse=True),
    ),
    ({"presence": {"channel": "a"}}, PresenceQuery(channel="a")),
    ({"ping": {}}, Ping()),
    ({"refresh": {"token": "t"}}, Refresh(token="t")),
]

#: Objects that are not commands, though they look like it.
BAD: list[Any] = [
    {},
    {"id": 1},
    {"id": 1, "pong": {}},
    {"ping": {}, "presence": {"channel": "a"}},
    {"ping": None},
    {"ping": 1},
    {"ping": {"extra": 1}},
    {"subscribe": {}},
    {"subscribe": {"channel": 7}},
    {"subscribe": {"channel": "a", "chanel": "b"}},
    {"subscribe": {"channel": None}},
    {"publish": {"channel": "a", "history": "yes"}},
    {"history": {"channel": "a", "limit": "3"}},
    {"history": {"channel": "a", "limit": 1.5}},
    {"id": 0, "ping": {}},
    {"id": -3, "ping": {}},
    {"id": "1", "ping": {}},
    {"id": 1.5, "ping": {}},
    {"id": True, "ping": {}},
    7,
    "ping",
    None,
    True,
]


def jsoned(value: Any) -> bytes:
    """Write JSON by another writer than the one that is tested."""
    return json.dumps(value).encode()


ENCODERS = [(JSON, jsoned), (MSGPACK, msgspec.msgpack.encode)]


def nested(levels: int) -> bytes:
    """Return a command whose data is nested, and never ends."""
    return b'{"publish":{"channel":"a","data":' + b"[" * levels


#: Bytes that are nearly commands: a valid text with some of it replaced, cut or doubled.
def mangled(encode: Any) -> st.SearchStrategy[bytes]:
    """Return what draws them."""
    whole = st.lists(st.sampled_from([command for command, _ in COMMANDS] + BAD), max_size=3).map(
        lambda some: encode(some[0] if len(some) == 1 else some)
    )
    return st.builds(
        lambda data, at, length, insert: data[: at % (len(data) + 1)] + insert + data[at % (len(data) + 1) + length :],
        whole,
        st.integers(0, 400),
        st.integers(0, 5),
        st.binary(max_size=5) | st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\ud800", b"\xff", b"1e999", b"\0"]),
    )


class RequestsTests(SynchronousTestCase):
    """Reading commands."""

    def test_each_command(self) -> None:
        """Each command is read in both encodings, with and without an id."""
        for codec, encode in ENCODERS:
            for sent, expected in COMMANDS:
                (name,) = sent
                self.assertEqual(list(codec.requests(encode(sent))), [Request(None, name, expected)])
                self.assertEqual(list(codec.requests(encode({"id": 2**40, **sent}))), [Request(2**40, name, expected)])

    def test_very_many(self) -> None:
        """An array may have so many commands; of a larger one nothing is kept, however many waited to be done."""
        for codec in (JSON, MSGPACK):
            for count, expected in ((MAX_COMMANDS, MAX_COMMANDS), (MAX_COMMANDS + 1, 1)):
                read = list(codec.requests(codec.encode([{"ping": {}}] * count)))
                self.assertEqual(len(read), expected)
            self.assertIsInstance(read[0], BadCommand)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        waiting = JSON.requests(b"[" + b"1," * 500_000 + b"1]")
        next(waiting)
        self.assertLess(tracemalloc.get_traced_memory()[0], 2_000_000)

    def test_array(self) -> None:
        """An array holds several, in order; it may be empty."""
        for codec, encode in ENCODERS:
            for count in (0, 1, 13, 20):
                sent = [{"id": number, "ping": {}} for number in range(1, count + 1)]
                read = list(codec.requests(encode(sent)))
                self.assertEqual([(each.id, type(each)) for each in read], [(n + 1, Request) for n in range(count)])
        long = b"\xdd\x00\x00\x00\x02" + msgspec.msgpack.encode({"ping": {}}) * 2
        self.assertEqual([each.id for each in MSGPACK.requests(long)], [None, None])

    def test_bad_ones(self) -> None:
        """Each bad command is answered with bad_request, and spoils neither that before nor that after it."""
        for codec, encode in ENCODERS:
            for bad in BAD:
                (alone,) = codec.requests(encode(bad))
                first, second, third = codec.requests(encode([{"ping": {}}, bad, {"id": 3, "ping": {}}]))
                self.assertIsInstance(first, Request)
                self.assertEqual(third, Request(3, "ping", Ping()))
                for each in (alone, second):
                    assert isinstance(each, BadCommand), bad
                    self.assertIs(each.error.kind, ErrorCode.BAD_REQUEST)
                    self.assertTrue(each.error.message)

    def test_id_of_bad_one(self) -> None:
        """The id of a bad command comes back where it can be read."""
        for codec, encode in ENCODERS:
            for bad, id_ in (
                ({"id": 5, "pong": {}}, 5),
                ({"id": 5}, 5),
                ({"id": 5, "ping": 1}, 5),
                ({"id": "5", "ping": {}}, None),
                ({"pong": {}}, None),
                (7, None),
            ):
                (read,) = codec.requests(encode(bad))
                assert isinstance(read, BadCommand)
                self.assertEqual(read.id, id_)

    def test_says_where(self) -> None:
        """The error says what is wrong and where."""
        (read,) = JSON.requests(b'{"id":1,"subscribe":{"channel":"a","chanel":"b"}}')
        assert isinstance(read, BadCommand)
        self.assertIn("chanel", read.error.message)
        self.assertIn("$.subscribe", read.error.message)

    @settings(max_examples=200)
    @given(st.binary() | mangled(jsoned))
    @example(b"")
    @example(b" ")
    @example(b"[")
    @example(b"[]")
    @example(b" \r\n\t[{}]")
    @example(b'{"ping":{}} {"ping":{}}')
    @example(b'\xef\xbb\xbf{"ping":{}}')
    @example(b'{"publish":{"channel":"a","data":"\xff"}}')
    @example(b'[{"publish":{"channel":"a","data":"\xff"}}]')
    @example(b'{"connect":{"token":"\xff"}}')
    @example(b'{"connect":{"info":"\xed\xa0\x80"}}')
    @example(b'{"publish":{"channel":"\\ud800"}}')
    @example(b'{"id":1e999}')
    @example(b'{"id":99999999999999999999999999,"ping":{}}')
    @example(nested(500))
    @example(nested(1_000_000))
    @example(b"[" * 1_000_000)
    @example(b'{"a":' * 1_000_000)
    def test_any_json(self, data: bytes) -> None:
        """No bytes whatever raise anything."""
        self.check(JSON, data)

    @settings(max_examples=200)
    @given(st.binary() | mangled(msgspec.msgpack.encode))
    @example(b"")
    @example(b"\x90")
    @example(b"\xdd\xff\xff\xff\xff")
    @example(b"\xdc\xff\xff")
    @example(b"\xdf\xff\xff\xff\xff")
    @example(b"\xc1")
    @example(b"\x91" * 1_000_000)
    @example(b"\x81\xa4ping" * 100_000)
    @example(b"\x81\xa4ping\x80\x00")
    @example(b"\x81\xa7publish\x82\xa7channel\xa1a\xa4data\xa1\xff")
    @example(b"\x81\xa7publish\x82\xa7channel\xa1a\xa4data" + b"\x91" * 100_000)
    @example(b"\x81\xa7connect\x81\xa4info\xd6\xff\x00\x00\x00\x00")
    def test_any_msgpack(self, data: bytes) -> None:
        """No bytes whatever raise anything."""
        self.check(MSGPACK, data)

    def check(self, codec: Codec, data: bytes) -> None:
        """Read bytes, and use what was read as the server does."""
        for read in codec.requests(data):
            if isinstance(read, BadCommand):
                self.assertIs(read.error.kind, ErrorCode.BAD_REQUEST)
                # The message goes to the client.
                read.error.message.encode()
                continue
            self.assertTrue(read.id is None or read.id >= 1)
            try:
                if isinstance(read.command, Publish):
                    message = codec.publication(read.command).message()
                    for each in (JSON, MSGPACK):
                        self.assertTrue(each.encode(each.envelope(message)))
                elif isinstance(read.command, Connect):
                    info = codec.json(read.command.info)
                    self.assertTrue(info == b"" or json.loads(info) is not ...)
            except RtpushError as error:
                self.assertIs(error.kind, ErrorCode.BAD_REQUEST)


class PayloadTests(SynchronousTestCase):
    """What ``data`` of a publish becomes."""

    def published(self, codec: Codec, data: bytes) -> Payload:
        """Return the payload of a publish."""
        if codec is JSON:
            frame = b'{"publish": {"channel": "a", "data":' + data + b' , "event":"x"}}'
        else:
            frame = b"\x81\xa7publish\x82\xa7channel\xa1a\xa4data" + data
        (request,) = codec.requests(frame)
        assert isinstance(request, Request), request
        assert isinstance(request.command, Publish)
        return codec.publication(request.command).payload

    def refusal(self, codec: Codec, data: bytes) -> str:
        """Return the message of the error for a publish."""
        error = self.assertRaises(RtpushError, self.published, codec, data)
        self.assertIs(error.kind, ErrorCode.BAD_REQUEST)
        return error.message

    @given(json_texts())
    def test_json(self, text: bytes) -> None:
        """JSON is kept byte for byte, without what is around it; a string becomes its text."""
        payload = self.published(JSON, b" \t" + text + b"\r\n")
        if text.startswith(b'"'):
            self.assertEqual(payload, Payload(json.loads(text).encode(), Kind.TEXT))
        else:
            self.assertEqual(payload, Payload(text, Kind.JSON))

    def test_null(self) -> None:
        """``null`` is a payload like any other."""
        self.assertEqual(self.published(JSON, b"null"), Payload(b"null", Kind.JSON))
        self.assertEqual(self.published(MSGPACK, b"\xc0"), Payload(b"null", Kind.JSON))

    def test_msgpack(self) -> None:
        """msgpack values become JSON, strings text, bytes binary."""
        for value, payload in (
            ({"a": [1, -1.5, None, True]}, Payload(b'{"a":[1,-1.5,null,true]}', Kind.JSON)),
            ("é", Payload("é".encode(), Kind.TEXT)),
            (b"\xff\x00", Payload(b"\xff\x00", Kind.BINARY)),
            (2**64 - 1, Payload(b"18446744073709551615", Kind.JSON)),
            ({1: 2}, Payload(b'{"1":2}', Kind.JSON)),
            ([b"hi"], Payload(b'["aGk="]', Kind.JSON)),
            (float("nan"), Payload(b"null", Kind.JSON)),
            (
                datetime(2026, 1, 2, tzinfo=UTC),
                Payload(b"2026-01-02T00:00:00Z", Kind.TEXT),
            ),
        ):
            self.assertEqual(self.published(MSGPACK, msgspec.msgpack.encode(value)), payload)

    def test_msgpack_that_is_no_json(self) -> None:
        """What JSON has no place for is refused: extension types, keys that are no text, nesting."""
        self.assertIn("JSON", self.refusal(MSGPACK, msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"x"))))
        self.refusal(MSGPACK, b"\x81\x90\x01")
        self.assertIn("nested deeper", self.refusal(MSGPACK, b"\x91" * 300 + b"\x01"))

    def test_info(self) -> None:
        """What a client says of itself is kept as JSON, whatever encoding it came in."""
        (request,) = JSON.requests(b'{"connect": {"info": {"name" : "\\u00e9"}}}')
        assert isinstance(request, Request)
        self.assertEqual(JSON.json(request.command.info), '{"name":"é"}'.encode())
        (request,) = MSGPACK.requests(msgspec.msgpack.encode({"connect": {"info": {"name": "é"}}}))
        assert isinstance(request, Request)
        self.assertEqual(MSGPACK.json(request.command.info), '{"name":"é"}'.encode())
        self.assertEqual(JSON.json(msgspec.UNSET), b"")


class EncodeTests(SynchronousTestCase):
    """Writing replies and pushes."""

    @settings(max_examples=50)
    @given(st.lists(messages, max_size=3))
    def test_envelopes(self, some: list[Message]) -> None:
        """Envelopes are put into replies, and are read back the same in both encodings."""
        read = json.loads(JSON.encode({"messages": [JSON.envelope(message) for message in some]}))
        self.assertEqual(read, {"messages": [json.loads(JSON.encode(JSON.envelope(message))) for message in some]})
        msgspec.msgpack.decode(MSGPACK.encode({"messages": [MSGPACK.envelope(message) for message in some]}))

    def test_opcodes(self) -> None:
        """JSON goes in text frames, msgpack in binary ones."""
        self.assertEqual((JSON.binary, MSGPACK.binary), (False, True))

    def test_integers_of_any_size(self) -> None:
        """Integers that msgpack cannot hold become the nearest float, wherever they stand; others stay."""
        value = {"a": [2**64, -(2**63) - 1, 2**64 - 1, {"b": 10**400}], "c": "x"}
        read = msgspec.msgpack.decode(MSGPACK.encode(value))
        self.assertEqual(read, {"a": [2.0**64, -(2.0**63), 2**64 - 1, {"b": None}], "c": "x"})
        self.assertIsInstance(read["a"][0], float)
        self.assertIsInstance(read["a"][2], int)

    def test_binary(self) -> None:
        """In msgpack a binary payload is bytes."""
        message = Message("a", Payload(b"\xff", Kind.BINARY))
        self.assertEqual(MSGPACK.envelope(message), envelope_object(message))
        self.assertIn(b"\xc4\x01\xff", MSGPACK.encode(MSGPACK.envelope(message)))

    def test_doubles(self) -> None:
        """A float stays as exact as it was."""
        data = MSGPACK.encode(0.1)
        self.assertEqual(struct.unpack("!d", data[1:])[0], 0.1)
