"""Connections that say nothing, half of something, or are far too many: others are served, and nothing is stored."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import urllib3

from microsfl.services import connections, http
from microsfl.services.connections import Connections
from microsfl.services.http import allow_connections
from microsfl.wire.messages import Step
from tests.attacks.inside import Inside, inside
from tests.attacks.process import Live, split_server
from tests.world import spec_of

MANY = 2000
STEP = Step(
    run="toy",
    round=0,
    client="one",
    unit=0,
    activations={"0": torch.ones(8, 5)},
    labels={"0": torch.zeros(8, dtype=torch.int64)},
).pack()
HEAD = b"POST /v1/step HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(STEP)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with split_server(tmp_path, "--max-connections-per-caller", "500", "--log-level", "error") as live:
        live.prepare(spec_of(model={"u_shaped": False}).model_dump(mode="json"))
        yield live


@contextlib.contextmanager
def opened(port: int, number: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections of another address than the usual one, each with the same first bytes sent."""
    allow_connections()
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(number):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.2", 0))
            one.connect(("127.0.0.1", port))
            with contextlib.suppress(OSError):  # it may have been closed again at once
                one.sendall(first)
            found.append(one)
        yield found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "first",
    [b"", b"POST /v1/step HTTP/1.1\r\nx-slow: ", HEAD + b"\r\n" + STEP[:20]],
    ids=["silent", "half a head", "half a body"],
)
def test_thousands_of_connections_of_one_address_leave_others_served(live: Live, tmp_path: Path, first: bytes) -> None:
    before = contents(tmp_path)
    with opened(live.port, MANY, first):
        open_files = len(list(Path(f"/proc/{live.pid}/fd").iterdir()))
        answer = urllib3.request("POST", f"{live.url}/v1/step", body=STEP, retries=False)
        assert answer.status == 200
        health = urllib3.request("GET", f"{live.url}/v1/health", retries=False)
        assert health.status == 200
    assert open_files < MANY / 2
    new = contents(tmp_path).keys() - before.keys()
    assert [name.rpartition("/")[0] for name in new] == ["runs/toy/rounds/0/gradients/one"]


