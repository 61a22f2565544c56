"""Where the time of a run's rounds went, as clients and servers tell it. The coordinator keeps it and looks no further.

A value `spent` maps names to seconds, or to counts: a phase of the reporter's own ("front"), what its requests to one
kind of server took ("split/wire"), and the phases of a server ("split/<id>/compute").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from ..records import Row
from ..wire.timing import PHASES, Timing

MAX_NAMES = 1000

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,2}$")]
Value = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Spent = Annotated[dict[Name, Value], Field(max_length=MAX_NAMES)]


class SpentRow(BaseModel):
    """What somebody spent on one task of a round; the coordinator's tasks are the round itself and its sync."""

    round: int
    task: Literal["train", "evaluate", "round", "sync"]
    participant: str
    role: Literal["client", "coordinator"]
    spent: dict[str, float]


class Profile(BaseModel):
    profile: list[SpentRow]


def to_text(spent: dict[str, float] | None) -> str | None:
    """As it stands in the records."""
    return None if spent is None else json.dumps(spent)


def spent_there(kind: Literal["split", "fed"], timing: Timing | None) -> str | None:
    """What a call took on the server that it went to, as it stands in the records."""
    if timing is None:
        return None
    server = timing.server or "unnamed"
    phases = {f"{kind}/{server}/{name}": round(getattr(timing, name), 6) for name in PHASES}
    return to_text({f"{kind}/{server}/requests": 1, **phases})


def profile_of(rounds: Iterable[Row], metrics: Iterable[Row]) -> Profile:
    """What there is of a run, from its rows in the records."""
    return Profile(profile=[*_of_clients(metrics), *(row for one in rounds for row in _of_round(one))])


def _of_clients(metrics: Iterable[Row]) -> Iterator[SpentRow]:
    for row in metrics:
        for task, column in (("train", "spent"), ("evaluate", "eval_spent")):
            if row.get(column):
                yield SpentRow(
                    round=row["round"],
                    task=task,
                    participant=row["client"],
                    role="client",
                    spent=json.loads(row[column]),
                )


def _of_round(row: Row) -> Iterator[SpentRow]:
    """Its parts as the coordinator's clock shows them, and what the servers took for the sync."""
    marks = {"training": "trained_at", "sync": "synced_at", "evaluation": "ended_at"}
    spent, since = {}, row.get("started_at")
    for part, mark in marks.items():
        until = row.get(mark)
        if since is not None and until is not None:
            spent[part] = max(0.0, until - since)  # the clock may have been set back
        since = until
    sync = {
        name: value
        for column in ("reduce_spent", "aggregate_spent")
        for name, value in json.loads(row.get(column) or "{}").items()
    }
    for task, found in (("round", spent), ("sync", sync)):
        if found:
            yield SpentRow(round=row["round"], task=task, participant="coordinator", role="coordinator", spent=found)
