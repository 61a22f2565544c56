"""What the strategies change for the control plane: who trains and when, and which servers are asked for what."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from microsfl.core.turns import chosen
from tests.service.control_plane import CLIENTS, Api, Json, StandIn, served, spec


def begin(api: Api, **settings: object) -> Json:
    """A started run, as it is created."""
    api.register_clients(*CLIENTS)
    api.post("/runs", spec(**settings))  # type: ignore[arg-type]
    return api.post("/runs/demo/start")


def only(api: Api, role: str, url: str) -> None:
    api.post("/participants", {"id": role, "role": role, "address": url})


def test_clients_take_turns_and_each_begins_with_what_the_one_before_it_left(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    begin(api, strategy="sl", rounds=1)
    before: str | None = None
    for client in chosen(0, 0, CLIENTS, 3, turns=True):
        [task] = api.poll(*CLIENTS)
        assert (task["client"], task["after"]) == (client, before)
        assert api.report(task)
        before = client
    tasks = api.poll(*CLIENTS)
    assert [(one["client"], one["kind"], one["after"]) for one in tasks] == [(c, "evaluate", None) for c in CLIENTS]
    assert ("/v1/aggregate", {"run": "demo", "round": 0, "clients": list(CLIENTS), "last": before}) in plane.calls


def test_the_next_one_s_long_poll_is_answered_when_its_turn_comes(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    begin(api, strategy="sflv2")
    first, second, _ = chosen(0, 0, CLIENTS, 3, turns=True)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.poll, second, wait_s=30)
        assert api.report(api.poll(first)[0])
        assert [(one["client"], one["after"]) for one in waiting.result()] == [(second, None)]
    assert time.monotonic() - began < 10


def test_some_train_and_all_evaluate(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    begin(api, participants=2, rounds=1)
    training = chosen(0, 0, CLIENTS, 2, turns=False)
    tasks = api.poll(*CLIENTS)
    assert tuple(one["client"] for one in tasks) == training
    assert api.get("/runs/demo")["progress"] == dict.fromkeys(training, "train")
    for task in tasks:
        api.report(task)
    run = api.wait_for(lambda run: run["phase"] == "evaluating")
    assert run["progress"] == dict.fromkeys(CLIENTS, "evaluate")
    api.work(*CLIENTS)
    assert api.wait_for(lambda run: run["state"] == "finished")["history"][0]["samples"] == 200


@pytest.mark.parametrize("strategy", ["fedavg", "centralized"])
def test_without_a_cut_no_split_server_is_needed_or_asked(strategy: str, api: Api, plane: StandIn) -> None:
    only(api, "fed-server", plane.url)
    begin(api, strategy=strategy)
    api.work(*CLIENTS)
    run = api.wait_for(lambda run: run["state"] == "finished")
    assert (run["body_version"], run["client_version"]) == (0, 2)
    assert run["clients"] == list(CLIENTS[: 1 if strategy == "centralized" else 3])
    assert plane.paths() == ["/v1/runs", "/v1/aggregate", "/v1/aggregate"]


def test_local_training_needs_no_server_at_all(api: Api) -> None:
    begin(api, strategy="local")
    for round_ in range(2):
        for kind in ("train", "evaluate"):
            for task in api.poll(*CLIENTS):
                assert (task["kind"], task["round"], task["client_version"]) == (kind, round_, 0)
                assert api.report(task)
    api.wait_for(lambda run: run["state"] == "finished")
    rows = api.get("/runs/demo/rounds")["rounds"]
    assert [(row["accuracy_mean"], row["body_version"], row["client_version"]) for row in rows] == [(0.375, 0, 0)] * 2
    assert all(row["started_at"] <= row["synced_at"] <= row["ended_at"] for row in rows)


def test_local_training_is_resumed_after_the_last_round_that_the_records_have(api: Api) -> None:
    begin(api, strategy="local", rounds=3)
    for _ in range(2):
        for task in api.poll(*CLIENTS):
            api.report(task)
    api.report(api.poll("c1")[0])
    api.post("/runs/demo/stop")
    api.post("/runs/demo/resume")
    assert {(one["kind"], one["round"]) for one in api.poll(*CLIENTS)} == {("train", 1)}
    assert len(api.poll(*CLIENTS)) == 3


@pytest.mark.parametrize(
    ("strategy", "there", "missing"),
    [("fedavg", "split-server", "No fed-server has"), ("sl", "fed-server", "No split-server has")],
)
def test_a_strategy_s_servers_must_be_there(strategy: str, there: str, missing: str, api: Api, plane: StandIn) -> None:
    only(api, there, plane.url)
    status, code, message = api.refused("POST", "/runs", spec(strategy=strategy))
    assert (status, code) == (503, "unreachable")
    assert message.startswith(missing)


def test_a_run_with_one_area_is_adopted_by_it(api: Api) -> None:
    fed = StandIn()
    fed.answers["/v1/runs"] = (200, {"version": 2, "open_round": 2, "sealed": True})
    with served(fed.app) as url:
        only(api, "fed-server", url)
        begin(api, strategy="fedavg", rounds=3)
        run = api.wait_for(lambda run: run["phase"] == "evaluating")
    assert (run["round"], run["body_version"], run["client_version"]) == (2, 0, 3)
    assert fed.calls[1:] == [("/v1/aggregate", {"run": "demo", "round": 2, "clients": [], "last": None})]


def test_saved_bytes_are_among_the_metrics(demo: Api) -> None:
    assert demo.report(demo.poll("c0")[0], bytes_saved=2**40)
    [row] = demo.get("/runs/demo/metrics")["metrics"]
    assert row["bytes_saved"] == 2**40
