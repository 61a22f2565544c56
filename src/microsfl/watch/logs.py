"""`microsfl logs`: the log files of a folder as one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from ..config import LOG_LEVELS
from ..errors import InvalidSetting, MicrosflError, RunNotFound, did_you_mean
from ..launch.control import Control
from ..launch.options import ROLES
from ..launch.readable import plain
from .find import UP_FOLDER, Asked, find_run
from .folder import SeenFolder

POLL_S = 0.2
COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red"}
NAMED = ("time", "level", "role", "event", "traceback")  # the rest of a line is its data

Json = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which lines, and how. role: a role, the name of a process, or None for all."""

    role: str | None = None
    level: str = "debug"
    last: int | None = None
    follows: bool = False
    as_json: bool = False

    def has(self, entry: Json) -> bool:
        level = entry["level"]
        return level not in LOG_LEVELS or LOG_LEVELS.index(level) >= LOG_LEVELS.index(self.level)


@dataclass
class LogFile:
    """One process's log, read as it grows. A line that is not JSON stands where the one before it does in time."""

    path: Path
    read: int = 0
    rest: bytes = b""
    last: Json = field(default_factory=dict)

    def entries(self, *, to_the_end: bool = False) -> list[Json]:
        """What is new: whole lines, and with `to_the_end` also one that nobody has ended."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self.read)
            new = file.read()
            self.read += len(new)
            self.rest += new
        *lines, self.rest = self.rest.split(b"\n")
        if to_the_end and self.rest:
            lines, self.rest = [*lines, self.rest], b""
        return [self._entry(line.decode("utf-8", "replace")) for line in lines if line.strip()]

    def _entry(self, text: str) -> Json:
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if isinstance(values, dict) and isinstance(values.get("time"), str) and "event" in values:
            self.last = {"time": values["time"], "level": None, "role": None, **values, "process": self.path.stem}
            return self.last
        known = {"time": self.last.get("time", ""), "level": None, "role": self.last.get("role")}
        return {**known, "process": self.path.stem, "text": text.rstrip()}


def show_logs(run: str, asked: Asked, wanted: Wanted) -> None:
    """Print the lines.

    Raises:
        RunNotFound: when there is no such run.
        InvalidSetting: when there is no such role, or the logs are not on this machine.
    """
    folder, only = find_logs(run, asked)
    files = [LogFile(path) for path in _paths(folder, wanted.role)]
    first = [entry for entry in _merged(files, to_the_end=not wanted.follows) if _is_of(entry, only)]
    first = [entry for entry in first if wanted.has(entry)]
    _print(first[len(first) - min(wanted.last, len(first)) :] if wanted.last is not None else first, wanted)
    if not wanted.follows:
        return
    ending = False
    while not ending:
        ending = not folder.is_alive()
        if not ending:
            time.sleep(POLL_S)
        known = {file.path for file in files}
        files += [LogFile(path) for path in _paths(folder, wanted.role) if path not in known]
        _print((one for one in _merged(files, to_the_end=ending) if wanted.has(one) and _is_of(one, only)), wanted)


def find_logs(run: str, asked: Asked) -> tuple[SeenFolder, str | None]:
    """The folder with the logs; and, when it is that of `microsfl up`, the run whose lines are meant.

    Raises:
        RunNotFound, InvalidSetting: see `show_logs`.
    """
    for path in (Path(run), asked.folder / run):
        if path.is_dir():
            return _with_logs(SeenFolder(path)), None
    standing = SeenFolder(UP_FOLDER)
    with suppress(MicrosflError):  # a database that cannot be read has no run to offer
        if any(one["name"] == run for one in standing.runs()):
            return _with_logs(standing), run
    target = find_run(run, asked)
    if isinstance(target, Control):
        raise InvalidSetting(
            f"Run '{run}' is known to the coordinator at {target.url}, and its logs are on the machines where its "
            "roles run. Name a folder that has them: a run folder, or that of `microsfl up`."
        )
    return _with_logs(target), None


def _with_logs(folder: SeenFolder) -> SeenFolder:
    if folder.is_simulated:
        raise InvalidSetting(f"The run in {folder.path} was simulated in one process, which logs nothing.")
    if not folder.logs.is_dir():
        elsewhere = " Its processes ran elsewhere, and their logs are there." if folder.is_of_a_run else ""
        raise InvalidSetting(f"{folder.path} has no logs/.{elsewhere}")
    return folder


def _paths(folder: SeenFolder, role: str | None) -> list[Path]:
    """The log files of a role, or of the process of this name."""
    every = sorted(folder.logs.glob("*.log"))
    if role is None:
        return every
    kinds = {one["name"]: one["role"] for one in folder.processes()}
    found = [path for path in every if role in (path.stem, kinds.get(path.stem, path.stem))]
    if not found and role not in ROLES:
        known = {*ROLES, *(path.stem for path in every)}
        raise RunNotFound(
            f"No process in {folder.path} is called '{role}', nor is it a role.{did_you_mean(role, known)}"
        )
    return found


def _merged(files: Iterable[LogFile], *, to_the_end: bool) -> Iterator[Json]:
    """What is new in the files, by time; lines of one file stay in their order."""
    entries = [entry for file in files for entry in file.entries(to_the_end=to_the_end)]
    return iter(sorted(entries, key=lambda entry: str(entry["time"])))


def _is_of(entry: Json, run: str | None) -> bool:
    """A line that names no run may concern any."""
    return run is None or entry.get("run", run) == run


def _print(entries: Iterable[Json], wanted: Wanted) -> None:
    for entry in entries:
        click.echo(json.dumps(entry) if wanted.as_json else readable(entry))


def readable(entry: Json) -> str:
    """A line for people: time, level, process, event and data; a traceback below it."""
    process = f"{entry['process']:<16}"
    if "text" in entry:
        return f"{'':<23}  {'':<7}  {process}  {plain(entry['text'])}"
    when = str(entry["time"]).removesuffix("Z").replace("T", " ")
    level = click.style(f"{entry['level'] or '':<7}", fg=COLOURS.get(entry["level"]))
    data = "  ".join(f"{k}={_value(v)}" for k, v in entry.items() if k not in NAMED and k != "process")
    head = f"{plain(when)}  {level}  {process}  {plain(str(entry['event']))}" + (f"  {data}" if data else "")
    below = [f"  {plain(line)}" for line in str(entry.get("traceback", "")).splitlines()]
    return "\n".join([head, *below])


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return plain(json.dumps(text) if isinstance(value, str) and (not text or " " in text) else text)
