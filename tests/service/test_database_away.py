"""A database that goes away for a while, or is not up yet."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from microsfl.errors import StoreUnavailable
from microsfl.records import Records
from microsfl.services import insist as insisting
from microsfl.services.insist import insist
from tests.service.control_plane import CLIENTS, StandIn, begin_demo, coordinator, spec


class Away:
    """Takes the place of a method of the records: refuses until it is told to work."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.back, self.asked = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.asked.set()
        if not self.back.is_set():
            raise StoreUnavailable("the database is away")
        return self.method(*arguments, **named)


def test_a_report_is_kept_until_the_database_is_back_and_polls_go_on(
    records: Records, plane: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coordinator(records, patience_s=30) as api, ThreadPoolExecutor(1) as pool:
        begin_demo(api, plane.url)
        task = api.poll("c0")[0]
        away = Away(records.save_progress)
        monkeypatch.setattr(records, "save_progress", away)
        report = pool.submit(api.report, task)
        assert away.asked.wait(10)
        assert [one["client"] for one in api.poll(*CLIENTS, wait_s=0)] == list(CLIENTS)
        assert api.get("/runs/demo")["progress"]["c0"] == "train"
        assert not report.done()
        away.back.set()
        assert report.result()
        assert api.get("/runs/demo")["progress"]["c0"] == "done"
        api.work(*CLIENTS)
        api.wait_for(lambda run: run["state"] == "finished")


def test_a_run_whose_creation_was_not_acknowledged_is_there_once(
    records: Records, plane: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, answers = records.add_run, iter(["lost"])

    def added_but_not_answered(*arguments: Any) -> None:
        add(*arguments)
        if next(answers, None):
            raise StoreUnavailable("the connection broke")

    monkeypatch.setattr(records, "add_run", added_but_not_answered)
    with coordinator(records, patience_s=30) as api:
        api.register_servers(plane.url)
        assert api.send("POST", "/runs", spec())[0] == 201
        assert api.send("POST", "/runs", spec())[0] == 200


def test_a_poll_is_answered_when_a_run_cannot_begin(
    records: Records, plane: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coordinator(records, patience_s=30) as api:
        api.register_servers(plane.url)
        api.post("/runs", spec())
        api.post("/runs/demo/start")
        away = Away(records.save_progress)
        monkeypatch.setattr(records, "save_progress", away)
        api.register_clients(*CLIENTS)
        assert api.poll(*CLIENTS, wait_s=0) == []
        away.back.set()
        assert [one["client"] for one in api.poll(*CLIENTS)] == list(CLIENTS)


def test_insisting_ends_with_success_or_with_the_last_refusal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(insisting, "FIRST_PAUSE_S", 0.001)
    refusals = iter([StoreUnavailable("starting up"), StoreUnavailable("still starting up")])

    def connect() -> str:
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        return "open"

    with caplog.at_level(logging.WARNING, "microsfl"):
        assert asyncio.run(insist(connect, 10)) == "open"
    assert [record.getMessage() for record in caplog.records] == ["database away"] * 2
    refusals = iter(StoreUnavailable(f"no {number}") for number in range(1000))
    with pytest.raises(StoreUnavailable, match=r"no [1-9]"):
        asyncio.run(insist(connect, 0.05))


def test_what_another_try_cannot_mend_is_raised_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(insist(lambda: 1 / 0))
