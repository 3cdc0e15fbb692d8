"""Tests of rtpush.auth.origin."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.origin import Origins

SAME = Origins([])


class OriginsTests(SynchronousTestCase):
    """Whose pages are let in."""

    def test_same_origin(self) -> None:
        """Pages of the server itself are let in, whatever the case of the name, with or without the default port."""
        for origin, host in (
            ("http://example.com", "example.com"),
            ("https://example.com", "example.com"),
            ("http://EXAMPLE.com", "example.COM"),
            ("http://example.com:80", "example.com"),
            ("https://example.com", "example.com:443"),
            ("http://example.com:8080", "example.com:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ):
            self.assertTrue(SAME.allows(origin, host), (origin, host))

    def test_other_origin(self) -> None:
        """Pages of others are not: another name, port or scheme, a part of the name, no origin at all."""
        for origin, host in (
            ("http://example.org", "example.com"),
            ("http://example.com:8081", "example.com:8080"),
            ("http://example.com", "example.com:8080"),
            ("https://example.com", "example.com:80"),
            ("http://www.example.com", "example.com"),
            ("http://example.com.evil.org", "example.com"),
            ("http://evil.org/example.com", "example.com"),
            ("http://example.com@evil.org", "example.com"),
            ("ftp://example.com", "example.com"),
            ("null", "example.com"),
            ("", "example.com"),
            ("http://example.com", ""),
            ("http://example.com:port", "example.com"),
            ("http://example.com", "example.com:port"),
            ("http://[::1", "[::1"),
        ):
            self.assertFalse(SAME.allows(origin, host), (origin, host))

    def test_list(self) -> None:
        """Those of the list are let in, and so is the same origin."""
        origins = Origins(["https://App.example.org/", "http://localhost:3000"])
        for origin in ("https://app.example.org", "HTTPS://APP.EXAMPLE.ORG", "http://localhost:3000"):
            self.assertTrue(origins.allows(origin, "push.example.com"), origin)
        self.assertTrue(origins.allows("https://push.example.com", "push.example.com"))
        for origin in ("http://app.example.org", "https://example.org", "http://localhost", "https://x.app.example.org"):
            self.assertFalse(origins.allows(origin, "push.example.com"), origin)

    @given(st.text(), st.text())
    @example("null", "")
    def test_all(self, origin: str, host: str) -> None:
        """With ``*`` everybody is let in."""
        self.assertTrue(Origins(["*"]).allows(origin, host))

    @given(st.text() | st.text("http:/[]@.#?", max_size=30), st.text() | st.text("[]:.@/?#1", max_size=30))
    @example("http://exa\u2100mple.com", "exa\u2100mple.com")
    @example("http://[v1.x]", "[v1.x]")
    @example("http://a:99999999", "a")
    def test_anything(self, origin: str, host: str) -> None:
        """Whatever stands in the headers, the answer is yes or no."""
        self.assertIsInstance(SAME.allows(origin, host), bool)
