"""The state of a run: all that decides what happens next, and its form as JSON. `rounds.py` says how it changes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ..errors import StoreCorrupt


class Status(StrEnum):
    CREATED = "created"  #   Started → waiting, or running when the run is not managed
    WAITING = "waiting"  #   ClientsAvailable, enough of them → running, in round 0 or where an adopted run stands
    RUNNING = "running"  #   the last evaluation of the last round → finished
    FINISHED = "finished"  # an end: nothing leaves it
    FAILED = "failed"  #     Failed leads here from created, waiting and running; ResumeRequested → waiting
    STOPPED = "stopped"  #   StopRequested leads here from created, waiting and running; ResumeRequested → waiting


class Phase(StrEnum):
    """Where the round of a managed, running run is; any other run has no phase."""

    TRAINING = "training"  #     who is waited for has Trained, and the quorum is there → syncing
    SYNCING = "syncing"  #       Reduced and Aggregated, in any order, or there is nothing to sync → evaluating
    EVALUATING = "evaluating"  # who is waited for has Evaluated → training of the next round, or the run is finished


ENDED = frozenset({Status.FINISHED, Status.FAILED, Status.STOPPED})


@dataclass(frozen=True)
class RunState:
    """All that decides what happens next.

    What stands above `status` comes from the specification.
    """

    rounds: int
    needed: int  # clients to begin with
    quorum: int = 0  # of those chosen, so many must have trained before a round goes on without the others; 0: all
    managed: bool = True
    seed: int = 0
    participants: int = 0  # how many clients train in a round; 0: all
    turns: bool = False  # they train one after another
    handed_on: bool = False  # each begins with the client-side weights of the one before it
    split: bool = True  # there is a body to reduce
    federated: bool = True  # there are client-side weights to aggregate
    status: Status = Status.CREATED
    phase: Phase | None = None
    round: int = 0
    clients: tuple[str, ...] = ()  # sorted; fixed when the run begins; a client's position is its index
    chosen: tuple[str, ...] = ()  # who trains in this round, in order
    turn: str | None = None  # with turns: who trains now
    passed: frozenset[str] = frozenset()  # with turns: who lost theirs in this round; the chain went on without them
    trained: frozenset[str] = frozenset()
    last: str | None = None  # where weights are handed on: whose are the newest of this round
    reduced: bool = False
    aggregated: bool = False
    evaluated: frozenset[str] = frozenset()
    overdue: bool = False  # the deadline of this phase has passed
    away: frozenset[str] = frozenset()  # left out or lost, not back since: they have tasks, but nobody waits for them
    gave_up: Mapping[str, str] = field(default_factory=dict)  # in this phase, and why; they have no task in it any more
    begins: Phase = Phase.TRAINING  # where `round` begins once the run has its clients
    body_version: int = 0
    client_version: int = 0
    reason: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class Head:
    """How far an area of a store is: its newest version, and the round that is open in it.

    sealed: the closing of the open round has begun, so that nothing more is taken in it.
    """

    version: int
    open_round: int
    sealed: bool = False


def adopt(state: RunState, body: Head | None, client: Head | None) -> RunState:
    """A new run's `state`, moved to where the store's areas stand, so that no finished round is repeated.

    A round of which the closing has begun is synced; where an area has closed it already, that area's part is done. One
    that is closed in both is evaluated again, since its metrics may be lost. The run still waits for its clients first.
    A run may have one area only, or none: then nothing is known of it, and it begins.

    Raises:
        StoreCorrupt: when the areas are more than a round apart, as no run leaves them.
    """
    heads = [head for head in (body, client) if head is not None]
    if not heads:
        return state
    state = replace(state, body_version=body.version if body else 0, client_version=client.version if client else 0)
    body, client = body or heads[0], client or heads[0]
    if abs(body.open_round - client.open_round) > 1:
        raise StoreCorrupt(
            f"The body area has round {body.open_round} open and the client area round {client.open_round}: they are "
            "not areas of the same run, or files of one are gone."
        )
    if body.open_round != client.open_round:
        round_ = min(body.open_round, client.open_round)
        reduced, aggregated = body.open_round > round_, client.open_round > round_
        return replace(state, round=round_, begins=Phase.SYNCING, reduced=reduced, aggregated=aggregated)
    if body.sealed or client.sealed:
        return replace(state, round=body.open_round, begins=Phase.SYNCING)
    if body.open_round > 0:
        round_ = min(body.open_round, state.rounds) - 1
        return replace(state, round=round_, begins=Phase.EVALUATING, reduced=True, aggregated=True)
    return state


def quorum_of(share: float, clients: int) -> int:
    """How many of `clients` a share of them is, rounded up."""
    # 0.07 * 100 is a little above 7 in binary; that must not ask for an eighth client.
    return math.ceil(share * clients - 1e-9)


def to_json(state: RunState) -> str:
    """The state as JSON; equal states give equal text."""
    values = dict(vars(state))
    for name in ("trained", "evaluated", "away", "passed"):
        values[name] = sorted(values[name])
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


_KINDS: dict[str, Callable[[Any], Any]] = {
    "clients": tuple,
    "chosen": tuple,
    "trained": frozenset,
    "evaluated": frozenset,
    "away": frozenset,
    "passed": frozenset,
    "status": Status,
    "begins": Phase,
}


def from_json(text: str) -> RunState:
    """The state that `to_json` wrote; a field that is not in the text has its default.

    Raises:
        ValueError, TypeError: when the text is not such a state.
    """
    values = dict(json.loads(text))
    values.setdefault("chosen", values.get("clients", ()))  # once everybody trained in each round
    for name, kind in _KINDS.items():
        if name in values:
            values[name] = kind(values[name])
    if values.get("phase") is not None:
        values["phase"] = Phase(values["phase"])
    return RunState(**values)
