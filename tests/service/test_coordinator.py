"""The coordinator over real HTTP. The data plane around it is a stand-in (see `control_plane.StandIn`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from control_plane import Api, StandIn, coordinator_process, served, spec

from microsfl.errors import StoreUnavailable
from microsfl.records import Records
from microsfl.services.coordinator import create_app
from microsfl.services.data_plane import DataPlane

CLIENTS = ("c0", "c1", "c2")


@contextlib.contextmanager
def coordinator(records: Records, budget_s: float = 20) -> Iterator[Api]:
    app = create_app(records, data_plane=DataPlane(budget_s=budget_s))
    with served(app, app.state.director.stop) as url:
        yield Api(url)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(f"sqlite:///{tmp_path}/records.db")
    yield opened
    opened.close()


@pytest.fixture
def api(records: Records) -> Iterator[Api]:
    with coordinator(records) as api:
        yield api


@pytest.fixture
def plane() -> Iterator[StandIn]:
    stand_in = StandIn()
    with served(stand_in.app) as stand_in.url:
        yield stand_in


@pytest.fixture
def demo(api: Api, plane: StandIn) -> Api:
    """A started run of three clients and two rounds."""
    api.register_servers(plane.url)
    api.register_clients(*CLIENTS)
    api.post("/runs", spec())
    api.post("/runs/demo/start")
    return api


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
    here = {"kind": "train", "run": "demo", "round": 0, "body_version": 0, "client_version": 0}
    assert tasks == [{**here, "client": client, "index": index} for index, client in enumerate(CLIENTS)]

    api.work(*CLIENTS)
    run = api.wait_for(lambda run: run["state"] == "finished")
    assert (run["phase"], run["round"], run["rounds"], run["reason"]) == (None, 1, 2, None)
    assert (run["body_version"], run["client_version"], run["clients"]) == (2, 2, list(CLIENTS))
    assert plane.calls[2:4] == [
        ("/v1/reduce", {"run": "demo", "round": 0}),
        ("/v1/aggregate", {"run": "demo", "round": 0, "clients": list(CLIENTS)}),
    ] or plane.paths()[2:4] == ["/v1/aggregate", "/v1/reduce"]
    assert len(plane.calls) == 6
    assert api.poll(*CLIENTS, wait_s=0) == []


def test_rounds_and_metrics_of_a_run(demo: Api) -> None:
    demo.work(*CLIENTS)
    run = demo.wait_for(lambda run: run["state"] == "finished")
    rows = demo.get("/runs/demo/metrics")["metrics"]
    assert [(row["round"], row["client"]) for row in rows] == [(r, c) for r in (0, 1) for c in CLIENTS]
    assert rows[5]["train_loss"] == 3.0
    assert (rows[5]["samples"], rows[5]["seconds"], rows[5]["bytes_up"]) == (100, 0.5, 2**40)
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
    body = {"client": "c1", "kind": "train", "round": 0, "error": {"code": "dataset_not_found", "message": "no /data"}}
    assert demo.post("/runs/demo/reports", {**body, "round": 1}) == {"accepted": False}
    assert demo.post("/runs/demo/reports", body) == {"accepted": True}
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


# The data plane fails


def test_another_replica_is_asked_when_one_fails(api: Api, plane: StandIn) -> None:
    broken = StandIn()
    broken.answers["/v1/reduce"] = (503, {"error": {"code": "store_unavailable", "message": "later"}})
    with served(broken.app) as broken_url:
        api.register_servers("http://127.0.0.1:9", broken_url, plane.url, fed=plane.url)
        api.register_clients(*CLIENTS)
        api.post("/runs", spec(rounds=4))
        api.post("/runs/demo/start")
        api.work(*CLIENTS)
        assert api.wait_for(lambda run: run["state"] in ("finished", "failed"))["reason"] is None
    assert plane.paths().count("/v1/reduce") == 4


def test_a_refusal_of_the_data_plane_fails_the_run(demo: Api, plane: StandIn) -> None:
    plane.answers["/v1/aggregate"] = (422, {"error": {"code": "not_finite", "message": "client c1 sent a NaN"}})
    for task in demo.poll(*CLIENTS):
        demo.report(task)
    run = demo.wait_for(lambda run: run["state"] == "failed")
    assert run["reason"] == "aggregate of round 0 failed (not_finite): client c1 sent a NaN"
    assert plane.paths().count("/v1/aggregate") == 1


@pytest.mark.parametrize("answer", [(500, {"error": {"code": "internal", "message": "broken"}}), (200, {"version": -1})])
def test_a_data_plane_that_stays_away_fails_the_run(
    records: Records, plane: StandIn, answer: tuple[int, dict[str, object]]
) -> None:
    plane.answers["/v1/reduce"] = answer
    with coordinator(records, budget_s=0.5) as api:
        api.register_servers(plane.url)
        api.register_clients("c0")
        api.post("/runs", spec(clients=1))
        api.post("/runs/demo/start")
        api.report(api.poll("c0")[0])
        run = api.wait_for(lambda run: run["state"] == "failed")
    assert run["reason"].startswith("reduce of round 0 failed (unreachable): No server answered /v1/reduce within 0.5 s")
    assert plane.url in run["reason"]
    assert plane.paths().count("/v1/reduce") > 1


def test_nothing_is_kept_of_a_run_that_cannot_be_prepared(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    plane.answers["/v1/runs"] = (422, {"error": {"code": "unknown_layer", "message": "no layer 'x'"}})
    assert api.refused("POST", "/runs", spec()) == (422, "unknown_layer", "no layer 'x'")
    assert api.get("/runs") == {"runs": []}
    plane.answers.clear()
    assert api.send("POST", "/runs", spec())[0] == 201


def test_a_run_needs_servers_of_both_kinds(api: Api, plane: StandIn) -> None:
    status, code, message = api.refused("POST", "/runs", spec())
    assert (status, code) == (503, "unreachable")
    assert "split-server and no fed-server" in message
    api.post("/participants", {"id": "s", "role": "split-server", "address": plane.url})
    assert "No fed-server has" in api.refused("POST", "/runs", spec())[2]


def test_a_report_that_cannot_be_recorded_changes_nothing(
    demo: Api, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreUnavailable("the disk is full")

    task, before = demo.poll("c0")[0], demo.get("/runs/demo")
    with monkeypatch.context() as patch:
        patch.setattr(records, "save_progress", full)
        body = {"client": "c0", "kind": "train", "round": 0, "error": {"code": "x", "message": "y"}}
        assert demo.refused("POST", "/runs/demo/reports", body)[:2] == (503, "store_unavailable")
    assert demo.get("/runs/demo") == before
    assert demo.report(task)


# Participants


def test_participants_are_listed_as_they_registered(api: Api, records: Records) -> None:
    api.register_servers("http://127.0.0.1:1", fed="http://127.0.0.1:2")
    api.register_clients("a.b-c_1")
    first = api.get("/participants")["participants"]
    assert [(one["id"], one["role"], one["address"]) for one in first] == [
        ("a.b-c_1", "client", None),
        ("fed", "fed-server", "http://127.0.0.1:2"),
        ("split-0", "split-server", "http://127.0.0.1:1"),
    ]
    again = api.post("/participants", {"id": "split-0", "role": "split-server", "address": "http://127.0.0.1:3/"})
    assert (again["address"], again["first_seen"]) == ("http://127.0.0.1:3", first[2]["first_seen"])
    assert again["last_seen"] >= first[2]["last_seen"]
    assert len(api.get("/participants")["participants"]) == 3


def test_participants_outlive_the_coordinator(records: Records) -> None:
    with coordinator(records) as api:
        api.register_clients("c0")
        api.poll("c0", wait_s=0)
        before = api.get("/participants")
    with coordinator(records) as api:
        assert api.get("/participants") == before


def test_an_id_belongs_to_one_role(api: Api) -> None:
    api.register_clients("x")
    status, code, message = api.refused(
        "POST", "/participants", {"id": "x", "role": "fed-server", "address": "http://h:1"}
    )
    assert (status, code) == (422, "invalid_id")
    assert "client" in message


def test_unknown_clients_are_told_to_register(api: Api) -> None:
    api.register_clients("known")
    status, code, message = api.refused("POST", "/tasks/poll", {"clients": ["known", "stranger"]})
    assert (status, code) == (404, "client_not_found")
    assert "stranger" in message
    assert "known," not in message


def test_a_run_does_not_begin_with_clients_that_are_long_gone(records: Records, plane: StandIn) -> None:
    now = [1000.0]
    app = create_app(records, clock=lambda: now[0])
    with served(app, app.state.director.stop) as url:
        api = Api(url)
        api.register_clients("gone")
        now[0] += 300
        api.register_servers(plane.url)
        api.register_clients("here")
        api.post("/runs", spec(clients=2))
        assert api.post("/runs/demo/start")["state"] == "waiting"
        api.register_clients("late")
        assert api.get("/runs/demo")["clients"] == ["here", "late"]


def test_servers_that_fell_silent_are_not_named(records: Records) -> None:
    now = [1000.0]
    app = create_app(records, clock=lambda: now[0])
    with served(app, app.state.director.stop) as url:
        api = Api(url)
        api.register_clients("c")
        api.register_servers("http://old:1", "http://new:2")
        now[0] += 60
        api.post("/participants", {"id": "split-1", "role": "split-server", "address": "http://new:2"})
        assert api.post("/tasks/poll", {"clients": ["c"]})["split_servers"] == ["http://new:2"]


# Refusals


@pytest.mark.parametrize("name", ["%2E%2E", "a%2Fb", "a%00", "a" * 10_000, "-x", "%FF"])
@pytest.mark.parametrize("path", ["", "/metrics", "/rounds"])
def test_bad_names_in_a_path_are_refused(api: Api, name: str, path: str) -> None:
    status, code, _ = api.refused("GET", f"/runs/{name}{path}")
    assert (status, code) in [(422, "invalid_id"), (404, "no_such_path")]


@pytest.mark.parametrize("bad", ["..", "a/b", "a\0", "a" * 10_000, "", "ä", "a..b"])
def test_bad_ids_in_a_body_are_refused(api: Api, bad: str) -> None:
    assert api.refused("POST", "/participants", {"id": bad, "role": "client"})[:2] == (422, "invalid_id")
    assert api.refused("POST", "/tasks/poll", {"clients": [bad]})[:2] == (422, "invalid_id")
    resolved = spec()
    resolved["run"]["name"] = bad
    status, code, message = api.refused("POST", "/runs", resolved)
    assert (status, code) == (422, "invalid_setting")
    assert message.startswith("run.name")
    assert len(message) < 400


def test_what_is_not_there_is_not_found(api: Api) -> None:
    assert api.refused("GET", "/runs/nothing")[:2] == (404, "run_not_found")
    for path in ("start", "stop"):
        assert api.refused("POST", f"/runs/nothing/{path}")[:2] == (404, "run_not_found")
    assert api.refused("GET", "/runs/nothing/metrics")[:2] == (404, "run_not_found")
    assert api.refused("GET", "/nothing")[:2] == (404, "no_such_path")
    assert api.refused("DELETE", "/runs")[:2] == (405, "method_not_allowed")


def test_a_report_of_a_client_outside_the_run_is_refused(demo: Api) -> None:
    body = {"client": "stranger", "kind": "train", "round": 0, "error": {"code": "x", "message": "y"}}
    assert demo.refused("POST", "/runs/demo/reports", body)[:2] == (404, "client_not_found")


def test_a_specification_must_be_resolved(api: Api) -> None:
    values = spec()
    values["model"]["classes"] = "auto"
    status, code, message = api.refused("POST", "/runs", values)
    assert (status, code) == (422, "invalid_setting")
    assert "model.classes" in message
    assert "strategy.unit" not in message


def test_an_unknown_setting_is_answered_with_the_nearest_one(api: Api) -> None:
    status, code, message = api.refused("POST", "/runs", {"strategy": {"local_epoch": 2}})
    assert (status, code) == (422, "unknown_setting")
    assert "'strategy.local_epochs'" in message


def test_a_name_stands_for_one_specification(demo: Api) -> None:
    assert demo.refused("POST", "/runs", spec(rounds=9))[:2] == (409, "run_exists")
    assert demo.get("/runs/demo")["rounds"] == 2


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff", b"[1]", b"[" * 100_000, b"nonsense"])
def test_what_is_no_json_object_is_refused(api: Api, raw: bytes) -> None:
    assert api.refused("POST", "/tasks/poll", raw=raw)[:2] == (400, "invalid_input")


@pytest.mark.parametrize(
    ("info", "named"),
    [
        (b'{"a": NaN}', "info.a"),
        (b'{"a": [1, -Infinity]}', "info.a[1]"),
        (b'{"a": "\\ud800"}', "info.a"),
        (b'{"\\udfff": 1}', "info"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested"),
        (b'{"a": "' + b"x" * 20_000 + b'"}', "info"),
        (b"3", "info"),
    ],
)
def test_what_could_not_be_answered_again_is_refused(api: Api, info: bytes, named: str) -> None:
    raw = b'{"id": "x", "role": "client", "info": ' + info + b"}"
    status, code, message = api.refused("POST", "/participants", raw=raw)
    assert (status, code) == (422, "invalid_setting")
    assert named in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"id": 3}, "id"),
        ({"role": "king"}, "role"),
        ({"address": "http://h:1"}, "address"),
        ({"role": "fed-server"}, "address"),
        ({"role": "fed-server", "address": "ftp://h"}, "address"),
        ({"role": "fed-server", "address": "http://h\0"}, "address"),
        ({"role": "fed-server", "address": "http://" + "h" * 3000}, "address"),
    ],
)
def test_a_registration_that_is_wrong_names_the_field(api: Api, changed: dict[str, object], named: str) -> None:
    body = {"id": "x", "role": "client", **changed}
    status, code, message = api.refused("POST", "/participants", body)
    assert (status, code) == (422, "invalid_setting")
    assert named in message


def test_an_unknown_field_is_refused(api: Api) -> None:
    body = {"id": "x", "role": "client", "adress": "?"}
    assert api.refused("POST", "/participants", body)[:2] == (422, "unknown_setting")


def test_a_body_over_the_limit_is_refused(api: Api) -> None:
    raw = b'{"id": "x", "role": "client", "info": {"a": "' + b"x" * 2_000_000 + b'"}}'
    assert api.refused("POST", "/participants", raw=raw)[:2] == (413, "message_too_large")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train_loss": float("nan")}, "metrics.train_loss"),
        ({"seconds": float("inf")}, "metrics.seconds"),
        ({"seconds": -1.0}, "metrics.seconds"),
        ({"samples": 1.5}, "metrics.samples"),
        ({"samples": True}, "metrics.samples"),
        ({"bytes_up": 2**63}, "metrics.bytes_up"),
        ({"train_loss": "1"}, "metrics.train_loss"),
        ({"test_loss": 1.0}, "metrics.test_loss"),
    ],
)
def test_metrics_that_are_no_numbers_are_refused(demo: Api, changed: dict[str, object], named: str) -> None:
    task = demo.poll("c0")[0]
    with pytest.raises(AssertionError) as caught:
        demo.report(task, **changed)
    assert named in str(caught.value)
    assert demo.get("/runs/demo")["progress"]["c0"] == "train"


def test_a_report_has_metrics_or_an_error(demo: Api) -> None:
    body = {"client": "c0", "kind": "train", "round": 0}
    assert demo.refused("POST", "/runs/demo/reports", body)[:2] == (422, "invalid_setting")
    assert "kind" in demo.refused("POST", "/runs/demo/reports", {**body, "kind": "sleep"})[2]


def test_nobody_waits_longer_than_half_a_minute(demo: Api) -> None:
    assert "wait_s" in demo.refused("POST", "/tasks/poll", {"clients": ["c0"], "wait_s": 31})[2]
    assert "wait_s" in demo.refused("GET", "/runs/demo?after=1&wait_s=31")[2]


# The process


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
        assert process.wait(10) in (0, -signal.SIGTERM)


def test_the_api_describes_itself(api: Api) -> None:
    assert api.get("/health") == {"status": "ok", "role": "coordinator", "version": "0.1.0"}
    page = api.pool.request("GET", api.url + "/docs")
    assert page.status == 200
    assert b"/openapi.json" in page.data
    paths = api.pool.request("GET", api.url + "/openapi.json").json()["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    assert len(operations) == 12
    assert all(operation["summary"] and operation["tags"] for operation in operations)


def test_the_coordinator_imports_no_torch() -> None:
    check = "import sys, microsfl.services.coordinator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_nothing_stays_behind_in_threads(records: Records) -> None:
    before = threading.active_count()
    with coordinator(records) as api:
        api.register_clients("c0")
    assert threading.active_count() <= before
