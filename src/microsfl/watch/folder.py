"""A run folder, or that of `microsfl up`, as somebody sees it who has not started what is in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MicrosflError, OperationError, RunNotFound
from ..launch.control import Control
from ..launch.process_folder import ProcessFolder
from ..launch.run_folder import SIMULATED
from ..launch.spec_file import read_spec
from ..records.glance import glance
from ..records.recorded import run_of

UNDER_WAY = ("created", "waiting", "running")
SUMMARY = "summary.json"

Json = dict[str, Any]


@dataclass(frozen=True)
class SeenFolder(ProcessFolder):
    """Reads what is there; writes nothing."""

    path: Path

    @property
    def is_of_a_run(self) -> bool:
        """Of one run, which `run` tells of; that of `microsfl up` has any number."""
        return (self.path / "run.toml").is_file()

    @property
    def is_standing(self) -> bool:
        """That of `microsfl up`."""
        return (self.path / "in-use").exists()

    @property
    def is_starting(self) -> bool:
        """`microsfl run` has started processes, and has not written down yet what they run."""
        return not self.is_of_a_run and not self.is_standing and self.is_alive()

    def name(self) -> str:
        """The name of its run. Raises InputError when run.toml cannot be read."""
        return read_spec(self.path / "run.toml").run.name

    def processes(self) -> list[Json]:
        """processes.json; empty for a simulation, or a run that others computed."""
        return self._read("processes.json") or []

    def is_alive(self) -> bool:
        """Whether any of its processes is still there."""
        return any(_lives(one) for one in self.processes())

    def coordinator(self) -> str | None:
        """URL of its coordinator, while that lives."""
        found = [one for one in self.processes() if one["role"] == "coordinator" and _lives(one)]
        return found[0]["address"] if found else None

    def runs(self) -> Iterator[Json]:
        """The runs that its database has, as a coordinator would tell of them.

        Raises:
            StoreUnavailable: when the database cannot be read.
        """
        url = self.records_url()
        if self.is_of_a_run:
            named = read_spec(self.path / "run.toml").records.url
            url = url if named == "auto" else named
        seen = glance(url)
        for record, rounds in seen.runs if seen else []:
            yield run_of(record, rounds)

    def run(self) -> Json:
        """The run of a run folder, as a coordinator would tell of it; asks its coordinator when that lives.

        `state` may also be "starting", while its processes do and there is no run yet, and "interrupted" when they
        ended before the run did, or its records are gone; "unfinished" is a simulation that has not ended, if it ever
        will: it tells nothing before.

        Raises:
            InputError: when run.toml cannot be read.
        """
        if not self.is_of_a_run and self.is_starting:
            return self._unknown(None, "starting")
        spec = read_spec(self.path / "run.toml")
        name, url = spec.run.name, self.coordinator()
        found: Json | None = None
        if url is not None:
            try:
                return Control(url, name, 0.0).run(name)
            except RunNotFound:
                return self._unknown(spec.model_dump(mode="json"), "starting")
            except OperationError:
                pass  # it ended just now, and has written down what it knew
        try:
            found = next((one for one in self.runs() if one["name"] == name), None)
        except MicrosflError:
            found = None  # what the folder's own files say has to do
        if found is not None and found["state"] in UNDER_WAY and not self.is_alive():
            found["state"], found["phase"] = "interrupted", None
        return found or self._summed_up(spec.model_dump(mode="json"))

    def _summed_up(self, spec: Json) -> Json:
        """From summary.json, which only a finished run has."""
        summary = self._read(SUMMARY)
        if summary is None:
            gone = "unfinished" if self.is_simulated else "interrupted"
            return self._unknown(spec, "starting" if self.is_alive() else gone)
        ended = {"state": "finished", "round": summary["rounds"] - 1, "history": summary["history"]}
        return {**self._unknown(spec, "finished"), **ended}

    def _unknown(self, spec: Json | None, state: str) -> Json:
        file = "run.toml" if spec else "processes.json"
        return {
            "name": spec["run"]["name"] if spec else self.path.name,
            "state": state,
            "phase": None,
            "round": 0,
            "rounds": spec["run"]["rounds"] if spec else None,
            "reason": None,
            "clients": [],
            "progress": {},
            "away": [],
            "spec": spec,
            "history": [],
            "created_at": (self.path / file).stat().st_mtime,
        }

    @property
    def is_simulated(self) -> bool:
        return (self.path / SIMULATED).is_file()

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError):
            return None


def _lives(process: Json) -> bool:
    """By its id. A process of another user's has the id now: ours would let itself be asked."""
    if process["state"] == "ended":
        return False
    try:
        os.kill(process["pid"], 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def run_folders(below: Path) -> list[SeenFolder]:
    """The run folders directly in a folder, newest first."""
    found = [SeenFolder(one.parent) for one in below.glob("*/run.toml")]
    return sorted(found, key=lambda one: (one.path / "run.toml").stat().st_mtime, reverse=True)
