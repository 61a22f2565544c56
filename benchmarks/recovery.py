"""How long a death costs.

    python benchmarks/recovery.py [--repetitions 20]

Starts a federation on this machine and prints minimum, median and maximum, in seconds, of
- SIGKILL of the split server that a client uses, to the client's next unit (forward and backward) that is done;
- SIGKILL of the coordinator, its restart included, to the next answer to a client's poll.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import microsfl
from microsfl.client.coordinator import Coordinator
from microsfl.client.entitled import Ways
from microsfl.client.http import Http

SPEC = {"run": {"name": "recovery", "managed": False}, "servers": {"split": 3, "restarts": 10**6}}


def kill(federation: microsfl.Federation, name: str) -> float:
    """Kill the process once it is up; the moment."""
    child = next(child for child in federation.children if child.name == name)
    while child.state != "up":
        time.sleep(0.05)
    os.kill(child.process.pid, signal.SIGKILL)
    return time.perf_counter()


def split_server(federation: microsfl.Federation, body: microsfl.RemoteBody) -> float:
    favourite = body._servers._order()[0]
    name = next(child.name for child in federation.children if child.address == favourite)
    killed_at = kill(federation, name)
    body(torch.rand(32, 64)).sum().backward()
    return time.perf_counter() - killed_at


def coordinator(federation: microsfl.Federation, control: Coordinator) -> float:
    killed_at = kill(federation, "coordinator")
    control.register("probe", {})
    control.poll(["probe"], 0.0)
    return time.perf_counter() - killed_at


def report(name: str, measure: Callable[[], float], repetitions: int, steady_s: float) -> None:
    values = []
    for _ in range(repetitions):
        time.sleep(steady_s)  # so that the supervisor takes the process for a steady one and restarts it at once
        values.append(measure())
    print(f"{name}: min {min(values):.3f}, median {statistics.median(values):.3f}, max {max(values):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as folder:
        spec = microsfl.RunSpec.parse(SPEC)
        with microsfl.Federation(spec, folder=Path(folder) / "run") as federation:
            body = microsfl.RemoteBody(run="recovery", coordinator=federation.coordinator)
            body(torch.rand(32, 64)).sum().backward()
            report("split server", lambda: split_server(federation, body), repetitions, 3.0)
            control = Coordinator(Ways.of(Http(), federation.coordinator).coordinator, federation.coordinator)
            report("coordinator", lambda: coordinator(federation, control), repetitions, 3.0)


if __name__ == "__main__":
    main()
