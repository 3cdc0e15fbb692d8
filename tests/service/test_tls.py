"""Tests of rtpush.service.tls: what a scanner would look at, and which certificate is shown to whom."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509 import load_der_x509_certificate
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface import implementer

from rtpush.service.config import ConfigError, parse
from rtpush.service.listen import secure_address
from rtpush.service.sockets import CannotListen, listen
from rtpush.service.tls import CertificateFiles, Contexts, Tls, load_identity
from tests.support.certificates import Issued, issue

_OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
_PATIENCE = 10.0


class _Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


@implementer(IProtocolNegotiationFactory)
class _Factory(Factory):
    protocol = _Echo  # type: ignore[assignment]

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]


def _client(*, weak: bool = False) -> ssl.SSLContext:
    """Return the context of a client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if weak:
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def _exactly(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings():
        # Python knows that some are old.
        warnings.simplefilter("ignore")
        context.maximum_version = context.minimum_version = version
    return context


class _TlsTestCase(TestCase):
    """An address that speaks TLS, and clients that block, in threads."""

    def listen(self, address: str, tls: Tls = Tls()) -> int:  # noqa: B008
        """Listen on an address whose port is 0; return the port."""
        listening: Any = listen(reactor, address, _Factory(), tls)
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        return port

    def listen_with(self, issued: Issued, tls: Tls = Tls()) -> int:  # noqa: B008
        """Listen with a certificate."""
        return self.listen(f"ssl:0:interface=127.0.0.1:privateKey={issued.key}:certKey={issued.certificate}", tls)

    async def shake(
        self,
        port: int,
        context: ssl.SSLContext,
        then: Callable[[ssl.SSLSocket], Any] = lambda connection: connection.version(),
        name: str | None = None,
    ) -> Any:
        """Connect, say something and hear it; return what is to be known of the connection."""

        def block() -> Any:
            with socket.create_connection(("127.0.0.1", port), _PATIENCE) as plain:
                with context.wrap_socket(plain, server_hostname=name) as secure:
                    secure.sendall(b"hello")
                    if secure.recv(5) != b"hello":
                        raise ssl.SSLError("it does not answer")
                    return then(secure)

        return await deferToThread(block)

    async def refuses(self, port: int, context: ssl.SSLContext) -> None:
        """Check that there is no connection for such a client."""
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            await self.shake(port, context)


class OfferTests(_TlsTestCase):
    """What is spoken, and what is not."""

    async def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken; 1.0 and 1.1 are not, even with one who has nothing else."""
        port = self.listen_with(issue(self, "a.example"))
        self.assertEqual(await self.shake(port, _client()), "TLSv1.3")
        self.assertEqual(await self.shake(port, _exactly(_client(), ssl.TLSVersion.TLSv1_2)), "TLSv1.2")
        for version in _OLD:
            await self.refuses(port, _exactly(_client(weak=True), version))

    async def test_newest_alone(self) -> None:
        """``min_version`` leaves 1.3 alone."""
        port = self.listen_with(issue(self, "a.example"), Tls(min_version="1.3"))
        self.assertEqual(await self.shake(port, _client()), "TLSv1.3")
        await self.refuses(port, _exactly(_client(), ssl.TLSVersion.TLSv1_2))

    async def test_ciphers(self) -> None:
        """With TLS 1.2, each cipher that is taken has forward secrecy and authenticates what it encrypts."""
        taken = set()
        for kind in ("ec", "rsa"):
            port = self.listen_with(issue(self, "a.example", kind=kind))
            for cipher in _client(weak=True).get_ciphers():
                context = _exactly(_client(), ssl.TLSVersion.TLSv1_2)
                if cipher["protocol"] == "TLSv1.3":
                    continue
                context.set_ciphers(f"{cipher['name']}:@SECLEVEL=0")
                try:
                    await self.shake(port, context)
                except (ssl.SSLError, ConnectionError):
                    continue
                taken.add(cipher["name"])
        self.assertEqual(len(taken), 6, taken)
        for name in taken:
            self.assertRegex(name, r"^ECDHE-(ECDSA|RSA)-.*(GCM|CHACHA20-POLY1305)")

    async def test_no_compression(self) -> None:
        """Nothing is compressed."""
        port = self.listen_with(issue(self, "a.example"))
        context = _exactly(_client(), ssl.TLSVersion.TLSv1_2)
        context.options &= ~ssl.OP_NO_COMPRESSION
        self.assertIsNone(await self.shake(port, context, ssl.SSLSocket.compression))

    async def test_no_renegotiation(self) -> None:
        """A client that wants to negotiate again is refused it."""
        openssl = shutil.which("openssl")
        if openssl is None:
            raise SkipTest("there is no openssl")
        port = self.listen_with(issue(self, "a.example"))
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2"]
        done = await deferToThread(
            subprocess.run, command, input=b"R\n", capture_output=True, timeout=_PATIENCE, check=False
        )
        self.assertIn(b"RENEGOTIATING", done.stdout + done.stderr)
        self.assertIn(b"no renegotiation", done.stdout + done.stderr)

    async def test_alpn(self) -> None:
        """What the factory likes best is chosen of what the client offers; nothing if they have nothing in common."""
        port = self.listen_with(issue(self, "a.example"))
        for offered, chosen in (
            (["http/1.1", "h2"], "h2"),
            (["http/1.1"], "http/1.1"),
            (["spdy/3"], None),
            ([], None),
        ):
            context = _client()
            if offered:
                context.set_alpn_protocols(offered)
            self.assertEqual(await self.shake(port, context, ssl.SSLSocket.selected_alpn_protocol), chosen)

    async def test_session_tickets(self) -> None:
        """A client that comes back resumes its session; where another process answers, it makes a new one."""
        issued = issue(self, "a.example")
        ports = [self.listen_with(issued) for _ in range(2)]
        context = _exactly(_client(), ssl.TLSVersion.TLSv1_2)

        def resume(session: Any, port: int) -> tuple[bool, Any]:
            with socket.create_connection(("127.0.0.1", port), _PATIENCE) as plain:
                with context.wrap_socket(plain, session=session) as secure:
                    return bool(secure.session_reused), secure.session

        _, session = await deferToThread(resume, None, ports[0])
        self.assertTrue((await deferToThread(resume, session, ports[0]))[0])
        self.assertFalse((await deferToThread(resume, session, ports[1]))[0])


class CertificateTests(_TlsTestCase):
    """Which certificate is shown."""

    @staticmethod
    def _shown(connection: ssl.SSLSocket) -> str:
        certificate = load_der_x509_certificate(connection.getpeercert(True) or b"")
        return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    async def test_names(self) -> None:
        """It is the one for the name that the client asks for, or the first."""
        one, two = issue(self, "one.example", "also-one.example"), issue(self, "two", "*.two.example", kind="rsa")
        files = (one.files, two.files)
        own = issue(self, "own.example")
        ports = {
            "one.example": self.listen("ssl:0:interface=127.0.0.1", Tls(certificates=files)),
            "own.example": self.listen_with(own, Tls(certificates=files)),
        }
        for first, port in ports.items():
            for name, shown in (
                ("one.example", "one.example"),
                ("ALSO-one.example", "one.example"),
                ("a.two.example", "two"),
                ("a.b.two.example", first),
                ("two.example", first),
                ("other.example", first),
                (None, first),
            ):
                with self.subTest(first=first, name=name):
                    self.assertEqual(await self.shake(port, _client(), self._shown, name), shown)

    async def test_named_as_good_as_the_first(self) -> None:
        """One that is chosen by name is shown with the same versions and protocols."""
        files = tuple(issue(self, name).files for name in ("a.example", "b.example"))
        port = self.listen("ssl:0:interface=127.0.0.1", Tls(certificates=files, min_version="1.3"))
        context = _client()
        context.set_alpn_protocols(["h2"])
        self.assertEqual(await self.shake(port, context, ssl.SSLSocket.selected_alpn_protocol, "b.example"), "h2")
        await self.refuses(port, _exactly(_client(), ssl.TLSVersion.TLSv1_2))

    async def test_chain(self) -> None:
        """Intermediate certificates are sent, from the same file or another one, so that clients can verify it."""
        root = issue(self, "Root", authority=True)
        between = issue(self, "Between", by=root, authority=True)
        leaf = issue(self, "leaf.example", by=between)
        both = Path(self.mktemp()).absolute()
        both.write_text(leaf.pem + between.pem)
        verifying = ssl.create_default_context(cafile=root.certificate)
        prefix = f"ssl:0:interface=127.0.0.1:privateKey={leaf.key}"
        for address in (
            f"{prefix}:certKey={both}",
            f"{prefix}:certKey={leaf.certificate}:extraCertChain={between.certificate}",
        ):
            self.assertEqual(await self.shake(self.listen(address), verifying, name="leaf.example"), "TLSv1.3")
        alone = self.listen(f"{prefix}:certKey={leaf.certificate}")
        with self.assertRaises(ssl.SSLCertVerificationError):
            await self.shake(alone, verifying, name="leaf.example")

    async def test_of_clients(self) -> None:
        """With ``client_ca``, a client needs a certificate that it has signed."""
        root, other = (issue(self, name, authority=True) for name in ("Root", "Other"))
        port = self.listen_with(issue(self, "a.example"), Tls(client_ca=root.certificate))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            await self.refuses(port, _exactly(_client(), version))
            for by, good in ((root, True), (other, False), (None, False)):
                context = _exactly(_client(), version)
                own = issue(self, "backend", by=by)
                context.load_cert_chain(own.certificate, own.key)
                if good:
                    self.assertEqual(await self.shake(port, context), context.maximum_version.name.replace("_", "."))
                else:
                    await self.refuses(port, context)

    async def test_of_clients_by_name(self) -> None:
        """Asking for another name is no way around that."""
        root = issue(self, "Root", authority=True)
        files = tuple(issue(self, name).files for name in ("a.example", "b.example"))
        port = self.listen("ssl:0:interface=127.0.0.1", Tls(certificates=files, client_ca=root.certificate))
        own = issue(self, "backend", by=root)
        context = _client()
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            await self.shake(port, context, name="b.example")
        context.load_cert_chain(own.certificate, own.key)
        self.assertEqual(await self.shake(port, context, self._shown, name="b.example"), "b.example")


class MistakeTests(SynchronousTestCase):
    """Files and addresses that cannot be used are told in one line."""

    def test_files(self) -> None:
        """It names the file, and says what is wrong with it."""
        good, other = issue(self, "a.example"), issue(self, "b.example")
        broken = str(Path(self.mktemp()).absolute())
        Path(broken).write_text("-----BEGIN CERTIFICATE-----\n")
        locked = str(Path(self.mktemp()).absolute())
        Path(locked).write_bytes(
            good.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        )
        for files, reason in (
            (CertificateFiles("/nowhere.pem", good.key), "/nowhere.pem: cannot read the file: No such file"),
            (CertificateFiles(good.certificate, "/nowhere.pem"), "/nowhere.pem: cannot read the file: No such file"),
            (CertificateFiles(broken, good.key), f"{broken}: expected a certificate in PEM"),
            (CertificateFiles(good.certificate, broken), f"{broken}: expected a private key in PEM"),
            (CertificateFiles(good.certificate, good.certificate), f"{good.certificate}: expected a private key"),
            (CertificateFiles(good.certificate, locked), f"{locked}: the private key has a passphrase"),
            (CertificateFiles(good.certificate, other.key), f"{other.key}: this is not the private key of the cert"),
            (CertificateFiles(good.certificate, good.key, broken), f"{broken}: expected a certificate in PEM"),
        ):
            error = str(self.assertRaises(ValueError, load_identity, files))
            self.assertTrue(error.startswith(reason), error)
            self.assertEqual(len(error.splitlines()), 1)

    def test_addresses(self) -> None:
        """What would weaken it is refused, and what is unknown; what comes first needs no name."""
        for address, reason in (
            ("ssl:443:privateKey=a:sslmethod=SSLv23_METHOD", "sslmethod: which versions there are"),
            ("ssl:443:privateKey=a:dhParameters=b", "dhParameters: there is no such key exchange"),
            ("ssl:443:privatekey=a", "privatekey: did you mean privateKey?"),
            ("ssl:443:certKey=a", "privateKey is missing"),
            ("ssl:443:a:b:SSLv3_METHOD", "'SSLv3_METHOD': expected its name before it"),
        ):
            self.assertIn(reason, str(self.assertRaises(ValueError, secure_address, address)))
        for address, endpoint, files in (
            ("ssl:443:privateKey=a", "tcp:443", CertificateFiles("a", "a")),
            ("ssl:443:a:b", "tcp:443", CertificateFiles("b", "a")),
            ("ssl:443:backlog=7:interface=\\:\\:1", "tcp:443:interface=\\:\\:1:backlog=7", None),
            ("ssl:port=443:privateKey=a:certKey=b:extraCertChain=c", "tcp:443", CertificateFiles("b", "a", "c")),
        ):
            secure = secure_address(address)
            assert secure is not None
            self.assertEqual((secure.endpoint, secure.files), (endpoint, files))
        self.assertIsNone(secure_address("tcp:443"))

    def test_configuration(self) -> None:
        """So it is with the configuration: nobody starts without a certificate, or with an authority for nothing."""
        good, other = issue(self, "a.example"), issue(self, "b.example")
        files = f"{good.certificate} {good.key}"
        for server, api, tls, reason in (
            ("ssl:443", "", "", "[tls] certificates: expected one for 'ssl:443', which names none itself"),
            ("ssl:443", "", f"certificates = {good.certificate} {other.key}", f"{other.key}: this is not the private"),
            ("ssl:443", "", f"certificates = {files} more", "expected the file of a certificate"),
            ("ssl:443", "", f"certificates = {files}\nmin_version = 1.1", "min_version: '1.1': expected"),
            ("ssl:443", "", f"certificates = {files}\nclient_ca = {good.certificate}", "expected [api] listen"),
            ("ssl:443", "tcp:80", f"certificates = {files}\nclient_ca = {good.certificate}", "expected [api] listen"),
            ("ssl:443", "ssl:444", f"certificates = {files}\nclient_ca = {good.key}", "expected a certificate in PEM"),
        ):
            text = f"[server]\nlisten = {server}\n[api]\nlisten = {api}\n[tls]\n{tls}\n"
            self.assertIn(reason, str(self.assertRaises(ConfigError, parse, text)))
        config = parse(
            f"[server]\nlisten = ssl:443\n[api]\nlisten = ssl:444\n"
            f"[tls]\ncertificates = {files}\nclient_ca = {good.certificate}\n"
        )
        self.assertEqual([config.tls_of(each).client_ca for each in config.addresses], ["", good.certificate])

    def test_none(self) -> None:
        """An address without a certificate cannot be listened on."""
        error = self.assertRaises(CannotListen, listen, reactor, "ssl:0:interface=127.0.0.1", Factory())
        self.assertIn("there is no certificate", str(error))


class TicketTests(SynchronousTestCase):
    """How long session tickets are good."""

    def test_keys_are_replaced(self) -> None:
        """Twice a day, there are other keys for them; the certificate is what it was."""
        issued = issue(self, "a.example")
        clock = Clock()
        contexts = Contexts(clock, [load_identity(issued.files)])

        def now() -> SSL.Context:
            return contexts.serverConnectionForTLS(None).get_context()

        first = now()
        clock.advance(12 * 3600 - 1)
        self.assertIs(now(), first)
        clock.advance(1)
        second = now()
        self.assertIsNot(second, first)
        self.assertIs(now(), second)
