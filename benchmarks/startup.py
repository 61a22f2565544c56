"""What `microsfl run` costs besides training.

The command with its default settings (digits, 5 clients, 2 split servers, 20 rounds) as a process of its own in an
empty folder, and the seconds from its start to its end. Training is what its summary says: from the begin of the first
round to the end of the last one, averaging, commits and evaluations included, by the coordinator's clock. The rest is
not: before it imports, the check of the specification and the start of the processes; after it results, plots and the
end of the processes. Repetitions follow one another, after one that is not counted and fills the file cache.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .figures import Figure
from .places import new_folder

SHARE = 0.35
SECONDS = 12.0


@dataclass(frozen=True)
class Run:
    """Seconds of one run: all of it, before its first task and its training."""

    total: float
    before: float
    training: float

    @property
    def rest(self) -> float:
        return self.total - self.training


def measure(quick: bool) -> Iterator[Figure]:
    once()
    runs = [once() for _ in range(1 if quick else 5)]
    training = statistics.median(run.training for run in runs)
    before = statistics.median(run.before for run in runs)
    after = statistics.median(run.rest - run.before for run in runs)
    note = f"medians: {before:.2f} s before training, {training:.2f} s of it, {after:.2f} s after"
    yield Figure("run on digits: share not training", tuple(run.rest / run.total for run in runs), SHARE, False, note)
    yield Figure("run on digits: seconds not training", tuple(run.rest for run in runs), SECONDS, False)


def once() -> Run:
    """One run to its end."""
    with new_folder() as here:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROSFL_")}
        command = [sys.executable, "-m", "microsfl", "run", "--output", "run"]
        began, began_at = time.perf_counter(), time.time()
        subprocess.run(command, cwd=here, env=environment, capture_output=True, check=True)
        total = time.perf_counter() - began
        folder = here / "run"
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as table:
            first_task_at = min(float(row["started_at"]) for row in csv.DictReader(table))
    return Run(total, first_task_at - began_at, summary["seconds"])
