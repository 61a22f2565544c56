"""What metrics and traces cost the data plane: units a second with them ÷ without, in turns.

Split servers in processes of their own: one as it is, two whose requests and store operations are not counted, and two
that trace every unit or one in a hundred, to a collector that only reads. A client sends a unit of 16 KiB, forward and
backward, to one after the other, in each order equally often. A repetition is `UNITS` units to each, of which the
median counts: what else the machine does meanwhile then meets all alike. How far apart the two are that do not count
says how much of a difference means nothing: two processes that do the same differ by up to 4 %. The note has the ratio
of the servers' processor time in all repetitions. Somebody asks each for its metrics once a repetition, which is more
often than Prometheus would.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice, permutations
from statistics import median
from typing import Any

import torch

import microsfl
from microsfl.client.http import Http

from .figures import Figure
from .places import new_folder
from .wire import KIB, SAMPLES, Client, timed

UNITS = 120  # each order once
METRICS, ALL_TRACED, SOME_TRACED = 0.95, 0.5, 0.9
SPEC: dict[str, Any] = {
    "run": {"name": "wire", "managed": False},
    "data": {"dataset": "benchmarks.data:vectors", "clients": 1},
    "model": {"name": "benchmarks.models:narrow"},
}


def measure(quick: bool) -> Iterator[Figure]:
    with ExitStack() as stack:
        sink = stack.enter_context(collector())
        kinds = {"with": "1", "without": "0", "again": "0", "all": f"1 {sink} 1.0", "some": f"1 {sink} 0.01"}
        urls = {name: stack.enter_context(server(said.split())) for name, said in kinds.items()}
        clients = {name: Client(name, url) for name, url in urls.items()}
        tensor = torch.rand(SAMPLES, 1, 16 * KIB // SAMPLES // 4)
        repetition(clients, tensor)  # warms up
        before = {name: cpu_s(url) for name, url in urls.items()}
        turns: list[dict[str, float]] = []
        for _ in range(3 if quick else 9):
            turns.append(repetition(clients, tensor))
            spent = {name: cpu_s(url) - before[name] for name, url in urls.items()}

    def of(one: str, other: str, target: float, what: str) -> Figure:
        ratios = tuple(turn[one] / turn[other] for turn in turns)
        speed = median(turn[one] for turn in turns)
        note = f"{speed:,.0f} units/s; processor time {spent[other] / spent[one]:.3f}"
        return Figure(f"split server, 16 KiB: units/s with {what} ÷ without", ratios, target, at_least=True, note=note)

    yield of("with", "without", METRICS, "metrics")
    yield of("again", "without", METRICS, "nothing counted there either")
    yield of("some", "with", SOME_TRACED, "one unit in 100 traced")
    yield of("all", "with", ALL_TRACED, "every unit traced")


def repetition(clients: dict[str, Client], tensor: torch.Tensor) -> dict[str, float]:
    """Units a second of each, by the median."""
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for order in islice(cycle(permutations(clients)), UNITS):
        for name in order:
            seconds[name].append(timed(partial(clients[name].unit, tensor)))
    return {name: 1 / median(one) for name, one in seconds.items()}


def cpu_s(url: str) -> float:
    """Processor time that a server has used."""
    shown = Http().request("GET", lambda: [url], "/metrics").data.decode()
    return next(float(line.split()[1]) for line in shown.splitlines() if line.startswith("process_cpu_seconds_total "))


@contextmanager
def server(arguments: list[str]) -> Iterator[str]:
    """The URL of a split server; see `metered.py`."""
    with new_folder() as folder:
        command = [sys.executable, "-m", "benchmarks.metered", f"file://{folder}", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            spec = microsfl.RunSpec.parse(SPEC).resolved(input_shape=(16,), classes=10)
            body = f'{{"spec": {spec.to_json()}}}'.encode()
            Http().request("POST", lambda: [url], "/v1/runs", body, "application/json")
            yield url
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


@contextmanager
def collector() -> Iterator[str]:
    """The URL of somebody who takes spans and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    sink = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{sink.server_port}"
    finally:
        sink.shutdown()
        sink.server_close()
