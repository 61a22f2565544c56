"""Requests that the coordinator refuses, in the one error shape, and that change nothing."""

from __future__ import annotations

import pytest

from microsfl.records import Records
from microsfl.services.director import Director
from tests.service.control_plane import Api, coordinator, spec


@pytest.mark.parametrize("name", ["%2E%2E", "a%2Fb", "a%00", "a" * 10_000, "-x", "%FF"])
@pytest.mark.parametrize("path", ["", "/metrics", "/rounds"])
def test_bad_names_in_a_path_are_refused(settled: Api, name: str, path: str) -> None:
    status, code, _ = settled.refused("GET", f"/runs/{name}{path}")
    assert (status, code) in [(422, "invalid_id"), (404, "no_such_path")]


@pytest.mark.parametrize("bad", ["..", "a/b", "a\0", "a" * 10_000, "", "ä", "a..b"])
def test_bad_ids_in_a_body_are_refused(settled: Api, bad: str) -> None:
    assert settled.refused("POST", "/participants", {"id": bad, "role": "client"})[:2] == (422, "invalid_id")
    assert settled.refused("POST", "/tasks/poll", {"clients": [bad]})[:2] == (422, "invalid_id")
    resolved = spec()
    resolved["run"]["name"] = bad
    status, code, message = settled.refused("POST", "/runs", resolved)
    assert (status, code) == (422, "invalid_setting")
    assert message.startswith("run.name")
    assert len(message) < 400


def test_what_is_not_there_is_not_found(settled: Api) -> None:
    assert settled.refused("GET", "/runs/nothing")[:2] == (404, "run_not_found")
    for path in ("start", "stop"):
        assert settled.refused("POST", f"/runs/nothing/{path}")[:2] == (404, "run_not_found")
    assert settled.refused("GET", "/runs/nothing/metrics")[:2] == (404, "run_not_found")
    assert settled.refused("GET", "/nothing")[:2] == (404, "no_such_path")
    assert settled.refused("DELETE", "/runs")[:2] == (405, "method_not_allowed")
    assert settled.refused("GET", "/tasks/poll")[:2] == (405, "method_not_allowed")
    assert settled.refused("POST", "/tasks/poll/x", {"clients": ["c0"]})[:2] == (404, "no_such_path")


@pytest.mark.parametrize("name", ["%2E%2E", "a%00", "-x"])
def test_bad_names_in_the_path_of_a_report_are_refused(settled: Api, name: str) -> None:
    body = {"client": "c0", "kind": "train", "round": 0, "error": {"code": "x", "message": "y"}}
    assert settled.refused("POST", f"/runs/{name}/reports", body)[:2] in [(422, "invalid_id"), (404, "no_such_path")]


def test_a_bug_tells_nobody_of_the_inside(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    with coordinator(records) as api:
        api.register_clients("c0")
        monkeypatch.setattr(Director, "poll", None)
        status, code, message = api.refused("POST", "/tasks/poll", {"clients": ["c0"]})
        assert (status, code) == (500, "internal")
        assert "NoneType" not in message


def test_a_report_of_a_client_outside_the_run_is_refused(settled: Api) -> None:
    body = {"client": "stranger", "kind": "train", "round": 0, "error": {"code": "x", "message": "y"}}
    assert settled.refused("POST", "/runs/demo/reports", body)[:2] == (404, "client_not_found")


def test_a_specification_must_be_resolved(settled: Api) -> None:
    values = spec()
    values["model"]["classes"] = "auto"
    status, code, message = settled.refused("POST", "/runs", values)
    assert (status, code) == (422, "invalid_setting")
    assert "model.classes" in message
    assert "strategy.unit" not in message


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ({"quorum": 0.5}, "run.deadline_s"),
        ({"quorum": 0, "deadline_s": 5}, "run.quorum"),
        ({"quorum": 1.5, "deadline_s": 5}, "run.quorum"),
        ({"deadline_s": -1}, "run.deadline_s"),
        ({"give_up_s": 0}, "run.give_up_s"),
    ],
)
def test_patience_that_makes_no_sense_is_refused(settled: Api, run: dict[str, float], named: str) -> None:
    values = spec()
    values["run"] |= run
    status, code, message = settled.refused("POST", "/runs", values)
    assert (status, code) == (422, "invalid_setting")
    assert named in message


def test_an_unknown_setting_is_answered_with_the_nearest_one(settled: Api) -> None:
    status, code, message = settled.refused("POST", "/runs", {"strategy": {"local_epoch": 2}})
    assert (status, code) == (422, "unknown_setting")
    assert "'strategy.local_epochs'" in message


def test_a_name_stands_for_one_specification(settled: Api) -> None:
    assert settled.refused("POST", "/runs", spec(rounds=9))[:2] == (409, "run_exists")
    assert settled.get("/runs/demo")["rounds"] == 2


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff", b"[1]", b"[" * 100_000, b"nonsense"])
def test_what_is_no_json_object_is_refused(settled: Api, raw: bytes) -> None:
    assert settled.refused("POST", "/tasks/poll", raw=raw)[:2] == (400, "invalid_input")


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
def test_what_could_not_be_answered_again_is_refused(settled: Api, info: bytes, named: str) -> None:
    raw = b'{"id": "x", "role": "client", "info": ' + info + b"}"
    status, code, message = settled.refused("POST", "/participants", raw=raw)
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
def test_a_registration_that_is_wrong_names_the_field(settled: Api, changed: dict[str, object], named: str) -> None:
    body = {"id": "x", "role": "client", **changed}
    status, code, message = settled.refused("POST", "/participants", body)
    assert (status, code) == (422, "invalid_setting")
    assert named in message


def test_an_unknown_field_is_refused(settled: Api) -> None:
    body = {"id": "x", "role": "client", "adress": "?"}
    assert settled.refused("POST", "/participants", body)[:2] == (422, "unknown_setting")


def test_a_body_over_the_limit_is_refused(settled: Api) -> None:
    raw = b'{"id": "x", "role": "client", "info": {"a": "' + b"x" * 2_000_000 + b'"}}'
    assert settled.refused("POST", "/participants", raw=raw)[:2] == (413, "message_too_large")


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
def test_metrics_that_are_no_numbers_are_refused(settled: Api, changed: dict[str, object], named: str) -> None:
    task = {"run": "demo", "client": "c0", "kind": "train", "round": 0, "index": 0}
    with pytest.raises(AssertionError) as caught:
        settled.report(task, **changed)
    assert named in str(caught.value)
    assert settled.get("/runs/demo")["progress"]["c0"] == "train"


def test_a_report_has_metrics_or_an_error(settled: Api) -> None:
    body = {"client": "c0", "kind": "train", "round": 0}
    assert settled.refused("POST", "/runs/demo/reports", body)[:2] == (422, "invalid_setting")
    assert "kind" in settled.refused("POST", "/runs/demo/reports", {**body, "kind": "sleep"})[2]


def test_nobody_waits_longer_than_half_a_minute(settled: Api) -> None:
    assert "wait_s" in settled.refused("POST", "/tasks/poll", {"clients": ["c0"], "wait_s": 31})[2]
    assert "wait_s" in settled.refused("GET", "/runs/demo?after=1&wait_s=31")[2]
