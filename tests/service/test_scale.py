"""How many split servers there should be, as an autoscaler asks for it, from none at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from microsfl.client.entitled import asking
from microsfl.client.http import Http
from microsfl.launch.control import Control
from microsfl.trust.credential import Credential
from microsfl.trust.tickets import ticket_for
from tests.elastic.estate import tiny
from tests.service.test_leaving import server, until
from tests.service.test_roles import role
from tests.tokens import authorization

Json = dict[str, Any]


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[str]:
    with role(tmp_path, "coordinator", "--port", "0", "--records-url", f"sqlite:///{tmp_path}/r.db") as process:
        yield str(process.address)


def credential(coordinator: str) -> Credential:
    found = ticket_for(coordinator, asking(Http(), coordinator))
    assert found is not None
    return found.credential


def ask(coordinator: str, query: str = "", headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    given = authorization(coordinator) if headers is None else headers
    return urllib3.request("GET", f"{coordinator}/api/scale{query}", headers=given)


def test_a_scaler_needs_no_token_but_a_credential(coordinator: str) -> None:
    mine = credential(coordinator)
    right = urllib3.make_headers(basic_auth=f"{mine.id}:{mine.secret}")
    assert ask(coordinator, headers=right).json() == ask(coordinator).json()
    wrong = urllib3.make_headers(basic_auth=f"{mine.id}:{mine.secret}x")
    assert ask(coordinator, headers=wrong).status == 401
    assert ask(coordinator, headers={}).status == 401
    assert ask(coordinator, headers={"authorization": "Basic not-base64!"}).status == 400
    elsewhere = urllib3.request("GET", f"{coordinator}/api/runs", headers=right)
    assert elsewhere.status == 401  # a secret is for where tokens are not to be had


@pytest.mark.parametrize(
    ("query", "what"),
    [("?min=3&max=2", "min: 3 is more than max, 2."), ("?min=-1", "min"), ("?per_replica=0", "per_replica")],
)
def test_bounds_that_make_no_sense_are_refused(coordinator: str, query: str, what: str) -> None:
    answer = ask(coordinator, query)
    assert answer.status == 422
    assert what in answer.json()["error"]["message"]


def test_from_none_to_one_and_a_run_that_could_not_begin_does(coordinator: str, tmp_path: Path) -> None:
    """Nobody is there; the run that somebody wants is what makes the autoscaler start the first one."""
    assert ask(coordinator).json() == {
        "replicas": 0, "alive": 0, "load": 0.0, "busy": 0.0, "runs": 0, "per_replica": 2.0,
    }  # fmt: skip
    assert ask(coordinator, "?min=2").json()["replicas"] == 2
    control = Control(coordinator, "wanted")
    with ThreadPoolExecutor(1) as aside:
        created = aside.submit(control.create, tiny("wanted", 1, 1))
        until(lambda: ask(coordinator).json()["replicas"] == 1, "a split server is wanted")
        fed = ("fed-server", "--port", "0", "--coordinator", coordinator, "--store-url", f"file://{tmp_path}/client")
        with role(tmp_path, *fed), role(tmp_path / "a", *server(tmp_path / "a", coordinator, "a")):
            created.result(60)
            until(lambda: ask(coordinator).json()["alive"] == 1, "it is there")
    metrics = urllib3.request("GET", f"{coordinator}/metrics", headers=authorization(coordinator)).data.decode()
    assert "\nmicrosfl_replicas_wanted 1.0\n" in metrics
