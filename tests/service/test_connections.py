"""The client's own connections: kept, found closed in time, bounded, and clear about a URL that is none."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microsfl.client import connections
from microsfl.client.connections import Connections
from microsfl.errors import InvalidSetting

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Microsfl-Version: 7\r\n\r\nbody"


class Raw:
    """A server that sends `answer` as it is for every request that came whole, and counts its connections."""

    def __init__(self, answer: bytes, answers_each: int) -> None:
        self.answer, self.answers_each = answer, answers_each
        self.accepted = 0
        self.closed = threading.Semaphore(0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            for _ in range(self.answers_each):
                length = 0
                while (line := file.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not line:
                    break
                file.read(length)
                connection.sendall(self.answer)
        self.closed.release()


@pytest.fixture
def raw() -> Iterator[Callable[..., Raw]]:
    servers: list[Raw] = []

    def start(answer: bytes = OK, answers_each: int = 1000) -> Raw:
        servers.append(Raw(answer, answers_each))
        return servers[-1]

    yield start
    for server in servers:
        server.listener.close()


def ask(them: Connections, url: str, body: bytes | None = b"what is asked") -> Any:
    return them.request("POST", url + "/v1/path?a=b", body, {"x-it": "self"}, connect_s=5, read_s=5)


def test_a_connection_is_used_again(raw: Callable[..., Raw]) -> None:
    server, them = raw(), Connections()
    for _ in range(5):
        answer = ask(them, server.url)
        assert (answer.status, answer.data, answer.headers["x-microsfl-version"]) == (200, b"body", "7")
    assert server.accepted == 1


def test_one_that_the_server_closed_meanwhile_is_not_used(raw: Callable[..., Raw]) -> None:
    server, them = raw(answers_each=1), Connections()
    for number in range(1, 4):
        assert ask(them, server.url).data == b"body"
        assert server.closed.acquire(timeout=10)
        assert server.accepted == number


def test_at_most_so_many_stay_open(raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_LIMIT", 2)
    server, them = raw(), Connections()
    ready = threading.Barrier(5)
    kept = them._keep

    def keep(*arguments: Any) -> None:
        ready.wait(10)  # all five have one at the same time
        kept(*arguments)

    monkeypatch.setattr(them, "_keep", keep)
    threads = [threading.Thread(target=ask, args=(them, server.url)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert server.accepted == 5
    assert [len(idle) for idle in them._idle.values()] == [2]
    for _ in range(3):
        assert server.closed.acquire(timeout=10)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", b"no http\r\n\r\n"])
def test_half_an_answer_is_none(raw: Callable[..., Raw], answer: bytes) -> None:
    server, them = raw(answer, answers_each=1), Connections()
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(them, server.url)
    assert not any(them._idle.values())


@pytest.mark.parametrize("url", ["ftp://host", "http:///path", "host:80", "http://host:port"])
def test_what_is_no_url_of_a_server_is_named(url: str) -> None:
    with pytest.raises(InvalidSetting, match="is not a URL of a server"):
        Connections().request("GET", url, None, {}, connect_s=1, read_s=1)
