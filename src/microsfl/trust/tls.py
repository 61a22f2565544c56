"""TLS: what a server shows and wants, and what whoever calls one trusts and shows. Files, made into contexts of `ssl`.

Files that are renewed are taken over while the process runs.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from ..config import AT_RISK, ProcessSettings, TlsSettings, is_loopback
from ..errors import InvalidSetting, UnsafeConnection
from .pair import changed_at, load_authorities, load_pair, read

OLDEST = ssl.TLSVersion.TLSv1_2


class Inbound:
    """A server's side. For the event loop's thread.

    Args:
        client_ca: file of the authorities of which clients must show a certificate; None: they need none.

    Raises:
        InvalidSetting: naming the file that is wrong.
    """

    def __init__(self, cert: str, key: str | None = None, client_ca: str | None = None) -> None:
        self._cert, self._key = cert, key
        self._read_at = self._changed_at()
        self.context = _server_context()
        load_pair(self.context, "tls", cert, key)
        if client_ca is not None:
            load_authorities(self.context, "tls_client_ca", client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED

    @classmethod
    def of(cls, settings: TlsSettings) -> Self | None:
        """None: plain HTTP. Raises InvalidSetting."""
        if settings.tls_cert is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def renew(self) -> bool:
        """Show the certificate that is in the file now, to whoever connects from now on; False when it is the same.

        Raises:
            InvalidSetting: when it cannot be used; the one before is still shown, as `load_pair` looks before it
                changes anything. Said once of each change.
        """
        now = self._changed_at()
        if now == self._read_at:
            return False
        self._read_at = now
        load_pair(self.context, "tls", self._cert, self._key)
        return True

    def _changed_at(self) -> tuple[int, ...]:
        return changed_at((self._cert, self._key))


@dataclass
class Outbound:
    """The side of whoever calls a server. For any number of threads.

    ca: file of the authorities that servers' certificates have to be of; None: see `vouch`, or else the system's.
    cert, key: files of a certificate to show to servers that want one.
    insecure_http: whether plain HTTP may go to another machine.

    Every method raises InvalidSetting, naming the file, when one of them is wrong.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure_http: bool = False
    _vouched: str | None = None
    _made: tuple[tuple[int, ...], ssl.SSLContext] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, settings: ProcessSettings) -> Self:
        """Those of a role. Its files are read now, though they may not be needed before long."""
        made = cls(settings.tls_ca, *_shown(settings), insecure_http=settings.insecure_http)
        if made.ca or made.cert:
            made.context()
        return made

    def vouch(self, authorities: str | None) -> None:
        """Trust these, as PEM text, unless a file is named. They come with a credential."""
        with self._lock:
            if authorities != self._vouched:
                self._vouched, self._made = authorities, None

    def authorities(self) -> str | None:
        """Those that are named or vouched for, as PEM text, to be kept with a credential; None: the system's."""
        return self._vouched if self.ca is None else read("tls_ca", self.ca).decode("ascii", "replace")

    def context(self) -> ssl.SSLContext:
        """For the next connection. It is another one when the files have changed."""
        with self._lock:
            now = changed_at((self.ca, self.cert, self.key))
            if self._made is None or self._made[0] != now:
                try:
                    self._made = now, self._new()
                except InvalidSetting:
                    if self._made is None:
                        raise
                    self._made = now, self._made[1]  # it is being renewed, or was spoilt: the next change may be better
            return self._made[1]

    def context_for(self, url: str) -> ssl.SSLContext | None:
        """None for plain HTTP.

        Raises:
            UnsafeConnection: for plain HTTP to another machine, unless it was allowed.
        """
        parts = urlsplit(url)
        if parts.scheme == "https":
            return self.context()
        if not self.insecure_http and not is_loopback(parts.hostname or ""):
            raise UnsafeConnection(
                f"{parts.scheme}://{parts.netloc} is plain HTTP to another machine: {AT_RISK}. Use https://, or allow "
                "it with --insecure-http."
            )
        return None

    def _new(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            load_authorities(context, "tls_ca", self.ca)
        elif self._vouched is not None:
            context.load_verify_locations(cadata=self._vouched)
        else:
            context.load_default_certs()
        context.minimum_version = OLDEST
        if self.cert is not None:
            load_pair(context, "tls_client", self.cert, self.key)
        return context


_here: Outbound | None = None


@contextmanager
def using(outbound: Outbound) -> Iterator[None]:
    """What `here` gives in this process, for as long as a command runs."""
    global _here
    before, _here = _here, outbound
    try:
        yield
    finally:
        _here = before


def here() -> Outbound:
    """For whoever calls a server and is no role: a command's flags, or else the environment.

    `MICROSFL_TLS_CA`, `MICROSFL_TLS_CLIENT_CERT`, `MICROSFL_TLS_CLIENT_KEY` and `MICROSFL_INSECURE_HTTP`, as for roles.
    """
    names = ("tls_ca", "tls_client_cert", "tls_client_key", "insecure_http")
    given = {name: os.environ[f"MICROSFL_{name.upper()}"] for name in names if f"MICROSFL_{name.upper()}" in os.environ}
    return _here or Outbound.of(ProcessSettings.parse({name: value for name, value in given.items() if value}))


def _server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = OLDEST
    return context


def _shown(settings: ProcessSettings) -> tuple[str | None, str | None]:
    """What listens shows others the certificate that it has, unless it has another one for that."""
    if settings.tls_client_cert is None and isinstance(settings, TlsSettings):
        return settings.tls_cert, settings.tls_key
    return settings.tls_client_cert, settings.tls_client_key
