"""What closing a round of many contributions costs.

A body of one Linear(512, 512) without a bias, so that a contribution is 1 MiB; 2,000 of them (400 when quick) lie in a
file store in a temporary folder, written by `BodySync.contribute`. A process of its own, with one torch thread as a split
server has it, then takes turns:

- read: each of the files with `open(…).read()`, one after the other, thrown away at once;
- reduce: `BodySync.close` by a `BodySync` that has just been made: list, read, check, add up, step, commit. The commit
  is removed afterwards.

Both find the files in the page cache; the folder is synced before. Memory is how far the process grew above what it had
before (VmHWM, set back through /proc/self/clear_refs), after a small round has loaded all that is loaded once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .figures import Figure

SIDE = 512
CLIENTS = 20
RUN, WARM = "reduce", "warm"


def measure(quick: bool) -> Iterator[Figure]:
    files, repetitions = (400, 3) if quick else (2000, 7)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.reduce", folder, str(files), str(repetitions)]
        child = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in child.stdout.splitlines()]
    size = found[0]["size_bytes"]
    first = found[0]
    yield Figure(
        f"reduce of {files:,} contributions of 1 MiB: peak memory ÷ one of them",
        tuple(one["peak_bytes"] / size for one in found),
        40,
        at_least=False,
        note=f"grew by {first['peak_bytes'] / 2**20:.0f} MiB",
    )
    yield Figure(
        f"reduce of {files:,} contributions of 1 MiB: time ÷ reading the files",
        tuple(one["reduce_s"] / one["read_s"] for one in found),
        2,
        at_least=False,
        note=f"{1e6 * first['reduce_s'] / files:.0f} µs each, {1e6 * first['read_s'] / files:.0f} µs to read",
    )


def body_sync(folder: Path, run: str) -> Any:
    """A `BodySync` that knows nothing but the folder."""
    from torch import nn

    from microsfl.core.reduce import OptimizerRule, StepRule
    from microsfl.core.schedule import Schedule
    from microsfl.store.objects import open_store
    from microsfl.sync.body import BodySync, SyncRule

    step = StepRule(OptimizerRule("Adam", {"lr": 1e-3}), Schedule("constant", rounds=1))
    rule = SyncRule("round", turns=False, max_staleness=0, unit=1, step=step)
    return BodySync(open_store(f"file://{folder}"), run, nn.Linear(SIDE, SIDE, bias=False), rule, {})


def fill(folder: Path, run: str, files: int) -> None:
    """Contributions of a round, spread over some clients."""
    import torch

    from microsfl.core.step import Gradients
    from microsfl.wire.messages import UnitMessage

    sync = body_sync(folder, run)
    sync.initialize()
    random = torch.Generator().manual_seed(0)
    for number in range(files):
        unit = UnitMessage(run=run, round=0, client=f"client-{number % CLIENTS}", unit=number // CLIENTS)
        gradients = {"weight": torch.randn(SIDE, SIDE, generator=random)}
        sync.contribute(unit, 0, 64, Gradients(inputs={}, body=gradients), {})


def read(paths: list[Path]) -> float:
    began = time.perf_counter()
    for path in paths:
        with open(path, "rb") as file:
            file.read()
    return time.perf_counter() - began


def reduce(folder: Path, run: str) -> float:
    sync = body_sync(folder, run)
    began = time.perf_counter()
    commit = sync.close(0)
    spent = time.perf_counter() - began
    shutil.rmtree(folder / "runs" / run / "body" / str(commit.version))
    (folder / "runs" / run / "rounds" / "0" / "sealed.json").unlink()
    return spent


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main(folder: Path, files: int, repetitions: int) -> None:
    import torch

    torch.set_num_threads(1)
    fill(folder, WARM, 4)
    reduce(folder, WARM)
    fill(folder, RUN, files)
    os.sync()
    paths = sorted((folder / "runs" / RUN / "rounds").rglob("*.safetensors"))
    assert len(paths) == files
    read(paths)
    for _ in range(repetitions):
        read_s = read(paths)
        forget_peak()
        before = peak_bytes()
        reduce_s = reduce(folder, RUN)
        grown = peak_bytes() - before
        one = {"read_s": read_s, "reduce_s": reduce_s, "peak_bytes": grown, "size_bytes": paths[0].stat().st_size}
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
