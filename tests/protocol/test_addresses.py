"""Tests of rtpush.protocol.addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.addresses import UNIX, TrustedProxies, host_of, shared_key


class HostTests(SynchronousTestCase):
    """Addresses as proxies write them."""

    def test_forms(self) -> None:
        """With a port or without one, in brackets or not; what is no address is none."""
        for text, host in (
            ("203.0.113.7", "203.0.113.7"),
            (" 203.0.113.7:4711\t", "203.0.113.7"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("fe80::1%eth0", "fe80::1"),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
            ("203.0.113", None),
            ("203.0.113.07", None),
            ("1:2", None),
            ("٣.0.0.1", None),
        ):
            self.assertEqual(host_of(text), host, text)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Whatever is written there, it is an address or none."""
        host = host_of(text)
        self.assertTrue(host is None or host_of(host) == host)

    def test_shared(self) -> None:
        """An address of IPv6 counts as its network of 64 bits; one of this machine as none."""
        self.assertEqual(shared_key("203.0.113.7"), "203.0.113.7")
        self.assertEqual(shared_key("2001:db8:1:2:3::4"), "2001:db8:1:2::/64")
        self.assertEqual(shared_key("2001:db8:1:2:ffff::"), "2001:db8:1:2::/64")
        self.assertNotEqual(shared_key("2001:db8:1:3::"), "2001:db8:1:2::/64")
        self.assertEqual(shared_key("::ffff:203.0.113.7"), "203.0.113.7")
        for local in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", UNIX, ""):
            self.assertEqual(shared_key(local), "", local)


class TrustTests(SynchronousTestCase):
    """Whose word is taken."""

    def test_trusts(self) -> None:
        """Addresses and networks that are named, and Unix sockets only if they are."""
        proxies = TrustedProxies(["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"])
        for host in ("192.0.2.1", "::ffff:192.0.2.1", "10.255.0.1", "2001:db8:f::1"):
            self.assertTrue(proxies.trusts(host), host)
        for host in ("192.0.2.2", "11.0.0.1", "2001:db9::", UNIX, "", "nonsense"):
            self.assertFalse(proxies.trusts(host), host)
        self.assertTrue(TrustedProxies([UNIX]).trusts(UNIX))
        self.assertFalse(TrustedProxies([UNIX]).trusts("127.0.0.1"))
        self.assertFalse(TrustedProxies())
        self.assertTrue(TrustedProxies([UNIX]) and proxies)

    def test_mistakes(self) -> None:
        """What is neither an address nor a network is refused; so is a network with bits of a host."""
        for entry in ("proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", "*", ""):
            with self.assertRaises(ValueError):
                TrustedProxies([entry])

    def test_many(self) -> None:
        """What is remembered of strangers has a bound."""
        proxies = TrustedProxies(["10.0.0.0/8"])
        for number in range(20_000):
            self.assertFalse(proxies.trusts(f"11.0.{number >> 8}.{number & 255}"))
        self.assertLess(len(proxies._known), 5000)

    def test_client(self) -> None:
        """The client is the last address that no trusted proxy has."""
        proxies = TrustedProxies(["10.0.0.0/8", UNIX])
        for peer, lines, client in (
            ("10.0.0.1", [], "10.0.0.1"),
            ("10.0.0.1", [""], "10.0.0.1"),
            ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
            # A stranger says what it likes.
            ("203.0.113.9", ["203.0.113.7"], "203.0.113.9"),
            ("10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", ["127.0.0.1", "203.0.113.7"], "203.0.113.7"),
            # Through two of ours.
            ("10.0.0.1", ["198.51.100.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1", ["198.51.100.1, 203.0.113.7", "10.0.0.2:80"], "203.0.113.7"),
            # All of them are ours: then it is the first.
            ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            # What cannot be read ends it.
            ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", ["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (UNIX, ["203.0.113.7"], "203.0.113.7"),
        ):
            self.assertEqual(proxies.client(peer, lines), client, (peer, lines))