@pytest.mark.slow
def test_ten_thousand_connections_leave_others_served(tmp_path: Path) -> None:
    """With the limits as they are."""
    allow_connections()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 10_500:
        pytest.skip("this process may not open 10,000 connections")
    with split_server(tmp_path, "--log-level", "error") as live:
        live.prepare(spec_of(model={"u_shaped": False}).model_dump(mode="json"))
        with opened(live.port, 10_000, b"GET /v1/he"):
            open_files = len(list(Path(f"/proc/{live.pid}/fd").iterdir()))
            answers = [urllib3.request("POST", f"{live.url}/v1/step", body=STEP, retries=False) for _ in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        assert open_files < 2048 + 100


def test_those_that_are_let_go_are_the_ones_idle_longest(live: Live) -> None:
    with opened(live.port, 501, b"GET /v1/he") as ones:
        assert ones[0].recv(10) == b""
        ones[-1].sendall(b"alth HTTP/1.1\r\nhost: x\r\n\r\n")
        assert ones[-1].recv(12) == b"HTTP/1.1 200"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """A split server in this process, whose patience is short."""
    for module, name in (
        (connections, "HEAD_S"), (connections, "READ_S"), (connections, "REST_S"), (http, "FIRST_BODY_S"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 0.2)
    with inside(spec_of(model={"u_shaped": False})) as quick:
        yield quick


def test_a_head_that_does_not_come_ends_its_connection(quick: Inside) -> None:
    """Slowloris: the connection is closed although something comes now and then."""
    for first in (
        b"",
        b"\r\n",
        b"GET /v1/health HTTP/1.1\r\nx-slow: ",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/he",
    ):
        with socket.create_connection(("127.0.0.1", quick.port), timeout=20) as one:
            one.sendall(first)
            with contextlib.suppress(ConnectionError):
                while one.recv(4096):
                    one.sendall(b"x")
            # It got here: the server has hung up.
    assert quick.health() == 200


def test_an_endless_head_is_not_kept(quick: Inside) -> None:
    with socket.create_connection(("127.0.0.1", quick.port), timeout=20) as one:
        one.sendall(b"GET /v1/health HTTP/1.1\r\nx: " + b"x" * 60_000)
        with contextlib.suppress(OSError):
            one.sendall(b"x" * 60_000)
        assert one.recv(12) == b"HTTP/1.1 431"


def test_more_requests_than_answers_end_their_connection(quick: Inside) -> None:
    with socket.create_connection(("127.0.0.1", quick.port), timeout=20) as one:
        one.sendall(b"GET /v1/runs/toy HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
        got = b""
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                got += piece
    assert got.count(b"HTTP/1.1 200") <= 20
    assert quick.health() == 200


def test_half_sent_bodies_are_answered_with_the_reason_and_store_nothing(quick: Inside) -> None:
    before = quick.contents()
    with contextlib.ExitStack() as stack:
        ones = [stack.enter_context(socket.create_connection(("127.0.0.1", quick.port), timeout=20)) for _ in range(40)]
        for one in ones:
            one.sendall(HEAD + b"connection: close\r\n\r\n" + STEP[:30])
        answers = [one.makefile("rb").read(4096) for one in ones]
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}
    assert all(b"message_too_slow" in answer for answer in answers)
    assert quick.contents() == before


def test_half_of_the_places_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """While bodies of one address do not come, those of another do, before the time of the first ones is over."""
    monkeypatch.setattr(http, "FIRST_BODY_S", 600.0)
    monkeypatch.setattr(http, "BODY_S", 600.0)
    with inside(spec_of(model={"u_shaped": False})) as server, opened(server.port, 40, HEAD + b"\r\n" + STEP[:30]):
        answer = urllib3.request("POST", f"{server.url}/v1/step", body=STEP, retries=False, timeout=20)
        assert answer.status == 200


def test_who_does_not_read_its_answer_is_let_go(quick: Inside) -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", quick.port))
        one.sendall(b"GET /v1/large HTTP/1.1\r\nhost: x\r\n\r\n")
        assert quick.abandoned.wait(20)


class Transport:
    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Fake:
    """What `Connections` needs of a connection."""

    def __init__(self, owner: str, *, is_idle: bool = True) -> None:
        self.owner, self.is_idle, self.transport = owner, is_idle, Transport()


def admitted(them: Connections, owner: str, *, is_idle: bool = True) -> Any:
    one: Any = Fake(owner, is_idle=is_idle)
    assert them.admit(one)
    if not is_idle:
        them.busy(one)
    return one


def test_an_owner_loses_its_own_connections_and_no_one_else_s() -> None:
    them = Connections(most=10, each=3)
    other = admitted(them, "other")
    first, *rest = [admitted(them, "flood") for _ in range(5)]
    assert [one.transport.is_aborted for one in (first, *rest, other)] == [True, True, False, False, False, False]
    assert them.count == 4


def test_an_owner_whose_connections_are_all_busy_gets_no_more() -> None:
    them = Connections(most=10, each=2)
    busy = [admitted(them, "flood", is_idle=False) for _ in range(2)]
    late: Any = Fake("flood")
    assert not them.admit(late)
    assert not any(one.transport.is_aborted for one in busy)
    assert them.admit(Fake("other"))  # type: ignore[arg-type]


def test_an_identity_has_its_connections_wherever_they_come_from() -> None:
    them = Connections(most=10, each=2)
    mine = [admitted(them, f"at {number}") for number in range(4)]
    for one in mine:
        them.busy(one)
        them.move(one, "me")
        them.idle(one)
    assert [one.transport.is_aborted for one in mine] == [True, True, False, False]
    stranger = admitted(them, "at 3")
    assert not stranger.transport.is_aborted
    for one in (*mine, stranger):
        them.gone(one)
    assert them.count == 0


def test_where_there_is_no_room_at_all_whoever_has_the_most_makes_some() -> None:
    them = Connections(most=6, each=5)
    flood = [admitted(them, "flood", is_idle=False) for _ in range(5)]
    admitted(them, "a")
    assert not admitted(them, "b").transport.is_aborted
    assert [one.transport.is_aborted for one in flood] == [True, False, False, False, False]
    assert them.count == 6
