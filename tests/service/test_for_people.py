"""What the dashboard asks the coordinator: overview, participants, settings, partition, commits, results."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from microsfl.errors import OperationError
from microsfl.launch.reference import settings_reference
from microsfl.records import Records
from microsfl.services import resolver
from microsfl.services.coordinator import create_app
from microsfl.services.data_plane import DataPlane
from microsfl.services.errand import errand
from microsfl.services.resolver import Resolver
from tests.service.control_plane import CLIENTS, Api, Json, StandIn, coordinator, served, spec


def doing(api: Api) -> dict[str, str]:
    return {one["id"]: one["doing"] for one in api.get("/participants")["participants"]}


def test_the_overview_has_each_run_in_a_line(demo: Api) -> None:
    [run] = demo.get("/overview")["runs"]
    assert (run["name"], run["state"], run["phase"], run["round"], run["rounds"]) == (
        "demo",
        "running",
        "training",
        0,
        2,
    )
    assert (run["strategy"], run["dataset"], run["clients"], run["managed"]) == ("filesync", "digits", 3, True)
    assert (run["accuracy"], run["ended_at"], run["reason"]) == (None, None, None)
    demo.work(*CLIENTS)
    demo.wait_for(lambda run: run["state"] == "finished")
    overview = demo.get("/overview")
    [run] = overview["runs"]
    assert run["accuracy"] == demo.get("/runs/demo")["history"][1]["accuracy"]
    assert overview["coordinator"]["started_at"] <= run["created_at"] <= run["ended_at"]


def test_when_a_run_ended_survives_a_restart(records: Records, plane: StandIn) -> None:
    with coordinator(records) as api:
        api.register_servers(plane.url)
        api.post("/runs", spec())
        api.post("/runs/demo/stop")
        [before] = api.get("/overview")["runs"]
    assert before["ended_at"] is not None
    with coordinator(records) as api:
        assert api.get("/overview")["runs"] == [before]
        api.post("/runs/demo/resume")
        assert api.get("/overview")["runs"][0]["ended_at"] is None


def test_participants_say_what_they_do(demo: Api, plane: StandIn) -> None:
    demo.report(next(task for task in demo.poll("c1") if task["client"] == "c1"))
    assert doing(demo) == {
        "c0": "training round 1 of demo",
        "c1": "done with round 1 of demo",
        "c2": "training round 1 of demo",
        "fed": "serving demo",
        "split-0": "serving demo",
    }
    plane.hold.clear()
    for task in demo.poll("c0", "c2"):
        demo.report(task)
    assert doing(demo)["c0"] == "waiting for the sync of round 1 of demo"
    plane.hold.set()
    demo.wait_for(lambda run: run["phase"] == "evaluating")
    assert doing(demo)["c0"] == "evaluating round 1 of demo"
    demo.post("/runs/demo/stop")
    assert set(doing(demo).values()) == {"idle"}


def test_where_clients_take_turns_the_others_wait(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    api.register_clients(*CLIENTS)
    api.post("/runs", spec(strategy="sl"))
    api.post("/runs/demo/start")
    found = sorted(doing(api)[client] for client in CLIENTS)
    assert found == ["training round 1 of demo", *["waiting for its turn in round 1 of demo"] * 2]


def test_who_is_silent_is_away(records: Records) -> None:
    now = [1000.0]
    with coordinator(records, clock=lambda: now[0]) as api:
        api.register_clients("c0")
        now[0] += 100
        [one] = api.get("/participants")["participants"]
    assert (one["doing"], one["health"], one["alive"]) == ("away", "silent", False)


def test_another_process_of_a_participant_is_a_restart(records: Records) -> None:
    def register(api: Api, process: str | None) -> int:
        info = {} if process is None else {"process": process}
        api.post("/participants", {"id": "c0", "role": "client", "info": info})
        restarts: int = api.get("/participants")["participants"][0]["restarts"]
        return restarts

    with coordinator(records) as api:
        assert [register(api, process) for process in ("a", "a", "b", None, "b")] == [0, 0, 1, 1, 1]
    with coordinator(records) as api:  # the coordinator's own restart is none of the participant's
        assert [register(api, process) for process in ("b", "c")] == [1, 2]


def test_settings_are_those_of_the_command_line(api: Api) -> None:
    told = api.get("/settings")["settings"]
    assert [(one["key"], one["default"], one["meaning"], one["allowed"]) for one in told] == [
        (one.name, one.default, one.description, one.allowed) for one in settings_reference()
    ]


# Resolving

WRONG: list[Json] = [
    {"run": {"rouns": 3}},
    {"run": {"rounds": 0}},
    {"run": {"name": "<script>"}},
    {"strategy": {"name": "fedavgg"}},
    {"data": {"dataset": "mnist", "path": "/nowhere"}},
    {"data": {"alpha": "much"}},
    {"model": {"cut": ["fc1"]}},
]


def complaint(values: Json) -> str:
    """What the command line has against these settings."""
    given = [
        f"--set={table}.{key}={json.dumps(value)}" for table, keys in values.items() for key, value in keys.items()
    ]
    command = [sys.executable, "-m", "microsfl", "config", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    return done.stderr.strip().removeprefix("microsfl: error: ")


@pytest.mark.parametrize("values", WRONG, ids=lambda values: json.dumps(values))
def test_the_form_and_the_command_refuse_with_the_same_sentence(settled: Api, values: Json) -> None:
    status, _, message = settled.refused("POST", "/resolve", values)
    assert status in (404, 422)
    assert message == complaint(values)


def test_what_is_resolved_can_be_created_and_its_partition_is_known(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    api.register_clients(*CLIENTS)
    resolved = api.post("/resolve", {"run": {"rounds": 2}, "data": {"clients": 3}})["spec"]
    assert resolved["model"]["classes"] == 10
    api.post("/runs", resolved)
    assert api.get("/runs/demo/partition") == {"classes": None, "clients": {}}  # nobody knows yet who they are
    api.post("/runs/demo/start")
    api.wait_for(lambda run: run["state"] == "running")
    partition = api.get("/runs/demo/partition")
    assert partition["classes"] == 10
    assert partition["clients"].keys() == set(CLIENTS)
    assert sum(map(sum, partition["clients"].values())) == 1442


def test_a_model_that_does_not_fit_is_refused_as_by_a_run(settled: Api) -> None:
    status, code, message = settled.refused("POST", "/resolve", {"model": {"cut": ["no", "fc2"]}})
    assert (status, code) == (422, "unknown_layer")
    assert "model.cut names 'no'" in message


@pytest.mark.parametrize(
    ("values", "setting"),
    [({"model": {"name": "os:system"}}, "allow_models"), ({"data": {"dataset": "os:system"}}, "allow_datasets")],
)
def test_a_function_that_is_not_allowed_is_not_imported(settled: Api, values: Json, setting: str) -> None:
    status, code, message = settled.refused("POST", "/resolve", values)
    assert (status, code) == (403, "model_not_allowed")
    assert "'os:system'" in message
    assert setting in message


def test_an_allowed_function_that_breaks_is_an_error_and_no_hang(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("def load():\n    import os\n    os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    app = create_app(records, data_plane=DataPlane(), resolver=Resolver((), ("broken:load",)))
    with served(app, app.state.director.stop) as url:
        status, _, message = Api(url).refused("POST", "/resolve", {"data": {"dataset": "broken:load"}})
    assert status >= 500
    assert "coordinator's log has the details" in message


def test_of_many_specifications_at_once_the_last_are_to_come_again(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them takes a process."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "slow.py").write_text(f"def load():\n    open({str(gate)!r}).read()\n    raise SystemExit\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(resolver, "AT_A_TIME", 1)
    monkeypatch.setattr(resolver, "WAITING", 0)
    app = create_app(records, data_plane=DataPlane(), resolver=Resolver((), ("slow:load",)))
    asked = {"data": {"dataset": "slow:load"}}
    with served(app, app.state.director.stop) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(Api(url).refused, "POST", "/resolve", asked)
        with gate.open("w"):  # opens when the first one's process is there
            answer = urllib3.request("POST", f"{url}/api/resolve", json=asked, retries=False)
        assert (answer.status, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert first.result()[0] >= 500  # it ended without an answer
        assert Api(url).send("POST", "/resolve", {})[0] == 200  # there is room again


# Partition


@pytest.mark.parametrize(
    "counts", [[[1, 2]], [[1], [2], [3, 4]], [[1], [-2], [3]], [], [[], [], []], [["1"], [2], [3]]]
)
def test_a_partition_that_does_not_fit_is_refused(settled: Api, counts: Any) -> None:
    assert settled.refused("POST", "/runs/demo/partition", {"class_counts": counts})[1] == "invalid_setting"


def test_a_partition_is_kept(records: Records, plane: StandIn) -> None:
    with coordinator(records) as api:
        api.register_servers(plane.url)
        api.register_clients(*CLIENTS)
        api.post("/runs", spec())
        api.post("/runs/demo/partition", {"class_counts": [[1, 2], [3, 4], [5, 6]]})
        api.post("/runs/demo/start")
    with coordinator(records) as api:
        expected = {"classes": 2, "clients": {"c0": [1, 2], "c1": [3, 4], "c2": [5, 6]}}
        assert api.get("/runs/demo/partition") == expected


# Results


def test_the_results_are_a_zip_file(demo: Api) -> None:
    demo.work(*CLIENTS)
    demo.wait_for(lambda run: run["state"] == "finished")
    answer = demo.pool.request("GET", demo.url + "/api/runs/demo/results.zip")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
    parcel = zipfile.ZipFile(io.BytesIO(answer.data))
    assert parcel.namelist() == [f"demo/{name}" for name in ("run.toml", "summary.json", "metrics.csv", "profile.csv")]
    summary = json.loads(parcel.read("demo/summary.json"))
    assert (summary["rounds"], summary["commits"], summary["contributions"]) == (2, 2, 12)
    assert summary["accuracy"] == demo.get("/runs/demo")["history"][1]["accuracy"]
    assert len(parcel.read("demo/metrics.csv").splitlines()) == 1 + 2 * len(CLIENTS)


def test_a_run_that_has_not_begun_has_no_summary(demo: Api) -> None:
    answer = demo.pool.request("GET", demo.url + "/api/runs/demo/results.zip")
    assert "demo/summary.json" not in zipfile.ZipFile(io.BytesIO(answer.data)).namelist()
    assert demo.refused("GET", "/runs/none/results.zip")[1] == "run_not_found"


def test_weights_are_where_the_servers_are(demo: Api, plane: StandIn) -> None:
    urls = {one["part"]: one["url"] for one in demo.get("/runs/demo/weights")["parts"]}
    weights = f"{plane.url}/v1/runs/demo/versions/newest/weights"
    assert urls == {"body": weights, "client-side": weights}


# Pages of other sites


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_may_change_nothing(settled: Api, origin: str) -> None:
    answer = settled.pool.request("POST", settled.url + "/api/runs/demo/stop", headers={"origin": origin})
    assert (answer.status, answer.json()["error"]["code"]) == (403, "cross_origin")


def test_its_own_page_may(demo: Api) -> None:
    answer = demo.pool.request("POST", demo.url + "/api/runs/demo/stop", headers={"origin": demo.url})
    assert (answer.status, answer.json()["state"]) == (200, "stopped")


def test_what_is_not_installed_beside_the_coordinator_is_named() -> None:
    """Its image has no torch."""
    with pytest.raises(OperationError, match="takes 'nowhere', which is not installed where the coordinator runs"):
        asyncio.run(errand("nowhere:resolve", {}, 60.0))
