"""Keep-alive HTTP/1.1 connections for a client's many small requests.

On the standard library: at a body of 16 KiB a request through urllib3 takes the client two to three times as long, and
beside a unit of small tensors that is most of what it does (docs/concepts/performance.md).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from urllib3.util import wait_for_read

from .. import __version__
from ..errors import InvalidSetting, UnsafeConnection
from ..trust.diagnosis import unsafe
from ..trust.tls import Outbound, here
from .tls_socket import TlsSocket

IDLE_LIMIT = 16  # connections kept open to one server
SENT_WHOLE_BYTES = 65_536  # a request of up to this size is copied into one piece


# Scheme, host and port, and the IP address of the host to connect to, or "".
Server = tuple[str, str, str]


@dataclass(frozen=True)
class Answer:
    """A status, the headers with their names in lower case, and the whole body. server: who was asked;
    by_another: after somebody else."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    server: str = ""
    by_another: bool = False


@dataclass
class Connections:
    """For any number of threads; each request has a connection to itself.

    outbound: which servers are trusted, and what is shown to them; default: what the environment says.
    """

    outbound: Outbound = field(default_factory=here)
    _idle: dict[Server, deque[http.client.HTTPConnection]] = field(default_factory=lambda: defaultdict(deque))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, connect_s: float, read_s: float
    ) -> Answer:
        """One request and its answer; nothing is tried again and no redirect is followed.

        Args:
            url: of http or https; after a `#`, the IP address of the host to connect to.
            connect_s, read_s: how long to wait for the connection, and for each part of the answer.

        Raises:
            OSError, http.client.HTTPException: when there is no whole answer. TimeoutError is among them.
            InvalidSetting: when this is no such URL, or a file with certificates is wrong.
            UnsafeConnection: when the server's certificate is not trusted, or ours not by it, or it is plain HTTP to
                another machine.
        """
        parts = urlsplit(url)
        server = (parts.scheme, parts.netloc, parts.fragment)
        connection = self._connection(server, connect_s)
        is_new = connection.sock is None
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(read_s)
            target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request(method, target, body, {"user-agent": f"microsfl/{__version__}", **headers})
            response = connection.getresponse()
            data = response.read()
            answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        except BaseException as error:
            connection.close()
            why = unsafe(url, error, self.outbound) if is_new and isinstance(error, OSError) else None
            if why is not None:
                raise UnsafeConnection(why) from None
            raise
        if connection.sock is not None:  # the server did not ask to close it
            self._keep(server, connection)
        return answer

    def _connection(self, server: Server, connect_s: float) -> http.client.HTTPConnection:
        """An idle connection that is still open, or one that is not connected yet."""
        while True:
            with self._lock:
                idle = self._idle[server]
                connection = idle.pop() if idle else None
            if connection is None:
                return self._new(server, connect_s)
            if _is_open(connection):
                return connection
            connection.close()

    def _new(self, server: Server, connect_s: float) -> http.client.HTTPConnection:
        scheme, netloc, address = server
        if scheme not in ("http", "https") or not netloc:
            raise InvalidSetting(f"'{scheme}://{netloc}' is not a URL of a server; write it like http://host:8000.")
        try:
            connection: http.client.HTTPConnection = _Plain(netloc, timeout=connect_s)
            context = self.outbound.context_for(f"{scheme}://{netloc}")
            if context is not None:
                connection = _Secure(netloc, timeout=connect_s, context=context)
            if address:
                connection._create_connection = partial(_connected, address)  # type: ignore[attr-defined]
            return connection
        except http.client.InvalidURL as error:
            raise InvalidSetting(f"'{scheme}://{netloc}' is not a URL of a server: {error}.") from None

    def _keep(self, server: Server, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._idle[server]
            idle.append(connection)
            spare = idle.popleft() if len(idle) > IDLE_LIMIT else None
        if spare is not None:
            spare.close()


class _Plain(http.client.HTTPConnection):
    """Sends a small request's head and body at once: with TLS, two pieces are two records and wake the server twice."""

    _held: list[bytes] | None = None

    def request(self, *args: Any, **options: Any) -> None:
        self._held = []
        try:
            super().request(*args, **options)
            parts = self._held
        finally:
            self._held = None
        for part in [b"".join(parts)] if sum(map(len, parts)) <= SENT_WHOLE_BYTES else parts:
            super().send(part)

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class _Secure(_Plain):
    """The same over TLS."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, netloc: str, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(netloc, timeout=timeout)
        self._context = context

    def connect(self) -> None:
        super().connect()
        self.sock = TlsSocket(self.sock, self._context, self.host)


def _connected(address: str, named: tuple[str, int], *how: Any) -> socket.socket:
    """A connection to one address of a host, where http.client would look up its name."""
    return socket.create_connection((address, named[1]), *how)


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """False when the server closed it meanwhile: there is something to read, which is the end, or rubbish."""
    return connection.sock is not None and not wait_for_read(connection.sock, timeout=0.0)
