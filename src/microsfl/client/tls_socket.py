"""TLS over a socket, with many records to a system call.

`ssl.SSLSocket` writes every record by itself, and reads its length and the rest of it one after the other: for 16 KiB
up and down these are some ten calls, which take longer than the encryption (docs/concepts/performance.md).
"""

from __future__ import annotations

import io
import socket
import ssl

CHUNK_BYTES = 262_144


class TlsSocket:
    """What http.client needs of a socket. Blocking; for one thread at a time.

    Raises:
        OSError: from every method, as a socket of `ssl` does: ssl.SSLError and TimeoutError among them.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=host)
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._readers, self._is_closed = 0, False
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()  # the alert, which tells the server why
                raise
            else:
                return self._flush()

    def sendall(self, data: bytes) -> None:
        """All of it: with one system call for each `CHUNK_BYTES`."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            self._tls.write(view[start : start + CHUNK_BYTES])
            self._flush()

    def recv_into(self, buffer: memoryview) -> int:
        """The number of bytes that have come, 0 at the end, also at one without a goodbye, as with `ssl.SSLSocket`."""
        if not self._coming.pending and not self._tls.pending():  # to try and be told so takes longer
            self._fill()
        while True:
            try:
                return self._tls.read(len(buffer), buffer)  # type: ignore[return-value]
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLEOFError:
                return 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """To read from, in binary, whatever the mode: http.client wants no other."""
        return io.BufferedReader(_Reader(self), 65_536)

    def settimeout(self, seconds: float) -> None:
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """At once, or when the last file that was made of it is closed."""
        self._is_closed = True
        self._close_unread()

    def _close_unread(self) -> None:
        if self._is_closed and not self._readers:
            self._sock.close()

    def _flush(self) -> None:
        if self._going.pending:
            self._sock.sendall(self._going.read())

    def _fill(self) -> None:
        count = self._sock.recv_into(self._buffer)
        if count:
            self._coming.write(self._buffer[:count])
        else:
            self._coming.write_eof()


class _Reader(io.RawIOBase):
    def __init__(self, tls: TlsSocket) -> None:
        self._of = tls
        tls._readers += 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._of.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._of._readers -= 1
            self._of._close_unread()
