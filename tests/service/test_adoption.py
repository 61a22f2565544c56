"""A run whose files are in the store while the coordinator's database knows nothing of it."""

from __future__ import annotations

import pytest

from microsfl.records import Records
from tests.service.control_plane import CLIENTS, Api, Json, StandIn, coordinator, served, spec


def stand_at(plane: StandIn, version: int, open_round: int) -> None:
    plane.answers["/v1/runs"] = (200, {"version": version, "open_round": open_round})


def synced(plane: StandIn) -> list[tuple[str, Json]]:
    return [(path, message) for path, message in plane.calls if path != "/v1/runs"]


@pytest.fixture
def fed() -> StandIn:
    return StandIn()


def create(api: Api, plane: StandIn, fed_url: str, rounds: int = 3) -> None:
    api.register_servers(plane.url, fed=fed_url)
    run = api.post("/runs", spec(rounds=rounds))
    assert (run["state"], run["phase"]) == ("created", None)
    assert api.post("/runs/demo/start")["state"] == "waiting"
    api.register_clients(*CLIENTS)


def test_a_round_that_both_areas_closed_is_evaluated_and_not_repeated(api: Api, plane: StandIn, fed: StandIn) -> None:
    stand_at(plane, 7, 2)
    stand_at(fed, 2, 2)
    with served(fed.app) as fed_url:
        create(api, plane, fed_url)
        tasks = api.poll(*CLIENTS)
        assert {(one["kind"], one["round"], one["body_version"], one["client_version"]) for one in tasks} == {
            ("evaluate", 1, 7, 2)
        }
        api.work(*CLIENTS)
        run = api.wait_for(lambda run: run["state"] == "finished")
    assert synced(plane) == [("/v1/reduce", {"run": "demo", "round": 2})]
    assert [(row["round"], row["accuracy_mean"]) for row in run["history"]] == [(1, 0.375), (2, 0.375)]
    first = api.get("/runs/demo/rounds")["rounds"][0]
    assert (first["body_version"], first["client_version"], first["seconds"]) == (7, 2, 0.0)


@pytest.mark.parametrize("ahead", ["body", "client"])
def test_the_area_that_is_behind_is_synced_again(ahead: str, api: Api, plane: StandIn, fed: StandIn) -> None:
    stand_at(plane, 2, 2 if ahead == "body" else 1)
    stand_at(fed, 2, 2 if ahead == "client" else 1)
    with served(fed.app) as fed_url:
        create(api, plane, fed_url)
        run = api.wait_for(lambda run: run["phase"] == "evaluating")
        assert (run["round"], run["body_version"], run["client_version"]) == (1, 2, 2)
        assert run["progress"] == dict.fromkeys(CLIENTS, "evaluate")
        again = {"run": "demo", "round": 1}
        if ahead == "body":
            assert (synced(plane), synced(fed)) == ([], [("/v1/aggregate", {**again, "clients": [], "last": None})])
        else:
            assert (synced(plane), synced(fed)) == ([("/v1/reduce", again)], [])
        api.work(*CLIENTS)
        assert api.wait_for(lambda run: run["state"] == "finished")["round"] == 2


def test_a_run_that_was_trained_to_its_end_is_only_evaluated(api: Api, plane: StandIn) -> None:
    stand_at(plane, 3, 3)
    create(api, plane, plane.url)
    for task in api.poll(*CLIENTS):
        assert (task["kind"], task["round"]) == ("evaluate", 2)
        api.report(task)
    api.wait_for(lambda run: run["state"] == "finished")
    assert synced(plane) == []


def test_areas_of_different_runs_are_refused(api: Api, plane: StandIn, fed: StandIn) -> None:
    stand_at(plane, 5, 5)
    with served(fed.app) as fed_url:
        api.register_servers(plane.url, fed=fed_url)
        assert api.refused("POST", "/runs", spec())[:2] == (500, "store_corrupt")
    assert api.get("/runs") == {"runs": []}


def test_an_adopted_run_survives_another_restart(records: Records, plane: StandIn) -> None:
    stand_at(plane, 2, 2)
    with coordinator(records) as api:
        api.register_servers(plane.url)
        api.post("/runs", spec(rounds=3))
    stand_at(plane, 0, 0)
    with coordinator(records) as api:
        create_again = api.send("POST", "/runs", spec(rounds=3))
        assert create_again[0] == 200
        api.post("/runs/demo/start")
        api.register_clients(*CLIENTS)
        assert {(one["kind"], one["round"]) for one in api.poll(*CLIENTS)} == {("evaluate", 1)}
