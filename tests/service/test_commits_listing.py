"""The commits of a run, from the store through a split server to whoever asks the coordinator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.records import Records
from microsfl.services import fed_server, split_server
from microsfl.services.replica import create_app
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import keys
from tests.service.control_plane import CLIENTS, Api, StandIn, coordinator, served, spec


@pytest.fixture
def body() -> ObjectStore:
    return open_store("memory://")


@pytest.fixture
def real(records: Records, body: ObjectStore) -> Iterator[Api]:
    """A coordinator with a split server and a fed server that are no stand-ins."""
    split = split_server.create_replica(SplitServerSettings(store_url="memory://"), body)
    fed = fed_server.create_replica(FedServerSettings(store_url="memory://"), open_store("memory://"))
    with (
        served(create_app(split, 10**6)) as split_url,
        served(create_app(fed, 10**6)) as fed_url,
        coordinator(records) as api,
    ):
        api.register_servers(split_url, fed=fed_url)
        api.register_clients(*CLIENTS)
        yield api


def begin(api: Api) -> None:
    """A run whose body has a version 1, without a contribution."""
    api.post("/runs", spec())
    [server] = [one for one in api.get("/participants")["participants"] if one["role"] == "split-server"]
    answer = api.pool.request("POST", server["address"] + "/v1/reduce", json={"run": "demo", "round": 0})
    assert answer.json()["version"] == 1


def test_commits_come_from_the_store(real: Api) -> None:
    begin(real)
    told = real.get("/runs/demo/commits")
    assert (told["files"], told["message"], told["newest"]) == ("there", None, 1)
    [commit] = told["commits"]
    assert (commit["version"], commit["parent"], commit["round"], commit["closes"]) == (1, 0, 0, True)
    assert (commit["contributions"], commit["left_out"], commit["created_at"]) == ([], [], None)
    assert real.get("/runs/demo/commits?after=1")["commits"] == []
    assert real.refused("GET", "/runs/demo/commits?after=x")[1] == "invalid_setting"
    assert real.refused("GET", "/runs/none/commits")[1] == "run_not_found"


def test_a_run_whose_files_were_deleted_says_so(real: Api, body: ObjectStore) -> None:
    begin(real)
    for key in list(body.list("runs/demo")):
        body.delete(key)
    told = real.get("/runs/demo/commits")
    assert (told["files"], told["commits"]) == ("gone", [])
    assert told["message"].startswith("The files of run 'demo' are not in the store any more")
    assert real.get("/overview")["runs"][0]["name"] == "demo"


def test_a_part_that_is_missing_is_seen(demo: Api) -> None:
    """The store of the split server is older than what the coordinator knows."""
    demo.work(*CLIENTS)
    demo.wait_for(lambda run: run["state"] == "finished")
    store = open_store("memory://")
    split = split_server.create_replica(SplitServerSettings(store_url="memory://"), store)
    with served(create_app(split, 10**6)) as url:
        demo.post("/participants", {"id": "split-0", "role": "split-server", "address": url})
        split.calls["/v1/runs"]({"spec": spec()})
        told = demo.get("/runs/demo/commits")
        assert (told["files"], told["newest"]) == ("gone", 0)
        assert "its newest version there is 0, and it had 2" in told["message"]
        store.delete(keys.commit("demo", keys.BODY, 0))
        assert demo.get("/runs/demo/commits")["files"] == "gone"


def test_a_strategy_without_a_body_has_no_commits(api: Api, plane: StandIn) -> None:
    api.register_servers(plane.url)
    api.post("/runs", spec(strategy="fedavg"))
    told = api.get("/runs/demo/commits")
    assert (told["commits"], told["files"]) == ([], "there")
    assert "does not cut the model" in told["message"]


def test_weights_have_a_name_when_a_browser_downloads_them(real: Api) -> None:
    begin(real)
    links = {one["part"]: one["url"] for one in real.get("/runs/demo/weights")["parts"]}
    names = {part: real.pool.request("GET", url).headers["content-disposition"] for part, url in links.items()}
    assert names == {
        "body": 'attachment; filename="demo-split-server-1.safetensors"',
        "client-side": 'attachment; filename="demo-fed-server-0.safetensors"',
    }
