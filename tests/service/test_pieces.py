"""In how many pieces requests and answers go over a connection, and that nothing of them is lost."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from microsfl.client import connections
from microsfl.client.connections import Answer, Connections
from microsfl.client.tls_socket import CHUNK_BYTES
from microsfl.trust.authority import Authority
from microsfl.trust.tls import Inbound, Outbound
from tests.service.control_plane import served

RECORD_BYTES = 16_384  # the most that one record of TLS has
APPLICATION_DATA = 23
SOME = bytes(range(256)) * 4


@dataclass
class Relay:
    """Passes all bytes on between whoever connects and `target`, and keeps them."""

    target: tuple[str, int]
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        near, _ = self.listener.accept()
        far = socket.create_connection(self.target)
        for source, sink, kept in ((near, far, self.up), (far, near, self.down)):
            threading.Thread(target=self._pass_on, args=(source, sink, kept), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                kept += chunk  # before it arrives: whoever has the answer finds it here
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


def records(stream: bytes) -> list[int]:
    """The types of the TLS records."""
    kinds, at = [], 0
    while at < len(stream):
        kinds.append(stream[at])
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
    assert at == len(stream)
    return kinds


async def echo(request: Request) -> Response:
    body = await request.body()
    return Response(body * int(request.query_params.get("times", "1")))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.in_folder(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def inbound(authority: Authority) -> Inbound:
    pair = authority.server(["127.0.0.1"])
    return Inbound(str(pair.cert), str(pair.key))


@pytest.fixture
def them(authority: Authority) -> Connections:
    return Connections(Outbound(str(authority.folder / "ca.pem")))


@pytest.fixture(scope="module")
def echoing(inbound: Inbound) -> Iterator[str]:
    with served(Starlette(routes=[Route("/", echo, methods=["POST"])]), inbound=inbound) as url:
        yield url


def ask(them: Connections, url: str, body: bytes | None = SOME, read_s: float = 20) -> Answer:
    return them.request("POST", url, body, {"x-it": "self"}, connect_s=5, read_s=read_s)


@pytest.mark.parametrize("size", [1_000, 2 * RECORD_BYTES - 1_000])
def test_a_small_request_and_its_answer_take_no_more_records_than_their_bytes(
    echoing: str, them: Connections, size: int
) -> None:
    """One more for a head would be one more for the other side to wake up for."""
    relay = Relay(("127.0.0.1", int(echoing.rpartition(":")[2])))
    url, body = f"https://127.0.0.1:{relay.port}/", bytes(size)
    assert ask(them, url, body).data == body
    relay.up.clear()  # what belongs to the handshake has come with the first answer
    relay.down.clear()
    assert ask(them, url, body).data == body
    needed = -(-size // RECORD_BYTES)
    assert records(bytes(relay.up)) == [APPLICATION_DATA] * needed
    assert records(bytes(relay.down)) == [APPLICATION_DATA] * needed


def test_a_large_body_is_not_copied(monkeypatch: pytest.MonkeyPatch, them: Connections, echoing: str) -> None:
    sent: list[Any] = []
    send = http.client.HTTPConnection.send
    monkeypatch.setattr(http.client.HTTPConnection, "send", lambda self, data: [sent.append(data), send(self, data)])
    body = bytes(connections.SENT_WHOLE_BYTES)
    assert ask(them, echoing, body).data == body
    assert [part is body for part in sent] == [False, True]


@settings(max_examples=40, deadline=None)
@given(
    size=st.one_of(
        st.integers(0, 70_000),
        st.sampled_from([CHUNK_BYTES, RECORD_BYTES]).flatmap(lambda one: st.integers(one - 400, one + 400)),
    ),
    times=st.integers(0, 40),
)
def test_every_size_comes_through(echoing: str, authority: Authority, size: int, times: int) -> None:
    them = Connections(Outbound(str(authority.folder / "ca.pem")))
    body = (SOME * (size // len(SOME) + 1))[:size]
    for _ in range(2):  # the second one on the same connection
        assert ask(them, f"{echoing}?times={times}", body).data == body * times


def test_a_head_does_not_wait_for_a_body_that_is_not_there_yet(inbound: Inbound, authority: Authority) -> None:
    may_go_on = threading.Event()

    async def stream(_: Request) -> Response:
        async def parts() -> Any:
            while not may_go_on.is_set():
                await asyncio.sleep(0.001)
            yield b"the body"

        return StreamingResponse(parts())

    with served(Starlette(routes=[Route("/", stream)]), inbound=inbound) as url:
        context = Outbound(str(authority.folder / "ca.pem")).context()
        connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=context, timeout=20)
        connection.request("GET", "/")
        response = connection.getresponse()  # it has the head
        may_go_on.set()
        assert response.read() == b"the body"
        connection.close()


@contextmanager
def saying(inbound: Inbound, answer: bytes, *, stays: bool, newest: ssl.TLSVersion | None = None) -> Iterator[str]:
    """The URL of a server that reads a request's head and writes `answer`; then it hangs up without a goodbye."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()
    if newest is not None:
        inbound.context.maximum_version = newest

    def serve() -> None:
        with suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with inbound.context.wrap_socket(plain, server_side=True) as one:
                    one.recv(65_536)
                    one.sendall(answer)
                    if stays:
                        over.wait()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    over.set()
    listener.close()


@pytest.fixture
def of_its_own(authority: Authority) -> Inbound:
    """One that a test may change."""
    pair = authority.server(["127.0.0.1"])
    return Inbound(str(pair.cert), str(pair.key))


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_answer_that_ends_with_its_connection_is_whole(
    of_its_own: Inbound, them: Connections, newest: ssl.TLSVersion
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1024\r\n\r\n" + SOME
    with saying(of_its_own, answer, stays=False, newest=newest) as url:
        assert [ask(them, url).data for _ in range(2)] == [SOME] * 2


def test_half_an_answer_is_none(of_its_own: Inbound, them: Connections) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + SOME
    with saying(of_its_own, answer, stays=False) as url, pytest.raises(http.client.IncompleteRead):
        ask(them, url)


def test_an_answer_is_waited_for_as_long_as_it_says(of_its_own: Inbound, them: Connections) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + SOME
    with saying(of_its_own, answer, stays=True) as url, pytest.raises(TimeoutError):
        ask(them, url, read_s=0.2)
