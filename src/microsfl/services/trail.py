"""What the audit trail says of the steps of runs. `docs/guides/security.md` lists every action."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..core import rounds
from ..core.rounds import Event
from ..records import Entry
from ..spec import RunSpec
from .data_plane import AggregateAnswer, ReduceAnswer
from .run import Step

Json = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Who brought an event, and what the trail is to say of it besides."""

    actor: str
    details: Json = field(default_factory=dict)


COORDINATOR = Origin("coordinator")

Told: TypeAlias = tuple[Event, Origin]

# Events that a trail names one by one; who comes and goes, and when a phase is overdue, is in the rounds' rows.
ACTIONS: dict[type[Any], str] = {
    rounds.Started: "run started",
    rounds.ClientsAvailable: "run began",
    rounds.StopRequested: "run stopped",
    rounds.ResumeRequested: "run resumed",
    rounds.Reduced: "body committed",
    rounds.Aggregated: "client side committed",
    rounds.Failed: "run failed",
}
REPORTS: dict[type[Any], str] = {
    rounds.Trained: "trained", rounds.Evaluated: "evaluated", rounds.TaskFailed: "failed",
}  # fmt: skip


def created(spec: RunSpec) -> Json:
    """Of a new run: what was asked for, by its hash."""
    return {"spec_sha256": hashlib.sha256(spec.to_json().encode()).hexdigest(), "strategy": spec.strategy.name}


def committed(answer: ReduceAnswer | AggregateAnswer) -> Origin:
    """Of a commit: its counts, and the hash of its file, which lists every contribution by name."""
    return Origin(COORDINATOR.actor, answer.model_dump(exclude={"version"}, exclude_none=True))


def entries_of(run: str, told: Sequence[Told], made: Sequence[Step]) -> list[Entry]:
    """The entries about steps that are recorded together. Reports are one entry, however many there are: a row for
    each would be as many as there are contributions, and the commit lists those already."""
    entries = [
        Entry(step.at, origin.actor, ACTIONS[type(event)], run, {**_said(event, step), **origin.details})
        for (event, origin), step in zip(told, made, strict=True)
        if type(event) in ACTIONS
    ]
    reports: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    numbers: set[int] = set()
    for kind, client, round_, actor in _reports(told):
        reports[kind][actor].append(client)
        numbers.add(round_)
    if reports:
        entries.insert(
            0, Entry(made[-1].at, "clients", "reports accepted", run, {"rounds": sorted(numbers), **reports})
        )
    return entries


def _reports(told: Sequence[Told]) -> Iterator[tuple[str, str, int, str]]:
    for event, origin in told:
        if isinstance(event, rounds.Trained | rounds.Evaluated):
            yield REPORTS[type(event)], event.client, event.round, origin.actor
        elif isinstance(event, rounds.TaskFailed):
            yield REPORTS[type(event)], event.task.client, event.task.round, origin.actor


def _said(event: Event, step: Step) -> Json:
    if isinstance(event, rounds.Reduced | rounds.Aggregated):
        return {"round": event.round, "version": event.version}
    if isinstance(event, rounds.ClientsAvailable):
        return {"clients": list(step.state.clients)}
    if isinstance(event, rounds.Failed):
        return {"reason": event.reason}
    return {}
