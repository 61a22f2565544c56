"""Law 7: a split server's memory does not grow with clients, rounds, or forwards that never get a backward."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import urllib3

from microsfl.config import SplitServerSettings
from microsfl.services.split_server import SplitServer
from microsfl.store.objects import open_store
from microsfl.wire.messages import Backward, Forward, Outputs
from tests.world import ALLOWED, MODELS, spec_of

CACHE_MB = 20
# Allocator slack, thread stacks and lazily loaded libraries; measured: 6 to 14 MB.
SLACK_MB = 40
FORWARDS = 10_000


def forward(number: int, client: str, round_: int = 0, samples: int = 64) -> Forward:
    return Forward(
        run="toy",
        round=round_,
        client=client,
        unit=number,
        needs_grad=("0",),
        activations={"0": torch.ones(samples, 16)},
    )


@pytest.fixture
def server() -> SplitServer:
    settings = SplitServerSettings(
        store_url="memory://", allow_models=ALLOWED, graph_cache_mb=0.2, weights_cache_mb=0.02, write_behind_mb=0
    )
    server = SplitServer(settings, open_store("memory://"))
    spec = spec_of(data={"batch_size": 64}, model={"name": f"{MODELS}sixteen"}, strategy={"sync": 1})
    server.prepare({"spec": spec.model_dump(mode="json")})
    return server


def test_law_7_graphs_without_a_backward_are_dropped(server: SplitServer) -> None:
    for number in range(200):
        server.forward(forward(number, f"client-{number}"))
    assert 0 < server.graphs.currsize <= 200_000
    assert 0 < len(server.graphs) < 200


def test_law_7_a_graph_is_charged_with_what_it_keeps(server: SplitServer) -> None:
    server.forward(forward(0, "one"))
    held = next(iter(server.graphs.values()))
    activations = 64 * 16 * 4
    assert held.size_bytes >= 3 * activations  # input, output of the ReLU, output of the linear layer


def test_law_7_versions_are_dropped_and_their_graphs_with_them(server: SplitServer) -> None:
    """A graph holds the weights of its version: keeping the one without the other would be a leak."""
    for number in range(50):
        outputs = server.forward(forward(number, "stays"))
        trained = server.forward(forward(number, "goes"))
        gradients = {"0": torch.ones_like(trained.outputs["0"])}
        server.backward(
            Backward(run="toy", round=0, client="goes", unit=number, version=trained.version, gradients=gradients)
        )
        assert outputs.version == number
    assert 0 < server.versions.currsize <= 20_000
    assert {held.version for held in server.graphs.values()} <= {version for _, version in server.versions}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """(address, process id) of a real split server with caches of `CACHE_MB`."""
    command = [
        sys.executable, "-m", "microsfl", "split-server", "--port", "0", "--exit-with-parent", "--allow-anybody",
        "--store-url", f"file://{tmp_path}", "--allow-models", ",".join(ALLOWED),
        "--graph-cache-mb", str(CACHE_MB), "--weights-cache-mb", "5", "--write-behind-mb", "5",
    ]  # fmt: skip
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    timer = threading.Timer(60, child.kill)
    timer.start()
    try:
        ready = child.stdout.readline()
        timer.cancel()
        yield ready.split()[-1], child.pid
    finally:
        timer.cancel()
        child.terminate()
        child.wait(10)


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_law_7_resident_memory_after_10_000_forwards(process: tuple[str, int]) -> None:
    """Real process, real HTTP, a new client every ten forwards. Unbounded, the graphs alone would take 160 MB."""
    address, pid = process
    http = urllib3.PoolManager(retries=False)
    spec = spec_of(data={"batch_size": 64}, model={"name": f"{MODELS}sixteen"})
    assert http.request("POST", f"{address}/v1/runs", json={"spec": spec.model_dump(mode="json")}).status == 200
    before = 0.0
    for number in range(FORWARDS):
        answer = http.request("POST", f"{address}/v1/forward", body=forward(number, f"c{number // 10}").pack())
        assert answer.status == 200
        if number == 50:
            before = resident_mb(pid)
    assert Outputs.unpack(answer.data).version == 0
    grown = resident_mb(pid) - before
    info = http.request("GET", f"{address}/v1/health").json()
    assert 0.8 * CACHE_MB <= info["graph_cache_bytes"] / 1e6 <= CACHE_MB
    assert grown <= CACHE_MB + 5 + SLACK_MB
