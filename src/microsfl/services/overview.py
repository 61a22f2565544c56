"""What is going on, for people: the runs at a glance, and what each participant does now."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from .. import __version__
from ..core.commands import at_work
from ..core.run_state import Phase
from ..records import Participant
from ..trust.scopes import Scope
from ..trust.tokens import ANY, Caller
from .api import Progress, participant_json, progress_of
from .director import Director
from .roster import CLIENT, FED_SERVER, LEAVING
from .run import Run
from .shown import About, Glance, Overview, ParticipantNow, Participants

FRESH_S = 0.25
# What a client of several runs is shown at.
RANK: tuple[Progress, ...] = ("train", "evaluate", "done", "left_out")


class View:
    """The runs and the participants as JSON text, made once for however many look on, and anew when it is old. For
    whoever may look at some runs alone, it is made each time."""

    def __init__(self, director: Director, started_at: float) -> None:
        self._director, self._about = director, About(version=__version__, started_at=started_at)
        self._runs: tuple[int, str] = (-1, "")
        self._participants: tuple[float, str, str] = (-FRESH_S, "", "")

    def overview(self, caller: Caller) -> str:
        """`Overview` as JSON, of the runs that the caller is invited to."""
        if ANY not in caller.runs:
            return self._overview(run for run in self._director.runs() if caller.is_in(run.name))
        changes = self._director.changes
        if self._runs[0] != changes:
            self._runs = changes, self._overview(self._director.runs())
        return self._runs[1]

    def participants(self, caller: Caller) -> tuple[str, str]:
        """`Participants` as JSON, and the same without the times of the last signs of life."""
        if ANY not in caller.runs:
            return _written(participants_of(self._director, caller))
        made_at, text, lasting = self._participants
        if time.monotonic() - made_at >= FRESH_S:
            text, lasting = _written(participants_of(self._director, caller))
            self._participants = time.monotonic(), text, lasting
        return text, lasting

    def _overview(self, runs: Iterable[Run]) -> str:
        return Overview(runs=[glance(run) for run in runs], coordinator=self._about).model_dump_json()


def _written(now: Participants) -> tuple[str, str]:
    return now.model_dump_json(), now.model_dump_json(exclude={"participants": {"__all__": {"last_seen"}}})


def glance(run: Run) -> Glance:
    """A run in a line."""
    state, spec = run.state, run.spec
    last = next(
        (row for round_ in range(state.round, -1, -1) if (row := run.rounds.get(round_, {})).get("ended_at")), {}
    )
    return Glance(
        name=run.name,
        state=state.status,
        phase=state.phase,
        round=state.round,
        rounds=state.rounds,
        strategy=spec.strategy.name,
        dataset="own data" if spec.data.partition == "own" else spec.data.dataset,
        clients=spec.run_clients,
        accuracy=last.get("accuracy"),
        loss=last.get("loss"),
        reason=state.reason,
        created_at=run.created_at,
        ended_at=run.ended_at,
        managed=spec.run.managed,
    )


def participants_of(director: Director, caller: Caller) -> Participants:
    """Everybody who ever registered, with what each is at in the runs that the caller is invited to. Who may not look
    at all that goes on is told of the servers and of itself."""
    active = [run for run in director.runs() if run.state.phase is not None and caller.is_in(run.name)]
    clients = dict(_of_clients(active))
    own = caller.acts_as if not caller.may(Scope.READ) else {ANY}
    told = [one for one in director.roster.all() if one.role != CLIENT or ANY in own or one.id in own]
    return Participants(
        participants=[_now(one, director.roster.alive(one.id), active, clients) for one in told],
        **director.roster.told(),
    )


def _now(one: Participant, alive: bool, active: Sequence[Run], clients: dict[str, str]) -> ParticipantNow:
    if not alive:
        doing = "away"
    elif one.role == CLIENT:
        doing = clients.get(one.id, "idle")
    else:
        doing = "about to end" if one.info.get(LEAVING) else _of_server(one.role, active)
    health = "alive" if alive else "silent"
    return ParticipantNow(**vars(participant_json(one, alive)), doing=doing, health=health)


def _of_clients(active: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """(client, what it is at), what matters most last."""
    found = [(progress, client, run) for run in active for client, progress in progress_of(run.state).items()]
    turns = {run.name: set(at_work(run.state)) for run in active if run.state.phase is not Phase.SYNCING}
    for progress, client, run in sorted(found, key=lambda one: RANK.index(one[0]), reverse=True):
        where = f"round {run.state.round + 1} of {run.name}"
        if run.state.phase is Phase.SYNCING and progress != "left_out":
            yield client, f"waiting for the sync of {where}"
        elif progress in ("train", "evaluate") and client not in turns[run.name]:
            yield client, f"waiting for its turn in {where}"
        else:
            words = {"train": "training", "evaluate": "evaluating", "done": "done with", "left_out": "left out of"}
            yield client, f"{words[progress]} {where}"


def _of_server(role: str, active: Sequence[Run]) -> str:
    if role == FED_SERVER:
        averaging = [run for run in active if run.state.phase is Phase.SYNCING and not run.state.aggregated]
        if averaging:
            return "averaging " + ", ".join(f"round {run.state.round + 1} of {run.name}" for run in averaging)
    served = [run.name for run in active if (run.state.federated if role == FED_SERVER else run.state.split)]
    return f"serving {', '.join(served)}" if served else "idle"
