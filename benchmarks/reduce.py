"""What closing a round of many contributions costs.

A body of one Linear(512, 512) without a bias, so that a contribution is 1 MiB; 2,000 of them (400 when quick) lie in a
file store in a temporary folder, written by `BodySync.contribute`. One process for each core then takes the place of a
split server, with one torch thread and a `BodySync` that has just been made; as the coordinator asks for it, the first
closes the round and the others add up their parts of it. In turns with that:

- read: the first process reads each of the files with `open(…).read()`, one after the other, and throws it away;
- alone: it closes the round without the others' help (for the note).

A time is that of `BodySync.close`: list, read, check, add up, step, commit. The commit is taken back afterwards. The
files are in the page cache, and the folder is synced before. Memory is how far the process that closes grows above what
it has after a small round has loaded all that is loaded once (VmHWM, set back through /proc/self/clear_refs).
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .figures import Figure

SIDE, SMALL = 512, 16
CLIENTS = 20
RUN, WARM = "reduce", "warm"
REPLICAS = 2

_spawning = get_context("spawn")


def measure(quick: bool) -> Iterator[Figure]:
    files, repetitions = (400, 3) if quick else (2000, 7)
    with tempfile.TemporaryDirectory() as folder, replicas(Path(folder), files) as (closer, *helpers):
        taken = [repetition(Path(folder), files, closer, helpers) for _ in range(repetitions)]
    what = f"reduce of {files:,} contributions of 1 MiB"
    together, alone, read = ([one[name] for one in taken] for name in ("together_s", "alone_s", "read_s"))
    grown = [one["grown_bytes"] / one["size_bytes"] for one in taken]
    yield Figure(f"{what}: peak memory ÷ one of them", tuple(grown), 40, at_least=False)
    note = (
        f"by {REPLICAS} replicas, {each(together, files)}; by one {each(alone, files)}, "
        f"{statistics.median(a / b for a, b in zip(alone, read, strict=True)):.2f}; read {each(read, files)}"
    )
    ratios = tuple(a / b for a, b in zip(together, read, strict=True))
    yield Figure(f"{what}: time ÷ reading the files", ratios, 2, at_least=False, note=note)


def each(seconds: list[float], files: int) -> str:
    return f"{1e6 * statistics.median(seconds) / files:.0f} µs each"


def repetition(folder: Path, files: int, closer: Worker, helpers: list[Worker]) -> dict[str, float]:
    """All three, each in its turn."""
    found = {"size_bytes": next((folder / "runs" / RUN).rglob("gradients/*/*")).stat().st_size}
    found["read_s"] = closer.ask("read", files)
    found["alone_s"], _ = closer.ask("close", RUN, SIDE, 1)
    take_back(folder, RUN)
    for part, helper in enumerate(helpers, 1):
        helper.tell("add_up", RUN, SIDE, part, 1 + len(helpers))
    found["together_s"], found["grown_bytes"] = closer.ask("close", RUN, SIDE, 1 + len(helpers))
    for helper in helpers:
        helper.wait()
    take_back(folder, RUN)
    return found


@dataclass
class Worker:
    """A process that does one thing after the other."""

    folder: Path
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.pipe, theirs = _spawning.Pipe()
        self.process = _spawning.Process(target=work, args=(self.folder, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, what: str, *arguments: Any) -> Any:
        self.tell(what, *arguments)
        return self.wait()

    def tell(self, what: str, *arguments: Any) -> None:
        self.pipe.send((what, arguments))

    def wait(self) -> Any:
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


@contextmanager
def replicas(folder: Path, files: int) -> Iterator[list[Worker]]:
    """Processes that have closed a small round, and a round of contributions for them, written by another process."""
    writer = Worker(folder)
    writer.ask("fill", WARM, SMALL, 4)
    writer.ask("fill", RUN, SIDE, files)
    writer.stop()
    os.sync()
    workers = [Worker(folder) for _ in range(REPLICAS)]
    try:
        for worker in workers:
            worker.ask("close", WARM, SMALL, 1)
            take_back(folder, WARM)
        workers[0].ask("read", files)
        workers[0].ask("settle")
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def take_back(folder: Path, run: str) -> None:
    """Open the round again."""
    shutil.rmtree(folder / "runs" / run / "body" / "1")
    shutil.rmtree(folder / "runs" / run / "rounds" / "0" / "partials", ignore_errors=True)
    (folder / "runs" / run / "rounds" / "0" / "sealed.json").unlink()


# In the processes.


def work(folder: Path, pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    bench = Bench(folder)
    while True:
        try:
            what, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(bench, what)(*arguments))


@dataclass
class Bench:
    folder: Path
    before_bytes: int = 0

    def fill(self, run: str, side: int, files: int) -> None:
        """Write contributions of a round, spread over some clients."""
        import torch

        from microsfl.core.step import Gradients
        from microsfl.wire.messages import UnitMessage

        sync = self._sync(run, side)
        sync.initialize()
        random = torch.Generator().manual_seed(0)
        for number in range(files):
            unit = UnitMessage(run=run, round=0, client=f"client-{number % CLIENTS}", unit=number // CLIENTS)
            gradients = {"weight": torch.randn(side, side, generator=random)}
            sync.contribute(unit, 0, 64, Gradients(inputs={}, body=gradients), {})

    def read(self, files: int) -> float:
        paths = sorted((self.folder / "runs" / RUN / "rounds").rglob("gradients/*/*"))
        assert len(paths) == files
        began = time.perf_counter()
        for path in paths:
            with open(path, "rb") as file:
                file.read()
        return time.perf_counter() - began

    def close(self, run: str, side: int, parts: int) -> tuple[float, int]:
        """Seconds, and bytes that the process grew by above what it settled at."""
        sync = self._sync(run, side)
        Path("/proc/self/clear_refs").write_text("5")
        began = time.perf_counter()
        sync.close(0, parts)
        return time.perf_counter() - began, peak_bytes() - self.before_bytes

    def add_up(self, run: str, side: int, part: int, parts: int) -> int:
        added: int = self._sync(run, side).add_up(0, part, parts)
        return added

    def settle(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.before_bytes = peak_bytes()

    def _sync(self, run: str, side: int) -> Any:
        """A `BodySync` that knows nothing but the folder."""
        from torch import nn

        from microsfl.core.reduce import OptimizerRule, StepRule
        from microsfl.core.schedule import Schedule
        from microsfl.store.objects import open_store
        from microsfl.sync.body import BodySync, SyncRule

        step = StepRule(OptimizerRule("Adam", {"lr": 1e-3}), Schedule("constant", rounds=1))
        rule = SyncRule("round", turns=False, max_staleness=0, unit=1, step=step)
        return BodySync(open_store(f"file://{self.folder}"), run, nn.Linear(side, side, bias=False), rule, {})


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
