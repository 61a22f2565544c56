"""Who takes part, as the coordinator sees it."""

from __future__ import annotations

import asyncio

import pytest

from microsfl.errors import StoreUnavailable
from microsfl.records import Records
from microsfl.services.coordinator import create_app
from microsfl.services.roster import LEAVING, SERVER_LEASE_S, Roster
from tests.service.control_plane import (
    CLIENTS,
    Api,
    StandIn,
    coordinator,
    refuse,
    served,
    spec,
)


def test_participants_are_listed_as_they_registered(api: Api) -> None:
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


def test_a_server_that_left_is_forgotten_and_one_that_only_fell_silent_is_not(records: Records) -> None:
    now = [1000.0]
    roster = Roster(records, lambda: now[0])
    for name in ("left", "silent", "leaving"):
        roster.register(name, "split-server", f"http://{name}:1", {})
    roster.register("left", "split-server", "http://left:1", {LEAVING: True})
    assert roster.servers("split-server") == ["http://leaving:1", "http://silent:1"]
    now[0] += SERVER_LEASE_S + 1
    roster.register("leaving", "split-server", "http://leaving:1", {LEAVING: True})
    asyncio.run(roster.flush())
    asyncio.run(roster.forget_gone())
    assert [one.id for one in roster.all()] == [one.id for one in records.participants()] == ["leaving", "silent"]
    roster.register("left", "split-server", "http://left:2", {})  # it is back, as if it were new
    asyncio.run(roster.flush())
    assert [one.id for one in records.participants()] == ["leaving", "left", "silent"]


def test_signs_of_life_are_written_together_and_later(records: Records) -> None:
    now = [1000.0]
    roster = Roster(records, lambda: now[0])
    for client in CLIENTS:
        roster.register(client, "client", None, {})
    assert records.participants() == []
    asyncio.run(roster.flush())
    now[0] += 10
    roster.heard_of(CLIENTS)
    assert {one.last_seen for one in records.participants()} == {1000.0}
    asyncio.run(roster.flush())
    assert records.participants() == roster.all()
    assert {one.last_seen for one in records.participants()} == {1010.0}


def test_signs_of_life_that_could_not_be_written_are_kept(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    roster = Roster(records, lambda: 1000.0)
    roster.register("c0", "client", None, {})
    with monkeypatch.context() as patch:
        patch.setattr(records, "save_participants", refuse)
        with pytest.raises(StoreUnavailable):
            asyncio.run(roster.flush())
    asyncio.run(roster.flush())
    assert records.participants() == roster.all()


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
