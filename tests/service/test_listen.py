"""Tests of rtpush.service.listen."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.ini import Line, Mistake
from rtpush.service.listen import certificate_file, is_local, listen_address


class LocalTests(SynchronousTestCase):
    """Which addresses only this machine can connect to."""

    def test_local(self) -> None:
        """Loopback interfaces and Unix sockets are local."""
        for address in (
            "tcp:8080:interface=127.0.0.1",
            "tcp:8080:interface=127.1.2.3",
            "tcp:interface=localhost:port=8080",
            r"tcp6:8080:interface=\:\:1",
            "ssl:8443:interface=127.0.0.1",
            "unix:/run/a.sock",
        ):
            self.assertTrue(is_local(address), address)

    def test_remote(self) -> None:
        """All others are not, nor is what cannot be told."""
        for address in (
            "tcp:8080",
            "tcp:8080:interface=",
            "tcp:8080:interface=0.0.0.0",
            "tcp:8080:interface=127.0.0.1.example.com",
            "tcp:8080:interface=127.0.0.1:interface=10.0.0.1",
            r"tcp:8080:interface=10.0.0.1\:interface=127.0.0.1",
            "tcp6:8080",
            "systemd:domain=INET:index=0",
            "haproxy:tcp:8080:interface=127.0.0.1",
        ):
            self.assertFalse(is_local(address), address)


class AddressTests(SynchronousTestCase):
    """Checking endpoint strings."""

    def test_good(self) -> None:
        """Endpoints of every kind that Twisted brings are taken, systemd's also where systemd did not start us."""
        for address in (
            "tcp:0",
            "tcp:65535:interface=127.0.0.1:backlog=100",
            r"tcp6:8080:interface=\:\:1",
            "unix:/run/a.sock:mode=660",
            "systemd:domain=INET:index=0",
            "systemd:domain=UNIX:name=web",
            "haproxy:tcp:8080",
        ):
            self.assertEqual(listen_address().item(Line(1, address)), address)

    def test_bad(self) -> None:
        """Anything else is refused, with the reason."""
        for address, reason in (
            ("tcp", "port"),
            ("tcp:http", "port"),
            ("tcp:65536", "port"),
            ("tcp:port=-1", "port"),
            ("tcp6:x", "port"),
            ("tcp:80:backlog=x", "'x'"),
            ("tcp:80:interfce=::", "interfce"),
            ("tcpp:80", "did you mean tcp?"),
            ("8080", "known are tcp, tcp6, ssl, unix, systemd"),
            ("ssl:443:privateKey=/does/not/exist.pem", "No such file"),
            ("unix:/a:mode=9", "'9'"),
            ("systemd:domain=INET", "exactly one"),
            ("unix", "address"),
            ("=", ""),
            ("\\", ""),
        ):
            with self.subTest(address=address):
                self.assertIn(reason, str(self.assertRaises(Mistake, listen_address().item, Line(1, address))))


class CertificateTests(SynchronousTestCase):
    """Where the certificate of an address is."""

    def test_file(self) -> None:
        """It is in the file that the address names for it, or in that of the key; without TLS there is none."""
        for address, path in (
            ("ssl:8443:privateKey=key.pem:certKey=cert.pem", "cert.pem"),
            ("ssl:8443:privateKey=/etc/both.pem", "/etc/both.pem"),
            ("ssl:8443", ""),
            ("tcp:8080", ""),
            ("unix:/run/x", ""),
        ):
            self.assertEqual(certificate_file(address), path)
