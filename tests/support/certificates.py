"""Certificates, made for a test: authorities, and what they sign."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.tls import CertificateFiles

__all__ = ["Issued", "issue"]


@attrs.frozen
class Issued:
    """
    A certificate and its key.

    :ivar certificate: The file of the certificate.
    :ivar key: The file of the key.
    """

    certificate: str
    key: str
    of: x509.Certificate
    private: Any

    @property
    def files(self) -> CertificateFiles:
        """Where it is, as the configuration says it."""
        return CertificateFiles(self.certificate, self.key)

    @property
    def pem(self) -> str:
        """The certificate itself."""
        return Path(self.certificate).read_text()


def issue(
    test: SynchronousTestCase, *names: str, by: Issued | None = None, authority: bool = False, kind: str = "ec"
) -> Issued:
    """
    Make a certificate for names, of which the first is its subject.

    :param by: Who signs it; itself if nobody else does.
    :param authority: Whether it may sign others.
    :param kind: Its key: ``ec`` or ``rsa``.
    """
    private: Any = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, key_size=2048)
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.of.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        general: Sequence[x509.GeneralName] = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    certificate = builder.sign(private if by is None else by.private, hashes.SHA256())
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Issued(str(files[0]), str(files[1]), certificate, private)
