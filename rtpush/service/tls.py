"""
TLS: which versions and ciphers there are, which certificate is shown, and whose clients are asked for theirs.

Nothing that weakens it can be set. What is offered is TLS 1.2 and 1.3, with forward secrecy and authenticated
encryption; no compression (RFC 7457 section 2.6), and no renegotiation, which costs a server more than its client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

__all__ = ["CertificateFiles", "Contexts", "Identity", "Tls", "load_authorities", "load_identity"]

#: For TLS 1.2; those of TLS 1.3 are all good.
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

#: Seconds for which session tickets are made and taken with the same key. Who has the key can read what was said, in
#: TLS 1.2, in sessions that began with such a ticket.
_TICKET_LIFE = 12 * 3600.0

#: Sessions are of those contexts only that ask for the same of clients; OpenSSL wants a name for that.
_SESSION_ID = b"rtpush"


@attrs.frozen
class CertificateFiles:
    """
    Where a certificate is, all in PEM.

    :ivar certificate: Its file, which may have intermediate ones after it.
    :ivar key: The file of its private key.
    :ivar chain: A file with more intermediate ones; empty for none.
    """

    certificate: str
    key: str
    chain: str = ""


@attrs.frozen(kw_only=True)
class Tls:
    """
    ``[tls]``: what holds for all addresses that begin with ``ssl:``.

    :ivar certificates: Those that are chosen by the name that a client asks for. The first is shown to others.
    :ivar client_ca: The file of the authorities one of which must have signed the client's certificate; empty if
        clients need none.
    """

    certificates: tuple[CertificateFiles, ...] = ()
    min_version: str = "1.2"
    client_ca: str = ""


@attrs.frozen
class Identity:
    """
    A certificate that was read.

    :ivar chain: The intermediate ones.
    :ivar names: The names that it is for, in lower case; ``*.`` before one stands for any label.
    """

    certificate: x509.Certificate
    key: Any = attrs.field(repr=False)
    chain: Sequence[x509.Certificate]
    names: Sequence[str]


class _Clock(Protocol):
    def seconds(self) -> float: ...


def load_identity(files: CertificateFiles) -> Identity:
    """
    Read a certificate, its chain and its key.

    :raises ValueError: with one line that says which file is wrong, and how.
    """
    certificate, *chain = _certificates(files.certificate)
    if files.chain:
        chain += _certificates(files.chain)
    content = _content(files.key)
    try:
        key: Any = load_pem_private_key(content, None)
    except TypeError:
        raise ValueError(f"{files.key}: the private key has a passphrase: expected one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{files.key}: expected a private key in PEM") from None
    if key.public_key() != certificate.public_key():
        raise ValueError(f"{files.key}: this is not the private key of the certificate in {files.certificate}")
    return Identity(certificate, key, chain, _names(certificate))


def load_authorities(path: str) -> list[x509.Certificate]:
    """
    Read certificates of authorities.

    :raises ValueError: with one line that says what is wrong with the file.
    """
    return _certificates(path)


def _certificates(path: str) -> list[x509.Certificate]:
    content = _content(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError(f"{path}: expected a certificate in PEM") from None


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{path}: cannot read the file: {error.strerror}") from error


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        # As certificates were that somebody has made by hand.
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [str(name.value).lower() for name in common]
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


@implementer(IOpenSSLServerConnectionCreator)
class Contexts:
    """
    Makes the server's side of TLS connections.

    Session tickets make it cheap for clients to come back. Their keys are made here, never leave the process, and are
    replaced twice a day: with another process, or after that, a client makes a full handshake.

    :param clock: The reactor.
    :param identities: The certificates; the first is for clients that ask for no name, or for one that is not here.
    :param authorities: One of them must have signed the certificate of a client; none if clients need no certificate.
    :param protocols: Returns what is offered by ALPN (RFC 7301), what is liked best first.
    :raises ValueError: if OpenSSL does not take them.
    """

    def __init__(
        self,
        clock: _Clock,
        identities: Sequence[Identity],
        *,
        min_version: str = "1.2",
        authorities: Sequence[x509.Certificate] = (),
        protocols: Callable[[], Sequence[bytes]] = lambda: (),
    ) -> None:
        self._clock = clock
        self._identities = identities
        self._min_version = _VERSIONS[min_version]
        self._authorities = authorities
        self._protocols = protocols
        self._make()

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Return the TLS of a new connection."""
        if self._clock.seconds() >= self._until:
            self._make()
        return SSL.Connection(self._contexts[0], None)

    def _make(self) -> None:
        self._until = self._clock.seconds() + _TICKET_LIFE
        try:
            self._contexts = [self._context(identity) for identity in self._identities]
        except SSL.Error as error:
            reasons = ", ".join(reason for _, _, reason in error.args[0])
            raise ValueError(f"the certificate or key cannot be used: {reasons}") from error
        self._by_name: dict[str, SSL.Context] = {}
        for context, identity in zip(self._contexts, self._identities, strict=True):
            for name in identity.names:
                self._by_name.setdefault(name, context)

    def _context(self, identity: Identity) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(self._min_version)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(_CIPHERS)
        # Tickets are enough: nothing is kept for clients that may come back.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(_SESSION_ID)
        context.use_certificate(identity.certificate)
        for each in identity.chain:
            context.add_extra_chain_cert(each)
        context.use_privatekey(identity.key)
        context.set_tlsext_servername_callback(self._choose)
        context.set_alpn_select_callback(self._select)
        if self._authorities:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
            store: Any = context.get_cert_store()
            for authority in self._authorities:
                store.add_cert(crypto.X509.from_cryptography(authority))
                context.add_client_ca(authority)
        return context

    def _choose(self, connection: SSL.Connection) -> None:
        """The client asks for a name (RFC 6066 section 3)."""
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
        _, _, parent = name.partition(".")
        context = self._by_name.get(name) or self._by_name.get(f"*.{parent}")
        if context is not None and context is not self._contexts[0]:
            connection.set_context(context)

    def _select(self, connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
        return next((each for each in self._protocols() if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)
