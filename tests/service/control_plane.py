"""What the coordinator's tests need around it: a data plane that is a stand-in, a server in a thread, an API client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from microsfl.config import ServerSettings, url_of
from microsfl.errors import StoreUnavailable
from microsfl.records import Records
from microsfl.services import http
from microsfl.services.connections import Config, Connections
from microsfl.services.coordinator import create_app
from microsfl.services.data_plane import DataPlane
from microsfl.spec import RunSpec
from microsfl.trust.tls import Inbound
from tests.tokens import authorization

Json = dict[str, Any]
CLIENTS = ("c0", "c1", "c2")


class ReadyServer(http.Server):
    """Tells a waiting thread when it takes requests."""

    ready: threading.Event

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextlib.contextmanager
def served(app: Any, on_stop: Callable[[], None] | None = None, inbound: Inbound | None = None) -> Iterator[str]:
    """The URL of `app`, served from a thread on a free port."""
    sock = http.listen(ServerSettings())
    url = url_of("http" if inbound is None else "https", "127.0.0.1", sock.getsockname()[1])
    config = Config(app, Connections(1000, 1000), log_config=None, access_log=False)
    server = ReadyServer(config, "test", url, on_stop, inbound)
    server.ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    try:
        assert server.ready.wait(10)
        yield url
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


class StandIn:
    """A stand-in for a split server and a fed server: it answers their JSON endpoints and keeps no weights, because
    the coordinator never sees a tensor and cannot tell the difference.

    `answers` replaces the answer (status, JSON) of a path; while `hold` is cleared, reduce does not answer.
    """

    url: str

    def __init__(self) -> None:
        self.calls: list[tuple[str, Json]] = []
        self.answers: dict[str, tuple[int, Json]] = {}
        self.contributions = 6  # of each round
        self.hold = threading.Event()
        self.hold.set()
        self.called = threading.Event()
        self.app = Starlette(routes=[Route("/v1/{verb}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        path, message = request.url.path, await request.json()
        self.calls.append((path, message))
        if path == "/v1/reduce":
            self.called.set()
            await asyncio.to_thread(self.hold.wait)
        status, payload = self.answers.get(path, (200, self.usual(path, message)))
        return JSONResponse(payload, status)

    def usual(self, path: str, message: Json) -> Json:
        if path == "/v1/reduce":
            counts = {"contributions": self.contributions, "left_out": 1, "batches": 2 * self.contributions}
            return {"version": message["round"] + 1, "round": message["round"], **counts}
        if path == "/v1/partials":
            return {"sums": 1}
        if path == "/v1/aggregate":
            return {"version": message["round"] + 1, "clients": len(message["clients"])}
        return {"version": 0}

    def paths(self) -> list[str]:
        return [path for path, _ in self.calls]


class Api:
    """The coordinator's API as a client sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers = authorization(url)  # of the user who started it, where it wants a token
        self.pool = urllib3.PoolManager(timeout=40, retries=False, maxsize=8, headers=self.headers)

    def send(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Json]:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {**self.headers, **({"content-type": "application/json"} if data is not None else {})}
        response = self.pool.request(method, self.url + "/api" + path, body=data, headers=headers)
        return response.status, response.json()

    def get(self, path: str) -> Json:
        status, answer = self.send("GET", path)
        assert status == 200, answer
        return answer

    def post(self, path: str, body: Any = None) -> Json:
        status, answer = self.send("POST", path, body)
        assert status in (200, 201), answer
        return answer

    def refused(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> tuple[int, str, str]:
        """(status, code, message) of a request that must not succeed."""
        status, answer = self.send(method, path, body, raw)
        assert status >= 400, answer
        assert set(answer) == {"error"}
        assert set(answer["error"]) == {"code", "message"}
        return status, answer["error"]["code"], answer["error"]["message"]

    def register_servers(self, *urls: str, fed: str | None = None) -> None:
        for number, url in enumerate(urls):
            self.post("/participants", {"id": f"split-{number}", "role": "split-server", "address": url})
        self.post("/participants", {"id": "fed", "role": "fed-server", "address": fed or urls[0]})

    def register_clients(self, *clients: str) -> None:
        for client in clients:
            self.post("/participants", {"id": client, "role": "client", "info": {"cores": 2}})

    def poll(self, *clients: str, wait_s: float = 30) -> list[Json]:
        tasks: list[Json] = self.post("/tasks/poll", {"clients": list(clients), "wait_s": wait_s})["tasks"]
        return tasks

    def report(self, task: Json, **changed: Any) -> bool:
        """Report the task as done, with metrics that depend on the client's index."""
        metrics = train_metrics(task["index"]) if task["kind"] == "train" else evaluate_metrics(task["index"])
        body = {name: task[name] for name in ("client", "kind", "round")} | {"metrics": metrics | changed}
        accepted: bool = self.post(f"/runs/{task['run']}/reports", body)["accepted"]
        return accepted

    def fail(self, task: Json, code: str = "dataset_not_found", message: str = "no /data") -> bool:
        """Report that the task cannot be done."""
        body = {name: task[name] for name in ("client", "kind", "round")} | {
            "error": {"code": code, "message": message}
        }
        accepted: bool = self.post(f"/runs/{task['run']}/reports", body)["accepted"]
        return accepted

    def work(self, *clients: str) -> None:
        """Poll and report until none of the clients has a task."""
        while tasks := self.poll(*clients, wait_s=20 if self.run_phase() == "syncing" else 0):
            for task in tasks:
                self.report(task)

    def run_phase(self, run: str = "demo") -> str | None:
        phase: str | None = self.get(f"/runs/{run}")["phase"]
        return phase

    def wait_for(self, fits: Callable[[Json], bool], run: str = "demo") -> Json:
        """The run, once it `fits`, by long polls."""
        now = self.get(f"/runs/{run}")
        while not fits(now):
            before = now["revision"]
            now = self.get(f"/runs/{run}?after={before}&wait_s=20")
            assert now["revision"] > before, now
        return now


def train_metrics(index: int) -> Json:
    traffic = {"bytes_up": 2**40, "bytes_down": 200}
    return {"train_loss": 1.0 + index, "samples": 100, "batches": 4, "seconds": 0.5, "started_at": 1.0, **traffic}


def evaluate_metrics(index: int) -> Json:
    scores = {"test_loss": float(index), "test_accuracy": index / 4, "test_samples": 10 * index}
    return {**scores, "seconds": 0.25, "bytes_up": 10, "bytes_down": 20, "started_at": 2.0}


def spec(name: str = "demo", rounds: int = 2, clients: int = 3, *, strategy: str = "filesync", **run: Any) -> Json:
    """A resolved specification, as JSON."""
    values = {
        "run": {"name": name, "rounds": rounds, **run},
        "data": {"clients": clients},
        "strategy": {"name": strategy},
    }
    return RunSpec.parse(values).resolved(input_shape=(1, 8, 8), classes=10).model_dump(mode="json")


MAIN = (
    "import json, sys; from microsfl.config import CoordinatorSettings; from microsfl.services.coordinator import main;"
    "main(CoordinatorSettings.parse(json.loads(sys.argv[1])))"
)


@contextlib.contextmanager
def coordinator_process(records_url: str) -> Iterator[tuple[subprocess.Popen[str], Api]]:
    """A coordinator in a process of its own, killed at the end if it is still there."""
    settings = json.dumps({"port": 0, "records_url": records_url, "allow_anybody": True})
    process = subprocess.Popen([sys.executable, "-c", MAIN, settings], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("microsfl coordinator ready at http://"), line
        yield process, Api(line.split()[-1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def coordinator(
    records: Records,
    budget_s: float = 20,
    patience_s: float = 0,
    clock: Callable[[], float] = time.time,
) -> Iterator[Api]:
    """A coordinator over real HTTP. Its patience with the database is 0 unless that is what a test is about."""
    app = create_app(records, clock, DataPlane(budget_s=budget_s), patience_s)
    with served(app, app.state.director.stop) as url:
        yield Api(url)


def begin_demo(api: Api, plane_url: str) -> None:
    """A started run of three clients and two rounds."""
    api.register_servers(plane_url)
    api.register_clients(*CLIENTS)
    api.post("/runs", spec())
    api.post("/runs/demo/start")


def refuse(*_: object, **__: object) -> None:
    """Takes the place of a method of the records."""
    raise StoreUnavailable("the disk is full")
