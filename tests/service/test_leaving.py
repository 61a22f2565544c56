"""A replica that is asked to end: it says so, answers what comes, sends its clients away, and then ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from microsfl.client.http import Http
from microsfl.errors import RunNotFound
from microsfl.services.leaving import Leaving
from microsfl.trust.tokens import Audience
from tests.service.test_roles import Process, role
from tests.tokens import authorization

DEADLINE_S = 60.0


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[str]:
    with role(tmp_path, "coordinator", "--port", "0", "--records-url", f"sqlite:///{tmp_path}/r.db") as process:
        assert process.address is not None
        yield process.address


def server(folder: Path, coordinator: str, name: str, *more: str) -> tuple[str, ...]:
    folder.mkdir(parents=True)
    where = ("--id", name, "--port", "0", "--coordinator", coordinator)
    return ("split-server", *where, "--store-url", f"file://{folder}/store", *more)


def told(coordinator: str) -> list[str]:
    """The split servers that clients are told of."""
    headers = authorization(coordinator)
    answer = urllib3.request("GET", f"{coordinator}/api/participants", headers=headers).json()
    return list(answer["split_servers"])


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:g} s for: {what}"
        time.sleep(0.02)


def ready(process: Process) -> int:
    return urllib3.request("GET", f"{process.address}/v1/ready").status


def test_it_is_ready_once_it_has_the_keys_and_leaves_when_it_is_told_to(coordinator: str, tmp_path: Path) -> None:
    with (
        role(tmp_path / "a", *server(tmp_path / "a", coordinator, "a")) as leaving,
        role(tmp_path / "b", *server(tmp_path / "b", coordinator, "b")) as staying,
    ):
        first, second = str(leaving.address), str(staying.address)
        until(lambda: ready(leaving) == ready(staying) == 200, "both have the keys")
        until(lambda: sorted(told(coordinator)) == sorted([first, second]), "clients are told of both")
        way, token = Http(), authorization(coordinator, Audience.BODY)
        with open_request(leaving, token):  # it has to wait for that
            leaving.child.send_signal(signal.SIGTERM)
            until(lambda: ready(leaving) == 503, "it says that it is not ready")
            until(lambda: told(coordinator) == [second], "clients are not told of it any more")
            answer = urllib3.request("GET", f"{first}/v1/runs/none", headers=token)
            assert (answer.status, answer.headers["connection"]) == (404, "close")  # it answers all the same
            with pytest.raises(RunNotFound):
                way.request("GET", lambda: [first, second], "/v1/runs/none", headers=token)
            assert leaving.child.poll() is None
        assert leaving.child.wait(DEADLINE_S) == 0
        assert ready(staying) == 200


def test_who_is_answered_by_one_that_leaves_asks_another_from_then_on(coordinator: str, tmp_path: Path) -> None:
    with (
        role(tmp_path / "a", *server(tmp_path / "a", coordinator, "a")) as leaving,
        role(tmp_path / "b", *server(tmp_path / "b", coordinator, "b")) as staying,
    ):
        both = [str(leaving.address), str(staying.address)]
        until(lambda: ready(leaving) == ready(staying) == 200, "both have the keys")
        way = Http()
        assert way.request("GET", lambda: both, "/v1/health").server == leaving.address
        token = authorization(coordinator, Audience.BODY)
        with open_request(leaving, token):
            leaving.child.send_signal(signal.SIGTERM)
            until(lambda: ready(leaving) == 503, "it leaves")
            with pytest.raises(RunNotFound):
                way.request("GET", lambda: both, "/v1/runs/none", headers=token)
            assert way.request("GET", lambda: both, "/v1/health").server == staying.address
            assert sum(way.tries._failed.values()) == 0  # nothing had to be asked twice


def test_a_second_signal_is_a_hurry(tmp_path: Path, coordinator: str) -> None:
    with role(tmp_path / "a", *server(tmp_path / "a", coordinator, "a", "--drain-s", "600")) as process:
        until(lambda: ready(process) == 200, "it has the keys")
        with open_request(process, authorization(coordinator, Audience.BODY)):
            process.child.send_signal(signal.SIGTERM)
            until(lambda: ready(process) == 503, "it leaves")
            assert process.child.poll() is None
            process.child.send_signal(signal.SIGTERM)
            assert process.child.wait(DEADLINE_S) == 0


@contextmanager
def open_request(process: Process, token: dict[str, str]) -> Iterator[None]:
    """One whose body does not come to its end."""
    parts = urlsplit(str(process.address))
    lines = ["POST /v1/forward HTTP/1.1", "host: any", "content-length: 1000", *(f"{k}: {v}" for k, v in token.items())]
    with socket.create_connection((str(parts.hostname), int(parts.port or 0))) as connection:
        connection.sendall("\r\n".join([*lines, "", "some"]).encode())
        yield


def test_it_waits_for_what_is_under_way_and_for_a_quiet_moment() -> None:
    now = [0.0]
    leaving = Leaving(lambda: now[0])
    told: list[bool] = []
    leaving.tell = lambda: told.append(leaving.begun)

    async def story() -> None:
        leaving.asked()
        drained = asyncio.ensure_future(leaving.drain(20.0, lambda: False))
        await asyncio.sleep(0)
        assert told == [True]
        now[0] = 10.0
        assert not leaving.is_quiet  # a request is under way
        leaving.answered()
        now[0] = 10.9
        assert not leaving.is_quiet
        now[0] = 11.0
        assert leaving.is_quiet
        await drained
        leaving.asked()
        now[0] = 31.0
        await leaving.drain(0.0, lambda: False)  # its time is over
        await leaving.drain(20.0, lambda: True)  # there is a hurry

    asyncio.run(story())
