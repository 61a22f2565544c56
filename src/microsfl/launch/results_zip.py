"""The results of a run as one file, for the coordinator to hand out: what a run folder has, without weights."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ..spec import RunSpec
from .profile_rows import FILE as PROFILE
from .run_folder import RunFolder
from .summary import settled_in, summarize

Json = dict[str, Any]


def pack(question: Json) -> Json:
    """Write the file `to`, from a run's `spec`, `rounds`, `metrics` and `profile` as the coordinator's API has them."""
    spec = RunSpec.parse(question["spec"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        folder.write_spec(spec)
        folder.write_metrics(question["metrics"])
        folder.write_profile(question["profile"])
        over = [row for row in question["rounds"] if row["ended_at"] is not None]
        if over:
            folder.write_summary(_summary(spec, over, question["metrics"]))
        with zipfile.ZipFile(question["to"], "w", zipfile.ZIP_DEFLATED) as parcel:
            for name in ("run.toml", "summary.json", "metrics.csv", PROFILE):
                if (folder.path / name).is_file():
                    parcel.write(folder.path / name, f"{spec.run.name}/{name}")
    return {}


def _summary(spec: RunSpec, rounds: list[Json], metrics: list[Json]) -> Json:
    """summary.json from records alone: what only the files of the stores tell is null."""
    unknown = {"split_servers": None, "weights_sha256": None}
    return {**summarize(spec, rounds, metrics, settled_in(rounds), {}), **unknown}
