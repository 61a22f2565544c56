"""profile.csv of a run folder: where the time of clients and servers went, a row for each of its parts."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidSetting

FILE = "profile.csv"
COLUMNS = ("round", "task", "participant", "role", "phase", "seconds", "count")
REQUEST = "request"
ROLES = {"split": "split-server", "fed": "fed-server"}
COUNTS = {"requests", "hits", "misses", "failovers"}  # what is told as a number of requests, not in seconds

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """Seconds, or a count, of a participant's phase in one task of a round; see docs/guides/profiling.md.

    role: client, split-server, fed-server or coordinator; or "request", for what a client's requests took, of which
    several may have been under way at a time.
    """

    round: int
    task: str
    participant: str
    role: str
    phase: str
    seconds: float | None
    count: int | None = None


def tidy(profile: Iterable[Json]) -> Iterator[Row]:
    """The rows of what the coordinator's API tells, in its order; then the servers', summed over who asked them."""
    servers: defaultdict[tuple[Any, ...], float] = defaultdict(float)
    for one in profile:
        about = (one["round"], one["task"], one["participant"])
        for name, value in one["spent"].items():
            match name.split("/"):
                case [phase]:
                    yield _row(*about, one["role"], phase, phase, value)
                case [kind, phase]:
                    yield _row(*about, REQUEST, f"{kind}-{phase}", phase, value)
                case [kind, server, phase]:
                    servers[one["round"], one["task"], server, ROLES.get(kind, kind), phase] += value
    for (round_, task, server, role, phase), value in sorted(servers.items(), key=lambda item: item[0][:3]):
        yield _row(round_, task, server, role, phase, phase, value)


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run folder.

    Raises:
        InvalidSetting: when there is no such folder, it has no profile.csv, or that is not one.
    """
    if not folder.is_dir():
        raise InvalidSetting(f"There is no folder {folder}.")
    path = folder / FILE
    if not path.is_file():
        raise InvalidSetting(_why_none(folder))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
            if missing:
                raise ValueError(f"it has no column '{missing[0]}'")
            return [_parsed(row) for row in reader]
    except (TypeError, ValueError, csv.Error) as error:
        raise InvalidSetting(f"{path} is not a profile: {error}.") from None


def _row(round_: int, task: str, participant: str, role: str, phase: str, name: str, value: float) -> Row:
    if name in COUNTS:
        return Row(round_, task, participant, role, phase, None, round(value))
    return Row(round_, task, participant, role, phase, round(value, 6))


def _parsed(row: Mapping[str, str | None]) -> Row:
    round_, task, participant, role, phase, seconds, count = (row[name] for name in COLUMNS)
    if round_ is None or task is None or participant is None or role is None or phase is None:
        raise ValueError("a row of it is too short")
    spent, counted = float(seconds) if seconds else None, int(count) if count else None
    return Row(int(round_), task, participant, role, phase, spent, counted)


def _why_none(folder: Path) -> str:
    if not (folder / "run.toml").is_file():
        return f"{folder} is not a run folder: it has no {FILE} and no run.toml."
    return (
        f"{folder} has no {FILE}: its run is still going on, was killed, or is of an older microsfl. It is written "
        "when the run ends; `microsfl resume` goes on with one that was killed."
    )
