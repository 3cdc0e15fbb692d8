"""Tests of rtpush.auth.apikey."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.test.requesthelper import DummyRequest

from rtpush.auth.apikey import ApiKeys
from rtpush.errors import ErrorCode, RtpushError


def request(headers: dict[bytes, bytes]) -> DummyRequest:
    """Return a request with some headers."""
    made = DummyRequest([b""])
    made.requestHeaders = Headers({name: [value] for name, value in headers.items()})
    return made


class ApiKeysTests(SynchronousTestCase):
    """Who may use the server API."""

    def refusal(self, keys: ApiKeys, headers: dict[bytes, bytes]) -> str:
        """Return the message of the error for a request."""
        error = self.assertRaises(RtpushError, keys.check, request(headers))
        self.assertIs(error.kind, ErrorCode.UNAUTHORIZED)
        return error.message

    def test_both_headers(self) -> None:
        """Any of the keys does, in either header; the scheme's case does not matter, nor spaces after it."""
        keys = ApiKeys(["one", "two"], open_=False)
        for headers in (
            {b"X-API-Key": b"one"},
            {b"x-api-key": b"two"},
            {b"Authorization": b"Bearer one"},
            {b"Authorization": b"bearer two"},
            {b"Authorization": b"BEARER  two "},
        ):
            self.assertIsNone(keys.check(request(headers)))

    def test_wrong(self) -> None:
        """Any other key does not, nor a part of one, nor an empty one."""
        keys = ApiKeys(["one", "two"], open_=False)
        for key in (b"three", b"on", b"onee", b"One", b"", b"one two", b"\xff"):
            self.assertIn("not known", self.refusal(keys, {b"X-API-Key": key}))
        self.assertIn("not known", self.refusal(keys, {b"Authorization": b"Bearer three"}))

    def test_x_api_key_wins(self) -> None:
        """With both headers it is ``X-API-Key`` that counts, so that a proxy's own Authorization is no harm."""
        keys = ApiKeys(["one"], open_=False)
        keys.check(request({b"X-API-Key": b"one", b"Authorization": b"Bearer other"}))
        self.refusal(keys, {b"X-API-Key": b"other", b"Authorization": b"Bearer one"})

    def test_missing(self) -> None:
        """Without a key the error says how to give one; other schemes are no key."""
        keys = ApiKeys(["one"], open_=False)
        for headers in ({}, {b"Authorization": b"Basic b25lOg=="}, {b"Authorization": b"Bearer"}):
            self.assertIn("X-API-Key: KEY", self.refusal(keys, headers))

    def test_closed(self) -> None:
        """Without a key in the config the API is closed, whatever comes."""
        keys = ApiKeys([], open_=False)
        for headers in ({}, {b"X-API-Key": b""}, {b"X-API-Key": b"one"}):
            self.assertIn("closed", self.refusal(keys, headers))

    def test_open(self) -> None:
        """An open API needs no key, and minds no wrong one."""
        keys = ApiKeys(["one"], open_=True)
        keys.check(request({}))
        keys.check(request({b"X-API-Key": b"other"}))

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary())
    def test_any(self, key: str, other: bytes) -> None:
        """A key opens exactly if its bytes are the same."""
        keys = ApiKeys([key], open_=False)
        for given_key in (key.encode(), other):
            made = DummyRequest([b""])
            made.getHeader = {b"x-api-key": given_key}.get
            if given_key == key.encode():
                keys.check(made)
            else:
                self.assertRaises(RtpushError, keys.check, made)
