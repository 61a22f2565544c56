"""Why no request comes through to a server, where that is a matter of certificates, and what to do about it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from .tls import Outbound

WAIT_S = 1.0  # for a server to close a connection on which nothing was sent
NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
HOSTNAME_MISMATCH, IP_MISMATCH, EXPIRED, NOT_YET = 62, 64, 10, 9
CLOSED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)
PORTS = {"https": 443, "http": 80}


def unsafe(url: str, error: BaseException, outbound: Outbound) -> str | None:
    """A sentence for what happened to the first request of a new connection; None: it has other reasons.

    A server that wants a client's certificate closes the connection without a word. Whether that is it, is asked of
    the server with a connection on which nothing is sent.
    """
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    for one in _inside(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _untrusted(server, str(parts.hostname), one)
        if isinstance(one, ssl.SSLError) and one.reason in NO_TLS:
            return f"{server} does not speak TLS: write http://{parts.netloc}, or start it with --tls-cert."
    if not any(isinstance(one, CLOSED) for one in _inside(error)):
        return None
    address = str(parts.hostname), parts.port or PORTS.get(parts.scheme, 0)
    if parts.scheme == "http":
        speaks = _speaks_tls(address)
        return f"{server} speaks TLS: write https://{parts.netloc}." if speaks else None
    if not _closes_at_once(address, outbound.context()):
        return None
    if outbound.cert is None:
        return f"{server} wants a certificate of its clients: name one with --tls-client-cert and --tls-client-key."
    return f"{server} does not take the certificate in {outbound.cert}: it is not of the server's --tls-client-ca."


def _untrusted(server: str, host: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (HOSTNAME_MISMATCH, IP_MISMATCH):
        return (
            f"The certificate of {server} is not for {host}. Use a name that is in it, or make one that has this name "
            f"(`microsfl admin certs FOLDER --host {host}`)."
        )
    if error.verify_code in (EXPIRED, NOT_YET):
        return f"The certificate of {server} is not valid now ({error.verify_message}): renew it, or check the clocks."
    return (
        f"The certificate of {server} is of an authority that is not trusted here ({error.verify_message}). Name the "
        "file of its CA with --tls-ca."
    )


def _inside(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that a library has wrapped in it."""
    yield error
    for one in error.args:
        if isinstance(one, BaseException):
            yield from _inside(one)


def _closes_at_once(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    """Whether a server that agreed to a connection closes it before anything was sent."""
    try:
        plain = socket.create_connection(address, WAIT_S)
        with plain, context.wrap_socket(plain, server_hostname=address[0]) as secure:
            return not secure.recv(1)
    except ConnectionResetError:
        return True
    except OSError:
        return False


def _speaks_tls(address: tuple[str, int]) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, and nothing believed
    try:
        with socket.create_connection(address, WAIT_S) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False
