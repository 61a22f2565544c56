"""Runs, tasks and reports over real HTTP. The data plane is a stand-in (see `control_plane.StandIn`)."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from microsfl.records import Records
from tests.service.control_plane import (
    CLIENTS,
    Api,
    Json,
    StandIn,
    coordinator,
    coordinator_process,
    spec,
)


def test_a_run_from_its_creation_to_its_end(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    assert api.send("POST", "/runs", spec())[0] == 201
    status, run = api.send("POST", "/runs", spec())
    assert (status, run["state"], run["phase"], run["spec"]) == (200, "created", None, spec())
    assert plane.calls == [("/v1/runs", {"spec": spec()})] * 2  # once as split server, once as fed server

    assert api.post("/runs/demo/start")["state"] == "waiting"
    api.register_clients("c1", "c0")
    assert api.poll("c0", "c1", wait_s=0) == []
    api.register_clients("c2")
    tasks = api.poll(*CLIENTS)
    here = {"kind": "train", "run": "demo", "round": 0, "body_version": 0, "client_version": 0, "after": None}
    assert tasks == [{**here, "client": client, "index": index} for index, client in enumerate(CLIENTS)]

    api.work(*CLIENTS)
    run = api.wait_for(lambda run: run["state"] == "finished")
    assert (run["phase"], run["round"], run["rounds"], run["reason"]) == (None, 1, 2, None)
    assert (run["body_version"], run["client_version"], run["clients"]) == (2, 2, list(CLIENTS))
    assert len(plane.calls) == 6
    assert sorted(plane.calls[2:4], key=lambda call: call[0]) == [
        ("/v1/aggregate", {"run": "demo", "round": 0, "clients": list(CLIENTS), "last": None}),
        ("/v1/reduce", {"run": "demo", "round": 0}),
    ]
    assert api.poll(*CLIENTS, wait_s=0) == []


def test_rounds_and_metrics_of_a_run(demo: Api) -> None:
    demo.work(*CLIENTS)
    run = demo.wait_for(lambda run: run["state"] == "finished")
    rows = demo.get("/runs/demo/metrics")["metrics"]
    assert [(row["round"], row["client"]) for row in rows] == [(r, c) for r in (0, 1) for c in CLIENTS]
    assert rows[5]["train_loss"] == 3.0
    assert (rows[5]["samples"], rows[5]["seconds"], rows[5]["bytes_up"]) == (100, 0.5, 2**40)
    assert rows[5]["bytes_saved"] is None
    assert (rows[5]["test_accuracy"], rows[5]["eval_seconds"], rows[5]["eval_bytes_up"]) == (0.5, 0.25, 10)

    first = demo.get("/runs/demo/rounds")["rounds"][0]
    assert first["accuracy"] == pytest.approx((10 * 0.25 + 20 * 0.5) / 30)
    assert first["accuracy_mean"] == pytest.approx(0.375)  # the first client has no test samples
    assert first["loss"] == pytest.approx((10 * 1 + 20 * 2) / 30)
    assert (first["train_loss"], first["samples"]) == (2.0, 300)
    assert (first["contributions"], first["left_out"], first["batches"]) == (6, 1, 12)
    assert (first["body_version"], first["client_version"]) == (1, 1)
    assert first["started_at"] <= first["synced_at"] <= first["ended_at"]
    assert first["seconds"] == pytest.approx(first["synced_at"] - first["started_at"])
    assert first["samples_per_s"] == pytest.approx(300 / first["seconds"])
    assert [row["round"] for row in run["history"]] == [0, 1]
    assert run["history"][0] == {name: first[name] for name in run["history"][0]}
    assert demo.get("/runs/demo?history_from=1") == {**run, "history": run["history"][1:]}
    assert demo.get("/runs/demo?after=1&history_from=2")["history"] == []


def test_outliers_are_told_of_with_the_round(demo: Api, plane: StandIn) -> None:
    found = [{"client": one, "norm": 9.0, "median": 1.0, "score": 12.5} for one in ("c2", "c0")]
    plane.answers["/v1/reduce"] = 200, {**plane.usual("/v1/reduce", {"round": 0}), "outliers": found}
    plane.answers["/v1/aggregate"] = 200, {"version": 1, "clients": 3, "outliers": found[:1]}
    demo.work(*CLIENTS)
    run = demo.wait_for(lambda run: len(run["history"]) > 0)
    assert run["history"][0]["outliers"] == ["c0", "c2"]
    row = demo.get("/runs/demo/rounds")["rounds"][0]
    assert (row["outliers"], row["body_outliers"], row["client_outliers"]) == (["c0", "c2"], found, found[:1])


def test_a_round_without_test_samples_has_no_accuracy(demo: Api) -> None:
    nothing = {"test_loss": None, "test_accuracy": None, "test_samples": 0}
    for task in demo.poll(*CLIENTS):
        assert demo.report(task, train_loss=None, samples=0, batches=0)
    for task in demo.poll(*CLIENTS):
        assert demo.report(task, **nothing)
    [row] = demo.get("/runs/demo")["history"]
    assert (row["accuracy"], row["accuracy_mean"], row["loss"], row["train_loss"]) == (None, None, None, None)
    assert (row["samples"], row["samples_per_s"]) == (0, 0.0)


def test_progress_says_what_each_client_has_to_do(demo: Api, plane: StandIn) -> None:
    plane.hold.clear()
    task = demo.poll("c1")[0]
    demo.report(task)
    assert demo.get("/runs/demo")["progress"] == {"c0": "train", "c1": "done", "c2": "train"}
    for task in demo.poll("c0", "c2"):
        demo.report(task)
    assert demo.get("/runs/demo")["phase"] == "syncing"
    plane.hold.set()
    run = demo.wait_for(lambda run: run["phase"] == "evaluating")
    assert run["progress"] == dict.fromkeys(CLIENTS, "evaluate")


def test_long_polls_wake_up(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    api.register_clients(*CLIENTS)
    revision = api.post("/runs", spec())["revision"]
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        tasks = pool.submit(api.poll, "c1", wait_s=30)
        watched = pool.submit(api.get, f"/runs/demo?after={revision}&wait_s=30")
        api.post("/runs/demo/start")
        assert [task["client"] for task in tasks.result()] == ["c1"]
        assert watched.result()["revision"] > revision
    assert time.monotonic() - began < 10


def test_long_polls_are_answered_when_the_coordinator_stops(records: Records) -> None:
    with ThreadPoolExecutor(1) as pool:
        with coordinator(records) as api:
            api.register_clients("c0")
            seen = records_of(api)
            waiting = pool.submit(api.poll, "c0", wait_s=30)
            while records_of(api) == seen:  # until the poll has arrived, which counts as a sign of life
                pass
            began = time.monotonic()
        assert waiting.result() == []
    assert time.monotonic() - began < 5


def records_of(api: Api) -> list[float]:
    return [one["last_seen"] for one in api.get("/participants")["participants"]]


def test_a_poll_without_tasks_ends_after_its_wait(demo: Api) -> None:
    demo.register_clients("other")
    assert demo.poll("other", wait_s=0.05) == []
    answer = demo.post("/tasks/poll", {"clients": ["other"], "wait_s": 0})
    assert (len(answer["split_servers"]), answer["fed_server"]) == (1, answer["split_servers"][0])


def in_hand(task: Json) -> Json:
    return {name: task[name] for name in ("run", "client", "kind", "round")}


def test_who_has_a_task_in_hand_gets_the_next_one_once_it_has_reported(demo: Api) -> None:
    first, second, third = demo.poll(*CLIENTS)
    told = {"clients": list(CLIENTS), "wait_s": 0, "in_hand": [in_hand(first), in_hand(second)]}
    assert demo.post("/tasks/poll", told)["tasks"] == [third]
    assert demo.report(first)
    assert demo.report(third)
    assert demo.post("/tasks/poll", told)["tasks"] == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(demo.post, "/tasks/poll", {**told, "wait_s": 30})
        demo.wait_for(lambda run: run["progress"]["c2"] == "done")
        assert demo.report(second)
        tasks = waiting.result()["tasks"]
    assert [(task["client"], task["kind"]) for task in tasks] == [(client, "evaluate") for client in CLIENTS]


def test_a_poll_with_a_task_in_hand_is_answered_with_one_of_another_run(demo: Api) -> None:
    demo.post("/runs", spec("second", clients=1))
    demo.post("/runs/second/start")
    task = demo.poll("c0")[0]
    told = {"clients": ["c0"], "wait_s": 30, "in_hand": [in_hand(task)]}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(demo.post, "/tasks/poll", told)
        assert demo.report(task)
        assert [one["run"] for one in waiting.result()["tasks"]] == ["second"]
    unknown = {**in_hand(task), "run": "nothing"}
    assert demo.post("/tasks/poll", {**told, "in_hand": [unknown]})["tasks"][0]["run"] == "second"


def test_hundreds_of_polls_wait_at_once(demo: Api) -> None:
    idle = [f"idle-{number}" for number in range(200)]
    demo.register_clients(*idle)

    async def wait_for_nothing() -> list[bytes]:
        async with asyncio.TaskGroup() as group:
            polls = [group.create_task(raw_poll(demo.url, client, 1.0)) for client in idle]
            assert len(await asyncio.to_thread(demo.poll, *CLIENTS)) == 3
        return [poll.result() for poll in polls]

    answers = asyncio.run(wait_for_nothing())
    assert all(b'"tasks":[]' in answer for answer in answers)


def test_more_connections_than_the_limit_of_files_that_it_is_started_with(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        _, api = stack.enter_context(coordinator_process(f"sqlite:///{tmp_path}/records.db"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        place = urlsplit(api.url)
        for _ in range(200):
            connection = HTTPConnection(str(place.hostname), place.port, timeout=20)
            stack.callback(connection.close)
            connection.request("GET", "/api/health")
            assert connection.getresponse().read().startswith(b'{"status":"ok"')


async def raw_poll(url: str, client: str, wait_s: float) -> bytes:
    """The whole answer to a poll on a connection of its own, without the cost of an HTTP client."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"clients": [client], "wait_s": wait_s})
    head = f"POST /api/tasks/poll HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json"
    writer.write(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    answer = await reader.read()
    writer.close()
    return answer


def test_duplicated_late_and_early_reports_change_nothing(demo: Api) -> None:
    first, *others = demo.poll(*CLIENTS)
    assert demo.report(first)
    before = demo.get("/runs/demo")
    assert not demo.report(first, train_loss=99.0)
    assert not demo.report({**others[0], "kind": "evaluate"})
    assert not demo.report({**others[0], "round": 1})
    assert demo.get("/runs/demo") == before
    for task in others:
        assert demo.report(task)
    assert demo.poll("c0")[0]["kind"] == "evaluate"
    assert not demo.report(first)
    assert [row["train_loss"] for row in demo.get("/runs/demo/metrics")["metrics"]] == [1.0, 2.0, 3.0]


def test_a_task_is_handed_out_until_it_is_reported(demo: Api) -> None:
    assert demo.poll("c0") == demo.poll("c0")
    demo.report(demo.poll("c0")[0])
    assert demo.poll("c0", wait_s=0) == []


def test_stop_ends_a_run(demo: Api) -> None:
    task = demo.poll("c0")[0]
    run = demo.post("/runs/demo/stop")
    assert (run["state"], run["phase"], run["progress"]) == ("stopped", None, {})
    assert demo.post("/runs/demo/stop") == run
    assert demo.post("/runs/demo/start") == run
    assert not demo.report(task)
    assert demo.poll(*CLIENTS, wait_s=0) == []


def test_a_client_that_fails_fails_the_run(demo: Api) -> None:
    task = demo.poll("c1")[0]
    assert not demo.fail({**task, "round": 1})
    assert demo.fail(task)
    run = demo.get("/runs/demo")
    assert run["state"] == "failed"
    assert run["reason"] == "client 'c1' could not train in round 0: no /data (dataset_not_found)"


def test_a_run_that_is_not_managed_runs_without_tasks(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    api.register_clients(*CLIENTS)
    api.post("/runs", spec(managed=False))
    run = api.post("/runs/demo/start")
    assert (run["state"], run["phase"], run["clients"]) == ("running", None, [])
    assert api.poll(*CLIENTS, wait_s=0) == []
    assert api.post("/runs/demo/stop")["state"] == "stopped"


def test_two_runs_share_their_clients(demo: Api) -> None:
    demo.post("/runs", spec("second", clients=1))
    demo.post("/runs/second/start")
    assert [(task["run"], task["client"]) for task in demo.poll("c0", "c1")] == [
        ("demo", "c0"),
        ("demo", "c1"),
        ("second", "c0"),
    ]
    assert [run["name"] for run in demo.get("/runs")["runs"]] == ["demo", "second"]


@pytest.mark.parametrize("phase", ["training", "syncing"])
def test_a_killed_coordinator_goes_on_where_it_was(phase: str, plane: StandIn, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    if phase == "syncing":
        plane.hold.clear()
    with coordinator_process(url) as (process, api):
        api.register_servers(plane.url)
        api.register_clients(*CLIENTS)
        api.post("/runs", spec())
        api.post("/runs/demo/start")
        for task in api.poll(*(CLIENTS if phase == "syncing" else CLIENTS[:2])):
            assert api.report(task)
        if phase == "syncing":
            assert plane.called.wait(10)
        before = api.get("/runs/demo")
        assert before["phase"] == phase
        process.kill()
        process.wait()
    plane.hold.set()
    with coordinator_process(url) as (process, api):
        after = api.get("/runs/demo")
        assert (after["clients"], after["created_at"]) == (before["clients"], before["created_at"])
        assert after["revision"] >= before["revision"]
        api.register_servers(plane.url)
        api.register_clients(*CLIENTS)
        if phase == "training":
            assert [task["client"] for task in api.poll(*CLIENTS)] == ["c2"]
        api.work(*CLIENTS)
        run = api.wait_for(lambda run: run["state"] == "finished")
        assert [row["train_loss"] for row in run["history"]] == [2.0, 2.0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_api_describes_itself(api: Api) -> None:
    assert api.get("/health") == {"status": "ok", "role": "coordinator", "version": "0.1.0"}
    page = api.pool.request("GET", api.url + "/docs")
    assert page.status == 200
    assert b"/openapi.json" in page.data
    paths = api.pool.request("GET", api.url + "/openapi.json").json()["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    assert len(operations) == 37
    assert all(operation["summary"] and operation["tags"] for operation in operations)


def test_the_coordinator_imports_no_torch() -> None:
    check = "import sys, microsfl.services.coordinator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_nothing_stays_behind_in_threads(records: Records) -> None:
    before = threading.active_count()
    with coordinator(records) as api:
        api.register_clients("c0")
    assert threading.active_count() <= before
