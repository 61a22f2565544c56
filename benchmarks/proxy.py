"""A TCP proxy that counts the bytes it passes on."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK = 1 << 16


class Proxy:
    """Listens as long as a `with` block lasts, and passes everything on to `server`, a URL, and back.

    address: its own URL. bytes: passed on so far, both ways.
    """

    def __init__(self, server: str) -> None:
        url = urlsplit(server)
        self._target = (url.hostname, url.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed: the block is over
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                with self._lock:  # before it arrives, so that who has the answer finds it counted
                    self.bytes += len(chunk)
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


def receive(source: socket.socket, size_bytes: int) -> bytes:
    """Exactly as many bytes, or fewer when the other side has closed."""
    content = bytearray(size_bytes)
    view, got = memoryview(content), 0
    while got < size_bytes:
        count = source.recv_into(view[got:])
        if not count:
            break
        got += count
    return bytes(content[:got])
