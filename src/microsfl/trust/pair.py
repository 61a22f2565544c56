"""A certificate with its private key, in PEM files: checked before it is used, so that an error names the file."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ..errors import InvalidSetting

MADE_BY = "`microsfl admin certs` makes one"


def load_pair(context: ssl.SSLContext, setting: str, cert: str, key: str | None) -> None:
    """Have the context show the certificate.

    Args:
        setting: "tls" or "tls_client", for the messages: `<setting>_cert` and `<setting>_key`.
        key: None when it is in the certificate's file.

    Raises:
        InvalidSetting: when a file cannot be read, is something else, is over, or the two do not belong together.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cert_name, key_name = f"{setting}_cert", f"{setting}_key"
    cert_bytes = read(cert_name, cert)
    key_bytes = read(key_name, key or cert)
    try:
        certificate = x509.load_pem_x509_certificates(cert_bytes)[0]
    except ValueError:
        raise InvalidSetting(f"{cert_name}: {cert} has no certificate in PEM; {MADE_BY}.") from None
    check_dates(cert_name, cert, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    try:
        private = load_pem_private_key(key_bytes, None)
    except TypeError:
        raise InvalidSetting(f"{key_name}: {key or cert} is encrypted; name a key without a passphrase.") from None
    except ValueError:
        where = key or f"{cert}, where {key_name} would be,"
        raise InvalidSetting(f"{key_name}: {where} has no private key in PEM; {MADE_BY}.") from None
    if private.public_key() != certificate.public_key():
        raise InvalidSetting(f"{key_name}: {key or cert} is not the key of the certificate in {cert}.")
    try:
        context.load_cert_chain(cert, key, password="")  # without one, OpenSSL would ask at the terminal
    except (ssl.SSLError, OSError) as error:
        raise InvalidSetting(f"{cert_name}: {cert} cannot be used: {reason(error)}.") from None


def load_authorities(context: ssl.SSLContext, setting: str, path: str) -> None:
    """Have the context trust the authorities in a file, and no others.

    Raises:
        InvalidSetting: when there are none in it.
    """
    try:
        context.load_verify_locations(cadata=read(setting, path).decode())
    except (ssl.SSLError, ValueError):
        what = "the CA's certificate, which `microsfl admin certs` writes to ca.pem"
        raise InvalidSetting(f"{setting}: {path} has no certificate in PEM; name {what}.") from None


def check_dates(setting: str, path: str, begins: datetime, ends: datetime) -> None:
    """Raises InvalidSetting for a certificate that is not valid now."""
    now = datetime.now(UTC)
    if now > ends:
        raise InvalidSetting(
            f"{setting}: the certificate in {path} ended on {ends:%Y-%m-%d}; renew it (`microsfl admin certs`)."
        )
    if now < begins:
        raise InvalidSetting(f"{setting}: the certificate in {path} begins on {begins:%Y-%m-%d}; check the clock.")


def read(setting: str, path: str) -> bytes:
    """The file's bytes. Raises InvalidSetting when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{setting}: {path} cannot be read: {error.strerror}.") from None


def changed_at(paths: Iterable[str | None]) -> tuple[int, ...]:
    """By which one can tell that a file is not what it was; 0 for one that is not there."""
    return tuple(_changed_at(path) for path in paths if path is not None)


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def reason(error: OSError) -> str:
    """What OpenSSL, or the system, calls it."""
    named = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return str(named).replace("_", " ").lower()
