"""The folder of one run: where each file stands, and how it is written."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidSetting, StoreNotWritable
from ..spec import RunSpec
from .process_folder import ProcessFolder
from .profile_rows import COLUMNS, FILE, tidy
from .spec_file import to_toml

# The columns of metrics.csv, the coordinator's names. eval_* are the evaluation's; the rest is training or both.
METRICS = (
    "round", "client", "train_loss", "test_loss", "test_accuracy", "samples", "test_samples", "seconds", "bytes_up",
    "bytes_down", "batches", "started_at", "eval_seconds", "eval_bytes_up", "eval_bytes_down", "eval_started_at",
    "bytes_saved",
)  # fmt: skip


SIMULATED = "simulated.txt"
NOTE = (
    "This run was simulated in one process (microsfl run --simulate): its stores and records went with the process.\n"
)


class RunFolder(ProcessFolder):
    """A run folder. Made new, or taken over when it is empty or when its run is to be resumed.

    Raises:
        InvalidSetting: when there is something in it, unless its run is to be resumed.
        StoreNotWritable: when it cannot be made.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path.resolve()
        self._is_new = not self.path.exists()
        self._is_ours = not resume
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            content = sorted(entry.name for entry in self.path.iterdir())
            if content and not resume:
                raise InvalidSetting(
                    f"The run folder {path} is not empty (it has {content[0]}); name another one, or remove it first."
                )
            self.logs.mkdir(exist_ok=resume)
        except OSError as error:
            raise StoreNotWritable(f"The run folder {path} cannot be made: {error.strerror}.") from None

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    def write_spec(self, spec: RunSpec) -> None:
        """run.toml."""
        (self.path / "run.toml").write_text(to_toml(spec), "utf-8")

    def write_note(self) -> None:
        """simulated.txt, which says that there is nothing to go on with."""
        (self.path / SIMULATED).write_text(NOTE, "utf-8")

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """metrics.csv: a row for each round and client; an empty field is a value that there is not."""
        self.write_rows("metrics.csv", METRICS, rows, line_end="\r\n")

    def write_profile(self, profile: Iterable[dict[str, Any]]) -> None:
        """profile.csv, from what the coordinator tells of where the time went."""
        self.write_rows(FILE, COLUMNS, (vars(row) for row in tidy(profile)), line_end="\r\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """summary.json."""
        self.write_text("summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")

    def read_model(self) -> dict[str, bytes]:
        """The content of each part's file."""
        return {file.stem: file.read_bytes() for file in sorted(self.model.glob("*.safetensors"))}

    def discard(self) -> None:
        """Take back what a run that never began has written, which is all that there is: the folder was empty.

        What was there to be resumed stays.
        """
        if not self._is_ours:
            return
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        if self._is_new:
            self.path.rmdir()


def write_parts(folder: Path, parts: Mapping[str, bytes]) -> None:
    """<part>.safetensors in the folder of a model."""
    folder.mkdir(exist_ok=True)
    for part, content in parts.items():
        (folder / f"{part}.safetensors").write_bytes(content)


def default_path(run: str) -> Path:
    """runs/<run>-<date>-<time>, with a number behind it when that is taken."""
    first = Path("runs") / f"{run}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path
