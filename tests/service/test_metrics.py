"""`GET /metrics` of every service after real requests: read by Prometheus's own parser, compared with what was done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import urllib3
from prometheus_client.openmetrics import parser as openmetrics

from microsfl.client.agent import Agent
from microsfl.client.metrics_port import show
from microsfl.config import ClientSettings, FedServerSettings, SplitServerSettings
from microsfl.errors import PortInUse, StoreUnavailable, Unreachable
from microsfl.records import Records
from microsfl.services import fed_server, split_server
from microsfl.services.coordinator import create_app as create_coordinator
from microsfl.services.coordinator_points import ENDED_RUNS, shown
from microsfl.services.meter import OTHER, Requests
from microsfl.services.replica import create_app
from microsfl.store.objects import ObjectStore, open_store
from microsfl.wire.messages import Backward, Forward, Message, Outputs, Step, Update
from tests.integration.launched import until
from tests.service.control_plane import CLIENTS, Api, StandIn, begin_demo, coordinator, served, spec
from tests.service.shown import Shown
from tests.world import ALLOWED, spec_of

LIMIT_BYTES = 1_000_000


def send(url: str, path: str, body: Message | dict[str, Any]) -> tuple[int, bytes]:
    options: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"body": body.pack()}
    answer = urllib3.request("POST", url + path, retries=False, timeout=60, **options)
    return answer.status, answer.data


def forward(unit: int) -> Forward:
    ones = {"0": torch.ones(8, 5)}
    return Forward(run="toy", round=0, client="one", unit=unit, needs_grad=("0",), activations=ones)


def backward(unit: int, version: int = 0) -> Backward:
    ones = {"0": torch.ones(8, 4)}
    return Backward(run="toy", round=0, client="one", unit=unit, version=version, needs_grad=("0",), gradients=ones)


class Failing(ObjectStore):
    """Fails what `fails` says, for good."""

    fails: Callable[[str], bool] = staticmethod(lambda _: False)

    def create(self, key: str, value: bytes) -> bool:
        def refuse(*_: Any) -> bool:
            raise OSError("no room")

        return self._try("create", key, refuse, value, writes=True) if self.fails(key) else super().create(key, value)


@pytest.fixture
def store() -> Failing:
    return Failing(open_store("memory://").backend, "memory://")


@pytest.fixture
def split(store: Failing) -> Iterator[str]:
    settings = SplitServerSettings(store_url="memory://", allow_models=ALLOWED, graph_cache_mb=1)
    with served(create_app(split_server.create_replica(settings, store), LIMIT_BYTES)) as url:
        assert send(url, "/v1/runs", {"spec": spec_of().model_dump(mode="json")})[0] == 200
        yield url


def test_a_split_server_shows_what_it_did(split: str, store: Failing) -> None:
    for unit in range(3):
        status, body = send(split, "/v1/forward", forward(unit))
        assert (status, Outputs.unpack(body).version) == (200, 0)
    for unit in (0, 1, 1):  # once again: its graph is gone, and its contribution there
        assert send(split, "/v1/backward", backward(unit))[0] in (200, 409)
    assert send(split, "/v1/backward", backward(7))[0] == 409  # whose activations never came
    before = Shown(split)
    assert before.of("reduce_seconds_count") == {frozenset(): 0}
    assert before.get("cache_bytes", cache="graphs") > 0
    assert send(split, "/v1/reduce", {"run": "toy", "round": 0})[0] == 200
    assert send(split, "/v1/reduce", {"run": "toy", "round": 0})[0] == 200  # is the same commit
    assert send(split, "/v1/nothing/here", {})[0] == 404

    now = Shown(split)
    now.check("split-server")
    assert now.get("requests_total", method="POST", path="/v1/forward", status="200") == 3
    assert now.get("request_seconds_count", method="POST", path="/v1/forward") == 3
    assert now.get("request_seconds_bucket", method="POST", path="/v1/forward", le="+Inf") == 3
    assert now.get("request_seconds_bucket", method="POST", path="/v1/forward", le="0.0002") <= 3
    assert now.get("request_seconds_sum", method="POST", path="/v1/forward") > 0
    assert now.get("requests_total", method="POST", path=OTHER, status="404") == 1
    assert now.get("open_requests", method="POST", path="/v1/forward") == 0
    assert now.get("open_requests", method="GET", path="/metrics") == 1
    assert now.get("graph_cache_hits_total") == 2
    assert now.get("graph_cache_misses_total") == 2
    assert now.get("contributions_total") == 2
    assert now.get("units_total") == 3 + now.get("recomputations_total")
    assert now.get("commits_total") == 1
    assert now.get("reduce_seconds_count") == 1
    assert now.get("reduce_seconds_sum") > 0
    assert now.get("cache_limit_bytes", cache="graphs") == 1e6
    assert now.get("cache_bytes", cache="versions") > 0
    assert now.get("phase_seconds_total", phase="compute") > 0
    done = store.tally.by_verb()
    assert now.get("store_operations_total", area="body", verb="create") == done["create"].operations > 4
    assert now.get("store_errors_total", area="body", verb="create") == 0


def test_a_commit_of_each_unit_is_counted_with_its_seconds(store: Failing) -> None:
    """With turns, contributions are commits of their own."""
    settings = SplitServerSettings(store_url="memory://", allow_models=ALLOWED)
    spec_ = spec_of(strategy={"name": "sflv2"}, model={"u_shaped": False})
    with served(create_app(split_server.create_replica(settings, store), LIMIT_BYTES)) as url:
        assert send(url, "/v1/runs", {"spec": spec_.model_dump(mode="json")})[0] == 200
        tensors = {"activations": {"0": torch.ones(8, 5)}, "labels": {"0": torch.zeros(8, dtype=torch.int64)}}
        for unit in range(3):
            step = Step(run="toy", round=0, client="one", unit=unit, needs_grad=("0",), **tensors)
            assert send(url, "/v1/step", step)[0] == 200
        now = Shown(url)
    assert now.get("commits_total") == now.get("contributions_total") == now.get("reduce_seconds_count") == 3
    assert now.get("units_total") == 3


def test_what_the_store_refuses_is_counted(split: str, store: Failing) -> None:
    store.fails = staticmethod(lambda key: "gradients" in key)  # type: ignore[assignment]
    assert send(split, "/v1/forward", forward(0))[0] == 200
    assert send(split, "/v1/backward", backward(0))[0] == 503
    now = Shown(split)
    assert now.get("store_errors_total", area="body", verb="create") == 1
    assert now.get("contributions_total") == 0
    assert now.get("requests_total", method="POST", path="/v1/backward", status="503") == 1


def test_a_fed_server_shows_what_it_did() -> None:
    store = open_store("memory://")
    settings = FedServerSettings(store_url="memory://", allow_models=ALLOWED)
    weights = {
        "front.0.weight": torch.ones(5, 6), "front.0.bias": torch.ones(5),
        "tail.4.weight": torch.ones(3, 4), "tail.4.bias": torch.ones(3),
    }  # fmt: skip
    with served(create_app(fed_server.create_replica(settings, store), LIMIT_BYTES)) as url:
        assert send(url, "/v1/runs", {"spec": spec_of().model_dump(mode="json")})[0] == 200
        for client in ("one", "two", "two"):
            update = Update(run="toy", round=0, client=client, samples=8, weights=weights)
            assert send(url, "/v1/updates", update)[0] == 200
        for _ in range(2):
            assert send(url, "/v1/aggregate", {"run": "toy", "round": 0, "clients": ["one", "two"]})[0] == 200
        assert urllib3.request("GET", f"{url}/v1/runs/toy/versions/1/weights", timeout=60).status == 200
        now = Shown(url)
    now.check("fed-server")
    assert (now.get("updates_total"), now.get("downloads_total"), now.get("commits_total")) == (3, 1, 1)
    assert now.get("reduce_seconds_count") == 1
    route = "/v1/runs/{run}/versions/{version}/weights"
    assert now.get("requests_total", method="GET", path=route, status="200") == 1
    assert now.get("store_operations_total", area="client", verb="create") == store.tally.by_verb()["create"].operations


def test_the_coordinator_shows_its_participants_and_runs(api: Api, plane: StandIn) -> None:
    begin_demo(api, plane.url)
    api.work(*CLIENTS)
    api.post("/runs", spec("second"))
    api.post("/runs", spec("free", managed=False))
    first = Shown(api.url)
    first.check("coordinator")
    assert first.get("participants", role="client", alive="true") == 3
    assert first.get("participants", role="split-server", alive="true") == 1
    assert first.get("participants", role="fed-server", alive="false") == 0
    assert (first.get("runs", state="finished"), first.get("runs", state="created")) == (1, 2)
    assert {run for [(_, run)] in first.of("run_round")} == {"demo", "second"}
    assert {run for [(_, run)] in first.of("run_running")} == {"demo", "second", "free"}
    assert (first.get("run_round", run="demo"), first.get("run_rounds", run="demo")) == (1, 2)
    assert (first.get("run_running", run="demo"), first.get("run_running", run="second")) == (0, 0)
    over = api.get("/runs/demo")["history"][-1]
    assert first.get("run_accuracy_ratio", run="demo") == over["accuracy"]
    assert first.get("run_loss", run="demo") == over["loss"]
    assert frozenset({("run", "second")}) not in first.of("run_loss")  # nothing was evaluated
    assert first.get("data_plane_seconds_count", call="/v1/reduce") == 2
    assert first.get("data_plane_retries_total", call="/v1/reduce") == 0
    path = "/api/runs/{run}/reports"
    assert first.get("requests_total", method="POST", path=path, status="200") == 12
    assert first.get("database_transactions_total") > 6
    assert first.get("database_errors_total") == 0


def test_an_open_poll_is_seen(demo: Api) -> None:
    [task] = demo.poll("c0")
    assert demo.report(task)
    waiting = threading.Thread(target=lambda: demo.poll("c0", wait_s=20))
    waiting.start()
    try:
        until(lambda: open_polls(demo) == 1, "the poll is open")
        demo.work("c1", "c2")  # then there is a task for who waits
    finally:
        waiting.join(30)
    assert not waiting.is_alive()
    assert open_polls(demo) == 0


def open_polls(api: Api) -> float:
    return Shown(api.url).get("open_requests", method="POST", path="/api/tasks/poll")


def test_a_database_that_is_away_is_counted(records: Records, plane: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with coordinator(records, patience_s=20) as api:
        begin_demo(api, plane.url)
        [task] = api.poll("c0")
        save, failures = records.save_progress, 2

        def sometimes(*values: Any, **named: Any) -> None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoreUnavailable("away")
            save(*values, **named)

        monkeypatch.setattr(records, "save_progress", sometimes)
        assert api.report(task)
        assert Shown(api.url).get("database_retries_total") == 2


def test_a_refused_transaction_is_counted(tmp_path: Path) -> None:
    records = Records(f"sqlite:///{tmp_path}/r.db")
    before = records.figures.transactions
    records._engine.dispose()
    (tmp_path / "r.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(StoreUnavailable):
        records.runs()
    assert (records.figures.transactions, records.figures.errors) == (before + 1, 1)


def test_every_route_of_the_coordinator_has_a_label(records: Records) -> None:
    """Whatever FastAPI makes of a router that is included."""
    app = create_coordinator(records)
    requests = Requests(lambda: app.routes)
    paths = list(app.openapi()["paths"])
    assert len(paths) > 10
    for path in paths:
        requests.of("GET", path.replace("{", "").replace("}", ""))
    assert {found for _, found in requests.counted} >= {*paths}
    assert OTHER not in {found for _, found in requests.counted}


def test_labels_stay_few_whatever_is_asked_for(records: Records) -> None:
    app = create_coordinator(records)
    requests = Requests(lambda: app.routes)
    for number in range(50):
        requests.of(f"M{number}", f"/random/{number}")
        requests.of("GET", f"/api/runs/run-{number}")
    assert requests.counted.keys() == {(OTHER, OTHER), ("GET", "/api/runs/{run}")}


def test_old_runs_that_ended_are_not_shown_for_ever() -> None:
    class Stand:
        def __init__(self, number: int) -> None:
            self.name, self.state = f"run-{number:03d}", self
            self.ended = number % 2 == 1

    runs: list[Any] = [Stand(number) for number in range(100)]
    names = [run.name for run in shown(runs)]
    assert len(names) == 50 + ENDED_RUNS
    assert names[-1] == "run-099"
    assert "run-001" not in names
    assert "run-000" in names


def test_openmetrics_is_spoken_when_asked_for(split: str, api: Api) -> None:
    for url in (split, api.url):
        answer = urllib3.request(
            "GET", f"{url}/metrics", headers={"accept": "application/openmetrics-text"}, timeout=60
        )
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        families = list(openmetrics.text_string_to_metric_families(answer.data.decode()))
        assert len(families) > 10


# A client process


@pytest.fixture
def agent(api: Api) -> Agent:
    return Agent(ClientSettings(coordinator=api.url, ids=("c0", "c1"), metrics_port=0, retry_s=1))


def test_a_client_shows_its_tasks_and_requests_where_it_is_told_to(agent: Agent) -> None:
    agent.register()
    metrics = {
        "samples": 40,
        "batches": 5,
        "bytes_up": 300,
        "bytes_down": 200,
        "spent": {"front": 1.5, "split/wire": 9},
    }
    agent.done.add("train", "done", metrics)
    agent.done.add("train", "done", metrics)
    agent.done.add("evaluate", "failed")
    dead, alive = "http://127.0.0.1:9", agent.settings.coordinator
    agent.http.request("GET", lambda: [dead, alive], "/api/health")
    with pytest.raises(Unreachable):
        agent.http.request("GET", lambda: [dead], "/v1/health")
    url = show(metrics_on(0), agent.points)
    now = Shown(url.removesuffix("/metrics"))
    now.check("client")
    assert now.get("client_hosted") == 2
    assert now.get("client_tasks_in_hand") == 0
    assert now.get("client_tasks_total", kind="train", outcome="done") == 2
    assert now.get("client_tasks_total", kind="evaluate", outcome="failed") == 1
    assert now.of("client_phase_seconds_total") == {frozenset({("kind", "train"), ("phase", "front")}): 3.0}
    assert (now.get("client_samples_total"), now.get("client_batches_total")) == (80, 10)
    assert (now.get("client_sent_bytes_total"), now.get("client_received_bytes_total")) == (600, 400)
    assert now.get("client_requests_total", to="coordinator") == 3  # two registrations
    assert now.get("client_failed_tries_total", to="coordinator") == 1
    assert now.get("client_failovers_total", to="coordinator") == 1
    assert now.get("client_request_seconds_count", to="coordinator") == 3
    assert now.get("client_requests_total", to="server") == 0
    assert now.get("client_failed_tries_total", to="server") > 1
    port = url.split(":")[2].removesuffix("/metrics")
    with pytest.raises(PortInUse, match="--metrics-port"):
        show(metrics_on(int(port)), agent.points)


def metrics_on(port: int) -> ClientSettings:
    return ClientSettings(ids=("a",), metrics_port=port)
