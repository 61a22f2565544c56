"""A small certificate authority for a closed network, in a folder: `ca.pem` for everybody, `ca.key` for nobody else.

Certificates are X.509 version 3 as RFC 5280 has them, with keys on P-256. Those of servers serve as clients' too: a
split server calls the coordinator.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import InvalidSetting, StoreNotWritable
from .files import read_private, write_private
from .pair import check_dates, read

CERT, KEY = "ca.pem", "ca.key"
CA_DAYS = 3650
LEAF_DAYS = 365
EARLIER = timedelta(hours=1)  # by which clocks may differ
LONGEST_NAME = 64  # characters of a common name
LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Written:
    """Files of a certificate and of its private key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A CA's certificate and its private key."""

    folder: Path
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """The one that is there, or a new one.

        Raises:
            InvalidSetting: when it cannot be read, is over, or a half of it is missing.
            StoreNotWritable: when a new one cannot be written.
        """
        cert, key = folder / CERT, folder / KEY
        if not cert.exists() and not key.exists():
            return cls._new(folder)
        for there in (cert, key):
            if not there.exists():
                raise InvalidSetting(f"{folder} has a half of a CA: {there.name} is missing. Name another folder.")
        try:
            certificate = x509.load_pem_x509_certificate(read("ca.pem", str(cert)))
            private = load_pem_private_key(read_private(key).encode(), None)
        except (ValueError, TypeError):
            raise InvalidSetting(f"{cert} and {key} are no CA that `microsfl admin certs` made.") from None
        if not isinstance(private, EllipticCurvePrivateKey) or private.public_key() != certificate.public_key():
            raise InvalidSetting(f"{key} is not the key of the CA in {cert}.")
        check_dates("CA", str(cert), certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        return cls(folder, certificate, private)

    @classmethod
    def _new(cls, folder: Path) -> Self:
        key = generate_private_key(SECP256R1())
        # Two CAs of one name in the same list of authorities would be taken for each other.
        serial = x509.random_serial_number()
        name = _name(f"microsfl CA {serial:x}"[:LONGEST_NAME])
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), serial, now - EARLIER, now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier(identifier.digest, None, None), critical=False)
            .sign(key, SHA256())
        )
        made = cls(folder, certificate, key)
        made._write(folder / CERT, folder / KEY, certificate, key)
        return made

    def server(self, hosts: Sequence[str], days: int = LEAF_DAYS) -> Written:
        """A certificate for a server that goes by these names and addresses; the files go by the first of them.

        Raises:
            InvalidSetting: when one of them is neither.
            StoreNotWritable: when the files cannot be written.
        """
        names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
        uses = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(hosts[0], names, uses, days)

    def client(self, name: str, days: int = LEAF_DAYS) -> Written:
        """A certificate for a client to show. `name` says in the certificate and the files whose it is, and no more:
        who somebody is to microsfl, and what they may do, is a matter of credentials.

        Raises:
            InvalidSetting: when that is no name of a file.
            StoreNotWritable: when the files cannot be written.
        """
        if not LABEL.fullmatch(name.replace(".", "")):
            raise InvalidSetting(f"--client: '{name:.80}' is no name; use letters, digits, '-', '_' and dots.")
        return self._issue(f"client-{name}", None, (ExtendedKeyUsageOID.CLIENT_AUTH,), days)

    def _issue(
        self, name: str, names: x509.SubjectAlternativeName | None, uses: Iterable[x509.ObjectIdentifier], days: int
    ) -> Written:
        cert, key_file = (self.folder / f"{_file_name(name)}{ending}" for ending in (".pem", ".key"))
        if cert.name == CERT:
            raise InvalidSetting("--host: 'ca' is what the files of the CA are called; begin with another name of it.")
        key = generate_private_key(SECP256R1())
        now = datetime.now(UTC)
        ends = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        serial = x509.random_serial_number()
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateBuilder(
                self.certificate.subject, _name(name[:LONGEST_NAME]), key.public_key(), serial, now - EARLIER, ends
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return self._write(cert, key_file, builder.sign(self.key, SHA256()), key)

    def _write(
        self, cert: Path, key_file: Path, certificate: x509.Certificate, key: EllipticCurvePrivateKey
    ) -> Written:
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(key_file, private.decode())
            write_private(cert, certificate.public_bytes(Encoding.PEM).decode(), mode=0o644)
        except OSError as error:
            raise StoreNotWritable(f"Certificates cannot be written to {self.folder}: {error.strerror}.") from None
        return Written(cert, key_file)


def general_name(host: str) -> x509.GeneralName:
    """A name or an address, as certificates have it. Raises InvalidSetting when it is neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        labels = host.removeprefix("*.").split(".")
    # What is all digits and dots was meant as an address.
    if len(host) > 253 or labels[-1].isdigit() or not all(LABEL.fullmatch(label) for label in labels):
        raise InvalidSetting(
            f"--host: '{host:.80}' is no host name and no IP address; write it like gpu1.example.org or 10.0.0.7, "
            "without a port."
        )
    return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _file_name(name: str) -> str:
    return name.replace(":", "_").replace("*", "_")


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
