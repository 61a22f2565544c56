"""A coordinator with 1,000 clients: one real process over HTTP, clients that are simulated (see `polling_clients.py`).

Polls: every client polls once a second, spread over the second, and is answered at once; it also says every 3 s that it
is there, as client processes do. Seconds from a request to its whole answer, seen by the client: the ratio is the 99th
percentile ÷ the median, in windows of the 60 s. The same load on a server that does nothing shows what of that is the
clients' own, and the machine's; and the ratio of the medians shows whether the coordinator keeps up, as requests that
wait in a queue would make the first ratio a good one.

Rounds: clients wait for tasks by long polls, report each at once, and train nothing; split server and fed server are
stand-ins which answer at once. What is left of a round is the control plane. The ratio is its time ÷ the time that a
server which does nothing takes for as many requests of the same clients (a poll and a report for each task).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from microsfl import RunSpec
from microsfl.client.coordinator import Coordinator
from microsfl.client.http import Http
from microsfl.config import CoordinatorSettings
from microsfl.launch.child import Child
from microsfl.launch.control import Control
from microsfl.launch.kept import end

from .figures import Figure
from .places import new_folder

CLIENTS = 1000
FEW = 20  # clients of an ordinary run
TAIL = 10.0
MEDIAN = 10.0
ROUND = 25.0

Json = dict[str, Any]


def measure(quick: bool) -> Iterator[Figure]:
    with new_folder() as folder, do_nothing() as idle, coordinator(folder) as url:
        yield from polls(url, idle, seconds=3 if quick else 60)
    for clients in (CLIENTS, FEW):
        yield rounds(clients, repetitions=1 if quick else 5)


def polls(url: str, idle: str, seconds: float) -> Iterator[Figure]:
    alone = load(idle, kind="polls", clients=CLIENTS, seconds=seconds / 5, window_s=seconds / 25)
    seen = load(url, kind="polls", clients=CLIENTS, seconds=seconds, window_s=seconds / 5)
    median_s, least_s = (statistics.median(chain(*one["windows"])) for one in (seen, alone))
    name = f"{CLIENTS} clients polling"
    count = f"{sum(map(len, seen['windows']))} polls in {seconds:g} s"
    nothing = statistics.median(tails(alone))
    yield Figure(f"{name}: p99 ÷ median", tails(seen), TAIL, at_least=False, note=f"doing nothing: {nothing:.1f}")
    medians = tuple(statistics.median(window) / least_s for window in seen["windows"])
    told = f"{1000 * median_s:.2f} ms"
    yield Figure(f"{name}: median ÷ doing nothing", medians, MEDIAN, at_least=False, note=told)
    what = f"{count}; the first: {seen['errors'][0]}" if seen["failed"] else count
    yield Figure(f"{name}: errors", (float(seen["failed"]),), 0.0, at_least=False, note=what)


def rounds(clients: int, repetitions: int) -> Figure:
    """Rounds of a run that do nothing, and as many requests that do nothing, in turns."""
    count = 2 if clients == CLIENTS else 20
    ratios, first_s, last_s = [], [], []
    for _ in range(repetitions):
        with new_folder() as folder, do_nothing() as idle, coordinator(folder) as url:
            register_servers(url, idle)
            begin(url, clients, count)
            seen = load(url, kind="rounds", clients=clients, run="polling", rounds=count)
            alone = load(idle, kind="requests", clients=clients, run="polling", rounds=count)
        if seen["failed"]:
            raise RuntimeError(f"{seen['failed']} requests failed; the first: {seen['errors'][0]}")
        ratios.append(seen["seconds"] / alone["seconds"])
        first_s += seen["first_task_s"]
        last_s += seen["last_task_s"]
    told = [f"{1000 * statistics.median(times):.1f} ms" for times in (first_s, last_s)]
    return Figure(
        f"control plane of a round, {clients} clients: ÷ the requests alone",
        tuple(ratios),
        ROUND,
        at_least=False,
        note=f"{1000 * seen['seconds'] / count:.0f} ms a round; last report of a phase to the first task of the next "
        f"{told[0]}, to the last {told[1]}",
    )


def tails(seen: Json) -> tuple[float, ...]:
    """99th percentile ÷ median of each window."""
    return tuple(statistics.quantiles(window, n=100)[98] / statistics.median(window) for window in seen["windows"])


def register_servers(url: str, idle: str) -> None:
    control = Coordinator(Http(), url)
    for role in ("split-server", "fed-server"):
        me: Json = {"id": role, "role": role, "address": idle, "info": {}}
        control._ask("POST", "/api/participants", me)


def begin(url: str, clients: int, count: int) -> None:
    """Create and start a run, which waits for its clients."""
    values = {"run": {"name": "polling", "rounds": count}, "data": {"clients": clients}}
    spec = RunSpec.parse(values).resolved(input_shape=(1, 8, 8), classes=10)
    control = Control(url, "polling")
    control.create(spec)
    control.start()


@contextmanager
def coordinator(folder: Path) -> Iterator[str]:
    """URL of a coordinator in a process of its own, which asks for no token: what that costs is in `security.py`."""
    settings = CoordinatorSettings(port=0, records_url=f"sqlite:///{folder}/records.db", allow_anybody=True)
    child = Child("coordinator", "coordinator", settings, folder / "coordinator.log", {})
    try:
        child.wait_ready()
        yield str(child.address)
    finally:
        end([child])


@contextmanager
def do_nothing() -> Iterator[str]:
    """URL of a server that answers at once, in a process of its own."""
    process = subprocess.Popen(clients_process("echo"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def load(url: str, **values: Any) -> Json:
    """What simulated clients, in a process of their own, saw of the server at `url`."""
    place = urlsplit(url)
    arguments = json.dumps({"host": place.hostname, "port": place.port, **values})
    done = subprocess.run(clients_process("load", arguments), stdout=subprocess.PIPE, check=True)
    seen: Json = json.loads(done.stdout)
    return seen


def clients_process(*arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", f"{__package__}.polling_clients", *arguments]
