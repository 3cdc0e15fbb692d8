"""What is said and answered."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.permissions import Action
from rtpush.errors import ErrorCode
from rtpush.hooks.shapes import (
    BadAnswer,
    Question,
    Reply,
    payload_fields,
    read_connect,
    read_publish,
    read_subscribe,
    read_told,
)
from rtpush.protocol.commands import Publication
from rtpush.protocol.message import Kind, Payload
from rtpush.registry.guests import Denied

_PUBLICATION = Publication("a", Payload(b"1", Kind.JSON), "price", "key", False)


def _reply(content: Any, status: int = 200) -> Reply:
    return Reply(status, content if isinstance(content, bytes) else json.dumps(content).encode())


class ConnectTests(SynchronousTestCase):
    """The answer to ``connect``."""

    def test_nothing(self) -> None:
        """An empty object is a yes, and gives nothing; so do nulls."""
        for content in ({}, dict.fromkeys(("user", "info", "channels", "expires", "data", "deny"))):
            read = read_connect(_reply(content), 5.0)
            self.assertEqual((read.grant, read.data), (None, b""))

    def test_all(self) -> None:
        """What it gives is what a token would."""
        read = read_connect(
            _reply(
                {
                    "user": "42",
                    "info": {"name": "Ann"},
                    "channels": {"room:*": ["subscribe", "publish"]},
                    "expires": 99,
                    "data": [1, 2],
                }
            ),
            5.0,
        )
        grant = read.grant
        assert grant is not None
        self.assertEqual((grant.user, grant.expires, grant.issued, grant.id), ("42", 99.0, 5.0, ""))
        self.assertEqual((json.loads(grant.info), json.loads(read.data)), ({"name": "Ann"}, [1, 2]))
        self.assertTrue(grant.allows(Action.PUBLISH, "room:a"))
        self.assertFalse(grant.allows(Action.HISTORY, "room:a"))

    def test_bad(self) -> None:
        """What is not of this shape is no answer: also what is misspelt, since it could mean no."""
        for content in (
            b"", b"null", b"[]", b"yes", b"{", b"\xff", b'{"data": "\\ud800"}', b'{"data": NaN}', b"[" * 50_000,
            {"denied": True}, {"error": {"code": 1, "message": "no"}}, {"result": {}}, {"deny": True},
            {"deny": {"code": 0}}, {"deny": {"code": 5000}}, {"deny": {"reason": "no"}},
            {"user": 42}, {"user": "x" * 256}, {"user": "a\nb"}, {"info": "x" * 9000},
            {"channels": ["a"]}, {"channels": {"a": "subscribe"}}, {"channels": {"a": ["read"]}},
            {"channels": {"a b": ["subscribe"]}}, {"channels": {f"c{n}": ["subscribe"] for n in range(101)}},
            {"expires": "soon"}, {"expires": -1}, {"expires": 1e300},
        ):
            with self.subTest(content=content):
                self.assertRaises(BadAnswer, read_connect, _reply(content), 5.0)

    def test_statuses(self) -> None:
        """401 and 403 say no, whatever else they say; no other status but 200 is an answer."""
        for status in (100, 201, 204, 301, 302, 400, 404, 429, 500, 503):
            self.assertRaises(BadAnswer, read_connect, _reply({}, status), 5.0)
        for status, kind in ((401, ErrorCode.UNAUTHORIZED), (403, ErrorCode.PERMISSION_DENIED)):
            for content in (b"<html>", {}, b""):
                error = self.assertRaises(Denied, read_connect, _reply(content, status), 5.0)
                self.assertIs(error.kind, kind)
            error = self.assertRaises(Denied, read_connect, _reply({"deny": {"message": "go"}}, status), 5.0)
            self.assertEqual((error.message, error.code), ("go", kind.code))

    @given(st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["deny", "code", "message", "user", "info", "channels", "expires", "data", "data_b64"]),
            inner,
            max_size=4,
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()))
    def test_anything(self, body: bytes) -> None:
        """Whatever is answered, it is an answer, a no, or none."""
        for read in (lambda reply: read_connect(reply, 5.0), lambda reply: read_publish(reply, _PUBLICATION)):
            try:
                read(Reply(200, body))
            except (BadAnswer, Denied):
                pass


class DenyTests(SynchronousTestCase):
    """How it says no."""

    def test_codes(self) -> None:
        """A code of ours means what it means with us; any other is the application's."""
        for deny, told in (
            ({}, (102, "permission_denied", False)),
            ({"code": 101}, (101, "unauthorized", False)),
            ({"code": 111}, (111, "limit_exceeded", True)),
            ({"code": 112}, (112, "unavailable", True)),
            ({"code": 1234}, (1234, "permission_denied", False)),
            ({"code": 4403}, (4403, "permission_denied", False)),
        ):
            error = self.assertRaises(Denied, read_subscribe, _reply({"deny": deny}))
            as_dict = error.as_dict()
            self.assertEqual((as_dict["code"], as_dict["name"], as_dict["temporary"]), told)

    def test_message(self) -> None:
        """Its words reach the client, up to a length."""
        error = self.assertRaises(Denied, read_subscribe, _reply({"deny": {"message": "x" * 1000}, "data": 1}))
        self.assertEqual(error.message, "x" * 500)


class OtherAnswerTests(SynchronousTestCase):
    """The answers to the other events."""

    def test_subscribe(self) -> None:
        """It may say something to the client, and nothing else."""
        self.assertEqual(read_subscribe(_reply({})), b"")
        self.assertEqual(read_subscribe(_reply({"data": {"a": [1]}})), b'{"a": [1]}')
        self.assertRaises(BadAnswer, read_subscribe, _reply({"user": "42"}))

    def test_publish(self) -> None:
        """It may replace the payload, and leaves all else as it is."""
        self.assertIs(read_publish(_reply({}), _PUBLICATION), _PUBLICATION)
        for content, payload in (
            ({"data": "text"}, Payload(b"text", Kind.TEXT)),
            ({"data": {"a": 1}}, Payload(b'{"a": 1}', Kind.JSON)),
            ({"data_b64": "AAE="}, Payload(b"\0\1", Kind.BINARY)),
        ):
            read = read_publish(_reply(content), _PUBLICATION)
            self.assertEqual(read, msgspec.structs.replace(_PUBLICATION, payload=payload))
        for content in ({"data": 1, "data_b64": "AAE="}, {"data_b64": "?"}, {"channel": "b"}):
            self.assertRaises(BadAnswer, read_publish, _reply(content), _PUBLICATION)

    def test_told(self) -> None:
        """To what was only told, any success is an answer."""
        for status in (200, 202, 204):
            read_told(Reply(status, b"thanks"))
        for status in (302, 401, 500):
            self.assertRaises(BadAnswer, read_told, Reply(status, b""))


class QuestionTests(SynchronousTestCase):
    """What is asked."""

    def test_payloads(self) -> None:
        """A payload is said as in an envelope."""
        for payload, fields in (
            (Payload(b'say "hi"', Kind.TEXT), {"data": 'say "hi"'}),
            (Payload(b'{"a":1}', Kind.JSON), {"data": {"a": 1}}),
            (Payload(b"\0\1", Kind.BINARY), {"data_b64": "AAE="}),
        ):
            common = {"event": "publish", "id": "i", "time": 1.5, "node": "n", "transport": "emit"}
            said = json.loads(msgspec.json.encode(Question(**common, **payload_fields(payload))))
            self.assertEqual(said, {**common, **fields})
