"""Where the time went, over real HTTP: servers say it, clients report it, the coordinator keeps it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from microsfl.client.choice import Choice
from microsfl.client.http import Http
from microsfl.client.transport import SplitServers
from microsfl.config import SplitServerSettings
from microsfl.errors import TensorMismatch
from microsfl.records import Records
from microsfl.services import split_server
from microsfl.services.replica import create_app
from microsfl.services.spent import MAX_NAMES
from microsfl.store.objects import open_store
from microsfl.wire.messages import Backward, Forward, Gradients
from microsfl.wire.timing import HEADER, PHASES, Timing
from tests.service.control_plane import CLIENTS, Api, StandIn, begin_demo, coordinator, served
from tests.world import ALLOWED, spec_of

SPENT = {"front": 0.25, "other": 0.0, "split/requests": 4, "split/wire": 1.5, "split/s0.a/queue": 2.0}
TIMING = Timing(0.001, 0.0, 0.002, 0.003, 0.0, "split-0")
UNIT: dict[str, Any] = {"run": "toy", "round": 0, "client": "one", "unit": 0}


def forward(features: int = 5) -> Forward:
    return Forward(**UNIT, needs_grad=("0",), activations={"0": torch.ones(8, features)})


# Servers and clients


def test_a_split_server_says_what_each_request_took_it() -> None:
    store = open_store("memory://")
    replica = split_server.create_replica(SplitServerSettings(store_url="memory://", allow_models=ALLOWED), store)
    replica.stopwatch.server = "split-0"
    with served(create_app(replica, 10**6)) as url:
        servers = SplitServers(Http(10.0), Choice("sticky", 0), lambda: [url])
        servers.call("/v1/runs", {"spec": spec_of().model_dump(mode="json")})
        outputs = servers.forward(forward())
        gradients = {name: torch.ones_like(tensor) for name, tensor in outputs.outputs.items()}
        backward = Backward(**UNIT, version=outputs.version, needs_grad=("0",), gradients=gradients)
        servers.backward(backward, {})
        servers.backward(backward, {"0": torch.ones(8, 5)})  # its graph is gone
        with pytest.raises(TensorMismatch):
            servers.forward(forward(features=6).model_copy(update={"unit": 1}))
        servers.weights("toy")
        health = Http().request("GET", lambda: [url], "/v1/health").data
    spent = servers.traffic.spent()
    assert {name: spent[f"split-0/{name}"] for name in ("requests", "hits", "misses")} == {
        "requests": 4, "hits": 1, "misses": 1,
    }  # fmt: skip
    assert spent["requests"] == 4
    there = sum(spent[f"split-0/{phase}"] for phase in PHASES)
    assert there == pytest.approx(spent["server"])
    assert min(spent["split-0/compute"], spent["split-0/store"], spent["wire"]) > 0
    assert b'"requests":5' in health  # the call is one too


@pytest.mark.parametrize("value", [None, "rubbish", "\xff" * 3000, TIMING._replace(compute=1e5).header()])
def test_a_server_that_says_nothing_sensible_is_asked_all_the_same(value: str | None) -> None:
    content = Gradients(version=1, newest=2).pack()

    async def answer(_: Request) -> Response:
        return Response(content, headers={} if value is None else {HEADER: value})

    with served(Starlette(routes=[Route("/v1/backward", answer, methods=["POST"])])) as url:
        servers = SplitServers(Http(10.0), Choice("sticky", 0), lambda: [url])
        assert servers.backward(Backward(**UNIT, version=1, gradients={}), {}).newest == 2
    spent = servers.traffic.spent()
    assert (spent["requests"], spent["server"], set(spent)) == (
        1, 0, {"requests", "encode", "wire", "server", "decode"},
    )  # fmt: skip


# The coordinator


class Timed(StandIn):
    """A stand-in that says what its answers took."""

    async def answer(self, request: Request) -> Response:
        response = await super().answer(request)
        response.headers[HEADER] = TIMING.header()
        return response


def test_what_is_reported_is_kept_and_told(records: Records) -> None:
    plane = Timed()
    now = [1000.0]
    with served(plane.app) as url, coordinator(records, clock=lambda: now[0]) as api:
        begin_demo(api, url)
        first, *others = api.poll(*CLIENTS)
        now[0] += 8
        for task in others:
            assert api.report(task)
        assert api.report(first, spent=SPENT)
        api.wait_for(lambda run: run["phase"] == "evaluating")
        now[0] += 4
        first, *others = api.poll(*CLIENTS)
        assert api.report(first, spent={"model": 0.5})
        for task in others:
            assert api.report(task)
        rows = api.get("/runs/demo/profile")["profile"]
        assert not {"spent", "eval_spent"} & api.get("/runs/demo/metrics")["metrics"][0].keys()
    about = {"round": 0, "participant": "c0", "role": "client"}
    assert rows[:2] == [
        {**about, "task": "train", "spent": SPENT},
        {**about, "task": "evaluate", "spent": {"model": 0.5}},
    ]
    about = {"round": 0, "participant": "coordinator", "role": "coordinator"}
    parts = {"training": 8.0, "sync": 0.0, "evaluation": 4.0}
    there = {"requests": 1.0, **dict(zip(PHASES, TIMING, strict=False))}
    sync = {f"{kind}/split-0/{name}": value for kind in ("split", "fed") for name, value in there.items()}
    assert rows[2:] == [{**about, "task": "round", "spent": parts}, {**about, "task": "sync", "spent": sync}]


def test_a_run_that_nobody_says_anything_of_has_an_empty_profile(demo: Api) -> None:
    assert demo.get("/runs/demo/profile") == {"profile": []}
    for task in demo.poll(*CLIENTS):
        assert demo.report(task)
    demo.wait_for(lambda run: run["phase"] == "evaluating")
    [row] = demo.get("/runs/demo/profile")["profile"]
    assert (row["task"], set(row["spent"])) == ("round", {"training", "sync"})


@pytest.mark.parametrize(
    "spent",
    [
        {"front": -1.0}, {"front": 1e300}, {"front": "1"}, {"front": None}, {"Front": 1.0}, {"": 1.0}, {"a/": 1.0},
        {"a/b/c/d": 1.0}, {"a/../c": 1.0}, {"a" * 33: 1.0}, {"front\n": 1.0}, {"front": {"x": 1.0}}, [1.0],
        {f"a/b{number}": 1.0 for number in range(MAX_NAMES + 1)},
    ],
)  # fmt: skip
def test_what_is_not_seconds_by_name_is_refused(settled: Api, spent: Any) -> None:
    metrics = {
        "train_loss": 1.0, "samples": 1, "batches": 1, "seconds": 1.0, "bytes_up": 0, "bytes_down": 0,
        "started_at": 0.0, "spent": spent,
    }  # fmt: skip
    body = {"client": "c0", "kind": "train", "round": 0, "metrics": metrics}
    status, code, message = settled.refused("POST", "/runs/demo/reports", body)
    assert (status, code) == (422, "invalid_setting")
    assert "spent" in message
    assert len(message) < 1000
