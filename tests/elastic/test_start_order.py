"""Whatever starts first waits for the others: every order ends in a federation that trains, with the same weights."""

from __future__ import annotations

import itertools
import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from microsfl.launch.forks import Forks
from tests.elastic.estate import Estate, free_port, tiny
from tests.s3_server import environment_for, s3_server

pytestmark = pytest.mark.slow

SPLIT, CLIENTS = 2, 2
NAMES = ("coordinator", "fed-server", "split-server-0", "split-server-1", "client-00", "client-01", "store")
ORDERS = random.Random(8).sample(list(itertools.permutations(NAMES)), 20)


def cases() -> list[object]:
    return [pytest.param(order, id=f"{number}-{order[0]}-first") for number, order in enumerate(ORDERS)]


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[str, str]]:
    """The weights of the first order."""
    return {}


@pytest.mark.parametrize("order", cases())
def test_roles_start_in_any_order(
    order: tuple[str, ...],
    forks: Forks,
    tmp_path: Path,
    expected: dict[str, tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw, port = random.Random(repr(order)), free_port()
    for name, value in environment_for(f"http://127.0.0.1:{port}").items():
        monkeypatch.setenv(name, value)
    with ExitStack() as open_until:
        estate = open_until.enter_context(Estate(tmp_path / "estate", forks, SPLIT, CLIENTS, "s3://elastic/{}".format))
        assert sorted([*estate.names(), "store"]) == sorted(NAMES)
        for name in order:
            if name == "store":
                open_until.enter_context(s3_server("elastic", port=port))
            else:
                estate.start(name)
            time.sleep(draw.uniform(0.0, 0.5))  # the schedule itself; nothing is waited for by it
        spec = tiny("any-order", 2, CLIENTS)
        control = estate.control("any-order")
        control.create(spec)
        control.start()
        hashes = estate.finished(spec)
        assert hashes == expected.setdefault("weights", hashes)
        estate.ready(*estate.names())  # those without which it went on, too
        for name, child in estate.children.items():
            assert child.state == "up", estate.log(name)
