"""What the coordinator does when the data plane, or its own database, fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from microsfl.records import Records
from microsfl.services.data_plane import SHARED_FROM, DataPlane
from tests.service.control_plane import (
    CLIENTS,
    Api,
    StandIn,
    coordinator,
    refuse,
    served,
    spec,
)


def test_another_replica_is_asked_when_one_fails(api: Api, plane: StandIn) -> None:
    broken, other = StandIn(), StandIn()
    broken.answers["/v1/reduce"] = (503, {"error": {"code": "store_unavailable", "message": "later"}})
    other.answers["/v1/reduce"] = (404, {"error": {"code": "no_such_path", "message": "I am something else"}})
    with served(broken.app) as broken_url, served(other.app) as other_url:
        api.register_servers("http://127.0.0.1:9", broken_url, other_url, plane.url, fed=plane.url)
        api.register_clients(*CLIENTS)
        api.post("/runs", spec(rounds=4))
        api.post("/runs/demo/start")
        api.work(*CLIENTS)
        assert api.wait_for(lambda run: run["state"] in ("finished", "failed"))["reason"] is None
    assert plane.paths().count("/v1/reduce") == 4


def reduced(contributions: Sequence[int], *servers: StandIn) -> None:
    """Rounds with so many contributions, each reduced by the servers, and all that is asked of them awaited."""

    async def run(urls: Sequence[str]) -> None:
        plane = DataPlane(budget_s=20)
        for number, count in enumerate(contributions):
            for server in servers:
                server.contributions = count
            assert (await plane.reduce(lambda: urls, "demo", number)).contributions == count
            await asyncio.gather(*plane._helping)

    with contextlib.ExitStack() as stack:
        asyncio.run(run([stack.enter_context(served(server.app)) for server in servers]))


def test_the_others_help_with_a_round_after_one_with_many_contributions() -> None:
    """All but the one that closes it add up a part each; that one of them cannot is nobody's matter."""
    servers = [StandIn(), StandIn(), StandIn()]
    servers[0].answers["/v1/partials"] = (503, {"error": {"code": "store_unavailable", "message": "later"}})
    reduced([SHARED_FROM - 1, SHARED_FROM, 1, 1], *servers)
    reduces = {call["round"]: call.get("parts") for one in servers for path, call in one.calls if path == "/v1/reduce"}
    assert reduces == {0: None, 1: None, 2: 3, 3: None}
    helps = [call for one in servers for path, call in one.calls if path == "/v1/partials"]
    assert sorted((call["round"], call["part"], call["parts"]) for call in helps) == [(2, 1, 3), (2, 2, 3)]
    assert [sum(call["round"] == 2 for _, call in one.calls) for one in servers] == [1, 1, 1]


def test_one_server_alone_is_not_asked_to_help() -> None:
    server = StandIn()
    reduced([SHARED_FROM] * 3, server)
    assert server.paths() == ["/v1/reduce"] * 3
    assert not any("parts" in call for _, call in server.calls)


def test_a_refusal_of_the_data_plane_fails_the_run(demo: Api, plane: StandIn) -> None:
    plane.answers["/v1/aggregate"] = (422, {"error": {"code": "not_finite", "message": "client c1 sent a NaN"}})
    for task in demo.poll(*CLIENTS):
        demo.report(task)
    run = demo.wait_for(lambda run: run["state"] == "failed")
    assert run["reason"] == "aggregate of round 0 failed (not_finite): client c1 sent a NaN"
    assert plane.paths().count("/v1/aggregate") == 1


@pytest.mark.parametrize(
    "answer", [(500, {"error": {"code": "internal", "message": "broken"}}), (200, {"version": -1})]
)
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
    assert run["reason"].startswith(
        "reduce of round 0 failed (unreachable): No server answered /v1/reduce within 0.5 s"
    )
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
    task, before = demo.poll("c0")[0], demo.get("/runs/demo")
    with monkeypatch.context() as patch:
        patch.setattr(records, "save_progress", refuse)
        body = {"client": "c0", "kind": "train", "round": 0, "error": {"code": "x", "message": "y"}}
        assert demo.refused("POST", "/runs/demo/reports", body)[:2] == (503, "store_unavailable")
    assert demo.get("/runs/demo") == before
    assert demo.report(task)


def test_a_failure_that_cannot_be_recorded_is_told_all_the_same(
    demo: Api, plane: StandIn, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.hold.clear()
    for task in demo.poll(*CLIENTS):
        demo.report(task)
    demo.wait_for(lambda run: run["client_version"] == 1)
    with monkeypatch.context() as patch:
        patch.setattr(records, "save_progress", refuse)
        plane.hold.set()
        run = demo.wait_for(lambda run: run["state"] == "failed")
    assert run["reason"] == "reduce of round 0 failed (store_unavailable): the disk is full"
